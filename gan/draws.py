"""Permutations by counter-based streams, and evenly spaced rows; numpy only.

numpy's own generators do not promise the same stream in every version; those of `gan.latents` do.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gan.latents import words

# Streams beside those of gan.latents; a number, once released, keeps its meaning.
SUBSETS, ORDER, AUGMENTATION, WEIGHTS, DROPOUT = range(16, 21)

Kind = TypeVar("Kind", bound=np.generic)


def permutation(seed: int, stream: int, index: int, size: int) -> NDArray[np.int64]:
    """Permutation number `index` of `size` places: int64 [size], the same for ever."""
    return np.argsort(words(seed, stream, np.array([index]), size)[0], kind="stable")


def spread(rows: NDArray[Kind], count: int) -> NDArray[Kind]:
    """`count` rows, evenly spaced, because stores are in order of class, folder and source."""
    return np.asarray(rows[np.arange(count) * len(rows) // count])
