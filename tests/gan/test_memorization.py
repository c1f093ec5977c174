"""The memorization test against known truth: exchangeable images, planted copies, collapse, ties."""

import math

import numpy as np
import pytest
from sklearn.datasets import load_digits

from gan.memorization import (
    controls_needed,
    copies_needed,
    copying,
    counted,
    detectable_share,
    fingerprints,
    nearest,
    samples_needed,
)

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """1,797 real digits, uint8 [N, 8, 8, 1]."""
    return np.rint(load_digits().images * (255 / 16)).astype(np.uint8)[..., None]


def test_nearest_agrees_with_a_loop_and_finds_the_first_of_equals() -> None:
    random = np.random.default_rng(0)
    queries, train = (random.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8) for n in (7, 11))
    train[9] = train[3]
    queries[2] = train[3]
    found = nearest(queries, train)
    for query, squared, place in zip(queries, *found, strict=True):
        brute = [int(((query.astype(int) - image.astype(int)) ** 2).sum()) for image in train]
        assert squared == min(brute)
        assert place == brute.index(min(brute))
    assert (found.squared[2], found.place[2]) == (0, 3)


def test_nearest_is_the_same_in_blocks(digits: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = nearest(digits[:100], digits[100:])
    monkeypatch.setattr("gan.memorization._BLOCK_BYTES", 8 * 100 * 13)
    counts = list[int]()
    blocks = nearest(digits[:100], digits[100:], done=counts.append)
    assert sum(counts) == 100 and len(counts) > 1
    assert (whole.squared == blocks.squared).all() and (whole.place == blocks.place).all()


@pytest.mark.parametrize(
    "train", [np.zeros((0, 8, 8, 1), np.uint8), np.zeros((3, 8, 8, 3), np.uint8), np.zeros((3, 8, 8, 1), np.float32)]
)
def test_nearest_refuses_what_cannot_be_compared(train: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8 images of one shape"):
        nearest(np.zeros((2, 8, 8, 1), np.uint8), train)


def test_p_is_uniform_or_conservative_for_real_images_that_nothing_has_seen(digits: np.ndarray) -> None:
    random, p_values, draws = np.random.default_rng(1), [], 300
    flat = digits.reshape(-1, 64).astype(np.float64)
    norms = (flat**2).sum(axis=1)
    squared = norms[:, None] + norms - 2 * (flat @ flat.T)  # all pairs once, exact whole numbers
    for _ in range(draws):
        order = random.permutation(len(digits))
        train = np.sort(order[974:])
        distance = squared[order[:974]][:, train].min(axis=1)
        p_values.append(copying(distance[:300], distance[300:]).p)
    for level in (0.01, 0.05, 0.2):  # three standard errors of room above the nominal level
        assert np.mean(np.array(p_values) <= level) <= level + 3 * math.sqrt(level * (1 - level) / draws)


def test_six_exact_copies_among_three_hundred_are_found_every_time(digits: np.ndarray) -> None:
    random = np.random.default_rng(2)
    for _ in range(10):
        order = random.permutation(len(digits))
        fakes, train, controls = digits[order[:300]].copy(), digits[order[300:1123]], digits[order[1123:]]
        fakes[:6] = train[:6]
        found = nearest(fakes, train)
        result = copying(found.squared[counted(fingerprints(fakes), found.squared)], nearest(controls, train).squared)
        assert result.p < 0.01
        assert result.controls == 674 and result.fakes == 300


def test_copies_with_noise_of_a_few_levels_are_found_too(digits: np.ndarray) -> None:
    order = np.random.default_rng(3).permutation(len(digits))
    fakes, train, controls = digits[order[:300]].copy(), digits[order[300:1123]], digits[order[1123:]]
    noise = np.random.default_rng(4).integers(-8, 9, (6, 8, 8, 1))
    fakes[:6] = np.clip(train[:6].astype(int) + noise, 0, 255)
    assert copying(nearest(fakes, train).squared, nearest(controls, train).squared).p < 0.01


def test_noise_and_blurred_images_are_not_called_copies(digits: np.ndarray) -> None:
    order = np.random.default_rng(5).permutation(len(digits))
    fakes, train, controls = digits[order[:300]], digits[order[300:1123]], digits[order[1123:]]
    padded = np.pad(fakes.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)))
    blurred = np.mean([padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)], axis=0)
    noise = np.random.default_rng(6).integers(0, 256, fakes.shape, dtype=np.uint8)
    reference = nearest(controls, train).squared
    for images in (blurred.astype(np.uint8), noise):
        assert copying(nearest(images, train).squared, reference).p == 1.0


def test_repeating_one_unseen_image_is_collapse_and_repeating_a_training_image_is_copying(digits: np.ndarray) -> None:
    train, controls, unseen = digits[:800], digits[800:1400], digits[1400:]
    for images, copies in ((np.repeat(unseen[:10], 30, axis=0), False), (np.repeat(train[:1], 300, axis=0), True)):
        found = nearest(images, train)
        mask = counted(fingerprints(images), found.squared)
        assert mask.sum() == (300 if copies else 10)
        assert (copying(found.squared[mask], nearest(controls, train).squared).p < 0.01) is copies


def test_a_control_that_is_itself_a_copy_does_not_hide_copies() -> None:
    """Strictly smaller distances would count none of these: nothing is nearer than 0."""
    controls = np.concatenate([[0], np.arange(100, 400)])
    assert copying(np.zeros(20, np.int64), controls).p < 1e-6


def test_closed_form_at_rank_one() -> None:
    """P(k of m below all n controls) = m! (m + n - k)! / ((m - k)! (m + n)!)."""
    result = copying(np.array([1, 1, 50, 60, 70]), np.arange(10, 40))
    assert result.ranks == (1,) and result.counts == (2,)
    assert result.p == pytest.approx(5 * 4 / (35 * 34))


def test_power_statement_agrees_with_simulation() -> None:
    fakes, controls, alpha = 300, 670, 0.01
    assert copies_needed(fakes, controls, alpha=alpha) == 5
    share = detectable_share(fakes, controls, alpha=alpha)
    assert share is not None
    random, found = np.random.default_rng(7), 0
    for _ in range(1000):
        distance = random.permutation(fakes + controls) + 1
        distance[:fakes][random.random(fakes) < share] = 0
        found += copying(distance[:fakes], distance[fakes:]).p < alpha
    assert found / 1000 >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 1000)


def test_too_few_images_have_no_power_and_say_so() -> None:
    assert copies_needed(3, 5, alpha=0.01) is None
    assert detectable_share(3, 5, alpha=0.01) is None


def _p_where_copies_alone_are_near(fakes: int, controls: int, share: float) -> float:
    copies = math.ceil(share * fakes)
    return copying(np.repeat([0, controls + 1], [copies, fakes - copies]), np.arange(1, controls + 1)).p


@pytest.mark.parametrize("controls", [265, 276, 300, 1000])
def test_so_many_samples_find_a_share_of_copies_and_more_do(controls: int) -> None:
    found = samples_needed(controls, share=0.02, alpha=0.01, most=10**6)
    assert found is not None
    assert all(_p_where_copies_alone_are_near(found + more, controls, 0.02) < 0.01 for more in (0, 1, 7, 50, 1000))
    assert _p_where_copies_alone_are_near(found - 50, controls, 0.02) >= 0.01


def test_with_few_unseen_images_no_number_of_samples_finds_a_share_of_copies_and_more_of_them_do() -> None:
    """p falls to (two ranks) x 0.98 ** 188 = 0.0448 and no lower."""
    assert _p_where_copies_alone_are_near(2000, 188, 0.02) == pytest.approx(0.0532, abs=1e-4)
    assert _p_where_copies_alone_are_near(10**6, 188, 0.02) == pytest.approx(2 * 0.98**188, rel=1e-3)
    assert samples_needed(188, share=0.02, alpha=0.01, most=10**7) is None
    needed = controls_needed(2000, share=0.02, alpha=0.01)
    assert needed == 281
    assert all(_p_where_copies_alone_are_near(2000, needed + more, 0.02) < 0.01 for more in (0, 1, 19, 20, 1000))
    assert _p_where_copies_alone_are_near(2000, needed - 1, 0.02) >= 0.01


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="needs generated images and controls"):
        copying(np.array([1]), np.array([], np.int64))
