"""Scores of feature sets, in one place, so that floors of real images, evaluate and compare all count the same way.

Every distance is of one generated set of N images against N held-out ones; intervals come from independent sets.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gan.features.domain import DomainNetwork, Pictures, Recipe, features, fit
from gan.intervals import LEVEL, RARE, mean_interval, share_interval, wilson
from gan.metrics import energy_distance, frechet_distance, inception_score, kernel_distance_full, neighbourhoods
from gan.metrics.protocols import K_COVERAGE, K_PRECISION, PROTOCOLS
from stages.common.summary import measure, not_assessed
from stages.drawn import Drawer, blocks

SET_METRICS = (
    "fid_domain", "kid_domain", "energy_domain", "is_domain", "precision_k3", "recall_k3", "density_k5", "coverage_k5",
)  # fmt: skip

# Train images for each held-out one of a set: draws from fewer are nearly the same images, and agree too well.
FLOOR_POOL = 2

SHARES = ("precision_k3", "recall_k3", "coverage_k5")  # of the N images of a set, real or generated
_LEAST = {"fid_domain": 0.0, "is_domain": 1.0, "density_k5": 0.0}  # an interval never goes below what is possible

Features = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Sets:
    """Independent generated sets of N images: scores per set, and the class each image was asked for and taken for."""

    n: int
    values: dict[str, list[float]]  # by name of SET_METRICS, one value per set
    labels: NDArray[np.int64] | None  # [sets * N], asked for
    predicted: NDArray[np.int64]  # [sets * N], most probable output
    features: Features  # [sets * N, D]


def set_scores(real: Features, fake: Features, odds: NDArray[np.float64]) -> dict[str, float]:
    """All of SET_METRICS for one set: features [N, D] real and [M, D] fake, probabilities [M, K] of the fake ones."""
    near = neighbourhoods(real, fake, k_precision=K_PRECISION, k_density=K_COVERAGE)
    values = (
        frechet_distance(real, fake), kernel_distance_full(real, fake), energy_distance(real, fake),
        inception_score(odds, splits=1)[0], near.precision, near.recall, near.density, near.coverage,
    )  # fmt: skip
    return dict(zip(SET_METRICS, values, strict=True))


def learn(
    images: Pictures, labels: NDArray[np.int64] | None, *, classes: int, recipe: Recipe, seed: int, title: str
) -> DomainNetwork:
    """`gan.features.domain.fit`, with a progress bar of this title."""
    with tqdm(total=recipe.steps, desc=title, unit="step", disable=None) as bar:
        return fit(images, labels, classes=classes, recipe=recipe, seed=seed, done=bar.update)


def generated_sets(
    generator: Drawer, network: DomainNetwork, real: Features, *, sets: int, seed: int,
    title: str = "sets",
) -> Sets:  # fmt: skip
    """Draw `sets` sets of len(real) images from consecutive places of `seed` and score each against `real` [N, D].

    Set i starts at place i * N, so sets never overlap. Images are looked at in blocks and not kept. `title` names the
    progress bar.
    """
    rows: list[dict[str, float]] = []
    found, predicted, asked = [], [], []
    with tqdm(total=sets * len(real), desc=title, unit="image", disable=None) as bar:
        for index in range(sets):
            seen = []
            for images, labels in blocks(generator, len(real), seed=seed, start=index * len(real)):
                seen.append(features(network, images))
                asked.append(labels)
                bar.update(len(images))
            hidden, odds = (np.concatenate(parts) for parts in zip(*seen, strict=True))
            rows.append(set_scores(real, hidden, odds))
            found.append(hidden)
            predicted.append(odds.argmax(axis=1).astype(np.int64))
    return Sets(
        n=len(real),
        values={name: [row[name] for row in rows] for name in SET_METRICS},
        labels=np.concatenate([part for part in asked if part is not None]) if asked[0] is not None else None,
        predicted=np.concatenate(predicted),
        features=np.concatenate(found),
    )


def set_measure(sets: Sets, name: str, floor: dict[str, Any] | None) -> dict[str, Any]:
    """The measure record of one of SET_METRICS: its mean over sets and the interval of the expected value."""
    values = sets.values[name]
    value, low, high = share_interval(values, sets.n) if name in SHARES else mean_interval(values)
    low = max(low, _LEAST.get(name, -math.inf))
    reference = None if floor is None else {"mean": floor["mean"], "sd": floor["sd"]}
    return measure(value, low, high, n_real=sets.n, n_fake=sets.n, protocol=name, reference=reference)


def agreement_measure(sets: Sets, baseline: dict[str, Any] | None) -> dict[str, Any]:
    """The measure record of label agreement over all sets; without a value if either side has no labels."""
    if sets.labels is None or baseline is None:
        reason = "the generator or the real images carry no labels"
        return not_assessed(reason, n_real=0, n_fake=len(sets.predicted), protocol="label_agreement")
    hits, count = int((sets.labels == sets.predicted).sum()), len(sets.predicted)
    return measure(
        hits / count, *wilson(hits, count), n_real=baseline["n"], n_fake=count, protocol="label_agreement",
        reference={"mean": baseline["value"], "sd": binomial_sd(baseline)},
    )  # fmt: skip


def binomial_sd(share: dict[str, Any]) -> float:
    """Standard deviation of an estimated proportion {value, n}."""
    return float(np.sqrt(share["value"] * (1 - share["value"]) / share["n"]))


def sets_interval(sets: int) -> str:
    """How the intervals over generated sets are made, in words."""
    return (
        f"Student t over {sets} independent generated sets, level {LEVEL:g}, cut to the possible range; Wilson "
        f"over all of them for shares with fewer than {RARE} hits or misses"
    )


def protocols(extractor: dict[str, Any], *, n: int, heldout: int, sets: int, seed: int) -> dict[str, dict[str, Any]]:
    """How each number of this module was made, by the key that measures name. `extractor` is that of `reference.json`.

    `n`: images in a set, real or generated; the real ones are chosen from `heldout`.
    """
    real = "the held-out images" if n == heldout else f"{n} of the {heldout} held-out images, evenly spread"
    common = {"extractor_sha256": extractor["sha256"], "extractor_width": extractor["width"], "seed": seed}
    of_sets = {
        "n_real": n, "n_fake": n, "sets": sets, "interval": sets_interval(sets),
        "estimand": f"expected value at this size for this generator, given {real}",
        "reference": f"floor: draws of as many train images, without replacement, against {real}",
    }  # fmt: skip
    agreement = {
        "n_real": heldout, "n_fake": n * sets, "arithmetic": "network float32",
        "interval": f"Wilson, level {LEVEL:g}",
        "estimand": "probability of agreement of an image drawn from the serving prior",
        "reference": "accuracy of the same classifier on the held-out images",
    }  # fmt: skip
    return {
        **{name: {**PROTOCOLS[name].as_record(), **common, **of_sets} for name in SET_METRICS},
        "label_agreement": {**PROTOCOLS["label_agreement"].as_record(), **common, **agreement},
    }
