"""Kernel distance and inception score: plain loops, closed forms, properties."""

import numpy as np
import pytest

from gan.metrics import inception_score, kernel_distance, kernel_distance_full

pytestmark = pytest.mark.fast


def _loop(real: np.ndarray, fake: np.ndarray) -> float:
    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    def pairs(a: np.ndarray) -> float:
        return float(np.mean([k(a[i], a[j]) for i in range(len(a)) for j in range(len(a)) if i != j]))

    return pairs(real) + pairs(fake) - 2 * float(np.mean([k(x, y) for x in real for y in fake]))


def test_full_statistic_is_the_plain_loop() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(17, 5)), rng.normal(0.5, 1, size=(11, 5))
    assert kernel_distance_full(real, fake) == pytest.approx(_loop(real, fake), rel=1e-11)


def test_subsets_of_everything_are_the_full_statistic() -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(40, 6)), rng.normal(size=(40, 6))
    mean, std = kernel_distance(real, fake, subsets=3, subset_size=40, seed=0)
    assert mean == pytest.approx(kernel_distance_full(real, fake), rel=1e-9) and std < 1e-12


def test_unbiased_and_sometimes_negative_for_equal_distributions() -> None:
    rng = np.random.default_rng(2)
    values = [kernel_distance_full(rng.normal(size=(60, 8)), rng.normal(size=(60, 8))) for _ in range(400)]
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(400)


def test_shift_of_the_mean_by_the_formula() -> None:
    """The cubic kernel expands into raw moments, known for N(0, 1) and N(c, 1)."""
    c, rng = 0.7, np.random.default_rng(3)
    # E k = sum over j of binom(3, j) m_j m'_j with raw moments m_j; so MMD^2 = sum binom(3, j) (m_j - m'_j)^2.
    m, s = (0.0, 1.0, 0.0), (c, 1 + c * c, c**3 + 3 * c)
    expected = sum(b * (x - y) ** 2 for b, x, y in zip((3, 3, 1), m, s, strict=True))
    values = [kernel_distance_full(rng.normal(size=(2000, 1)), rng.normal(c, 1, size=(2000, 1))) for _ in range(10)]
    assert np.mean(values) == pytest.approx(expected, rel=0.1)


def test_subsets_repeat_with_the_seed_and_not_otherwise() -> None:
    rng = np.random.default_rng(4)
    real, fake = rng.normal(size=(90, 4)), rng.normal(size=(80, 4))
    draws = [kernel_distance(real, fake, subsets=5, subset_size=30, seed=seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_a_subset_larger_than_the_smaller_set_is_refused() -> None:
    with pytest.raises(ValueError, match="subset_size <= 4"):
        kernel_distance(np.eye(4), np.eye(5)[:, :4], subsets=1, subset_size=5, seed=0)


def test_one_hot_scores_the_number_of_classes_and_constant_scores_one() -> None:
    assert inception_score(np.eye(10)[np.arange(200) % 10], splits=4) == pytest.approx((10, 0))
    assert inception_score(np.full((50, 10), 0.1), splits=1) == pytest.approx((1, 0))


def test_score_by_hand_and_splits_by_torch_fidelity_bounds() -> None:
    p = np.random.default_rng(5).dirichlet(np.ones(4), size=23)
    scores = []
    for i in range(3):
        q = p[i * 23 // 3 : (i + 1) * 23 // 3]
        scores.append(np.exp((q * (np.log(q) - np.log(q.mean(0)))).sum(1).mean()))
    assert inception_score(p, splits=3) == pytest.approx((np.mean(scores), np.std(scores)))


@pytest.mark.parametrize(
    ("p", "splits", "message"),
    [
        (np.full((5, 2), 0.5), 6, "at least 6 rows"),
        (np.full((5, 2), 0.5), 0, "splits"),
        (np.full((5, 2), 0.6), 1, "sum to 1"),
        (np.array([[1.5, -0.5]] * 5), 1, "negative"),
        (np.full((5, 2), np.nan), 1, "finite"),
    ],
)
def test_bad_probabilities_are_refused(p: np.ndarray, splits: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inception_score(p, splits=splits)
