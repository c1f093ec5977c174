"""Shares by closed form, by published tables, and by simulation of known shares."""

import numpy as np
import pytest
from scipy.stats import fisher_exact as scipy_fisher

from gan.shares import corrected_shares, difference, fisher_exact, holm, total_variation

pytestmark = pytest.mark.fast


def test_difference_agrees_with_newcombes_published_example() -> None:
    """Newcombe 1998, table II, case (a): 56/70 against 48/80 by method 10: 0.0524 to 0.3339."""
    found = difference((48, 80), (56, 70))
    assert found.value == pytest.approx(0.2)
    assert [found.low, found.high] == pytest.approx([0.0524, 0.3339], abs=1e-4)


def test_difference_has_sane_ends_at_the_edges() -> None:
    """10/10 against 0/10: by Wilson the shares end at .7225 and .2775, so the lower end is 1 - .2775 sqrt(2)."""
    found = difference((0, 10), (10, 10))
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(1 - 0.2775 * 2**0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("real", "fake"), [((3, 10), (9, 12)), ((0, 8), (5, 9)), ((50, 99), (102, 200)), ((7, 7), (7, 7))]
)
def test_fisher_agrees_with_scipy(real: tuple[int, int], fake: tuple[int, int]) -> None:
    table = [[real[0], real[1] - real[0]], [fake[0], fake[1] - fake[0]]]
    assert fisher_exact(real, fake) == pytest.approx(scipy_fisher(table)[1])


def test_holm_by_hand() -> None:
    """Sorted .005 .01 .03 .04 times 4 3 2 1 gives .02 .03 .06 .04; the last may not fall below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_total_variation_of_known_shares() -> None:
    found = total_variation(np.array([500, 300, 200]), np.array([300, 300, 400]), resamples=500, seed=1)
    assert found.value == pytest.approx(0.2)
    assert 0.1 < found.low < 0.2 < found.high < 0.3
    assert found == total_variation(np.array([500, 300, 200]), np.array([300, 300, 400]), resamples=500, seed=1)


def test_total_variation_floor_is_what_real_images_reach() -> None:
    random, shares = np.random.default_rng(0), [0.2, 0.5, 0.3]
    values, floors = [], []
    for _ in range(100):
        real, fake = random.multinomial(900, shares), random.multinomial(300, shares)
        found = total_variation(real, fake, resamples=200, seed=3)
        values.append(found.value)
        floors.append(found.floor_mean)
    assert np.mean(values) == pytest.approx(np.mean(floors), rel=0.15)


def test_total_variation_refuses_an_empty_side() -> None:
    with pytest.raises(ValueError, match="0 generated"):
        total_variation(np.array([1, 2]), np.array([0, 0]), resamples=100, seed=0)


CONFUSION = np.array([[90, 10, 0], [5, 80, 15], [0, 4, 96]])


def test_correction_undoes_the_confusion_exactly() -> None:
    """The expected predictions of known shares give those shares back."""
    truth = np.array([0.6, 0.3, 0.1])
    predicted = np.rint((CONFUSION / 100).T @ truth * 100_000).astype(int)
    found = corrected_shares(predicted, CONFUSION, truth, resamples=200, seed=0)
    assert [share.value for share in found.shares] == pytest.approx(truth, abs=1e-4)
    assert found.variation.value < 1e-4


def test_correction_covers_the_truth_because_it_counts_the_classifiers_uncertainty() -> None:
    random, truth, confusion = np.random.default_rng(1), np.array([0.5, 0.3, 0.2]), CONFUSION / 100
    inside = 0
    for _ in range(300):
        validation = np.stack([random.multinomial(60, row) for row in confusion])
        predicted = random.multinomial(5000, confusion.T @ truth)
        found = corrected_shares(predicted, validation, truth, resamples=100, seed=0)
        inside += found.shares[0].low <= truth[0] <= found.shares[0].high
    assert 0.90 <= inside / 300 <= 0.99


def test_a_missing_class_is_seen_far_above_the_floor() -> None:
    prior = np.full(3, 1 / 3)
    predicted = np.rint((CONFUSION / 100).T @ np.array([0.5, 0.5, 0.0]) * 300).astype(int)
    found = corrected_shares(predicted, CONFUSION, prior, resamples=500, seed=0).variation
    assert found.value == pytest.approx(1 / 3, abs=0.02)
    assert found.low > found.floor_mean + 3 * found.floor_sd


def test_shares_below_zero_become_zero_and_still_sum_to_one() -> None:
    found = corrected_shares(np.array([100, 0, 0]), CONFUSION, np.full(3, 1 / 3), resamples=100, seed=0)
    values = [share.value for share in found.shares]
    assert min(values) == 0 and sum(values) == pytest.approx(1)


@pytest.mark.parametrize(
    ("confusion", "message"),
    [([[50, 50], [49, 51]], "confuses classes too much"), ([[10, 0], [0, 0]], "real image of every class")],
)
def test_correction_refuses_what_cannot_be_corrected(confusion: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        corrected_shares(np.array([5, 5]), np.array(confusion), np.array([0.5, 0.5]), resamples=100, seed=0)
