"""Classification accuracy score: train a classifier on samples alone, test it on held-out real images (Ravuri and
Vinyals: "Classification Accuracy Score for Conditional Generative Models", NeurIPS 2019).

The classifier has the recipe and the seed of the baseline, which was trained on the real train split; it sees as many
samples as that split has images. What it loses against the baseline is what the samples do not teach.
"""

from pathlib import Path
from typing import Any

import numpy as np

from gan.features.domain import Recipe, features
from gan.intervals import LEVEL, wilson
from gan.metrics.protocols import PROTOCOLS
from stages.common.summary import measure, not_assessed
from stages.drawn import Drawer, drawn
from stages.reference_folder import Reference
from stages.scoring import learn

NAME = "cas"


def cas(
    generator: Drawer, reference: Reference, *, seed: int, start: int, folder: Path
) -> tuple[dict[str, Any], list[int]]:
    """(measure, right answers per class). Samples are drawn from place `start` of `seed` on, and kept in `folder`
    meanwhile.

    Without labels the measure has no value, and says why.
    """
    count, baseline = int(reference.info["counts"]["train"]), reference.info["baselines"][NAME]
    held_images, held_labels = reference.pictures("heldout")
    if baseline is None:
        return _refused("the real images carry no labels", len(held_labels), count)
    if reason := _unreadable(baseline):
        return _refused(reason, len(held_labels), count)
    images, labels = drawn(generator, count, seed=seed, start=start, folder=folder, title="evaluate: samples of cas")
    if labels is None:
        return _refused("the generator takes no labels, so its samples cannot teach them", len(held_labels), count)
    if len(np.unique(labels)) < 2:
        return _refused("the serving prior has one class only", len(held_labels), count)
    network = learn(
        images, labels, classes=len(reference.classes), recipe=Recipe(**reference.info["recipe"]),
        seed=int(reference.info["seed"]), title="evaluate: classifier of cas",
    )  # fmt: skip
    right = features(network, held_images)[1].argmax(axis=1) == held_labels
    hits = int(right.sum())
    record = measure(
        hits / len(right), *wilson(hits, len(right)), n_real=len(right), n_fake=count, protocol=NAME,
        reference={"mean": baseline["mean"], "sd": baseline["sd"]},
    )  # fmt: skip
    return record, [int(right[held_labels == label].sum()) for label in range(len(reference.classes))]


def _unreadable(baseline: dict[str, Any]) -> str | None:
    """Why samples cannot teach anything, if even real images do not with this recipe; None if they do."""
    guessed = max(row["n"] for row in baseline["per_class"]) / baseline["n"]
    if baseline["low"] > guessed:
        return None
    return (
        f"a classifier trained on real images reads {100 * baseline['value']:.1f} % of the held-out ones right, which "
        f"is not shown to be better than guessing ({100 * guessed:.1f} %): raise reference.training.steps, or check "
        "the labels"
    )


def _refused(reason: str, n_real: int, n_fake: int) -> tuple[dict[str, Any], list[int]]:
    return not_assessed(reason, n_real=n_real, n_fake=n_fake, protocol=NAME), []


def cas_protocol(reference: Reference, *, seed: int) -> dict[str, Any]:
    """How the score was made."""
    return {
        **PROTOCOLS[NAME].as_record(),
        "extractor": None, "classifier": "domain network", "recipe": reference.info["recipe"], "seed": seed,
        "n_real": reference.heldout, "n_fake": reference.info["counts"]["train"],
        "splits": "trained on samples, tested on heldout", "arithmetic": "network float32",
        "interval": f"Wilson, level {LEVEL:g}, over the held-out images",
        "estimand": "accuracy on real images of this one classifier, trained on these samples",
        "reference": "the same recipe and seed, trained on the real train split",
    }  # fmt: skip
