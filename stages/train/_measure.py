"""Measures of the generator while it trains: on the domain features, against the train split, never held-out images.

They choose between moments of one run and notice when it goes wrong; what the model is worth is measured by evaluate.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gan import latents, pixels
from stages.common.files import digest, read_array, read_json, sha256_file
from stages.config.train import TrainConfig
from stages.store import Store

if TYPE_CHECKING:
    from gan.features.domain import DomainNetwork

MEASURES = (
    "fid_train", "precision_train", "recall_train", "density_train", "coverage_train", "diversity_train", "separation"
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Yardstick:
    """The opened `data/reference/selection`: the extractor and the real features [n, D]."""

    network: "DomainNetwork"
    real: NDArray[np.float32]
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


def identity(config: TrainConfig, folder: Path | None) -> str | None:
    """Digest of all that the measures depend on; None where the run measures nothing."""
    return digest(_checked(folder)) if config.selection.name == "domain" else None


def open_yardstick(config: TrainConfig, folder: Path | None, store: Store) -> Yardstick | None:
    """What the run is measured against; None where it is not. Raises ValueError where `folder` is not that."""
    if config.selection.name == "none":
        return None
    from gan.features.domain import load  # only runs that are measured depend on it

    folder = _checked(folder)
    info = read_json(folder / "selection.json", needs=("data_hash", "extractor_sha256"))
    if info["data_hash"] != store.info["data_hash"]:
        raise ValueError(f"{folder} belongs to other images; run `python -m stages.reference` on these first")
    if sha256_file(folder / "extractor.safetensors") != info["extractor_sha256"]:
        raise ValueError(f"{folder} was changed after it was written; run `python -m stages.reference` again")
    real = read_array(folder / "features.npy")
    with np.load(folder / "moments.npz", allow_pickle=False) as stored:
        return Yardstick(load(folder / "extractor.safetensors"), real, stored["mean"], stored["cov"])


def _checked(folder: Path | None) -> Path:
    if folder is None or not (folder / "selection.json").is_file():
        raise ValueError(
            "train.selection measures on domain features, so train.selection_inputs must be the folder `selection` of "
            f"what reference wrote, data/reference/selection; received {folder}"
        )
    return folder


@torch.no_grad()
def measured(
    config: TrainConfig, yardstick: Yardstick, average: nn.Module, discriminator: nn.Module, store: Store, device: str
) -> dict[str, float]:
    """Measures of the present moving average on the selection's own latents; empty where its images are not finite."""
    from gan.draws import spread
    from gan.features.domain import features
    from gan.metrics import frechet_distance_of_moments, moments, neighbourhoods
    from gan.metrics.protocols import K_COVERAGE, K_PRECISION

    selection = config.selection
    assert selection.name == "domain"
    labels = store.splits["train"].labels
    z = latents.latents(selection.seed, 0, selection.images, config.z_dim)
    label = None
    if store.classes:
        shares = [float(np.mean(labels == index)) for index in range(len(store.classes))]
        label = latents.labels(selection.seed, 0, selection.images, shares)
    try:
        images = drawn(average, z, label, device, pixels.at_once(store.info["resolution"]))
    except pixels.NotFinite:
        return {}
    fake, _ = features(yardstick.network, images)
    mean, covariance = moments(fake)
    real = spread(yardstick.real, min(selection.images, len(yardstick.real)))
    near = neighbourhoods(real, fake, k_precision=K_PRECISION, k_density=K_COVERAGE)
    found = {
        "fid_train": frechet_distance_of_moments((yardstick.mean, yardstick.covariance), (mean, covariance)),
        "precision_train": near.precision,
        "recall_train": near.recall,
        "density_train": near.density,
        "coverage_train": near.coverage,
        "diversity_train": float(np.trace(covariance) / np.trace(yardstick.covariance)),
        "separation": _separation(discriminator, images, label, store, device, config.network.group),
    }
    return {name: round(value, 6) for name, value in found.items()}


def drawn(
    average: nn.Module, z: NDArray[np.float32], label: NDArray[np.int64] | None, device: str, size: int
) -> NDArray[np.uint8]:
    """Images uint8 [n, H, W, C] of latents [n, z_dim] and labels [n], `size` at once."""
    return np.concatenate(
        [
            pixels.to_uint8(
                average(_to(z[part], device), None if label is None else _to(label[part], device)).cpu().numpy()
            )
            for part in _parts(len(z), size)
        ]
    )


def _separation(
    discriminator: nn.Module,
    fake: NDArray[np.uint8],
    label: NDArray[np.int64] | None,
    store: Store,
    device: str,
    group: int,
) -> float:
    """Share of pairs of a training image and a generated one that the discriminator puts in the right order.

    0.5 is chance. It does not move when a constant is added to all logits, to which relativistic losses are blind. A
    discriminator that compares the images of a `group` sees whole ones, of all classes as in training.
    """
    from gan.draws import spread

    split, training = store.splits["train"], discriminator.training
    discriminator.eval()
    places = spread(np.arange(len(split)), min(len(fake), len(split)))
    if group > 1:
        places = np.random.default_rng(0).permutation(places)[: len(places) // group * group]
        fake = fake[: len(fake) // group * group]
    own = split.labels[places] if label is not None else None
    size = max(1, pixels.at_once(store.info["resolution"]) // group) * group
    real_logits = _logits(discriminator, lambda part: split.take(places[part]), len(places), own, device, size)
    fake_logits = np.sort(_logits(discriminator, lambda part: fake[part], len(fake), label, device, size))
    discriminator.train(training)
    below = np.searchsorted(fake_logits, real_logits, "left") + np.searchsorted(fake_logits, real_logits, "right")
    return float(below.mean() / 2 / len(fake_logits))


def _logits(
    discriminator: nn.Module,
    images: Callable[[slice], NDArray[np.uint8]],
    count: int,
    label: NDArray[np.int64] | None,
    device: str,
    size: int,
) -> NDArray[np.float32]:
    found = []
    for part in _parts(count, size):
        shown = _to(pixels.to_float(images(part)), device)
        found.append(discriminator(shown, None if label is None else _to(label[part], device)).float().cpu().numpy())
    return np.concatenate(found)


def _parts(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _to(values: NDArray[Any], device: str) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)
