"""The feature network: trained here on the split `fit`, or adopted from a file whose hash is known."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan.features.domain import DomainNetwork, Recipe, features, load, rotation_accuracy
from gan.intervals import proportion
from stages.common.files import sha256_file
from stages.config.reference import File, Fit, ReferenceConfig
from stages.scoring import learn
from stages.store import Split, Store

_CHUNK = 2**26  # bytes of images read at once
_LEAST, _MOST = 256, 4096  # images per read; with fewer in a pass, features may differ in their last bits

WHY_ROTATIONS = (
    "the images carry no labels: the network learns which of four rotations was applied, which needs no label, no "
    "download and no second network"
)


def recipe(config: ReferenceConfig, width: int) -> Recipe:
    """The recipe for every classifier of this run, `width` features wide."""
    training = config.training
    return Recipe(width=width, steps=training.steps, batch=training.batch, learning_rate=training.learning_rate)


def extractor(config: ReferenceConfig, store: Store) -> DomainNetwork:
    """The network that `reference.extractor` asks for. Raises ValueError if it cannot serve this store."""
    if isinstance(config.extractor, Fit):
        _check_width(config.extractor.width, config, store)
        chosen = store.splits["fit"]
        labels = chosen.labels if store.classes else None
        network = learn(
            chosen, labels, classes=len(store.classes), recipe=recipe(config, config.extractor.width),
            seed=config.seed, title="reference: extractor",
        )  # fmt: skip
        network.classes = store.classes
        return network
    network = _adopted(config.extractor)
    _check_width(network.width, config, store)
    expected = {
        "kind": "classifier" if store.classes else "rotation",
        "outputs": len(store.classes) or network.outputs,
        "resolution": store.info["resolution"],
        "channels": store.info["channels"],
    }
    wrong = [f"{name} {network.settings[name]}" for name, value in expected.items() if network.settings[name] != value]
    if wrong:
        raise ValueError(
            f"reference.extractor: {config.extractor.path} has {', '.join(wrong)}, but these images need "
            f"{', '.join(f'{name} {value}' for name, value in expected.items())}; fit one with {{name: fit, ...}}"
        )
    if network.classes not in ([], store.classes):
        raise ValueError(
            f"reference.extractor: {config.extractor.path} reads the classes {', '.join(network.classes[:20])} in "
            f"this order, but these images have {', '.join(store.classes[:20])}; fit one with {{name: fit, ...}}"
        )
    return network


def guessing(network: DomainNetwork, split: Split) -> float:
    """Share of right answers from guessing: one of the rotations at random, or always the commonest class."""
    return 1 / network.outputs if network.kind == "rotation" else int(np.bincount(split.labels).max()) / len(split)


def blindness(network: DomainNetwork, accuracy_heldout: dict[str, Any], guessed: float) -> str | None:
    """Why nothing can be measured on the features, if the network is not shown to be better than guessing; else None.

    Raises ValueError for such a classifier if it does not name its classes: files of earlier versions carry no names,
    and one whose outputs mean other classes would read these images wrong.
    """
    if accuracy_heldout["low"] > guessed:
        return None
    what = "rotations" if network.kind == "rotation" else "classes"
    found = (
        f"{100 * accuracy_heldout['value']:.1f} % of the held-out images right, which is not shown to be better "
        f"than guessing ({100 * guessed:.1f} %)"
    )
    if network.kind == "classifier" and not network.classes:
        raise ValueError(
            f"reference.extractor: the file names no classes, and it reads {found}: its outputs may stand for "
            "other classes, or for the same in another order; fit one with {name: fit, ...}"
        )
    return (
        f"the domain extractor is not shown to have learned anything: it reads the {what} of {found}; raise "
        "reference.training.steps, or have card.checks look at measures on a published network (docs/gate.md)"
    )


def _adopted(file: File) -> DomainNetwork:
    path = Path(file.path)
    if not path.is_file():
        raise ValueError(
            f"reference.extractor: {path} is not there; place the extractor.safetensors with SHA-256 {file.sha256} at "
            "that path, or fit one with {name: fit, ...}"
        )
    found = sha256_file(path)
    if found != file.sha256:
        raise ValueError(
            f"reference.extractor: {path} has SHA-256 {found}, but params.yaml asks for {file.sha256}; place that file "
            "there, or state the new hash if the change is intended"
        )
    return load(path)


def set_size(config: ReferenceConfig, store: Store) -> int:
    """N, the number of images in a set: as many as are held out, but at most `reference.largest_set`."""
    return min(len(store.splits["heldout"]), config.largest_set)


def _check_width(width: int, config: ReferenceConfig, store: Store) -> None:
    size = set_size(config, store)
    if width * 8 > size:
        cure = "a larger reference.largest_set" if size < len(store.splits["heldout"]) else "more images"
        raise ValueError(
            f"reference.extractor: {width} features need at least {8 * width} held-out images in a set, eight for "
            f"each; there are {size}. Take at most {size // 8} features, or {cure}"
        )


def split_features(network: DomainNetwork, split: Split) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Features [N, D] and probabilities [N, K] of a whole split, read in pieces."""
    found, odds = zip(*(features(network, images) for images in pieces(split, len(split))), strict=True)
    return np.concatenate(found), np.concatenate(odds)


def pieces(split: Split, count: int) -> Iterator[NDArray[np.uint8]]:
    """`count` images, evenly spread over the split, in pieces of a whole number of passes of `features`."""
    fit_in = _CHUNK // math.prod(split.shape[1:]) // _LEAST * _LEAST
    step = min(max(fit_in, _LEAST), _MOST)
    for start in range(0, count, step):
        yield split.take(np.arange(start, min(start + step, count)) * len(split) // count)


def accuracy(network: DomainNetwork, split: Split, odds: NDArray[np.float64]) -> dict[str, Any]:
    """Share of the split's images that the network reads right, with its Wilson interval."""
    if network.kind == "rotation":
        answers = [rotation_accuracy(network, images) for images in pieces(split, len(split))]
        right, asked = (sum(part) for part in zip(*answers, strict=True))
        # The four views of an image are one trial, not four: the interval counts images.
        return proportion(round(right / asked * len(split)), len(split))
    return proportion(int((odds.argmax(axis=1) == split.labels).sum()), len(split))


def confusion(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> list[list[int]]:
    """Counts [true class][predicted class]."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (labels, predicted), 1)
    return table.tolist()
