"""Measured attributes: known shapes, symmetries, exactness, and bins of real digits that are not trivial."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from gan.attributes import bins, measure, values_of

pytestmark = pytest.mark.fast


def names(images: NDArray[Any], attribute: str) -> list[str]:
    """Bin names of uint8 [N, H, W, C]."""
    return [bins(images.shape[3])[attribute][index] for index in measure(images)[attribute]]


def grey(*pictures: Any) -> NDArray[np.uint8]:
    return np.stack([np.asarray(picture, np.uint8) for picture in pictures])[..., None]


@pytest.fixture(scope="module")
def digits() -> NDArray[np.uint8]:
    return np.rint(load_digits().images * 255 / 16).astype(np.uint8)[..., None]


def test_slant_of_drawn_strokes() -> None:
    falling = np.eye(8) * 255
    bar = np.zeros((8, 8))
    bar[:, 3:5] = 255
    assert names(grey(falling, falling[:, ::-1], bar), "slant") == ["left", "right", "upright"]


def test_aspect_of_drawn_strokes() -> None:
    bar = np.zeros((16, 16))
    bar[2:14, 7:9] = 200
    assert names(grey(bar, bar.T), "aspect") == ["narrow", "wide"]


def test_ink_follows_the_mean_level() -> None:
    levels = [0, 71, 72, 84, 85, 255]  # 0.28 * 255 = 71.4 and 0.33 * 255 = 84.15
    images = grey(*(np.full((8, 8), level) for level in levels))
    assert names(images, "ink") == ["light", "light", "medium", "medium", "heavy", "heavy"]


def test_a_blank_image_and_a_line_without_height_have_bins() -> None:
    line = np.zeros((8, 8))
    line[3, 1:6] = 255
    images = grey(np.zeros((8, 8)), line)
    assert names(images, "slant") == ["upright", "upright"]
    assert names(images, "aspect") == ["square", "wide"]


def test_mirroring_swaps_left_and_right_and_nothing_else(digits: NDArray[np.uint8]) -> None:
    plain, mirrored = values_of(digits), values_of(np.ascontiguousarray(digits[:, :, ::-1]))
    np.testing.assert_array_equal(plain["slant"], -mirrored["slant"])
    np.testing.assert_array_equal(plain["ink"], mirrored["ink"])
    np.testing.assert_array_equal(plain["aspect"], mirrored["aspect"])


def test_every_bin_holds_at_least_a_twentieth_of_the_digits(digits: NDArray[np.uint8]) -> None:
    for name, indices in measure(digits).items():
        shares = np.bincount(indices, minlength=3) / len(digits)
        assert shares.min() > 0.05, (name, shares)


def test_an_image_has_the_same_bins_in_every_batch(digits: NDArray[np.uint8]) -> None:
    together = measure(digits[:50])
    for name, indices in together.items():
        alone = np.concatenate([measure(digits[i : i + 1])[name] for i in range(50)])
        np.testing.assert_array_equal(indices, alone)


def test_moments_are_exact_at_the_largest_size() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    image[:40] = 255
    mass, x, y, xx, yy, xy = (Fraction(0) for _ in range(6))
    for row in range(64):
        for column in range(64):
            level = int(image[row, column])
            mass, x, y = mass + level, x + level * column, y + level * row
            xx, yy, xy = xx + level * column**2, yy + level * row**2, xy + level * row * column
    values = values_of(image[None, ..., None])
    assert values["slant"][0] == float(-(mass * xy - x * y) / (mass * yy - y * y))
    assert values["aspect"][0] == float((mass * xx - x * x) / (mass * yy - y * y))
    assert values["ink"][0] == float(mass / (255 * 64 * 64))


def test_colour_attributes() -> None:
    colours = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (128, 128, 128), (128, 96, 96)]
    images = np.stack([np.full((8, 8, 3), colour, np.uint8) for colour in colours])
    assert names(images, "brightness") == ["dark", "bright", "dark", "medium", "medium", "medium"]
    assert names(images, "saturation") == ["dull", "dull", "vivid", "vivid", "dull", "medium"]


@pytest.mark.parametrize(
    "images", [np.zeros((2, 8, 8, 1)), np.zeros((8, 8, 1), np.uint8), np.zeros((2, 8, 8, 2), np.uint8)]
)
def test_other_arrays_are_refused(images: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="received"):
        measure(images)
