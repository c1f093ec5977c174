"""Which images the page shows: real beside generated, disagreements, nearest training images; none is hand-picked."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumer import Generator
from gan.memorization import nearest
from stages.pictures import write_grid
from stages.reference_folder import Reference
from stages.scoring import Sets

ROWS = 8  # of the grids where there are no classes
CLASS_ROWS = 24  # most classes shown as rows
SHOWN = 12  # pairs with training images, of each kind
DISAGREEMENTS = 24  # at most

Images = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Images uint8 [N, H, W, C] by what they show; rows are classes where there are any."""

    rows: list[str]  # name of each row of the two grids
    real: Images
    generated: Images
    disagreements: list[tuple[Images, str, str]]  # image, asked for, taken for
    pairs: dict[str, list[tuple[Images, Images, float]]]  # generated, nearest training image, rms levels
    nearest: dict[str, Any]  # the same distances as numbers, for evaluation.json


def choose(generator: Generator, reference: Reference, sets: Sets, *, columns: int, seed: int) -> Pictures:
    """Take the first images of each kind, in store order and in order of the seed."""
    held, held_labels = reference.pictures("heldout")
    rows, real, generated = _rows(generator, reference, sets, held, held_labels, columns, seed)
    pairs, numbers = _nearest(sets.images, held, reference.pictures("train")[0])
    return Pictures(rows, real, generated, _disagreements(reference, sets), pairs, numbers)


def _rows(
    generator: Generator, reference: Reference, sets: Sets, held: Images, held_labels: NDArray[np.int64],
    columns: int, seed: int,
) -> tuple[list[str], Images, Images]:  # fmt: skip
    """The two grids: a row per class, or plain rows without classes."""
    if not generator.classes or not reference.classes:
        count = min(ROWS * columns, len(held))
        return [], held[:count], sets.images[:count]
    shown = [label for label in range(len(reference.classes)) if (held_labels == label).any()][:CLASS_ROWS]
    # A class with few held-out images repeats blank cells rather than images.
    real = np.concatenate([_filled(held[held_labels == label][:columns], columns) for label in shown])
    generated = np.concatenate([generator.generate(columns, seed, label, start=label * columns) for label in shown])
    return [reference.classes[label] for label in shown], real, generated


def _filled(images: Images, count: int) -> Images:
    blank = np.full((count - len(images), *images.shape[1:]), 255, np.uint8)
    return np.concatenate([images, blank])


def _disagreements(reference: Reference, sets: Sets) -> list[tuple[Images, str, str]]:
    """Images of the first set that the classifier takes for another class than was asked for."""
    if sets.labels is None or not reference.classes:
        return []
    asked, taken = sets.labels[: sets.n], sets.predicted[: sets.n]
    places = np.flatnonzero(asked != taken)[:DISAGREEMENTS]
    return [(sets.images[i], reference.classes[asked[i]], reference.classes[taken[i]]) for i in places]


def _nearest(
    generated: Images, held: Images, train: Images
) -> tuple[dict[str, list[tuple[Images, Images, float]]], dict[str, Any]]:
    """The closest pairs and the first ones, and how near unseen real images come."""
    found, real = nearest(generated, train), nearest(held, train)
    rms_found, rms_real = (np.sqrt(each.squared / np.prod(train.shape[1:])) for each in (found, real))
    pairs, listed = {}, {}
    for name, order in (("closest", np.argsort(found.squared, kind="stable")), ("first", np.arange(len(generated)))):
        places = order[:SHOWN]
        pairs[name] = [(generated[i], train[found.place[i]], float(rms_found[i])) for i in places]
        listed[name] = [
            {"image": int(i), "train": int(found.place[i]), "rms_levels": float(rms_found[i])} for i in places
        ]
    quartiles = {
        name: dict(zip(("least", "median", "most"), np.quantile(rms, [0, 0.5, 1]).tolist(), strict=True))
        for name, rms in (("generated", rms_found), ("unseen_real", rms_real))
    }
    return pairs, {"train_images": len(train), "rms_levels": quartiles, **listed}


def write_pictures(folder: Path, pictures: Pictures, *, columns: int) -> None:
    """The two grids as PNG files beside the page."""
    write_grid(folder / "real.png", pictures.real, columns=columns, row_labels=pictures.rows)
    write_grid(folder / "generated.png", pictures.generated, columns=columns, row_labels=pictures.rows)
