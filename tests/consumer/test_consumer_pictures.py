"""The grid: every image where it belongs, none cut, none changed when it is large enough."""

import numpy as np
import pytest

from consumer._pictures import grid

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_large_images_stand_unchanged_row_by_row_with_a_border(count: int, channels: int) -> None:
    images = np.random.default_rng(count).integers(0, 256, (count, 64, 64, channels), dtype=np.uint8)
    picture = grid(images)
    columns = int(np.ceil(np.sqrt(count)))
    assert picture.shape == (-(-count // columns) * 68 + 4, columns * 68 + 4, channels)
    left = np.full(picture.shape, True)
    for place, image in enumerate(images):
        area = (
            slice(4 + place // columns * 68, 68 + place // columns * 68),
            slice(4 + place % columns * 68, 68 + place % columns * 68),
        )
        np.testing.assert_array_equal(picture[area], image)
        left[area] = False
    assert (picture[left] == 96).all()


def test_small_images_are_enlarged_by_a_whole_factor() -> None:
    images = np.full((1, 8, 8, 1), 200, np.uint8)
    images[0, :4] = 20
    cell = grid(images)[4:-4, 4:-4, 0]
    assert cell.shape == (64, 64)
    assert abs(int(cell[4].mean()) - 20) <= 1 and abs(int(cell[-5].mean()) - 200) <= 1
    assert (np.diff(cell[28:36].mean(axis=1)) > 0).all()  # the edge is a slope, not a step
