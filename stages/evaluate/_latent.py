"""Walks through the latent space: between two latents, and towards its middle."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from consumer import Generator
from gan.features.domain import DomainNetwork, features
from gan.latents import latents
from gan.metrics import neighbourhoods
from gan.metrics.protocols import K_COVERAGE, K_PRECISION
from stages.drawn import BATCH
from stages.scoring import Sets

STEPS = 9  # images per interpolation, both ends included
WALKS = 6  # interpolations if there are no classes
MOST_CLASSES = 12  # rows of interpolations, and columns of the truncation sweep, at most
PSIS = (1.0, 0.8, 0.6, 0.4, 0.2)  # factors of the truncation sweep
_PLACE = 2**41  # of the first latent of the interpolations; no set reaches it

Images = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Walks:
    """Interpolations [rows * STEPS, H, W, C], truncation rows [len(PSIS) * columns, H, W, C], and their numbers."""

    interpolations: Images
    rows: list[str]  # class of each interpolation; empty without classes
    truncations: Images
    sweep: list[dict[str, Any]]  # each psi with precision, recall, density and coverage of one set


def walk(
    generator: Generator, network: DomainNetwork, real: NDArray[np.float32], sets: Sets, *, shown: list[int], seed: int
) -> Walks:
    """Both walks for the classes `shown` (label indices; empty without classes), the first MOST_CLASSES of them."""
    shown = shown[:MOST_CLASSES]
    truncations, sweep = _truncated(generator, network, real, sets, shown, seed)
    return Walks(
        _interpolated(generator, shown, seed), [generator.classes[label] for label in shown], truncations, sweep
    )


def slerp(start: NDArray[np.floating], end: NDArray[np.floating], t: float) -> NDArray[np.float64]:
    """The point at fraction `t` of the great circle from `start` to `end` [D], which keeps the length of latents.

    A straight line would pass near the middle, where no latent is ever drawn (Shoemake 1985; White 2016).
    """
    a, b = start.astype(np.float64), end.astype(np.float64)
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    cosine = float(a @ b) / max(lengths, 1e-30)
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    if np.sin(angle) < 1e-6:  # the same direction, or opposite ones, which no single great circle joins
        return (1 - t) * a + t * b
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def _interpolated(generator: Generator, shown: list[int], seed: int) -> Images:
    """A row per class, or WALKS rows without classes: from one latent to another under a fixed label."""
    rows = len(shown) or WALKS
    ends = latents(seed, _PLACE, 2 * rows, generator.z_dim).reshape(rows, 2, -1)
    parts = np.linspace(0, 1, STEPS)
    z = np.stack([slerp(start, end, t) for start, end in ends for t in parts]).astype(np.float32)
    given = np.repeat(np.array(shown, np.int64), STEPS) if shown else None
    return generator.render(z, given)


def _truncated(
    generator: Generator, network: DomainNetwork, real: NDArray[np.float32], sets: Sets, shown: list[int], seed: int
) -> tuple[Images, list[dict[str, Any]]]:
    """The first set with its latents scaled by each psi: some images, and what happens to fidelity and variety."""
    z = latents(seed, 0, sets.n, generator.z_dim)
    labels = None if sets.labels is None else sets.labels[: sets.n]
    columns = np.array(_columns(labels, shown, sets.n))
    rows, sweep = [], []
    for psi in tqdm(PSIS, desc="evaluate: truncation", unit="set", disable=None):
        found = np.empty((sets.n, network.width), np.float32)
        row = np.empty((len(columns), generator.resolution, generator.resolution, generator.channels), np.uint8)
        for first in range(0, sets.n, BATCH):
            part = slice(first, first + BATCH)
            images = generator.render(z[part] * np.float32(psi), None if labels is None else labels[part])
            found[part] = features(network, images)[0]
            inside = (columns >= first) & (columns < first + BATCH)
            row[inside] = images[columns[inside] - first]
        rows.append(row)
        near = neighbourhoods(real, found, k_precision=K_PRECISION, k_density=K_COVERAGE)
        values = dict(zip(("precision_k3", "recall_k3", "density_k5", "coverage_k5"), near, strict=True))
        sweep.append({"psi": psi, **values})
    return np.concatenate(rows), sweep


def _columns(labels: NDArray[np.int64] | None, shown: list[int], count: int) -> list[int]:
    """Indices of the images of the set that are shown: the first of each class, or simply the first ones."""
    if labels is None or not shown:
        return list(range(min(MOST_CLASSES, count)))
    firsts = [np.flatnonzero(labels == label) for label in shown]
    return [int(places[0]) for places in firsts if len(places)] or [0]
