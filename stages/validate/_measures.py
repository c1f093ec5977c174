"""Measures of an image's pixels, as numbers that people can read; colour counts by its luma (ITU-R BT.601).

brightness   mean level, 0..255
contrast     standard deviation of the levels, 0..127.5; 0 is a constant image
level_range  brightest minus darkest level of any channel, 0..255
sharpness    mean absolute Laplacian |4 c - up - down - left - right| over inner pixels, levels; blur lowers it
saturation   RGB only: sum(max - min) / sum(max) over the pixels, 0..1
pattern_uv   cosine coefficient (u across, v down) of the picture shrunk to 8 x 8, orthonormal / 8, levels: what is
             drawn and where; eight of the lowest, without the mean (that is brightness)
"""

import numpy as np
from numpy.typing import NDArray

PATTERNS = ((1, 0), (0, 1), (1, 1), (2, 0), (0, 2), (2, 1), (1, 2), (2, 2))
_SIDE = 8  # of the shrunken picture; every resolution of a store is a multiple of it


def names(channels: int) -> list[str]:
    """The keys of `measure` for images of 1 or 3 channels."""
    grey = ["brightness", "contrast", "level_range", "sharpness"]
    return [*grey, *(["saturation"] if channels == 3 else []), *(f"pattern_{u}{v}" for u, v in PATTERNS)]


def measure(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Every measure of every image: float32 [n] by name, from uint8 [n, H, W, C], H and W multiples of 8."""
    luma = _luma(images)
    flat, levels = luma.reshape(len(luma), -1), images.reshape(len(images), -1)
    found = {
        "brightness": flat.mean(axis=1, dtype=np.float64),
        "contrast": flat.std(axis=1, dtype=np.float64),
        "level_range": levels.max(axis=1) - levels.min(axis=1),
        "sharpness": _sharpness(luma),
    }
    if images.shape[3] == 3:
        found["saturation"] = _saturation(images)
    found |= _patterns(luma)
    return {name: values.astype(np.float32) for name, values in found.items()}


def _luma(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    if images.shape[3] == 1:
        return images[..., 0].astype(np.float32)
    return np.asarray(images @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)


def _sharpness(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    inner = 4 * luma[:, 1:-1, 1:-1]
    inner -= luma[:, :-2, 1:-1]
    inner -= luma[:, 2:, 1:-1]
    inner -= luma[:, 1:-1, :-2]
    inner -= luma[:, 1:-1, 2:]
    return np.abs(inner, out=inner).mean(axis=(1, 2))


def _saturation(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    high, low = images.max(axis=3), images.min(axis=3)
    total = high.sum(axis=(1, 2), dtype=np.int64)
    return (high - low).sum(axis=(1, 2), dtype=np.int64) / np.maximum(total, 1)


def _patterns(luma: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    count, side, _ = luma.shape
    step = side // _SIDE
    small = luma.reshape(count, _SIDE, step, _SIDE, step).mean(axis=(2, 4))
    places = np.arange(_SIDE)
    waves = np.cos(np.pi * np.arange(3)[:, None] * (2 * places + 1) / (2 * _SIDE)) * np.sqrt(2 / _SIDE)
    waves[0] = np.sqrt(1 / _SIDE)
    basis = np.stack([np.outer(waves[v], waves[u]).ravel() / _SIDE for u, v in PATTERNS], axis=1)
    # One product per image and pattern, in a fixed order: the same for every chunk size.
    values = np.einsum("np,pk->nk", small.reshape(count, -1), basis.astype(np.float32))
    return {f"pattern_{u}{v}": values[:, place] for place, (u, v) in enumerate(PATTERNS)}
