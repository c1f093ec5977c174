"""Shares of groups among generated and real images: differences, tests over many cells, total variation, correction.

Intervals are at 95 % (`gan.intervals.LEVEL`). Operands are counts of `real` and `fake` images. numpy only.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gan.intervals import LEVEL, log_binomial, wilson

MAX_CONDITION = 10.0  # a confusion matrix worse than this multiplies sampling noise by more than it corrects
_BOOTSTRAP, _FLOOR, _CORRECTED = range(32, 35)  # second word of the Philox keys, one per use


class Interval(NamedTuple):
    """An estimate with both ends of its interval."""

    value: float
    low: float
    high: float


class TotalVariation(NamedTuple):
    """Half the summed absolute difference of two distributions, in [0, 1]."""

    value: float
    low: float
    high: float
    floor_mean: float  # what chance alone gives at the same counts
    floor_sd: float


class CorrectedShares(NamedTuple):
    """Class shares corrected for the classifier's errors."""

    shares: tuple[Interval, ...]
    variation: TotalVariation  # against the prior
    condition: float  # of the confusion matrix


def difference(real: tuple[int, int], fake: tuple[int, int]) -> Interval:
    """Share of `fake` minus share of `real`, each (hits, count): Newcombe's hybrid score interval.

    Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17
    (1998), method 10: sound at small counts and at shares of 0 and 1.
    """
    (low_real, high_real), (low_fake, high_fake) = wilson(*real), wilson(*fake)
    p_real, p_fake = real[0] / real[1], fake[0] / fake[1]
    value = p_fake - p_real
    down = math.hypot(p_fake - low_fake, high_real - p_real)
    up = math.hypot(high_fake - p_fake, p_real - low_real)
    return Interval(value, max(-1.0, value - down), min(1.0, value + up))


def fisher_exact(real: tuple[int, int], fake: tuple[int, int]) -> float:
    """Two-sided p-value of both shares, each (hits, count), being equal (Fisher's exact test; conservative).

    The sum is over all tables with the same margins that are no likelier than the one found.
    """
    hits, n_real, n_fake = real[0] + fake[0], real[1], fake[1]
    first, last = max(0, hits - n_real), min(hits, n_fake)
    logs = [log_binomial(n_fake, x) + log_binomial(n_real, hits - x) for x in range(first, last + 1)]
    whole, mine = log_binomial(n_real + n_fake, hits), logs[fake[0] - first]
    return min(1.0, math.fsum(math.exp(value - whole) for value in logs if value <= mine + 1e-9))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in order (Holm 1979): controls the probability of any false alarm."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def total_variation(
    real: NDArray[np.integer], fake: NDArray[np.integer], *, resamples: int, seed: int
) -> TotalVariation:
    """Total variation between two histograms over the same bins, counts [B] each.

    Interval: `_variation`, from a parametric bootstrap of both histograms. Floor: mean and deviation if both histograms
    are drawn from their pooled shares, which is what unseen real images reach.
    Raises ValueError if a histogram is empty.
    """
    n_real, n_fake = int(real.sum()), int(fake.sum())
    if not n_real or not n_fake:
        raise ValueError(f"total variation needs images on both sides; received {n_real} real and {n_fake} generated")
    draws = _generator(seed, _BOOTSTRAP)
    spread = _distance(
        draws.multinomial(n_real, real / n_real, resamples) / n_real,
        draws.multinomial(n_fake, fake / n_fake, resamples) / n_fake,
    )
    pooled, chance = (real + fake) / (n_real + n_fake), _generator(seed, _FLOOR)
    floor = _distance(
        chance.multinomial(n_real, pooled, resamples) / n_real, chance.multinomial(n_fake, pooled, resamples) / n_fake
    )
    return _variation(float(_distance(real / n_real, fake / n_fake)), spread, floor)


def corrected_shares(
    predicted: NDArray[np.integer], confusion: NDArray[np.integer], prior: NDArray[np.floating], *,
    resamples: int, seed: int,
) -> CorrectedShares:  # fmt: skip
    """True class shares behind the classes that a classifier predicts, and their total variation against `prior`.

    With C[i, j] = P(predicted j | true i), predicted shares are q = C^T p, so p = C^-T q: the prevalence correction of
    Rogan and Gladen (American Journal of Epidemiology 107, 1978) for many classes; then the nearest point of the
    simplex. Errors by the delta method, with both samples counted: Cov(p) = A (Cov(q) + sum_i p_i^2 Cov(C_i)) A^T,
    A = C^-T. Taking C as known, as CLEAM does (Teo et al., NeurIPS 2023), gives intervals that are too short.
    Each row of C gets one more image, spread evenly, so that a row without errors is not taken as certain.

    Args:
        predicted: generated images per predicted class, counts [K].
        confusion: real images the classifier was not trained on, counts [K true, K predicted].
        prior: declared share of each class, [K], sum 1.
    Raises ValueError if nothing was generated, a class has no real image, or C is so close to singular that it would
    only add noise.
    """
    classes, rows = len(predicted), confusion.sum(axis=1)
    if not predicted.sum() or (rows == 0).any():
        raise ValueError("the correction needs generated images and at least one real image of every class")
    condition = float(np.linalg.cond(confusion / rows[:, None]))
    if not condition <= MAX_CONDITION:
        raise ValueError(
            f"the classifier confuses classes too much to correct for it: condition {condition:.3g}, at most "
            f"{MAX_CONDITION:g} is sound"
        )
    smooth = (confusion + 1 / classes) / (rows + 1)[:, None]
    q, n = predicted / predicted.sum(), int(predicted.sum())
    inverse = np.linalg.inv((confusion / rows[:, None]).T)
    shares = _to_simplex(inverse @ q)
    covariance = _covariance(shares, q, n, smooth, rows, inverse)
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * np.sqrt(np.diag(covariance))
    ends = [
        Interval(float(p), max(0.0, float(p - h)), min(1.0, float(p + h))) for p, h in zip(shares, half, strict=True)
    ]
    draws = _generator(seed, _CORRECTED).standard_normal((resamples, classes))
    noise = draws @ _root(covariance)
    null = draws @ _root(_covariance(prior, smooth.T @ prior, n, smooth, rows, inverse))
    spread, floor = _distance(shares + noise, prior), _distance(null, np.zeros(classes))
    variation = _variation(float(_distance(shares, prior)), spread, floor)
    return CorrectedShares(tuple(ends), variation, condition)


def _covariance(
    p: NDArray[np.floating], q: NDArray[np.floating], n: int, smooth: NDArray[np.floating],
    rows: NDArray[np.integer], inverse: NDArray[np.floating],
) -> NDArray[np.float64]:  # fmt: skip
    """Covariance [K, K] of the corrected shares; see `corrected_shares`."""
    q = (q * n + 1 / len(q)) / (n + 1)
    middle = (np.diag(q) - np.outer(q, q)) / n
    for share, row, count in zip(p, smooth, rows, strict=True):
        middle = middle + share**2 * (np.diag(row) - np.outer(row, row)) / count
    return inverse @ middle @ inverse.T


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """R with R^T R = covariance, for a matrix that is singular because shares sum to one."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))).T


def _to_simplex(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Nearest point with entries >= 0 and sum 1 (Duchi et al., ICML 2008, figure 1)."""
    ordered = np.sort(x)[::-1]
    excess = (np.cumsum(ordered) - 1) / np.arange(1, len(x) + 1)
    return np.maximum(x - excess[np.flatnonzero(ordered > excess)[-1]], 0.0)


def _distance(real: NDArray[np.floating], fake: NDArray[np.floating]) -> NDArray[np.float64]:
    return 0.5 * np.abs(real - fake).sum(axis=-1)


def _variation(value: float, spread: NDArray[np.float64], floor: NDArray[np.float64]) -> TotalVariation:
    """The interval of a total variation: `spread` are draws around what was found, `floor` draws around equality.

    Sampling biases a total variation upwards: in the value and, less so, again in the draws around it. So the lower end
    lies below the value by half the spread and by that bias, taken as twice what the draws add but at most what chance
    adds to equality; it is 0 if equal distributions reach the value. The upper end stays the percentile, which leans
    upwards, against the generator. Coverage: `docs/intervals.md`.
    """
    _, high = _percentiles(spread)
    middle, floor_mean = float(spread.mean()), float(floor.mean())
    bias = min(floor_mean, 2 * max(0.0, middle - value))
    low = 0.0 if value <= _percentiles(floor)[1] else max(0.0, value - bias - (high - middle))
    return TotalVariation(value, low, high, floor_mean, float(floor.std(ddof=1)))


def _percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _generator(seed: int, stream: int) -> np.random.Generator:
    """Draws for a bootstrap; unlike latents they may change with numpy's version, which the lock file pins."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))
