"""Intervals against tables, closed forms and simulation."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from gan.intervals import (
    RARE,
    mean_interval,
    negative_hypergeometric_tail,
    share_interval,
    student_t_quantile,
    wilson,
)
from gan.shares import total_variation

pytestmark = pytest.mark.fast


def count_below(fakes: Sequence[float], controls: Sequence[float], *, rank: int) -> int:
    """How many of `fakes` are strictly below the `rank`-th smallest of `controls`."""
    bound = sorted(controls)[rank - 1]
    return sum(value < bound for value in fakes)


def test_wilson_table_values() -> None:
    # Half-widths in percent at p = .5, from the closed form: n = 1k, 10k, 50k.
    for count, half in ((1000, 3.1), (10_000, 0.98), (50_000, 0.44)):
        low, high = wilson(count // 2, count)
        assert 100 * (high - low) / 2 == pytest.approx(half, abs=0.01)
    assert wilson(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    assert wilson(0, 20)[0] == 0 and wilson(20, 20)[1] == 1
    assert wilson(0, 20)[1] == pytest.approx(1 - wilson(20, 20)[0])


def test_student_t_table_values() -> None:
    table = {1: 12.7062, 2: 4.30265, 3: 3.18245, 4: 2.77645, 7: 2.36462, 9: 2.26216, 30: 2.04227, 1000: 1.96234}
    for freedom, value in table.items():
        assert student_t_quantile(0.975, freedom) == pytest.approx(value, abs=6e-6 * value)


def test_mean_interval_by_hand() -> None:
    mean, low, high = mean_interval([1.0, 2.0, 3.0, 4.0])
    half = 3.182446 * math.sqrt(5 / 3) / 2
    assert (mean, low, high) == pytest.approx((2.5, 2.5 - half, 2.5 + half), abs=1e-5)


@pytest.mark.parametrize("sets", [3, 5, 10, 20])
@pytest.mark.parametrize("kind", ["normal", "chi2", "heavy"])
def test_mean_interval_coverage(sets: int, kind: str) -> None:
    """Nominal 95 %, measured 90 to 98 % in 4,000 simulations, also for skewed and heavy-tailed values."""
    rng = np.random.default_rng(7)
    draws = {
        "normal": lambda: rng.normal(size=(4000, sets)),
        "chi2": lambda: rng.chisquare(8, size=(4000, sets)) - 8,  # as skewed as a Frechet distance near its floor
        "heavy": lambda: rng.standard_t(4, size=(4000, sets)),
    }[kind]()
    hits = [low <= 0 <= high for _, low, high in (mean_interval(list(row)) for row in draws)]
    assert 0.90 <= np.mean(hits) <= 0.98


@pytest.mark.parametrize("sets", [3, 20])
@pytest.mark.parametrize("share", [0.0004, 0.004, 0.3, 0.9, 0.9996])
def test_share_interval_coverage(sets: int, share: float) -> None:
    """Near 0 and 1 sets agree by chance: Student's t alone held a share of .9996 in a quarter of the cases."""
    rng, count = np.random.default_rng(8), 263
    drawn = rng.binomial(count, share, size=(2000, sets)) / count
    hits = [low <= share <= high for _, low, high in (share_interval(list(row), count) for row in drawn)]
    assert np.mean(hits) >= 0.90 and (np.mean(hits) <= 0.98 or not 0.01 < share < 0.99)
    if share == 0.9996 and sets == 3:
        assert np.mean([low <= share <= high for _, low, high in map(mean_interval, drawn.tolist())]) < 0.35


def test_share_interval_between_its_two_methods() -> None:
    shares = [0.2, 0.3, 0.25]
    assert share_interval(shares, 100) == mean_interval(shares)
    assert share_interval([1.0] * 20, 263) == (1.0, *wilson(5260, 5260))
    rare = [(RARE - 1) / 100, 0.0, 0.0]
    assert share_interval(rare, 100)[1:] == wilson(RARE - 1, 300)
    low, high = share_interval([0.0, 0.0, 0.9], 100)[1:]  # t would leave what is possible
    assert low == 0.0 and high == 1.0


@pytest.mark.parametrize("gap", [0.0, 0.03, 0.15])
def test_total_variation_coverage(gap: float) -> None:
    """Percentiles of the bootstrap alone never held a truth of 0."""
    rng, shares = np.random.default_rng(9), np.array([1 / 3 + gap, 1 / 3 - gap, 1 / 3])
    found = [
        total_variation(
            rng.multinomial(988, np.full(3, 1 / 3)), rng.multinomial(2000, shares), resamples=400, seed=seed
        )
        for seed in range(300)
    ]
    assert 0.90 <= np.mean([each.low <= gap <= each.high for each in found]) <= 0.99


@pytest.mark.parametrize("chance", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("count", [270, 2700])
def test_wilson_coverage(chance: float, count: int) -> None:
    """Exact coverage, by summing the binomial, for the sizes of the default run."""
    log_p = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        + k * math.log(chance) + (count - k) * math.log(1 - chance)
        for k in range(count + 1)
    ]  # fmt: skip
    inside = [low <= chance <= high for low, high in (wilson(k, count) for k in range(count + 1))]
    assert 0.93 <= sum(math.exp(lp) for lp, ok in zip(log_p, inside, strict=True) if ok) <= 0.98


def test_exact_null_by_enumeration() -> None:
    """Every arrangement of 4 fakes among 7 places counted by hand."""
    fakes, controls = 4, 3
    for rank, count in itertools.product(range(1, controls + 1), range(fakes + 1)):
        hits = total = 0
        for places in itertools.combinations(range(fakes + controls), fakes):
            others = [place for place in range(fakes + controls) if place not in places]
            hits += count_below(places, others, rank=rank) >= count
            total += 1
        exact = negative_hypergeometric_tail(count, fakes=fakes, controls=controls, rank=rank)
        assert exact == pytest.approx(hits / total, abs=1e-14)


def test_exact_null_keeps_its_level_at_size_and_under_ties() -> None:
    rng = np.random.default_rng(3)
    kwargs = {"fakes": 500, "controls": 270, "rank": 5}
    p_values: dict[str, list[float]] = {"continuous": [], "ties": []}
    for _ in range(2000):
        for kind, rows in p_values.items():
            pool = rng.normal(size=770) if kind == "continuous" else rng.integers(0, 40, 770)
            count = count_below(list(pool[:500]), list(pool[500:]), rank=5)
            rows.append(negative_hypergeometric_tail(count, **kwargs))
    assert 0.03 <= np.mean(np.array(p_values["continuous"]) <= 0.05) <= 0.062
    assert np.mean(np.array(p_values["ties"]) <= 0.05) <= 0.062  # conservative, never above the level


def test_exact_null_of_large_sizes_is_finite_and_falls() -> None:
    tails = [negative_hypergeometric_tail(c, fakes=50_000, controls=10_000, rank=10) for c in (0, 10, 100, 1000)]
    assert tails[0] == 1 and all(a > b >= 0 for a, b in itertools.pairwise(tails)) and tails[3] < 1e-40


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson(3, 2),
        lambda: wilson(0, 0),
        lambda: mean_interval([1.0]),
        lambda: mean_interval([1.0, math.nan]),
        lambda: share_interval([0.5], 10),
        lambda: share_interval([0.5, 1.5], 10),
        lambda: share_interval([0.5, 0.5], 0),
        lambda: negative_hypergeometric_tail(5, fakes=4, controls=3, rank=1),
        lambda: negative_hypergeometric_tail(1, fakes=4, controls=3, rank=4),
    ],
)
def test_wrong_arguments_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match="received"):
        call()  # type: ignore[operator]
