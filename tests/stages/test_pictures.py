"""Picture grids: right size, right place, right colours, the same bytes every time."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.pictures import BORDER, PAGE, grid_png, grid_uri, image_uri, row_texts, write_grid

pytestmark = pytest.mark.fast


def _flat(levels: list[int], channels: int = 1, side: int = 8) -> np.ndarray:
    return np.stack([np.full((side, side, channels), level, np.uint8) for level in levels])


def test_cells_are_enlarged_and_stand_where_they_should(tmp_path: Path) -> None:
    write_grid(tmp_path / "grid.png", _flat([0, 50, 100, 150, 200]), columns=3, cell=40)
    picture = Image.open(tmp_path / "grid.png")
    assert picture.size == (BORDER + 3 * 42, BORDER + 2 * 42)
    assert picture.mode == "L" and not picture.info
    middles = [picture.getpixel((BORDER + 20 + 42 * (i % 3), BORDER + 20 + 42 * (i // 3))) for i in range(6)]
    assert middles == [0, 50, 100, 150, 200, 255]  # the sixth cell is empty
    assert picture.getpixel((0, 0)) == picture.getpixel((BORDER + 41, 10)) == 255


def test_colour_survives_and_large_images_keep_their_size() -> None:
    images = np.zeros((2, 64, 64, 3), np.uint8)
    images[..., 0] = 200
    picture = Image.open(io.BytesIO(grid_png(images, columns=2, cell=56)))
    assert picture.size == (BORDER + 2 * 66, BORDER + 66)
    assert picture.getpixel((30, 30)) == (200, 0, 0)


def test_row_labels_add_a_margin_with_ink_in_it() -> None:
    plain = Image.open(io.BytesIO(grid_png(_flat([0, 0]), columns=1)))
    named = Image.open(io.BytesIO(grid_png(_flat([0, 0]), columns=1, row_labels=["zero", "one"])))
    assert named.width > plain.width
    margin = np.asarray(named.convert("L"))[:, : named.width - plain.width]
    assert (margin[: len(margin) // 2] < 128).any() and (margin[len(margin) // 2 :] < 128).any()


def test_rows_that_the_font_cannot_name_are_numbered() -> None:
    """Its box for what it lacks is the same for every letter: two Greek names would be one picture."""
    assert row_texts(["zero", "one's", "a-b_c 3"]) == ["zero", "one's", "a-b_c 3"] and row_texts([]) == []
    for names in (["zero", "\u65e5\u672c"], ["caf\u00e9", "tea"], ["two\nlines", "one"]):
        assert row_texts(names) == ["1", "2"]
        numbered = grid_png(_flat([0, 0]), columns=1, row_labels=["1", "2"])
        assert grid_png(_flat([0, 0]), columns=1, row_labels=names) == numbered


def test_same_images_same_bytes() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1)).astype(np.uint8)
    assert grid_png(images, columns=3) == grid_png(images.copy(), columns=3)
    assert image_uri(images[0]).startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    "images", [np.zeros((2, 8, 8, 1), np.float32), np.zeros((2, 8, 8), np.uint8), np.zeros((0, 8, 8, 1), np.uint8),
               np.zeros((2, 8, 8, 4), np.uint8)],
)  # fmt: skip
def test_other_arrays_are_refused(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        grid_png(images, columns=2)


def test_wrong_number_of_row_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="2 row labels"):
        grid_png(_flat([0, 0]), columns=1, row_labels=["one"])


@pytest.mark.parametrize("side", [128, 256])
def test_pages_carry_large_pictures_shrunk(side: int) -> None:
    images = np.repeat(np.repeat(_flat([0, 255], 3, side // 2), 2, axis=1), 2, axis=2)
    images[:, ::2, :, 0] = 100  # every other row

    def opened(uri: str) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))

    alone = np.asarray(opened(image_uri(images[1])))
    assert alone.shape == (PAGE, PAGE, 3)
    assert (alone[0, 0] == ([100, 255, 255] if side == PAGE else [178, 255, 255])).all()
    assert opened(grid_uri(images, columns=2)).size == (BORDER + 2 * (PAGE + BORDER), PAGE + 2 * BORDER)
