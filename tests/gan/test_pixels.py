"""Pixels survive the round trip, and refuse what they cannot mean."""

import numpy as np
import pytest

from gan import pixels

pytestmark = pytest.mark.fast


def test_every_level_survives_the_round_trip() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    floats = pixels.to_float(levels)
    assert floats.shape == (1, 1, 16, 16) and floats.min() == -1 and floats.max() == 1
    np.testing.assert_array_equal(pixels.to_uint8(floats), levels)


@pytest.mark.parametrize(("side", "images"), [(8, 256), (64, 256), (128, 64), (256, 16), (2048, 1)])
def test_a_pass_takes_fewer_of_larger_images(side: int, images: int) -> None:
    assert pixels.at_once(side) == images


def test_channels_move_and_values_are_clipped() -> None:
    image = np.zeros((2, 3, 4, 4), np.float32)
    image[:, 0], image[:, 1], image[:, 2] = -9, 0, 9
    assert pixels.to_uint8(image)[0, 0, 0].tolist() == [0, 128, 255]  # 127.5 rounds half to even


def test_refusals() -> None:
    with pytest.raises(ValueError, match="not finite"):
        pixels.to_uint8(np.full((1, 1, 2, 2), np.nan))
    with pytest.raises(ValueError, match=r"uint8 .N, H, W, C.; received float64"):
        pixels.to_float(np.zeros((1, 2, 2, 1)))  # type: ignore[arg-type]
