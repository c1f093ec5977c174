"""Images to files: a grid to look at, single PNG files, or one array. Files appear whole or not at all."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_CELL = 64  # pixels; smaller images are enlarged to about this, so that a person can look at them
_BORDER = 4  # pixels between cells
_SHADE = 96  # grey level of the border: unlike paper and unlike ink
_LARGEST = 100_000_000  # pixels of one picture; Pillow and browsers give up near twice that


def write_images(out: Path, images: NDArray[np.uint8], *, stem: str, start: int, folder: bool) -> list[Path]:
    """Write uint8 images [N, H, W, C] and return the files.

    With `folder`, one PNG each, named after `stem` and the image's number; otherwise, by the suffix of `out`, an array
    (.npy) or a grid (.png). Raises OSError if a file cannot be written, ValueError if a grid would be too large.
    """
    if folder:
        files = [out / f"{stem}-{start + place:06d}.png" for place in range(len(images))]
        for path, image in zip(files, images, strict=True):
            _save_png(path, image)
        return files
    if out.suffix == ".npy":
        with _appearing(out) as partial, partial.open("wb") as file:
            np.save(file, images, allow_pickle=False)
    else:
        _save_png(out, grid(images))
    return [out]


def grid(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One picture of all images [N, H, W, C], row by row in a near square: uint8 [height, width, C].

    Small images are enlarged by a whole factor with Lanczos. Raises ValueError for more than 100 million pixels.
    """
    count, height, width, channels = images.shape
    factor = max(1, _CELL // max(height, width))
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    down, across = height * factor + _BORDER, width * factor + _BORDER
    shape = (rows * down + _BORDER, columns * across + _BORDER, channels)
    if shape[0] * shape[1] > _LARGEST:
        raise ValueError(f"a grid of {count} images would be {shape[1]} x {shape[0]} pixels; write .npy or a folder")
    picture = np.full(shape, _SHADE, np.uint8)
    for place, image in enumerate(images):
        top, left = (place // columns) * down + _BORDER, (place % columns) * across + _BORDER
        picture[top : top + height * factor, left : left + width * factor] = _enlarge(image, factor)
    return picture


def _enlarge(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    from PIL import Image

    if factor == 1:
        return image
    height, width, channels = image.shape
    large = Image.fromarray(image[..., 0] if channels == 1 else image).resize(
        (width * factor, height * factor), Image.Resampling.LANCZOS
    )
    return np.asarray(large).reshape(height * factor, width * factor, channels)


def _save_png(path: Path, image: NDArray[np.uint8]) -> None:
    from PIL import Image

    with _appearing(path) as partial:
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(partial, format="PNG")


@contextlib.contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; the file takes its place if the block ends well, and is removed if not."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
