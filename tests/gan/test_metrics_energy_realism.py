"""Energy distance and realism: plain matrices, closed forms, properties; and what every metric refuses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gan.metrics import (
    energy_distance,
    frechet_distance,
    inception_score,
    kernel_distance,
    kernel_distance_full,
    moments,
    neighbourhoods,
    precision_recall,
    realism,
)

pytestmark = pytest.mark.fast


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))


def _energy(real: np.ndarray, fake: np.ndarray) -> float:
    n, m = len(real), len(fake)
    within = _distances(real, real).sum() / (n * (n - 1)) + _distances(fake, fake).sum() / (m * (m - 1))
    return float(2 * _distances(real, fake).mean() - within)


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("n", [2, 40])
def test_energy_distance_is_the_plain_mean(n: int, offset: float) -> None:
    """Near copies far from the origin, where |x|^2 + |y|^2 - 2 x.y keeps no digit of the distance."""
    rng = np.random.default_rng(0)
    real = rng.normal(size=(n, 6)) + offset
    fake = np.concatenate([real + 1e-7 * rng.normal(size=real.shape), rng.normal(0.3, 1, size=(5, 6)) + offset])
    assert energy_distance(real, fake) == pytest.approx(_energy(real, fake), rel=1e-10)
    assert energy_distance(real, fake) == pytest.approx(energy_distance(fake, real), rel=1e-12)


def test_energy_distance_of_two_points() -> None:
    """Collapsed sets a distance h apart: 2 h; the constant set must be the fake one."""
    real = np.array([[0.0], [1.0]])
    assert energy_distance(real, np.full((3, 1), 5.0)) == pytest.approx(2 * 4.5 - 1)


def test_energy_distance_is_unbiased_at_tiny_n_and_sees_a_shift() -> None:
    rng = np.random.default_rng(1)
    equal = [energy_distance(rng.normal(size=(8, 4)), rng.normal(size=(8, 4))) for _ in range(1000)]
    assert min(equal) < 0 < max(equal)
    assert abs(np.mean(equal)) < 3 * np.std(equal) / np.sqrt(1000)
    # In one dimension it is 2 times the integral of the squared difference of distribution functions.
    grid = np.linspace(-8, 9, 4001)
    density = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)
    cdf = np.cumsum(density) * (grid[1] - grid[0])
    expected = 2 * ((cdf - np.interp(grid - 1, grid, cdf, left=0)) ** 2).sum() * (grid[1] - grid[0])
    found = [energy_distance(rng.normal(size=(30, 1)), rng.normal(1, 1, size=(30, 1))) for _ in range(1000)]
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / np.sqrt(1000))


def test_energy_distance_scales_and_ignores_turns() -> None:
    rng = np.random.default_rng(2)
    real, fake = rng.normal(size=(50, 5)), rng.normal(0.4, 1.3, size=(40, 5))
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    value = energy_distance(real, fake)
    assert energy_distance(7 * real @ turn + 3, 7 * fake @ turn + 3) == pytest.approx(7 * value, rel=1e-9)


def test_realism_is_the_plain_maximum_over_the_smaller_half_of_the_balls() -> None:
    rng = np.random.default_rng(3)
    real, fake = rng.normal(size=(81, 4)), rng.normal(0.5, 1.5, size=(60, 4))
    for k in (1, 3):
        radii = np.sort(_distances(real, real), axis=1)[:, k]
        kept = radii <= np.median(radii)
        expected = (radii[kept, None] / _distances(real[kept], fake)).max(axis=0)
        np.testing.assert_allclose(realism(real, fake, k=k), expected, rtol=1e-12)


def test_realism_ranks_an_outlier_last_and_a_copy_first() -> None:
    rng = np.random.default_rng(4)
    real = rng.normal(size=(200, 6))
    middle = real[np.argsort((real**2).sum(1))[:1]]  # its ball is among the smaller ones
    score = realism(real, np.concatenate([rng.normal(size=(50, 6)), np.full((1, 6), 30.0), middle]), k=3)
    assert score.argmin() == 50 and score[50] < 0.1
    assert score.argmax() == 51 and np.isinf(score[51])
    # The far row's own large ball lends no realism to what lies near it.
    far = np.concatenate([real, np.full((1, 6), 100.0)])
    assert realism(far, np.full((4, 6), 90.0), k=3).max() < 0.2


def test_realism_of_duplicates_has_no_nan() -> None:
    real = np.repeat(np.random.default_rng(5).normal(size=(30, 3)), 4, axis=0)
    score = realism(real, np.concatenate([real[:4], real[:4] + 1]), k=3)
    assert (score[:4] == 1).all() and (score[4:] == 0).all()  # radius 0: on the surface, or outside


METRICS: dict[str, Callable[..., Any]] = {
    "frechet_distance": frechet_distance,
    "kernel_distance": lambda r, f: kernel_distance(r, f, subsets=2, subset_size=2, seed=0),
    "kernel_distance_full": kernel_distance_full,
    "precision_recall": lambda r, f: precision_recall(r, f, k=1),
    "neighbourhoods": lambda r, f: neighbourhoods(r, f, k_precision=1, k_density=1),
    "realism": lambda r, f: realism(r, f, k=1),
    "energy_distance": energy_distance,
}
NAN, INF = (np.where(np.eye(5) > 0, bad, 1.0) for bad in (np.nan, np.inf))
BAD = [
    (np.eye(5)[:0], np.eye(5), "real must hold at least 2"),
    (np.eye(5), np.eye(5)[:1], "fake must hold at least 2"),
    (np.eye(5)[:, :0], np.eye(5), "D >= 1"),
    (np.arange(5.0), np.eye(5), r"real must be numbers \[N, D\]"),
    (np.eye(5).astype(complex), np.eye(5), "real must be numbers"),
    (np.eye(5).astype(str), np.eye(5), "real must be numbers"),
    (np.eye(5), np.eye(4), "same width; received 5 and 4"),
    (NAN, np.eye(5), "real must be finite; 5 rows are not, the first is row 0"),
    (np.eye(5), INF.astype(np.float32), "fake must be finite"),
    (np.ones((5, 5)), np.eye(5), "real must vary"),
    (np.eye(5) * 1e-80, np.eye(5) * 2e-80, "real must vary"),  # covariances times each other would be 0
    (np.eye(5), np.eye(5) * 1e80, "fake must stay below 1e.50"),
]


@pytest.mark.parametrize("name", list(METRICS))
@pytest.mark.parametrize(("real", "fake", "message"), BAD)
def test_every_metric_refuses_what_means_nothing(name: str, real: np.ndarray, fake: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        METRICS[name](real, fake)


@pytest.mark.parametrize("name", list(METRICS))
def test_integers_and_halves_are_the_numbers_they_hold(name: str) -> None:
    rng = np.random.default_rng(6)
    real, fake = rng.integers(-9, 9, size=(40, 3)), rng.integers(-8, 8, size=(40, 3))
    expected = METRICS[name](real.astype(np.float64), fake.astype(np.float64))
    for dtype in (np.int32, np.float16, np.float32):
        np.testing.assert_allclose(METRICS[name](real.astype(dtype), fake.astype(dtype)), expected, rtol=1e-12)


def test_moments_and_scores_refuse_too_few_rows() -> None:
    with pytest.raises(ValueError, match="features must hold at least 2 rows"):
        moments(np.eye(3)[:1])
    with pytest.raises(ValueError, match="at least 10 rows"):
        inception_score(np.full((9, 4), 0.25), splits=10)
