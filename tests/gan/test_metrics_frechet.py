"""Fréchet distance: closed forms, properties, and the bugs that other implementations had."""

import numpy as np
import pytest

from gan.metrics import frechet_distance, frechet_distance_of_moments, moments

pytestmark = pytest.mark.fast


def test_shifted_identity_is_the_dimension() -> None:
    """mu 0 against 1, identity covariances, D 2048: exactly 2048 (the test of pytorch-fid)."""
    d = 2048
    zero, one, identity = np.zeros(d), np.ones(d), np.eye(d)
    assert frechet_distance_of_moments((zero, identity), (one, identity)) == pytest.approx(d, rel=1e-12)


def test_moments_of_three_flat_images() -> None:
    """Images of 0, 1/2 and 1 everywhere: mean 1/2, every covariance 1/4 (the test of pytorch-fid)."""
    mean, cov = moments(np.outer([0, 0.5, 1], np.ones(12)))
    assert (mean == 0.5).all() and (cov == 0.25).all()


def test_diagonal_covariances_closed_form() -> None:
    rng = np.random.default_rng(0)
    a, b, m = rng.uniform(0.1, 3, 64), rng.uniform(0.1, 3, 64), rng.normal(size=64)
    value = frechet_distance_of_moments((np.zeros(64), np.diag(a**2)), (m, np.diag(b**2)))
    assert value == pytest.approx(((a - b) ** 2).sum() + (m**2).sum(), rel=1e-12)


def test_agrees_with_the_eigenvalues_of_the_product() -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(500, 24)) @ rng.normal(size=(24, 24)), rng.normal(size=(300, 24))
    (mr, cr), (mf, cf) = moments(real), moments(fake)
    root = np.sqrt(np.linalg.eigvals(cr @ cf).astype(complex)).real.sum()
    expected = ((mr - mf) ** 2).sum() + np.trace(cr) + np.trace(cf) - 2 * root
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("n", [2, 4, 16, 64])
@pytest.mark.parametrize("d", [2, 4, 32])
def test_small_and_singular_sets_are_finite_and_symmetric(n: int, d: int) -> None:
    """Tiny negative eigenvalues once made this NaN elsewhere (N 4, D 4, seed 1 is torch-fidelity's case)."""
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(n, d)), rng.normal(size=(n, d))
    value = frechet_distance(real, fake)
    assert np.isfinite(value) and value > 0
    # With N <= D the root's rounding is sqrt(eps), not eps.
    assert value == pytest.approx(frechet_distance(fake, real), abs=1e-6)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)


def test_a_feature_that_is_always_zero_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    real, fake = rng.normal(size=(300, 8)), rng.normal(0.3, 1.2, size=(300, 8))
    padded = [np.concatenate([x, np.zeros((300, 3))], axis=1) for x in (real, fake)]
    assert frechet_distance(*padded) == pytest.approx(frechet_distance(real, fake), abs=1e-7)


def test_rotation_and_shift_leave_it_alone_and_scale_squares_it() -> None:
    rng = np.random.default_rng(3)
    real, fake = rng.normal(size=(400, 12)), rng.normal(0.2, 1.3, size=(350, 12))
    turn = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    value = frechet_distance(real, fake)
    assert frechet_distance(real @ turn + 5, fake @ turn + 5) == pytest.approx(value, rel=1e-9)
    assert frechet_distance(3 * real, 3 * fake) == pytest.approx(9 * value, rel=1e-9)
    assert frechet_distance(real[::-1], fake[rng.permutation(350)]) == pytest.approx(value, rel=1e-10)


def test_bias_of_equal_distributions_is_about_one_over_n() -> None:
    """Two sets of one Gaussian: about (D^2 / 2 + 2 D) / N, so never zero at finite N."""
    rng, d = np.random.default_rng(4), 32
    for n in (256, 1024):
        values = [frechet_distance(rng.normal(size=(n, d)), rng.normal(size=(n, d))) for _ in range(5)]
        assert np.mean(values) * n == pytest.approx(d * d / 2 + 2 * d, rel=0.15)


def test_collapsed_generator_has_the_distance_of_a_point() -> None:
    real = np.random.default_rng(5).normal(size=(1000, 6))
    fake = np.ones((50, 6))
    expected = ((real.mean(0) - 1) ** 2).sum() + real.var(axis=0, ddof=1).sum()
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("scale", [2.0**-160, 2.0**160])  # about 1e-48 and 1e48: the ends of what is allowed
def test_the_distance_scales_with_the_square_of_the_features(scale: float) -> None:
    real, fake = np.random.default_rng(11).normal(size=(2, 60, 5))
    expected = frechet_distance(real, fake)
    assert frechet_distance(real * scale, fake * scale) == pytest.approx(expected * scale**2, rel=1e-9, abs=0)


BAD = [
    (np.zeros((0, 4)), np.zeros((5, 4)), "real must hold at least 2"),
    (np.eye(4), np.eye(4)[:1], "fake must hold at least 2"),
    (np.eye(4), np.eye(5), "same width"),
    (np.eye(4), np.full((4, 4), np.nan), "fake must be finite"),
    (np.full((4, 4), np.inf), np.eye(4), "real must be finite"),
    (np.ones((4, 4)), np.eye(4), "real must vary"),
    (np.eye(4)[None], np.eye(4), r"real must be numbers \[N, D\]"),
]


@pytest.mark.parametrize(("real", "fake", "message"), BAD)
def test_bad_features_are_refused(real: np.ndarray, fake: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet_distance(real, fake)


def test_moments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="moments must be"):
        frechet_distance_of_moments((np.zeros(3), np.eye(3)), (np.zeros(4), np.eye(4)))
