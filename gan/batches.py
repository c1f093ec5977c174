"""What an update of a network sees. What is drawn of it is a pure function of (seed, number of the batch, index)."""

import dataclasses

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gan import latents


@dataclasses.dataclass(frozen=True)
class Batch:
    """Real images [N, C, H, W] in [-1, 1], their labels int64 [N], as many latents [N, z_dim], and keys int64 [N], from
    which all else follows that is random about an image.

    `images` may be empty [0, C, H, W] for an update that looks at no real ones; `label` is None if there are no
    classes, `keys` if nothing is random. `fake` are the images [N, C, H, W] that the generator made of the latents, if
    both networks are to see the same.
    """

    images: Tensor
    label: Tensor | None
    z: Tensor
    keys: Tensor | None = None
    fake: Tensor | None = None


def draw(
    seed: int,
    number: int,
    batch: int,
    images: int,
    z_dim: int,
    classes: "Classes | None" = None,
    *,
    own: slice | NDArray[np.int64] = slice(None),
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Image indices int64 [batch] and latents float32 [batch, z_dim] of the run's batch of this number, a pure function
    of them; `own` alone is drawn.

    Images are drawn with replacement; with `classes` each class is equally likely.
    """
    samples = _samples(number, batch, own)
    numbers = latents.uniforms(seed, latents.TRAINING, samples, 1 + z_dim)
    indices = np.minimum((numbers[:, 0] * images).astype(np.int64), images - 1)
    if classes is not None:
        indices = classes.take(numbers[:, 0])
    return indices, latents.inverse_normal_cdf(numbers[:, 1:]).astype(np.float32)


def draw_keys(seed: int, number: int, batch: int, *, own: slice | NDArray[np.int64] = slice(None)) -> NDArray[np.int64]:
    """The keys int64 [batch] of the same images and latents; see `gan.chance`."""
    return latents.words(seed, latents.KEYS, _samples(number, batch, own), 1)[:, 0].view(np.int64)


def _samples(number: int, batch: int, own: slice | NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of a batch's samples in the run: the part `own` of them."""
    return np.arange(number * batch, (number + 1) * batch)[own]


class Classes:
    """The images of each class, for drawing every class equally often; from labels int64 [images]."""

    def __init__(self, labels: NDArray[np.int64]) -> None:
        self.order = np.argsort(labels, kind="stable")
        _, self.starts, self.counts = np.unique(labels[self.order], return_index=True, return_counts=True)

    def take(self, numbers: NDArray[np.float64]) -> NDArray[np.int64]:
        """Indices int64 [N] from uniform numbers [N]: the class by the leading part, the image by the rest."""
        scaled = numbers * len(self.counts)
        chosen = np.minimum(scaled.astype(np.int64), len(self.counts) - 1)
        place = ((scaled - chosen) * self.counts[chosen]).astype(np.int64)
        return self.order[self.starts[chosen] + np.minimum(place, self.counts[chosen] - 1)]
