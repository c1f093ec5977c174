"""Which images the page shows, by fixed rules, nothing hand-picked. Generated ones come from the first set, except if
classes have rows of their own: there the label is given, and row l takes the latents from place l * columns on."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumer import Generator
from gan.draws import spread
from gan.features.domain import DomainNetwork
from gan.memorization import nearest
from gan.metrics import realism
from gan.metrics.protocols import K_PRECISION
from stages.drawn import BATCH
from stages.evaluate._latent import STEPS, Walks, walk
from stages.pictures import write_grid
from stages.reference_folder import Reference
from stages.scoring import Sets

ROWS = 8  # of the grids if there are no classes
CLASS_ROWS = 24  # classes shown as rows, at most
SHOWN = 12  # pairs with training images, of each kind
DISAGREEMENTS = 24  # at most
EXTREMES = 24  # images of the highest and of the lowest realism, each

Images = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Images uint8 [N, H, W, C] by what they show; rows are classes if there are any."""

    rows: list[str]  # name of each row of the two grids
    real: Images
    generated: Images
    disagreements: list[tuple[Images, str, str]]  # image, asked for, taken for
    pairs: dict[str, list[tuple[Images, Images, float]]]  # generated, nearest training image, rms levels
    nearest: dict[str, Any]  # the same distances as numbers, for evaluation.json
    best: Images  # of the first set, highest realism first
    worst: Images  # lowest first
    realism: dict[str, Any]  # scores of these, in the same order
    walks: Walks


def choose(
    generator: Generator,
    network: DomainNetwork,
    reference: Reference,
    sets: Sets,
    images: Images,
    *,
    columns: int,
    seed: int,
) -> Pictures:
    """Take the first images of each kind, in store order and in order of the seed; `images` are the first set's."""
    held, held_labels = reference.pictures("heldout")
    shown = _shown(generator, reference, held_labels)
    real, generated = _rows(generator, images, held, held_labels, shown, columns, seed)
    pairs, numbers = _nearest(images, held, reference.pictures("train")[0])
    features = reference.compared()
    best, worst, scores = _extremes(features, sets, images)
    return Pictures(
        [reference.classes[label] for label in shown], real, generated, _disagreements(reference, sets, images), pairs,
        numbers, best, worst, scores, walk(generator, network, features, sets, shown=shown, seed=seed),
    )  # fmt: skip


def _shown(generator: Generator, reference: Reference, held_labels: NDArray[np.int64]) -> list[int]:
    """Labels of the classes that get a row; none if generator or images have no classes."""
    if not generator.classes or not reference.classes:
        return []
    return [label for label in range(len(reference.classes)) if (held_labels == label).any()][:CLASS_ROWS]


def _rows(
    generator: Generator, images: Images, held: Images, held_labels: NDArray[np.int64], shown: list[int],
    columns: int, seed: int,
) -> tuple[Images, Images]:  # fmt: skip
    """The two grids: a row per class, or plain rows without classes."""
    if not shown:
        count = min(ROWS * columns, len(images))
        return held[:count], images[:count]
    # A class with few held-out images is filled up with blank cells rather than repeated images.
    real = np.concatenate([_filled(held[np.flatnonzero(held_labels == label)[:columns]], columns) for label in shown])
    generated = np.concatenate([generator.generate(columns, seed, label, start=label * columns) for label in shown])
    return real, generated


def _extremes(real: NDArray[np.float32], sets: Sets, images: Images) -> tuple[Images, Images, dict[str, Any]]:
    """The best and worst images of the first set by realism score; an infinite score, at distance 0, is null."""
    scores = realism(real, sets.features[: sets.n], k=K_PRECISION)
    order = np.argsort(-scores, kind="stable")
    count = min(EXTREMES, len(order) // 2)
    sides = {"best": order[:count], "worst": order[::-1][:count]}
    listed = {
        name: [{"image": int(i), "score": float(scores[i]) if np.isfinite(scores[i]) else None} for i in places]
        for name, places in sides.items()
    }
    median = float(np.median(scores))
    listed_all: dict[str, Any] = {"k": K_PRECISION, "median": median if np.isfinite(median) else None, **listed}
    return images[sides["best"]], images[sides["worst"]], listed_all


def _filled(images: Images, count: int) -> Images:
    blank = np.full((count - len(images), *images.shape[1:]), 255, np.uint8)
    return np.concatenate([images, blank])


def _disagreements(reference: Reference, sets: Sets, images: Images) -> list[tuple[Images, str, str]]:
    """Images of the first set that the classifier takes for another class than was asked for."""
    if sets.labels is None or not reference.classes:
        return []
    asked, taken = sets.labels[: sets.n], sets.predicted[: sets.n]
    places = np.flatnonzero(asked != taken)[:DISAGREEMENTS]
    return [(images[i], reference.classes[asked[i]], reference.classes[taken[i]]) for i in places]


def _nearest(
    generated: Images, held: Images, train: Images
) -> tuple[dict[str, list[tuple[Images, Images, float]]], dict[str, Any]]:
    """The closest pairs and the first ones, and how near an equal number of unseen real images come."""
    places = spread(np.arange(len(held)), len(generated))
    some = np.array_split(places, math.ceil(len(places) / BATCH))
    found, real = nearest(generated, train), np.concatenate([nearest(held[part], train).squared for part in some])
    rms_found, rms_real = (np.sqrt(each / np.prod(train.shape[1:])) for each in (found.squared, real))
    pairs, listed = {}, {}
    for name, order in (("closest", np.argsort(found.squared, kind="stable")), ("first", np.arange(len(generated)))):
        places = order[:SHOWN]
        pairs[name] = [(generated[i], train[found.place[i]], float(rms_found[i])) for i in places]
        listed[name] = [
            {"image": int(i), "train": int(found.place[i]), "rms_levels": float(rms_found[i])} for i in places
        ]
    least_real = float(rms_real.min())
    quartiles = {
        name: dict(zip(("least", "median", "most"), np.quantile(rms, [0, 0.5, 1]).tolist(), strict=True))
        for name, rms in (("generated", rms_found), ("unseen_real", rms_real))
    }
    closer = int((rms_found < least_real).sum())
    return pairs, {"train_images": len(train), "rms_levels": quartiles, "closer_than_any_real": closer, **listed}


def write_pictures(folder: Path, pictures: Pictures, *, columns: int) -> None:
    """Write the page's pictures as PNG files beside it."""
    write_grid(folder / "real.png", pictures.real, columns=columns, row_labels=pictures.rows)
    write_grid(folder / "generated.png", pictures.generated, columns=columns, row_labels=pictures.rows)
    write_grid(folder / "best.png", pictures.best, columns=columns)
    write_grid(folder / "worst.png", pictures.worst, columns=columns)
    walks = pictures.walks
    write_grid(folder / "interpolations.png", walks.interpolations, columns=STEPS, row_labels=walks.rows)
    names = [f"{row['psi']:g}" for row in walks.sweep]
    write_grid(
        folder / "truncation.png", walks.truncations, columns=len(walks.truncations) // len(names), row_labels=names
    )
    both = [image for a, b, _ in pictures.pairs["closest"] for image in (a, b)]
    write_grid(folder / "nearest.png", np.stack(both), columns=6)
