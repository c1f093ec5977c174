"""Differentiable augmentation on the images' own device, each a function of its key; second derivatives work too.

Two uses. `augment` changes what the discriminator sees, real and generated alike, each transform with probability
`strength` (Karras et al.: "Training generative adversarial networks with limited data", NeurIPS 2020; Zhao et al.:
"Differentiable augmentation for data-efficient GAN training", NeurIPS 2020): below a strength of about 0.8 the
generator still learns to draw images without augmentation. `vary` changes the real images alone, and the generator
learns to draw variants.
"""

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gan import chance

TRANSFORMS = ("flip", "turn", "shift", "zoom", "rotation", "colour", "cutout")
_SHIFT, _ZOOM, _BRIGHT, _CONTRAST, _SATURATION, _CUT = 1 / 8, 0.2, 0.2, 0.5, 1.0, 0.5
_GEOMETRIC = TRANSFORMS[:5]


@dataclasses.dataclass(frozen=True)
class Variation:
    """What `vary` does to real images: mirrors half of them if `flip`, turns each by up to `rotation` degrees, enlarges
    or shrinks each by a share of up to `zoom`."""

    flip: bool = False
    rotation: float = 0.0
    zoom: float = 0.0

    def __bool__(self) -> bool:
        return self.flip or self.rotation > 0 or self.zoom > 0


def augment(images: Tensor, keys: Tensor, transforms: Sequence[str], strength: Tensor | float) -> Tensor:
    """`images` [N, C, H, W], each of `transforms` applied with probability `strength` by int64 keys [N]: same shape.

    flip mirrors; turn rotates by quarter turns; shift moves by whole pixels, up to an eighth of a side; zoom scales by
    2^N(0, 0.2); rotation turns by any angle; colour changes brightness, contrast and, with three channels, saturation,
    each by its own draw; cutout greys a square of half the side. At strength 0 every image comes back unchanged.
    """
    # In float64: the last bit of a cosine depends on the image's place in the batch, and must have no effect.
    drawn = chance.uniforms(keys, chance.AUGMENT, 8 * len(TRANSFORMS)).double().chunk(len(TRANSFORMS), 1)
    numbers = dict(zip(TRANSFORMS, drawn, strict=True))
    if chosen := [name for name in transforms if name in _GEOMETRIC]:
        changed = torch.stack([numbers[name][:, 0] < strength for name in chosen])
        matrix = torch.eye(3, device=images.device, dtype=torch.float64).expand(len(images), 3, 3)
        for name, on in zip(chosen, changed, strict=True):
            step = _MATRICES[name](numbers[name], images.shape[-1])
            matrix = torch.where(on[:, None, None], step @ matrix, matrix)
        images = torch.where(changed.any(0)[:, None, None, None], warp(images, matrix), images)
    if "colour" in transforms:
        images = _coloured(images, numbers["colour"], strength)
    if "cutout" in transforms:
        images = _cut(images, numbers["cutout"], strength)
    return images


def vary(images: Tensor, keys: Tensor, variation: Variation) -> Tensor:
    """A variant of each real image [N, C, H, W] by int64 keys [N]: the same shape."""
    u = chance.uniforms(keys, chance.DATA, 3).double()
    angle = (2 * u[:, 1] - 1) * math.radians(variation.rotation)
    size = 1 + (2 * u[:, 2] - 1) * variation.zoom
    mirror = 1 - 2 * (u[:, 0] < 0.5).to(u.dtype) if variation.flip else torch.ones_like(angle)
    if not variation.rotation and not variation.zoom:
        return torch.where((mirror < 0)[:, None, None, None], images.flip(3), images)
    return warp(images, _turned(angle) @ _scaled(mirror / size, 1 / size))


def warp(images: Tensor, matrix: Tensor) -> Tensor:
    """Images [N, C, H, W] read bilinearly at `matrix` [N, 3, 3] times each pixel's place, mirrored at the edges.

    Places are (x, y, 1) with x and y from -1 to 1 over the image. Made of gathers alone: torch's own grid_sample has no
    second derivative, which gradient penalties need.
    """
    height, width = images.shape[-2:]
    y, x = ((2 * torch.arange(n, device=images.device, dtype=matrix.dtype) + 1) / n - 1 for n in images.shape[-2:])
    places = torch.stack([x.repeat(height), y.repeat_interleave(width), torch.ones_like(x).repeat(height)])
    sources = matrix[:, :2] @ places
    flat, result = images.flatten(2), None
    (left, across), (top, down) = (_cell(sources[:, side], n) for side, n in ((0, width), (1, height)))
    for dy, weight_y in ((0, 1 - down), (1, down)):
        for dx, weight_x in ((0, 1 - across), (1, across)):
            index = ((top + dy) * width + left + dx)[:, None].expand_as(flat)
            part = flat.gather(2, index) * (weight_y * weight_x)[:, None].to(images.dtype)
            result = part if result is None else result + part
    assert result is not None
    return result.view_as(images)


def _cell(place: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The pixel before each place and the share of the way to the next, places mirrored into the image."""
    pixel = torch.remainder(((place + 1) * size - 1) / 2, 2 * (size - 1))
    pixel = (size - 1) - (pixel - (size - 1)).abs()
    before = pixel.floor().clamp(0, size - 2)
    return before.long(), pixel - before


def _matrix(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(list(row), -1) for row in rows], -2)


def _scaled(x: Tensor, y: Tensor) -> Tensor:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrix([[x, zero, zero], [zero, y, zero], [zero, zero, one]])


def _turned(angle: Tensor) -> Tensor:
    zero, one, cosine, sine = torch.zeros_like(angle), torch.ones_like(angle), angle.cos(), angle.sin()
    return _matrix([[cosine, -sine, zero], [sine, cosine, zero], [zero, zero, one]])


def _flip(u: Tensor, side: int) -> Tensor:
    mirror = 1 - 2 * (u[:, 1] < 0.5).to(u.dtype)
    return _scaled(mirror, torch.ones_like(mirror))


def _turn(u: Tensor, side: int) -> Tensor:
    return _turned((4 * u[:, 1]).floor() * (math.pi / 2))


def _shift(u: Tensor, side: int) -> Tensor:
    x, y = ((2 * u[:, place] - 1) * (_SHIFT * side) for place in (1, 2))
    matrix = _scaled(torch.ones_like(x), torch.ones_like(x))
    matrix[:, 0, 2], matrix[:, 1, 2] = x.round() * 2 / side, y.round() * 2 / side
    return matrix


def _zoom(u: Tensor, side: int) -> Tensor:
    size = torch.exp2(_ZOOM * _normal(u[:, 1], u[:, 2]))
    return _scaled(size, size)


def _rotation(u: Tensor, side: int) -> Tensor:
    return _turned((2 * u[:, 1] - 1) * math.pi)


_MATRICES = dict(zip(_GEOMETRIC, (_flip, _turn, _shift, _zoom, _rotation), strict=True))


def _normal(first: Tensor, second: Tensor) -> Tensor:
    """Standard normal from two uniform numbers (Box and Muller 1958)."""
    return (-2 * first.log()).sqrt() * (2 * math.pi * second).cos()


def _coloured(images: Tensor, u: Tensor, strength: Tensor | float) -> Tensor:
    def each(values: Tensor) -> Tensor:
        return values[:, None, None, None].to(images.dtype)

    images = torch.where(each(u[:, 0]) < strength, images + each(_BRIGHT * _normal(u[:, 1], u[:, 2])), images)
    contrast = torch.exp2(_CONTRAST * _normal(u[:, 4], u[:, 5]))
    images = torch.where(each(u[:, 3]) < strength, images * each(contrast), images)
    if images.shape[1] == 3:
        grey = images.mean(1, keepdim=True)
        saturation = torch.exp2(_SATURATION * _normal(u[:, 6], u[:, 7]))
        # A third uniform number: all eight of this transform are used, and a sum modulo 1 is uniform.
        chosen = each(torch.remainder(u[:, 0] + u[:, 3], 1)) < strength
        images = torch.where(chosen, grey + (images - grey) * each(saturation), images)
    return images


def _cut(images: Tensor, u: Tensor, strength: Tensor | float) -> Tensor:
    side = images.shape[-1]
    place = torch.arange(side, device=images.device) + 0.5
    x, y = ((place - u[:, column, None] * side).abs() < _CUT * side / 2 for column in (1, 2))
    hole = (u[:, 0] < strength)[:, None, None] & y[:, :, None] & x[:, None, :]
    return images * (~hole[:, None]).to(images.dtype)
