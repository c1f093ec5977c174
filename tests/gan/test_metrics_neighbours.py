"""Precision, recall, density, coverage: against plain full matrices, closed forms, and planted cases."""

import numpy as np
import pytest

from gan.metrics import density_coverage, expected_coverage, precision_recall

pytestmark = pytest.mark.fast


def _full(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """All four from full matrices of plain differences."""

    def squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return ((a[:, None] - b[None]) ** 2).sum(-1)

    rr, ff, rf = squares(real, real), squares(fake, fake), squares(real, fake)
    radius_r, radius_f = np.sort(rr, 1)[:, k], np.sort(ff, 1)[:, k]
    strict = rf < radius_r[:, None]
    return (
        (rf <= radius_r[:, None]).any(0).mean(),
        (rf <= radius_f[None]).any(1).mean(),
        strict.sum() / (k * len(fake)),
        strict.any(1).mean(),
    )


def _ours(real: np.ndarray, fake: np.ndarray, k: int, **kwargs: int) -> tuple[float, ...]:
    return *precision_recall(real, fake, k=k, **kwargs), *density_coverage(real, fake, k=k, **kwargs)


def _cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(130, 7)), rng.normal(0.4, 1.2, size=(97, 7))
    grid = rng.integers(0, 3, size=(150, 3)).astype(float)
    return {
        "plain": (a, b),
        "far from the origin": (a + 1e7, b + 1e7),
        "copies": (a, np.concatenate([a[:40], b])),
        "near copies": (a * 1e4, a[:90] * 1e4 + 1e-7 * b[:90]),
        "ties everywhere": (grid, grid[rng.permutation(150)[:80]]),
        "a collapsed generator": (a, np.repeat(a[:1], 60, axis=0)),
    }


@pytest.mark.parametrize("name", list(_cases()))
@pytest.mark.parametrize("block", [7, 64, 1024])
def test_counts_are_those_of_exact_distances_for_every_block(name: str, block: int) -> None:
    real, fake = _cases()[name]
    for k in (1, 3, 5):
        assert _ours(real, fake, k, block=block) == pytest.approx(_full(real, fake, k), abs=1e-15)


def test_tight_cluster_inside_a_wide_one_is_precise_and_not_varied() -> None:
    rng = np.random.default_rng(1)
    wide, tight = rng.normal(size=(500, 8)), 0.1 * rng.normal(size=(500, 8))
    precision, recall = precision_recall(wide, tight, k=3)
    assert precision > 0.8 and recall < 0.3
    swapped = precision_recall(tight, wide, k=3)  # the operands were swapped for years in a well-known package
    assert swapped == pytest.approx((recall, precision))
    density, coverage = density_coverage(wide, tight, k=5)
    assert density > 1 and coverage < 0.3


def test_identical_sets() -> None:
    x = np.random.default_rng(2).normal(size=(300, 6))
    assert precision_recall(x, x, k=3) == (1.0, 1.0)
    density, coverage = density_coverage(x, x, k=5)
    assert coverage == 1 and density == pytest.approx(1, abs=0.1)


def test_duplicates_are_inside_closed_balls_and_outside_open_ones() -> None:
    """Every real row four times: radius 0 at k 3. Copies lie on the surface."""
    real = np.repeat(np.random.default_rng(3).normal(size=(20, 4)), 4, axis=0)
    assert precision_recall(real, real[::4].repeat(4, axis=0), k=3) == (1.0, 1.0)
    assert density_coverage(real, real[::4], k=3) == (0.0, 0.0)


def test_density_and_coverage_of_equal_distributions_in_many_dimensions() -> None:
    rng = np.random.default_rng(4)
    found = [density_coverage(rng.normal(size=(400, 20)), rng.normal(size=(400, 20)), k=5) for _ in range(20)]
    assert np.mean(found, axis=0) == pytest.approx((1.0, expected_coverage(400, 400, 5)), abs=0.02)


@pytest.mark.slow
def test_published_values_of_prdc() -> None:
    """README of prdc: 10,000 of N(0, I_1000) a side, k 5; seeds scatter by about .02, density by .05."""
    rng = np.random.default_rng(4)
    found = _ours(rng.normal(size=(10_000, 1000)), rng.normal(size=(10_000, 1000)), 5)
    assert (np.abs(np.subtract(found, (0.4772, 0.4705, 1.0555, 0.9735))) < (0.06, 0.06, 0.15, 0.02)).all()


def test_expected_coverage_closed_form_and_simulation() -> None:
    assert expected_coverage(10_000, 10_000, 5) == pytest.approx(0.9688, abs=1e-4)
    assert expected_coverage(10**7, 10**7, 5) == pytest.approx(1 - 2**-5, abs=1e-6)
    rng = np.random.default_rng(5)
    found = [density_coverage(rng.normal(size=(100, 3)), rng.normal(size=(60, 3)), k=5)[1] for _ in range(300)]
    assert np.mean(found) == pytest.approx(expected_coverage(100, 60, 5), abs=0.01)


def test_order_of_rows_does_not_matter() -> None:
    real, fake = _cases()["plain"]
    rng = np.random.default_rng(6)
    assert _ours(real[rng.permutation(len(real))], fake[::-1], 3) == pytest.approx(_ours(real, fake, 3), abs=1e-15)


@pytest.mark.parametrize(
    ("real", "fake", "k", "message"),
    [
        (np.eye(4), np.eye(4), 4, "real must hold at least 5 rows"),
        (np.eye(6)[:, :4], np.eye(4), 4, "fake must hold at least 5 rows"),
        (np.eye(4), np.eye(4), 0, "k and block"),
        (np.eye(4), np.eye(4) * np.nan, 1, "fake must be finite"),
        (np.eye(4), np.eye(5), 1, "same width"),
    ],
)
def test_bad_arguments_are_refused(real: np.ndarray, fake: np.ndarray, k: int, message: str) -> None:
    for metric in (precision_recall, density_coverage):
        with pytest.raises(ValueError, match=message):
            metric(real, fake, k=k)


def test_k_plus_one_rows_are_enough() -> None:
    x = np.random.default_rng(7).normal(size=(4, 3))
    assert _ours(x, x, 3) == pytest.approx(_full(x, x, 3))
