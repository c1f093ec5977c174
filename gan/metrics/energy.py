"""Energy distance (Székely and Rizzo: "Energy statistics: A class of statistics based on distances", 2013).

    2 E|X - Y| - E|X - X'| - E|Y - Y'|

with means over pairs of different rows within a set (the U-statistic): unbiased at every size, so that it means
something at small N too, where a covariance of many features does not. It can be negative and is never clipped; its
expectation is 0 for equal distributions and for no others. In feature units, not squared.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from gan.metrics.checks import rows_pair
from gan.metrics.distances import BLOCK, SHARP, Points, exact_squares, lower, on_host, parts, points

_NEAR = 1e-3  # squares below this share of |x|^2 + |y|^2 are taken by plain differences: the rest keep 10 digits


def energy_distance(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, block: int = BLOCK, device: str = "cpu"
) -> float:
    """Unbiased energy distance between features [N, D] and [M, D], in feature units.

    Any N and M from 2 up; memory is bounded by the block. Raises ValueError for bad features.
    """
    real, fake = rows_pair(real, fake, at_least=2)
    n, m = len(real), len(fake)
    x, y = points(real, fake, device=device)
    between = _sum(x, y, block) / (n * m)
    (x,), (y,) = points(real, device=device), points(fake, device=device)  # around their own means, for tight bounds
    return 2 * between - _sum(x, x, block) / (n * (n - 1)) - _sum(y, y, block) / (m * (m - 1))


def _sum(x: Points, y: Points, block: int) -> float:
    """Sum of the distances of all pairs; within one set only half of the blocks are computed."""
    total = 0.0
    for i, j in itertools.product(parts(len(x), block), parts(len(y), block)):
        if x is y and j.start < i.start:
            continue
        rough = lower(x, i, y, j, SHARP)
        squares = np.maximum(on_host(rough.values), 0)
        near = squares <= _NEAR * (x.squares[i][:, None] + y.squares[j])
        row, column = np.nonzero(near)
        squares[row, column] = exact_squares(x, row + i.start, y, column + j.start) * x.unit
        total += float(np.sqrt(squares).sum()) * (2 if x is y and i != j else 1)
    return total / x.scale
