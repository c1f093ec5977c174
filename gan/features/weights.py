"""Weights of published networks: where they come from, and reading them without running anything that they hold."""

import dataclasses
import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Source:
    """The official file of a network: its name, its address, and what its publisher states of its hash."""

    file: str
    url: str
    prefix: str = ""
    """First digits of its SHA-256 if the publisher states them (in the file's name); else empty."""


# torch-fidelity publishes the first one as `weights-inception-2015-12-05-6726825d.pth`: the same digits, the same file.
SOURCES = {
    "inception_tf": Source(
        "pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "6726825d",
    ),
    "vgg16": Source("vgg16-397923af.pth", "https://download.pytorch.org/models/vgg16-397923af.pth", "397923af"),
    "dinov2_vitb14": Source(
        "dinov2_vitb14_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
    ),
    "dinov2_vitl14": Source(
        "dinov2_vitl14_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    ),
}


def read_weights(path: Path, *, sha256: str) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of torch's own format, by name; nothing else in a file is ever loaded.

    Raises ValueError if the file is missing, has another SHA-256 than `sha256` (64 hexadecimal digits), is cut short,
    or holds anything but tensors.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not there; place the weights with SHA-256 {sha256} at that path")
    found = digest(path)
    if found != sha256:
        raise ValueError(
            f"{path} has SHA-256 {found}, but {sha256} is asked for; place that file there (`python -m "
            "stages.reference.weights` fetches published ones), or state the new hash if the change is intended"
        )
    try:
        state = load_file(path) if path.suffix == ".safetensors" else _load_tensors(path)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} is not a plain file of tensors (it is damaged, or holds code or objects, which are never loaded); "
            "take the official file, or save its state dict as .safetensors"
        ) from None
    except Exception as error:  # noqa: BLE001 (of a damaged stream the readers raise almost anything)
        reason = " ".join(str(error).split())[:200]
        said = f" ({reason})" if " " in reason else ""  # a bare number or word says nothing
        raise ValueError(f"{path} cannot be read as weights: it is truncated, or not a weights file{said}") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict (tensors by name); take the official file")
    return dict(state)


def _load_tensors(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd streams, which end in an error or in whole tensors
        return torch.load(path, map_location="cpu", weights_only=True)


def digest(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fill(network: nn.Module, state: Mapping[str, Tensor], *, name: str, path: Path, ignored: tuple[str, ...]) -> None:
    """Give `network` (built on the meta device) the tensors of `state` as float32.

    Raises ValueError if names or shapes are those of another network, or values are not finite. Batch counters, which
    old files lack and evaluation does not read, may be missing; names in `ignored` may be present.
    """
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    given = {key: value for key, value in state.items() if key not in ignored}
    missing = sorted(expected.keys() - counters - given.keys())
    strange = sorted(given.keys() - expected.keys())
    shapes = sorted(key for key in expected.keys() & given.keys() if tuple(given[key].shape) != expected[key])
    if missing or strange or shapes:
        faults = [("missing", missing), ("unknown", strange), ("of another shape", shapes)]
        said = "; ".join(f"{len(keys)} {fault} (first {keys[0]})" for fault, keys in faults if keys)
        count = len(expected) - len(counters)
        raise ValueError(f"{path} does not hold the {count} tensors of {name}: {said}; take the official file")
    broken = sorted(key for key, value in given.items() if not torch.isfinite(value).all())
    if broken:
        raise ValueError(f"{path} holds values that are not finite, first in {broken[0]}; take the official file")
    values = {key: torch.zeros((), dtype=torch.int64) for key in counters}
    values |= {key: value.float() for key, value in given.items() if key not in counters}
    network.load_state_dict(values, assign=True)
