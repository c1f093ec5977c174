"""Measured attributes of images in named bins: groups that are not the class, and that need no classifier.

Each is one float64 division of integer sums below 2**63, so that a bin never depends on the machine. Ingest writes the
bins of the real images and the audit compares the shares of generated ones: both call `measure`.

Grey images (moments weigh each pixel with its level, so bright strokes on a dark ground are what is measured):
    ink     mean level / 255
    slant   horizontal shift per pixel of height, -cov(x, y) / var(y) with y downwards: `/` is right, `\\` is left
    aspect  var(x) / var(y), the squared ratio of the spreads in width and in height
RGB images:
    brightness  mean luma of ITU-R BT.601 / 255
    saturation  sum(max - min) / sum(max) over the pixels, max and min taken across the three channels

The cuts of the grey attributes put between 11 and 57 % of the UCI digits into each bin. An image without any ink is
upright and square.
"""

import numpy as np
from numpy.typing import NDArray

# Name of the attribute -> (names of the bins, cuts between them); a value on a cut belongs to the bin above.
_Table = dict[str, tuple[tuple[str, ...], tuple[float, ...]]]
_GREY: _Table = {
    "ink": (("light", "medium", "heavy"), (0.28, 0.33)),
    "slant": (("left", "upright", "right"), (-0.1, 0.1)),
    "aspect": (("narrow", "square", "wide"), (0.25, 0.42)),
}
_RGB: _Table = {
    "brightness": (("dark", "medium", "bright"), (0.35, 0.6)),
    "saturation": (("dull", "medium", "vivid"), (0.2, 0.45)),
}
_TABLES = {1: _GREY, 3: _RGB}
_CHUNK = 2**24  # bytes of pixels measured at once
_EMPTY_SLANT, _EMPTY_ASPECT = 0.0, 0.33


def bins(channels: int) -> dict[str, list[str]]:
    """Bin names of every attribute of images with 1 or 3 channels, in the order of the indices of `measure`.

    Raises ValueError for another number of channels.
    """
    return {name: list(names) for name, (names, _) in _table(channels).items()}


def measure(images: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
    """Bin index of every image for every attribute: int64 [N] by name, from uint8 [N, H, W, C] with C 1 or 3.

    Raises ValueError for another dtype, rank or number of channels.
    """
    values = values_of(images)
    table = _table(images.shape[3])
    return {name: np.digitize(values[name], cuts).astype(np.int64) for name, (_, cuts) in table.items()}


def values_of(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """The measured values before binning: float64 [N] by attribute, from uint8 [N, H, W, C] with C 1 or 3.

    Raises ValueError for another dtype, rank or number of channels.
    """
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"images must be uint8 [N, H, W, C]; received {images.dtype} {list(images.shape)}")
    _table(images.shape[3])
    # A few at a time: the sums need eight times the memory of the pixels.
    step = max(1, _CHUNK // max(1, images[:1].size))
    parts = [
        _grey_values(part[..., 0]) if images.shape[3] == 1 else _rgb_values(part)
        for part in (images[start : start + step] for start in range(0, max(1, len(images)), step))
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _table(channels: int) -> _Table:
    if channels not in _TABLES:
        raise ValueError(f"attributes are defined for 1 or 3 channels; received {channels}")
    return _TABLES[channels]


def _grey_values(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """Ink, slant and aspect from the moments up to order two of uint8 [N, H, W]. Up to 64 x 64 pixels float64 holds the
    sums exactly; up to 256 x 256 int64 holds them, and each is rounded once before the division."""
    height, width = images.shape[1:]
    rows = images.sum(axis=2, dtype=np.int64)  # [N, H]
    columns = images.sum(axis=1, dtype=np.int64)  # [N, W]
    x, y = np.arange(width, dtype=np.int64), np.arange(height, dtype=np.int64)
    mass, sum_x, sum_y = rows.sum(axis=1), columns @ x, rows @ y
    mixed = (images.astype(np.int64) @ x) @ y
    var_x = mass * (columns @ (x * x)) - sum_x * sum_x
    var_y = mass * (rows @ (y * y)) - sum_y * sum_y
    covariance = mass * mixed - sum_x * sum_y
    return {
        "ink": mass / (255 * height * width),
        "slant": _quotient(-covariance, var_y, _EMPTY_SLANT),
        "aspect": _quotient(var_x, var_y, _EMPTY_ASPECT),
    }


def _rgb_values(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """Brightness and saturation of uint8 [N, H, W, 3]."""
    pixels = images.shape[1] * images.shape[2]
    red, green, blue = (np.ascontiguousarray(images[..., channel]) for channel in range(3))  # many times faster
    luma = 299 * _total(red) + 587 * _total(green) + 114 * _total(blue)
    top = _total(np.maximum(np.maximum(red, green), blue))
    bottom = _total(np.minimum(np.minimum(red, green), blue))
    return {"brightness": luma / (255_000 * pixels), "saturation": _quotient(top - bottom, top, 0.0)}


def _total(levels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Sum of each image, [N], of uint8 [N, H, W]."""
    return np.asarray(levels.sum(axis=(1, 2), dtype=np.int64))


def _quotient(top: NDArray[np.int64], bottom: NDArray[np.int64], empty: float) -> NDArray[np.float64]:
    """top / bottom, and `empty` where both vanish; a line without height is infinitely wide."""
    flat = bottom == 0
    plain = top / np.where(flat, 1, bottom)
    return np.where(flat, np.where(top == 0, empty, np.inf), plain)
