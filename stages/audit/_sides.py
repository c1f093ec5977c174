"""Both sides of the audit: the real training images and the generated ones, left where they lie, and their groups."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from gan.attributes import bins, measure
from gan.draws import spread
from gan.features.domain import Pictures
from stages.drawn import BATCH


@dataclasses.dataclass(frozen=True)
class Side:
    """Images of one side with what is known about each; the i-th entry of every array is about the i-th image."""

    images: Pictures  # uint8 [N, H, W, C]
    labels: NDArray[np.int64] | None  # [N]: the class of a real image, the class asked for of a generated one
    attributes: dict[str, NDArray[np.int64]]  # attribute to bin index [N]

    def __len__(self) -> int:
        return len(self.images)


@dataclasses.dataclass(frozen=True)
class Group:
    """Which images of each side belong to one group."""

    family: str  # `all`, `class`, or the attribute's name
    name: str
    real: NDArray[np.int64]  # indices on the real side
    fake: NDArray[np.int64]  # indices on the generated side

    @property
    def size(self) -> int:
        """Images on the smaller side."""
        return min(len(self.real), len(self.fake))

    def refusal(self, min_group: int) -> str | None:
        """Why nothing is said about this group, or None if it is large enough."""
        if self.size >= min_group:
            return None
        return f"{len(self.real)} real and {len(self.fake)} generated images, audit.min_group asks for {min_group} each"


def side(images: Pictures, labels: NDArray[np.int64] | None) -> Side:
    """A side with its attributes measured from the pixels: the same ruler for real and generated images."""
    parts = [
        measure(images[np.arange(first, min(first + BATCH, len(images)))]) for first in range(0, len(images), BATCH)
    ]
    return Side(images, labels, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def everything(real: Side, fake: Side, prior: list[float]) -> Group:
    """The group of all images: of the real ones, as many as can be taken with their classes in the shares `prior`, as
    among the generated ones."""
    if real.labels is None:
        places = np.arange(len(real))
    else:
        shares, counts = np.asarray(prior), np.bincount(real.labels, minlength=len(prior))
        total = (counts[shares > 0] / shares[shares > 0]).min()
        wanted = np.floor(shares * total + 1e-6).astype(np.int64)
        members = [spread(np.flatnonzero(real.labels == label), count) for label, count in enumerate(wanted) if count]
        places = np.sort(np.concatenate([np.empty(0, np.int64), *members]))
    return Group("all", "all images", places, np.arange(len(fake)))


def by_class(real: Side, fake: Side, classes: list[str]) -> list[Group]:
    """One group per class, in label order; none if there are no labels."""
    if real.labels is None or fake.labels is None:
        return []
    pairs = [
        (np.flatnonzero(real.labels == label), np.flatnonzero(fake.labels == label)) for label in range(len(classes))
    ]
    return [Group("class", name, *pair) for name, pair in zip(classes, pairs, strict=True)]


def by_attribute(real: Side, fake: Side) -> list[Group]:
    """One group per bin of every attribute."""
    return [
        Group(
            attribute,
            name,
            np.flatnonzero(real.attributes[attribute] == index),
            np.flatnonzero(fake.attributes[attribute] == index),
        )
        for attribute, names in bins(real.images.shape[-1]).items()
        for index, name in enumerate(names)
    ]
