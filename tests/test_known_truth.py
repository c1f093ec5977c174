"""The gate against generators whose truth is known: each defect is found by the check meant for it, and by no other.

Thresholds are those of params.yaml. Of each truth `must` names the checks that have to be red, `may` those that can be
red as well, since the defect touches what they measure; every other required check has to be green.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from consumer import Generator
from tests.known_truth import ASIDE, CLASSES, Stored, World, judge, make_world, ship, short_training, stored

POOLS = list(np.arange(CLASSES * ASIDE).reshape(CLASSES, ASIDE))  # where the unseen images of each class are


def real(world: World) -> Stored:
    return stored(world, world.unseen, POOLS)


def training_copies(world: World) -> Stored:
    train = world.store.splits["train"]
    return stored(world, train.all(), [np.flatnonzero(train.labels == label) for label in range(CLASSES)])


def two_percent_copies(world: World) -> Stored:
    train = world.store.splits["train"]
    copied = [len(world.unseen) + np.flatnonzero(train.labels == label) for label in range(CLASSES)]
    return stored(world, np.concatenate([world.unseen, train.all()]), POOLS, copies=(copied, 50))


def one_image_per_class(world: World) -> Stored:
    """Of each class the unseen image nearest to the class's mean, so that fidelity is not in question."""
    flat = world.unseen.reshape(CLASSES, ASIDE, -1).astype(float)
    middle = np.square(flat - flat.mean(axis=1, keepdims=True)).sum(-1).argmin(axis=1)
    return stored(world, world.unseen, [pool[[place]] for pool, place in zip(POOLS, middle, strict=True)])


def eights_are_threes(world: World) -> Stored:
    return stored(world, world.unseen, [POOLS[3 if label == 8 else label] for label in range(CLASSES)])


def permuted_labels(world: World) -> Stored:
    return stored(world, world.unseen, POOLS[1:] + POOLS[:1])


def blurred(world: World) -> Stored:
    """A 3x3 box over every image, edges repeated."""
    wide = np.pad(world.unseen.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    size = world.unseen.shape[1]
    mean = sum(wide[:, row : row + size, column : column + size] for row in range(3) for column in range(3)) / 9
    return stored(world, np.rint(mean).astype(np.uint8), POOLS)


def noise(world: World) -> Stored:
    return stored(world, np.random.default_rng(1).integers(0, 256, world.unseen.shape).astype(np.uint8), POOLS)


def a_tenth_of_the_training(world: World) -> Path:
    return short_training(world, 0.1)


LABELS = {"labels", "worst_class", "cas"}  # what a wrong class shows in
QUALITY = {"distance", "kernel", "fidelity", "density", "coverage", "recall"}  # what bad or too few images show in


@dataclasses.dataclass(frozen=True)
class Truth:
    make: Callable[[World], Stored | Path]
    must: set[str]
    may: set[str]


TRUTHS = [
    Truth(real, set(), set()),
    Truth(training_copies, {"memorization"}, set()),
    Truth(two_percent_copies, {"memorization"}, set()),
    # Ten images may lie where real ones are dense or not, but they never cover anything.
    Truth(one_image_per_class, {"distance", "coverage", "recall", "cas"}, {"kernel", "fidelity", "density"}),
    Truth(eights_are_threes, {"distance"} | LABELS, {"kernel", "fidelity", "coverage", "recall"}),
    Truth(permuted_labels, LABELS, set()),
    Truth(blurred, {"distance", "kernel", "fidelity", "density"}, {"coverage", "recall"} | LABELS),
    # Precision alone hardly rejects noise: its features are small, and real ones lie there too (docs/metrics.md).
    Truth(noise, (QUALITY | LABELS) - {"fidelity"}, {"fidelity"}),
    Truth(a_tenth_of_the_training, {"distance"}, QUALITY | LABELS),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("truth")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GANOPS_STATE", str(folder / "state"))
        yield make_world(folder)


def test_stored_generators_are_what_they_say(world: World) -> None:
    """Two in a hundred are training images, the others come once each, and all of them show what was asked for."""
    generator = Generator(ship(world, "drawn", two_percent_copies(world)), providers=["CPUExecutionProvider"])
    train = world.store.splits["train"]
    known = {image.tobytes(): label for image, label in zip(train.all(), train.labels, strict=True)}
    unseen = {image.tobytes(): place // ASIDE for place, image in enumerate(world.unseen)}
    assert len(unseen) == CLASSES * ASIDE and not unseen.keys() & known.keys()
    for seed, start, count in world.blocks():
        images, labels = generator.draw(count, seed, start=start)
        assert labels is not None
        drawn = [image.tobytes() for image in images]
        assert [(unseen | known)[image] for image in drawn] == labels.tolist()
        assert [place for place, image in enumerate(drawn) if image in known] == list(range(0, count, 50))
        once = [image for image in drawn if image in unseen]
        most = 1 if count <= len(unseen) else 4  # the classifier of the accuracy score takes more than there are
        assert max(map(once.count, set(once))) <= most


@pytest.mark.parametrize("truth", TRUTHS, ids=lambda truth: truth.make.__name__)
def test_red_by_the_checks_meant_for_it_and_by_no_other(world: World, truth: Truth) -> None:
    verdict = judge(world, ship(world, truth.make.__name__, truth.make(world)))
    lines = {line["name"]: line for line in verdict["checks"] if line["required"]}
    assert {name for name, line in lines.items() if line["status"] == "not_assessed"} == set()
    red = {name for name, line in lines.items() if line["status"] == "failed"}
    said = {name: line["reason"] for name, line in lines.items()}
    assert truth.must <= red, {name: said[name] for name in truth.must - red}
    assert red <= truth.must | truth.may, {name: said[name] for name in red - truth.must - truth.may}
    assert verdict["passed"] == (not red)
