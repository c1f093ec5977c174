"""Resizes images to what a published network reads, by the rule that the numbers in papers were made with.

The rule moves every value (the wrong one alone gives a Fréchet distance of 6 between equal images: Parmar, Zhang, Zhu:
"On Aliased Resizing and Surprising Subtleties in GAN Evaluation", CVPR 2022), so it is part of an extractor's name.

- `legacy_tf`: TensorFlow 1 bilinear; align_corners off, no half-pixel centres, no antialiasing. Agrees with
  torch-fidelity's `interpolate_bilinear_2d_like_tensorflow1x` to the bit.
- `clean`: Pillow's bicubic, which antialiases, on each channel as float32; clipped to 0 ... 255, not rounded. Agrees
  with clean-fid's `build_resizer("clean")` to the bit.
- `pil_bicubic`: Pillow's bicubic on the 8-bit image, so rounded to whole levels. What torchvision's `Resize` does to a
  Pillow image, and so what dgm-eval measures its DINOv2 distances with.

Shapes: N images, H x W pixels, C channels.
"""

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Resize = Literal["legacy_tf", "clean", "pil_bicubic"]
RESIZES: tuple[str, ...] = get_args(Resize)


def resized(images: NDArray[np.uint8], side: int, resize: str, device: str = "cpu") -> Tensor:
    """Levels 0 ... 255 as float32 [N, 3, side, side] on `device`, of uint8 images [N, H, W, C] of any size.

    Grey images (C = 1) become three equal channels. Raises ValueError for another dtype, rank or number of channels,
    for images without pixels, and for an unknown rule.
    """
    _check(images, resize)
    if resize == "legacy_tf":
        levels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(device)
        found = _legacy_tf(levels.float(), side)
    else:
        one = _clean if resize == "clean" else _pil_bicubic
        parts = [one(image, side) for image in images]
        found = torch.from_numpy(np.stack(parts) if parts else np.empty((0, 3, side, side), np.float32)).to(device)
    return found.expand(-1, 3, -1, -1)


def _check(images: NDArray[np.uint8], resize: str) -> None:
    if resize not in RESIZES:
        raise ValueError(f"resize must be one of {', '.join(RESIZES)}; received {resize!r}")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape[1:3]:
        raise ValueError(
            "published extractors take uint8 images [N, H, W, C], grey (C = 1) or RGB (C = 3), of at least one pixel; "
            f"received {images.dtype} {list(images.shape)}"
        )


def _legacy_tf(x: Tensor, side: int) -> Tensor:
    """Columns first, then rows, as the kernel of TensorFlow 1 does: output i reads input i * H / side, unshifted."""
    for axis in (3, 2):
        size = x.shape[axis]
        place = torch.arange(side, dtype=torch.float32, device=x.device) * float(np.float32(size / side))
        low = place.long()
        share = (place - low).view(-1, 1) if axis == 2 else place - low
        before = x.index_select(axis, low)
        x = before + (x.index_select(axis, (low + 1).clamp_max(size - 1)) - before) * share
    return x


def _clean(image: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """float32 [C, side, side] of one image [H, W, C]."""
    planes = np.moveaxis(image, 2, 0).astype(np.float32)
    scaled = [Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC) for plane in planes]
    return np.stack([np.asarray(plane).clip(0, 255) for plane in scaled])


def _pil_bicubic(image: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """float32 [C, side, side] of one image [H, W, C]."""
    whole = Image.fromarray(np.ascontiguousarray(image[:, :, 0] if image.shape[2] == 1 else image))
    scaled = np.asarray(whole.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
    return np.moveaxis(scaled.reshape(side, side, -1), 2, 0)
