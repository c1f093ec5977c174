"""Population distances: closed forms, coverage, properties and refusals. The full simulations: docs/intervals.md."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.laws import LAWS, frechet_truth, kernel_truth
from gan.intervals import student_t_quantile
from gan.metrics import frechet_distance, kernel_distance, kernel_distance_full
from gan.population import LEAST_KERNEL, _score_interval, frechet_population, kernel_population, parts_interval

Array = NDArray[np.float64]
Estimator = Callable[[Array, Array], tuple[float, float, float]]
BOTH = [(kernel_population, kernel_truth), (frechet_population, frechet_truth)]


def test_laws_have_the_moments_that_they_state() -> None:
    """Truths of all coverage cells rest on this: closed forms against drawn rows."""
    for law in (make(change) for make in LAWS.values() for change in (0.0, 0.8)):
        rows = law.draw(np.random.default_rng(1), 40_000)
        mean, covariance = law.moments()
        deviation = np.sqrt(np.diag(covariance))
        assert np.abs((rows.mean(axis=0) - mean) / deviation).max() < 5 / math.sqrt(len(rows))
        assert np.abs((np.cov(rows, rowvar=False) - covariance) / np.outer(deviation, deviation)).max() < 0.1


def test_kernel_truth() -> None:
    """E k of two clipped laws, closed form against drawn rows."""
    real, fake = LAWS["clipped"](0.0), LAWS["clipped"](0.8)
    rng, count = np.random.default_rng(2), 4000
    estimate = kernel_distance_full(real.draw(rng, count), fake.draw(rng, count))
    assert estimate == pytest.approx(kernel_truth(real, fake), rel=0.1)


@pytest.mark.parametrize("law", list(LAWS))
@pytest.mark.parametrize("change", [0.0, 0.2])
def test_kernel_coverage(law: str, change: float) -> None:
    """Nominal 95 %, with three standard errors of 400 simulations around 90 to 98; both ends are of use."""
    real, fake = LAWS[law](0.0), LAWS[law](change)
    rng, truth = np.random.default_rng(5), kernel_truth(real, fake)
    found = np.array([kernel_population(real.draw(rng, 100), fake.draw(rng, 100)) for _ in range(400)])
    assert 0.90 <= ((found[:, 1] <= truth) & (truth <= found[:, 2])).mean() <= 0.995
    assert abs(found[:, 0].mean() - truth) < 4 * found[:, 0].std() / math.sqrt(len(found))


@pytest.mark.parametrize("law", list(LAWS))
@pytest.mark.parametrize("change", [0.0, 0.2])
def test_frechet_coverage_and_bias(law: str, change: float) -> None:
    """The plain distance at N = 263 is well above the truth; the extrapolated one is not. Bounds are for 100 draws."""
    real, fake = LAWS[law](0.0), LAWS[law](change)
    rng, truth = np.random.default_rng(6), frechet_truth(real, fake)
    pairs = [(real.draw(rng, 263), fake.draw(rng, 263)) for _ in range(100)]
    found = np.array([frechet_population(*pair) for pair in pairs])
    plain = np.array([frechet_distance(*pair) for pair in pairs[:10]])
    deviation = found[:, 0].std()
    assert ((found[:, 1] <= truth) & (truth <= found[:, 2])).mean() >= 0.86
    assert abs(found[:, 0].mean() - truth) < 0.5 * deviation
    assert plain.mean() - truth > 0.7 * deviation


def test_kernel_value_is_the_full_statistic_and_its_variance_agrees_with_leaving_rows_out() -> None:
    rng = np.random.default_rng(7)
    real, fake = LAWS["clipped"](0.0).draw(rng, 120), LAWS["clipped"](0.8).draw(rng, 150)
    value, low, high = kernel_population(real, fake)
    assert value == pytest.approx(kernel_distance_full(real, fake), rel=1e-12)
    left_out = [
        np.array([kernel_distance_full(np.delete(real, row, axis=0), fake) for row in range(120)]),
        np.array([kernel_distance_full(real, np.delete(fake, row, axis=0)) for row in range(150)]),
    ]
    jackknife = sum((len(values) - 1) * values.var() for values in left_out)
    # Far from 0 first-order terms decide, and the jackknife counts only those of second order twice.
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(jackknife), rel=0.2)


@pytest.mark.parametrize(
    ("value", "first", "second"),
    [(-0.3, 0.0, 0.0), (-0.3, 0.0, 1e-4), (-0.3, 0.02, 1e-4), (-0.3, -1.0, -1.0), (0.3, 0.0, 0.0), (0.3, -1.0, 1e-4)],
)
def test_an_interval_holds_its_value_and_a_distance_that_can_be(value: float, first: float, second: float) -> None:
    found, low, high = _score_interval(value, first, second, 1.96)
    assert low <= found == value <= high and high >= 0


def test_deviation_over_subsets_is_no_error_bar() -> None:
    """At N = 263 it is some times the true deviation of the statistic, and a tenth of it some times too small."""
    rng, law = np.random.default_rng(8), LAWS["clipped"]
    pairs = [(law(0.0).draw(rng, 263), law(0.0).draw(rng, 263)) for _ in range(100)]
    true = np.std([kernel_distance_full(*pair) for pair in pairs])
    over_subsets = kernel_distance(*pairs[0], subsets=100, subset_size=100, seed=1)[1]
    low, high = kernel_population(*pairs[0])[1:]
    assert over_subsets > 1.8 * true and over_subsets / math.sqrt(100) < 0.5 * true
    assert 0.6 * true < (high - low) / 4 < 1.6 * true


@pytest.mark.parametrize("estimate, true", BOTH)
def test_far_generators_are_told_apart_and_the_collapsed_one_is_far(estimate: Estimator, true: object) -> None:
    rng, law = np.random.default_rng(9), LAWS["clipped"]
    real = law(0.0).draw(rng, 1000)
    same, far = estimate(real, law(0.0).draw(rng, 1000)), estimate(real, law(0.8).draw(rng, 1000))
    collapsed = estimate(real, np.tile(real[:1], (1000, 1)))
    assert same[1] < 0.05 * far[0] and same[2] < far[1] < far[2] < collapsed[1]


@pytest.mark.parametrize("estimate, true", BOTH)
def test_order_offset_and_exchange_change_nothing(estimate: Estimator, true: object) -> None:
    """Repeatable; symmetric in real and fake for the kernel, whose rows may come in any order and any block."""
    rng, law = np.random.default_rng(10), LAWS["clusters"]
    real, fake = law(0.0).draw(rng, 270), law(0.8).draw(rng, 410)
    found = estimate(real, fake)
    assert found == estimate(real, fake)
    if estimate is kernel_population:
        assert estimate(fake, real) == pytest.approx(found, rel=1e-10)
        assert estimate(real[::-1], fake[::-1]) == pytest.approx(found, rel=1e-10)
        assert kernel_population(real, fake, block=37) == pytest.approx(found, rel=1e-10)
    else:
        assert estimate(real + 1e4, fake + 1e4) == pytest.approx(found, rel=1e-6)
        other = frechet_population(real, fake, seed=1)  # other groups, the same rows: less than the deviation apart
        assert other[0] != found[0] and abs(other[0] - found[0]) < (found[2] - found[1]) / 8
        assert frechet_population(10 * real, 10 * fake) == pytest.approx(100 * np.array(found), rel=1e-6)


def test_features_that_are_always_zero_change_nothing() -> None:
    rng, law = np.random.default_rng(11), LAWS["clipped"]
    real, fake = law(0.0).draw(rng, 280), law(0.2).draw(rng, 280)
    real[:, :3] = fake[:, :3] = 0.0
    assert frechet_population(real, fake) == pytest.approx(frechet_population(real[:, 3:], fake[:, 3:]), rel=1e-6)


def test_interval_from_parts_is_the_t_interval_of_disjoint_sets() -> None:
    rng = np.random.default_rng(12)
    real, fake = rng.normal(size=(50, 4)), rng.normal(size=(1010, 4))
    mean, low, high, parts = parts_interval(lambda part: frechet_distance(real, part), fake, size=100)
    values = [frechet_distance(real, fake[start : start + 100]) for start in range(0, 1000, 100)]
    half = student_t_quantile(0.975, 9) * np.std(values, ddof=1) / math.sqrt(10)
    assert parts == 10 and (mean, high - mean, mean - low) == pytest.approx((np.mean(values), half, half))


@pytest.mark.parametrize("estimate, least", [(kernel_population, LEAST_KERNEL), (frechet_population, 256)])
@pytest.mark.parametrize("short", ["real", "fake"])
def test_too_few_rows_are_refused_with_the_bound(estimate: Estimator, least: int, short: str) -> None:
    rng = np.random.default_rng(13)
    rows = {"real": rng.normal(size=(least, 32)), "fake": rng.normal(size=(least, 32))}
    estimate(**rows)  # type: ignore[call-arg]
    rows[short] = rows[short][1:]
    with pytest.raises(ValueError, match=rf"at least {least} rows on each side.*received .*{least - 1} {short}"):
        estimate(**rows)  # type: ignore[call-arg]


def test_one_feature_needs_two_rows_in_each_group() -> None:
    rows = np.random.default_rng(15).normal(size=(40, 1))
    value, low, high = frechet_population(rows[:32], rows[:32] + 1)
    assert low <= value <= high
    with pytest.raises(ValueError, match=r"at least 32 rows on each side for 1 features .*received 8 real and 40 fake"):
        frechet_population(rows[:8], rows)


@pytest.mark.parametrize("estimate, true", BOTH)
def test_bad_features_are_refused(estimate: Estimator, true: object) -> None:
    good = np.random.default_rng(14).normal(size=(300, 8))
    broken = good.copy()
    broken[7, 3] = np.nan
    for real, fake, words in (
        (good, broken, "finite"),
        (good, good[:, :7], "width"),
        (good[:0], good, "at least"),
        (np.ones_like(good), good, "vary"),
        (good[:, 0], good, r"\[N, D\]"),
    ):
        with pytest.raises(ValueError, match=words):
            estimate(real, fake)


@pytest.mark.parametrize("size", [0, -1, 34, 1000])
def test_parts_refuse_sizes_that_leave_fewer_than_three(size: int) -> None:
    with pytest.raises(ValueError, match=f"at most 33, a third of the 100 rows; received {size}"):
        parts_interval(lambda part: float(part.mean()), np.zeros((100, 2)), size=size)
