"""Picture grids as PNG: small images enlarged until a person can read them, with a border between cells. Pillow only.

The same images give the same bytes: no time, no text chunks, fixed compression.
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stages.common.files import write_atomically

CELL = 56  # pixels; the side that a small image is enlarged to
PAGE = 128  # pixels; the largest side of a picture that a page carries inside itself
BORDER = 2  # pixels between cells and around the grid
_BACKGROUND, _INK = (255, 255, 255), (70, 70, 70)


def write_grid(
    path: Path,
    images: NDArray[np.uint8],
    *,
    columns: int,
    cell: int = CELL,
    row_labels: Sequence[str] = (),
) -> None:
    """Write `grid_png` to `path`, atomically."""
    write_atomically(path, grid_png(images, columns=columns, cell=cell, row_labels=row_labels))


def grid_png(
    images: NDArray[np.uint8],
    *,
    columns: int,
    cell: int = CELL,
    row_labels: Sequence[str] = (),
) -> bytes:
    """PNG bytes of a grid, filled row by row; the last row may be short.

    `images` uint8 [N, H, W, C] with C 1 or 3; `columns` cells per row; `cell` the side in pixels that smaller images
    are enlarged to (Lanczos; larger ones keep their size); `row_labels` one text per row, drawn to its left as
    `row_texts` gives it, or none.
    Raises ValueError for another dtype or shape, no images, or another number of row labels than rows.
    """
    _check(images)
    rows = -(-len(images) // columns)
    if columns < 1 or (row_labels and len(row_labels) != rows):
        raise ValueError(f"a grid of {len(images)} images needs columns >= 1 and no or {rows} row labels; "
                         f"received {columns} columns, {len(row_labels)} labels")  # fmt: skip
    cells = [enlarged(image, cell) for image in images]
    step_x, step_y = cells[0].width + BORDER, cells[0].height + BORDER
    font = ImageFont.load_default(size=max(14, cells[0].height // 6))
    texts = row_texts(row_labels)
    left = max((int(font.getlength(text)) + 12 for text in texts), default=0)
    canvas = Image.new("RGB", (left + BORDER + columns * step_x, BORDER + rows * step_y), _BACKGROUND)
    for index, picture in enumerate(cells):
        row, column = divmod(index, columns)
        canvas.paste(picture, (left + BORDER + column * step_x, BORDER + row * step_y))
    draw = ImageDraw.Draw(canvas)
    for row, text in enumerate(texts):
        draw.text((left - 8, BORDER + row * step_y + step_y // 2), text, fill=_INK, font=font, anchor="rm")
    return _png(canvas if images.shape[-1] == 3 or row_labels else canvas.convert("L"))


def row_texts(row_labels: Sequence[str]) -> list[str]:
    """The labels, or, if Pillow's font lacks a letter of any of them, the numbers of the rows from 1: the font has
    little but ASCII, and draws the same empty box for anything else. Whoever shows the picture must then say which is
    which."""
    font = ImageFont.load_default(size=14)

    def shape(letter: str) -> tuple[tuple[int, int], bytes]:
        mask = font.getmask(letter)
        return mask.size, bytes(mask)

    box = shape("\U0010ffff")
    drawable = all(letter.isprintable() and shape(letter) != box for letter in set("".join(row_labels)))
    return list(row_labels) if drawable else [str(row + 1) for row in range(len(row_labels))]


def enlarged(image: NDArray[np.uint8], cell: int = CELL) -> Image.Image:
    """One image uint8 [H, W, C] as a picture whose shorter side has at least `cell` pixels (Lanczos)."""
    picture = Image.fromarray(image[:, :, 0] if image.shape[-1] == 1 else image)
    height, width = image.shape[:2]
    scale = cell / min(height, width)
    if scale <= 1:
        return picture
    return picture.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)


def data_uri(png: bytes) -> str:
    """A PNG as text that a page can hold as an image's source, so that the page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def image_uri(image: NDArray[np.uint8]) -> str:
    """One image uint8 [H, W, C] as a `data_uri`, enlarged if small, shrunk if larger than PAGE pixels a side."""
    _check(image[None])
    return data_uri(_png(enlarged(_for_page(image[None])[0])))


def grid_uri(images: NDArray[np.uint8], *, columns: int, row_labels: Sequence[str] = ()) -> str:
    """`grid_png` as a `data_uri`; images of more than PAGE pixels a side are shrunk, so that the page opens fast."""
    _check(images)
    return data_uri(grid_png(_for_page(images), columns=columns, row_labels=row_labels))


def _for_page(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images of at most PAGE pixels a side, by means of square blocks; sides are powers of two."""
    count, height, width, channels = images.shape
    block = max(1, max(height, width) // PAGE)
    if block == 1:
        return images
    blocks = images.reshape(count, height // block, block, width // block, block, channels)
    return np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8)


def _check(images: NDArray[np.uint8]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise ValueError(f"pictures must be uint8 [N, H, W, 1 or 3], N > 0; got {images.dtype} {list(images.shape)}")


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=9)
    return buffer.getvalue()
