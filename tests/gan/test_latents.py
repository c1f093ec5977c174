"""The randomness is the published generator, the published quantile function, and never changes."""

import numpy as np
import pytest

from gan import latents

pytestmark = pytest.mark.fast


def test_words_agree_with_numpys_philox() -> None:
    indices = np.array([0, 5, 2**40])
    expected = [
        np.random.Philox(key=np.array([7, 2], np.uint64), counter=np.array([0, i, 0, 0], np.uint64)).random_raw(10)
        for i in indices
    ]
    np.testing.assert_array_equal(latents.words(7, 2, indices, 10), expected)


def test_golden_values() -> None:
    # A released value: if this changes, every seed of every generator in production means other images.
    assert latents.words(0, 0, np.array([0]), 2).tolist() == [[213000021201967259, 4455796210202625458]]
    np.testing.assert_array_equal(
        latents.latents(0, 0, 1, 4), np.array([[-2.2718842, -0.7013279, -1.2189802, 0.16217156]], np.float32)
    )
    assert latents.labels(0, 0, 12, [0.1] * 10).tolist() == [8, 9, 9, 3, 3, 0, 3, 0, 5, 2, 7, 9]


def test_a_sample_does_not_depend_on_the_batch_it_comes_in() -> None:
    whole = latents.latents(3, 0, 50, 33)
    parts = [latents.latents(3, start, count, 33) for start, count in ((0, 1), (1, 30), (31, 19))]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    prior = [0.5, 0.2, 0.3]
    np.testing.assert_array_equal(latents.labels(3, 7, 9, prior), latents.labels(3, 0, 16, prior)[7:])


def test_streams_and_seeds_differ() -> None:
    index = np.arange(100)
    drawn = {(s, t): latents.uniforms(s, t, index, 1).tobytes() for s in (0, 1) for t in range(4)}
    assert len(set(drawn.values())) == len(drawn)


@pytest.mark.parametrize("p", [1e-300, 1e-16, 1e-5, 0.02, 0.075, 0.3, 0.5, 0.9, 0.999999, 1 - 1e-16])
def test_inverse_normal_cdf_agrees_with_scipy(p: float) -> None:
    ndtri = pytest.importorskip("scipy.special").ndtri
    assert latents.inverse_normal_cdf(np.array([p]))[0] == pytest.approx(ndtri(p), rel=2e-15, abs=1e-15)


def test_moments_of_the_normals() -> None:
    z = latents.latents(11, 0, 2000, 64).astype(np.float64)
    size = z.size
    assert abs(z.mean()) < 4 / size**0.5
    assert abs((z**2).mean() - 1) < 4 * (2 / size) ** 0.5
    assert abs((z**4).mean() - 3) < 4 * (96 / size) ** 0.5


def test_labels_follow_the_prior() -> None:
    counts = np.bincount(latents.labels(1, 0, 10_000, [0.7, 0.0, 0.3]), minlength=3) / 10_000
    np.testing.assert_allclose(counts, [0.7, 0, 0.3], atol=0.02)
    assert counts[1] == 0


@pytest.mark.parametrize("prior", [[], [0.5, 0.6], [1.5, -0.5]])
def test_a_prior_that_is_none_is_refused(prior: list[float]) -> None:
    with pytest.raises(ValueError, match="prior must hold one weight"):
        latents.labels(0, 0, 1, prior)


def test_the_extreme_words_stay_inside_the_open_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    extremes = np.array([[0, 2**64 - 1]], np.uint64)
    monkeypatch.setattr(latents, "words", lambda *_: extremes)
    drawn = latents.uniforms(0, 0, np.array([0]), 2)
    assert drawn.min() > 0 and drawn.max() < 1
    np.testing.assert_allclose(latents.inverse_normal_cdf(drawn), [[-8.2923611, 8.2095362]], rtol=1e-7)


def test_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="seed and stream must lie in"):
        latents.latents(-1, 0, 1, 1)
    with pytest.raises(ValueError, match="must not be negative; received -2"):
        latents.latents(0, -2, 1, 1)
