"""Class by class: label agreement, classification accuracy with its drop, and distances on few images.

The distances of a class compare its n images among the held-out ones of a set with the images generated for it, which
are cut, in the order drawn, into independent sets of n each; the interval is over these sets.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan.draws import SUBSETS, permutation, spread
from gan.intervals import proportion
from gan.metrics import energy_distance, frechet_distance, kernel_distance_full
from gan.metrics.protocols import ROWS_PER_FEATURE
from gan.population import parts_interval
from stages.reference_folder import Reference
from stages.scoring import FLOOR_POOL, Sets

LEAST = 8  # held-out images that a class needs before a distance means anything
FLOOR_DRAWS = 20  # draws of n train images of the class
_INDEX = 2**34  # first index of their permutations; those of reference and of kernel subsets lie below

Features = NDArray[np.float32]
DISTANCES: dict[str, Callable[[Features, Features], float]] = {
    "energy": energy_distance, "kernel": kernel_distance_full, "frechet": frechet_distance,
}  # fmt: skip


def per_class(reference: Reference, sets: Sets, taught: list[int], *, seed: int) -> list[dict[str, Any]]:
    """One row per class: agreement and accuracy beside what real images reach, and its distances. Empty without labels.

    `taught`: right answers per class of the classifier that learned from samples; empty if there is none.
    """
    if sets.labels is None or not reference.classes:
        return []
    held, train = reference.compared(), reference.features("train")
    labels = {"heldout": spread(reference.pictures("heldout")[1], len(held)), "train": reference.train_labels()}
    return [
        {
            "class": name,
            **_agreement(reference, sets, label),
            **_accuracy(reference, taught, label),
            "distances": distances(
                held[labels["heldout"] == label], sets.features[sets.labels == label], train[labels["train"] == label],
                seed=seed, label=label,
            ),
        }
        for label, name in enumerate(reference.classes)
    ]  # fmt: skip


def distances(real: Features, fake: Features, pool: Features, *, seed: int, label: int) -> dict[str, dict[str, Any]]:
    """Energy, kernel and Fréchet distance of one class: features [n, D] held out, [m, D] generated, [p, D] train.

    Each has a floor from draws of n train images, or says why it has none: as for the floors over all classes, there
    must be FLOOR_POOL times as many train images as held-out ones.
    """
    n = len(real)
    sets = len(fake) // max(1, n)
    reason = None
    if n < LEAST:
        reason = f"{n} held-out images of this class are fewer than {LEAST}"
    elif (real == real[0]).all():
        reason = "all held-out images of this class have the same features"
    elif sets < 3:
        reason = f"{len(fake)} generated images of this class make {sets} sets of {n}; an interval needs 3"
    few = len(pool) < FLOOR_POOL * n
    why = f"{len(pool)} train images of this class are fewer than {FLOOR_POOL * n}, {FLOOR_POOL} for each held-out one"
    draws = range(0 if few else FLOOR_DRAWS)
    trains = [pool[permutation(seed, SUBSETS, _INDEX + label * FLOOR_DRAWS + i, len(pool))[:n]] for i in draws]
    return {name: _distance(name, real, fake, trains, reason, why if few else None) for name in DISTANCES}


def _distance(
    name: str, real: Features, fake: Features, trains: list[Features], reason: str | None, no_floor: str | None
) -> dict[str, Any]:
    n, width = real.shape
    least = ROWS_PER_FEATURE * width
    if reason is None and name == "frechet" and n < least:
        reason = f"{n} held-out images of this class are fewer than {least}, {ROWS_PER_FEATURE} per feature"
    found: dict[str, Any] = {"value": None, "low": None, "high": None, "n": n, "sets": 0, "reference": None}
    if reason is not None:
        return found | {"reason": reason, "no_reference": None}
    value, low, high, sets = parts_interval(lambda rows: DISTANCES[name](real, rows), fake, size=n)
    if name == "frechet":
        low = max(0.0, low)
    if no_floor is None:
        floor = [DISTANCES[name](real, train) for train in trains]
        found["reference"] = {"mean": float(np.mean(floor)), "sd": float(np.std(floor, ddof=1))}
    return found | {"value": value, "low": low, "high": high, "sets": sets, "reason": None, "no_reference": no_floor}


def _agreement(reference: Reference, sets: Sets, label: int) -> dict[str, Any]:
    assert sets.labels is not None
    predicted = sets.predicted[sets.labels == label]
    wrong = np.bincount(predicted[predicted != label], minlength=len(reference.classes))
    real = reference.info["baselines"]["label_agreement"]["per_class"][label]
    return {
        "agreement": share(int((predicted == label).sum()), len(predicted)),
        "agreement_real": share(real["right"], real["n"]),
        "mistaken_for": reference.classes[int(wrong.argmax())] if wrong.any() else None,
    }


def _accuracy(reference: Reference, taught: list[int], label: int) -> dict[str, Any]:
    trained = reference.info["baselines"]["cas"]["per_class"][label]
    samples = share(taught[label], trained["n"]) if taught else None
    on_real = share(trained["right"], trained["n"])
    drop, low, high = drop_interval(on_real, samples) if samples and on_real else (None, None, None)
    return {"cas": samples, "cas_real": on_real, "cas_drop": drop, "cas_drop_low": low, "cas_drop_high": high}


def share(hits: int, count: int) -> dict[str, Any] | None:
    """{value, low, high, n} with the Wilson interval; None if there are no images."""
    return proportion(hits, count) if count else None


def drop_interval(before: dict[str, Any], after: dict[str, Any]) -> tuple[float, float, float]:
    """(difference, low, high) of two proportions by squared Wilson margins (Newcombe, Statist. Med. 17, 1998, 10).

    The two classifiers are tested on the same images, but treated as if on different ones, which widens the interval.
    """
    drop = before["value"] - after["value"]
    low = drop - math.hypot(before["value"] - before["low"], after["high"] - after["value"])
    high = drop + math.hypot(before["high"] - before["value"], after["value"] - after["low"])
    return drop, max(-1.0, low), min(1.0, high)
