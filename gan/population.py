"""Distances of populations: what infinitely many images on both sides would show, with the uncertainty of both samples.

The distances in `gan.metrics` hold for their own N; these are estimates for the generator itself and the distribution
that the real images come from. No gate uses them. They can be negative and are never clipped.

Both estimands are squared distances: the nearer they are to 0, the less their estimates vary. The variance is `first` =
slope * distance, from the effect of each image alone on the estimate, plus `second`, from the effect of pairs; at
distance 0 only `second` is left. The interval holds every distance that the estimate does not contradict at the
variance that this distance implies (as Wilson's does for proportions), so it keeps its level near 0 and far from it.
Coverage by simulation, and its limits: `docs/intervals.md`. The variance over training seeds is not included.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from gan.draws import SUBSETS, permutation
from gan.intervals import LEVEL, mean_interval, student_t_quantile
from gan.metrics.checks import feature_pair
from gan.metrics.frechet import Moments, frechet_distance_of_moments

LEAST_KERNEL = 100  # rows per side; with fewer, the interval of `kernel_population` covers too rarely

_BLOCK = 1024  # rows and columns of a kernel matrix held at once
_PER_FEATURE = 8  # rows per side: the quarters of `frechet_population` need two per feature
_GROUPS = 16  # groups of rows, two or more in each, that halves and quarters are made of
_SIGNS = np.array([[1 - 2 * ((i & j).bit_count() % 2) for j in range(_GROUPS)] for i in range(_GROUPS)])  # Hadamard
_PAIRS = 1.2  # variance of pairs in the extrapolated value over that in the plain one
_PLANES = ((1, 6, 7), (2, 12, 14), (4, 11, 15), (8, 5, 13), (3, 10, 9))  # each third is the exclusive or of the others

Array = NDArray[np.float64]
Estimate = tuple[float, float, float]


def kernel_population(real: NDArray[np.floating], fake: NDArray[np.floating], *, block: int = _BLOCK) -> Estimate:
    """(value, low, high) of the squared MMD of both populations, kernel (x . y / D + 1)^3, from [N, D] and [M, D].

    The value is `gan.metrics.kernel_distance_full`, the U-statistic of all rows; the variance is the unbiased one of
    that statistic with its second-order terms (Sutherland and Deka: "Unbiased estimators for the variance of MMD
    estimators", 2019). O((N + M)^2 D) time, a few blocks of memory. The deviation over subsets plays no part in it.
    Raises ValueError for bad features or fewer than LEAST_KERNEL rows on a side.
    """
    real, fake = feature_pair(real, fake, at_least=2)
    n, m = len(real), len(fake)
    if min(n, m) < LEAST_KERNEL:
        raise ValueError(
            f"kernel_population needs at least {LEAST_KERNEL} rows on each side, since intervals from fewer "
            f"were found to cover too rarely; received {n} real and {m} fake"
        )
    rows_r, squares_r = _within(real, block)
    rows_f, squares_f = _within(fake, block)
    across_r, across_f, squares = _across(real, fake, block)
    value = rows_r.sum() / (n * (n - 1)) + rows_f.sum() / (m * (m - 1)) - 2 * across_r.sum() / (n * m)
    both = squares - across_r @ across_r / m - across_f @ across_f / n + across_r.sum() ** 2 / (n * m)
    pairs_r, pairs_f = _pair_variance(rows_r, squares_r), _pair_variance(rows_f, squares_f)
    second = 2 * pairs_r / n**2 + 2 * pairs_f / m**2 + 4 * both / ((n - 1) * (m - 1) * n * m)
    alone_r, alone_f = rows_r / (n - 1) - across_r / m, rows_f / (m - 1) - across_f / n
    jackknife = 4 * alone_r.var(ddof=1) / n + 4 * alone_f.var(ddof=1) / m  # counts the second-order terms twice
    return _score_interval(value, jackknife - 2 * second, second, NormalDist().inv_cdf((1 + LEVEL) / 2))


def least_frechet(width: int) -> int:
    """Rows per side that `frechet_population` needs for `width` features: eight per feature, and at least 32."""
    return max(_PER_FEATURE * width, 2 * _GROUPS)


def frechet_population(real: NDArray[np.floating], fake: NDArray[np.floating], *, seed: int = 0) -> Estimate:
    """(value, low, high) of the squared Fréchet distance of both populations, from features [N, D] and [M, D].

    The distance at N and M rows is F + a + b with a of the order 1/N + 1/M and b of its square. Halves and quarters of
    both sides together, disjoint and without replacement, have 2 a + 4 b and 4 a + 16 b in place of a + b, so
    F = 8/3 full - 2 halves + 1/3 quarters. 16 groups of rows, drawn with `seed`, make 15 pairs of halves and 5 sets of
    quarters in which every two groups meet equally often (a Hadamard design), so that the extrapolation adds next to no
    variance. Variance: delete-a-group jackknife, corrected by the spread of the halves' averages, which is of second
    order alone. That spread is taken 1.2 times: 16/15 for what the extrapolation adds to the variance of pairs, the
    rest for heavy tails, by simulation. Student's t with 15 degrees of freedom.
    Costs 67 distances and 32 matrices [D, D] of memory. Raises ValueError for bad features or fewer than
    `least_frechet` rows on a side: below eight per feature the value would stay biased at N.
    """
    real, fake = feature_pair(real, fake, at_least=2)
    n, m, width = len(real), len(fake), real.shape[1]
    least = least_frechet(width)
    if min(n, m) < least:
        raise ValueError(
            f"frechet_population needs at least {least} rows on each side for {width} features ({_PER_FEATURE} per "
            f"feature, and two in each of {_GROUPS} groups), or its value would stay biased; received {n} real and "
            f"{m} fake"
        )
    middle = real.mean(axis=0)
    sums = _Sums(real, middle, seed, 0), _Sums(fake, middle, seed, 1)
    everything = np.ones(_GROUPS, dtype=bool)

    def distance(groups: NDArray[np.bool_]) -> float:
        return frechet_distance_of_moments(sums[0].moments(groups), sums[1].moments(groups))

    full = distance(everything)
    without = np.array([distance(np.arange(_GROUPS) != group) for group in range(_GROUPS)])
    halves = np.array([[distance(row == sign) for sign in (1, -1)] for row in _SIGNS[1:]])
    quarters = np.array(
        [distance((_SIGNS[a] == x) & (_SIGNS[b] == y)) for a, b, _ in _PLANES for x in (1, -1) for y in (1, -1)]
    )
    value = 8 / 3 * full - 2 * halves.mean() + quarters.mean() / 3
    jackknife = (_GROUPS - 1) * without.var()
    second = halves.mean(axis=1).var(ddof=1)
    quantile = student_t_quantile((1 + LEVEL) / 2, _GROUPS - 1)
    return _score_interval(value, jackknife - 2 * second, _PAIRS * second, quantile)


def parts_interval(
    score: Callable[[NDArray[np.floating]], float], fake: NDArray[np.floating], *, size: int
) -> tuple[float, float, float, int]:
    """(mean, low, high, parts) of the expected score of `size` generated rows, from one generated set [M, ...].

    The set is cut into M // size disjoint parts, in order; if the rows are independent, so are the parts, and the
    interval is Student's t over them. It estimates the value at `size` given whatever `score` holds fixed (the real
    set), not the value at M, which differs for a metric that depends on its N. No row is drawn twice: in a bootstrap,
    duplicates are each other's nearest neighbours. Raises ValueError unless size >= 1 and M holds three parts.
    """
    parts = len(fake) // size if size >= 1 else 0
    if parts < 3:
        raise ValueError(
            f"an interval from parts needs three parts: size must be at least 1 and at most {len(fake) // 3}, a third "
            f"of the {len(fake)} rows; received {size}"
        )
    return *mean_interval([score(fake[part * size : (part + 1) * size]) for part in range(parts)]), parts


def _score_interval(value: float, first: float, second: float, quantile: float) -> Estimate:
    """All distances F with (value - F)^2 <= quantile^2 (second + slope F), around an estimate of F.

    `first` estimates slope * F without bias and may be negative. Near 0 the quotient first / value says nothing, and
    deviation / 2, on the scale of both, takes its place; far from 0 the added terms vanish. Chosen by simulation.
    An estimate below 0 may contradict every distance, even itself: the interval then still holds it, and reaches 0, the
    nearest possible distance.
    """
    second = max(second, 0.0)
    deviation = math.sqrt(second)
    scale = max(value, 0.0) + deviation / 2
    slope = (max(first, 0.0) + second / 4) / scale if scale > 0 else 0.0
    shift = quantile**2 * slope / 2
    half = math.sqrt(max(0.0, (value + shift) ** 2 - value**2 + quantile**2 * second))
    low, high = value + shift - half, value + shift + half
    return float(value), float(min(low, value)), float(max(high, value, 0.0))


def _within(x: Array, block: int) -> tuple[Array, float]:
    """(sums over j != i of k(x_i, x_j) [N], sum of its squares over both i and j)."""
    rows, squares = np.zeros(len(x)), 0.0
    for start in range(0, len(x), block):
        for other in range(start, len(x), block):
            kernel = _kernel(x[start : start + block], x[other : other + block])
            if other == start:
                np.fill_diagonal(kernel, 0.0)
            else:
                rows[other : other + block] += kernel.sum(axis=0)
            rows[start : start + block] += kernel.sum(axis=1)
            squares += (1 if other == start else 2) * float(np.vdot(kernel, kernel))
    return rows, squares


def _across(real: Array, fake: Array, block: int) -> tuple[Array, Array, float]:
    """(sums of k over fake [N], over real [M], sum of its squares over all pairs)."""
    rows, columns, squares = np.zeros(len(real)), np.zeros(len(fake)), 0.0
    for start in range(0, len(real), block):
        for other in range(0, len(fake), block):
            kernel = _kernel(real[start : start + block], fake[other : other + block])
            rows[start : start + block] += kernel.sum(axis=1)
            columns[other : other + block] += kernel.sum(axis=0)
            squares += float(np.vdot(kernel, kernel))
    return rows, columns, squares


def _kernel(x: Array, y: Array) -> Array:
    inner = x @ y.T / x.shape[1] + 1
    return inner * inner * inner


def _pair_variance(rows: Array, squares: float) -> float:
    """Unbiased variance of k over pairs of one sample, less what single rows explain (Székely and Rizzo: "Partial
    distance correlation with methods for dissimilarities", Annals of Statistics 42, 2014: the U-centred square)."""
    n, total = len(rows), rows.sum()
    return float((squares + total * total / ((n - 1) * (n - 2)) - 2 / (n - 2) * (rows @ rows)) / (n * (n - 3)))


class _Sums:
    """Counts, sums and sums of products of 16 random groups of rows: moments of any union without a second pass."""

    def __init__(self, x: Array, middle: Array, seed: int, side: int) -> None:
        order, width = permutation(seed, SUBSETS, side, len(x)), x.shape[1]
        self.counts, self.sums = np.empty(_GROUPS), np.empty((_GROUPS, width))
        self.products = np.empty((_GROUPS, width, width))
        for group in range(_GROUPS):
            rows = x[order[group::_GROUPS]] - middle
            self.counts[group], self.sums[group] = len(rows), rows.sum(axis=0)
            self.products[group] = rows.T @ rows

    def moments(self, groups: NDArray[np.bool_]) -> Moments:
        """Mean [D] and covariance [D, D] (ddof 1) of the rows of the groups chosen, [16]."""
        chosen = groups.astype(np.float64)
        count, mean = chosen @ self.counts, chosen @ self.sums / (chosen @ self.counts)
        products = (chosen @ self.products.reshape(_GROUPS, -1)).reshape(len(mean), -1)
        return mean, (products - count * np.outer(mean, mean)) / (count - 1)
