"""Intervals and exact null distributions; standard library and float64 only.

Each says what it estimates. None of them covers the variance over training seeds: that takes several trainings.
"""

import functools
import math
from collections.abc import Sequence
from statistics import NormalDist

LEVEL = 0.95  # confidence of every interval that this project reports
RARE = 10  # hits or misses; with fewer, over all sets, Student's t covers a share too rarely (docs/intervals.md)


def wilson(hits: int, count: int, *, level: float = LEVEL) -> tuple[float, float]:
    """Interval of a proportion from `hits` in `count` independent trials (Wilson, JASA 22, 1927), within [0, 1].

    Raises ValueError unless 0 <= hits <= count and count >= 1.
    """
    if not 0 <= hits <= count or count < 1:
        raise ValueError(f"a proportion needs 0 <= hits <= count and count >= 1; received {hits} of {count}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (hits + z * z / 2) / (count + z * z)
    half = z / (count + z * z) * math.sqrt(hits * (count - hits) / count + z * z / 4)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return (0.0 if hits == 0 else low), (1.0 if hits == count else high)


def proportion(hits: int, count: int) -> dict[str, float]:
    """{value, low, high, n} of a proportion, as results carry it. Raises ValueError as `wilson` does."""
    low, high = wilson(hits, count)
    return {"value": hits / count, "low": low, "high": high, "n": count}


def mean_interval(values: Sequence[float], *, level: float = LEVEL) -> tuple[float, float, float]:
    """(mean, low, high) of the expected value, from independent draws: Student's t, sample deviation with ddof 1.

    For a metric computed on independent generated sets against one fixed real set, it covers the expected value at that
    size given that real set, and nothing else; a share near 0 or 1 needs `share_interval`. Raises ValueError for fewer
    than two values or one that is not finite.
    """
    if len(values) < 2 or not all(math.isfinite(value) for value in values):
        raise ValueError(f"the interval of a mean needs two or more finite values; received {list(values)}")
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = student_t_quantile((1 + level) / 2, len(values) - 1) * deviation / math.sqrt(len(values))
    return mean, mean - half, mean + half


def share_interval(shares: Sequence[float], count: int) -> tuple[float, float, float]:
    """(mean, low, high) of an expected share in [0, 1], from independent sets of `count` rows each; within [0, 1].

    `mean_interval`, but Wilson's interval over all sets * count rows if these hold fewer than RARE hits or misses: sets
    that all say 0 or 1 agree by chance, and Student's t then has no width (it covered a precision of .9996 in .86 of
    cases from 20 sets of 263, in .25 from three; Wilson's covers it in .9 or more). Raises ValueError as
    `mean_interval` does, for shares outside [0, 1] and for count < 1.
    """
    mean, low, high = mean_interval(shares)
    if count < 1 or min(shares) < 0 or max(shares) > 1:
        raise ValueError(f"shares must lie in [0, 1], with count >= 1; received count {count}, shares {list(shares)}")
    total = count * len(shares)
    hits = min(total, round(mean * total))
    if min(hits, total - hits) < RARE:
        low, high = wilson(hits, total)
    return mean, max(0.0, low), min(1.0, high)


@functools.lru_cache(maxsize=256)
def student_t_quantile(p: float, freedom: int) -> float:
    """Quantile of Student's t at probability `p` in [0.5, 1), `freedom` >= 1 degrees; bisection to the last bit."""
    low, high = 0.0, 1.0
    while _student_t_cdf(high, freedom) < p:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_t_cdf(middle, freedom) < p else (low, middle)
    return high


def _student_t_cdf(t: float, freedom: int) -> float:
    """P(T <= t) for t >= 0: the finite series for whole degrees of freedom (Abramowitz & Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan2(t, math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    term = total = 0.0 if freedom == 1 else (cosine if odd else 1.0)
    for step in range(2 + odd, freedom, 2):  # each term is the last one times cos^2 (step - 1) / step
        term *= cosine * cosine * (step - 1) / step
        total += term
    total *= math.sin(angle)
    return 0.5 + ((angle + total) / math.pi if odd else total / 2)


def negative_hypergeometric_tail(count: int, *, fakes: int, controls: int, rank: int) -> float:
    """P(at least `count` of `fakes` distances lie below the `rank`-th smallest of `controls` distances), exactly.

    The null is exchangeability: every order of all fakes + controls distances is equally likely. Then the number below
    is negative hypergeometric: P(j) = C(j + rank - 1, j) C(fakes - j + controls - rank, fakes - j)
    / C(fakes + controls, fakes). Leaving out fakes that tie with that control can only make the p-value larger, so that
    it stays valid; counting them is evidence against the fakes (`gan.memorization.copying` counts them).
    Raises ValueError unless 0 <= count <= fakes, fakes >= 1 and 1 <= rank <= controls.
    """
    if not 0 <= count <= fakes or fakes < 1 or not 1 <= rank <= controls:
        raise ValueError(
            "the test needs 0 <= count <= fakes, fakes >= 1 and 1 <= rank <= controls; "
            f"received count {count}, fakes {fakes}, rank {rank}, controls {controls}"
        )
    if count == 0:
        return 1.0
    whole = log_binomial(fakes + controls, fakes)
    logs = [
        log_binomial(j + rank - 1, j) + log_binomial(fakes - j + controls - rank, fakes - j) - whole
        for j in range(count, fakes + 1)
    ]
    peak = max(logs)
    return min(1.0, math.exp(peak) * math.fsum(math.exp(value - peak) for value in logs))


def log_binomial(n: int, k: int) -> float:
    """Natural logarithm of the binomial coefficient C(n, k), 0 <= k <= n."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
