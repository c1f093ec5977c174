"""The trained generator's folder, opened: `generator.safetensors` and `generator.json`."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from gan.networks import build_generator
from stages.common.files import read_json
from stages.generator_folder import DESCRIPTION, WEIGHTS, input_digest

_KINDS: dict[str, type] = {
    "architecture": dict,
    "z_dim": int,
    "classes": list,
    "resolution": int,
    "channels": int,
    "data_hash": str,
    "prior": list,
    "licence": str,
}


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network in float32, ready to run: `info` is `generator.json`, `digest` identifies both files."""

    network: nn.Module
    info: dict[str, Any]
    digest: str


def open_generator(folder: Path) -> Trained:
    """Load the generator in `folder`.

    Raises ValueError if a file is missing or broken, or the weights are not exactly those of the architecture.
    """
    for name in (WEIGHTS, DESCRIPTION):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} is not a generator: it holds no {name}; run `python -m stages.train`")
    info = read_json(folder / DESCRIPTION)
    for key, kind in _KINDS.items():
        if not isinstance(info.get(key), kind):
            raise ValueError(f"{folder / DESCRIPTION}: {key} must be a {kind.__name__}; found {info.get(key)!r}")
    network = build_generator(
        info["architecture"],
        z_dim=info["z_dim"],
        classes=len(info["classes"]),
        resolution=info["resolution"],
        channels=info["channels"],
    )
    try:
        network.load_state_dict(load((folder / WEIGHTS).read_bytes()), strict=True)
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder / WEIGHTS} does not hold the weights of {DESCRIPTION}: {reason}") from None
    broken = [name for name, tensor in network.state_dict().items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ValueError(f"{folder / WEIGHTS} holds weights that are not finite: {', '.join(broken)}; train again")
    return Trained(network.eval().requires_grad_(False), info, input_digest(folder))
