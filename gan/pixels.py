"""The one definition of pixels: uint8 images [N, H, W, C] outside, float [N, C, H, W] in [-1, 1] inside networks.

Level v stands for v / 127.5 - 1. Back: clip to [-1, 1], scale, round half to even, so that the round trip of every
level is the identity. numpy only; the exported generator does the same in its graph.
"""

import numpy as np
from numpy.typing import NDArray


def at_once(resolution: int) -> int:
    """Images in one pass of a network, so that the memory of a pass does not grow with the pixels: 256 up to 64 px a
    side, 16 at 256 px."""
    return max(1, min(256, 256 * 64**2 // resolution**2))


class NotFinite(ValueError):
    """Images hold pixels that are infinite or no numbers."""


def to_float(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32 [N, C, H, W] in [-1, 1] from uint8 [N, H, W, C]. Raises ValueError for another dtype or rank."""
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"images must be uint8 [N, H, W, C]; received {images.dtype} {list(images.shape)}")
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(images: NDArray[np.floating]) -> NDArray[np.uint8]:
    """uint8 [N, H, W, C] from float [N, C, H, W]. Raises NotFinite where a pixel is not finite."""
    if not np.isfinite(images).all():
        raise NotFinite("images hold pixels that are not finite")
    levels = np.rint((np.clip(images, -1, 1).astype(np.float32) + 1) * np.float32(127.5))
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(0, 2, 3, 1))
