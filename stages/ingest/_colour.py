"""Every encoding of colour converted to 8-bit grey or sRGB: depth, palette, alpha, CMYK, profiles, raw arrays."""

import functools
import io
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin

from stages.ingest._sample import Refused

_BITS, _PHOTOMETRIC, _PLANES = 258, 262, 284  # tags of TIFF
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_RAMP = np.arange(256, dtype=np.uint8)[None]
_CUBE = np.stack(np.meshgrid(*3 * [np.arange(0, 256, 51, dtype=np.uint8)]), axis=-1).reshape(1, -1, 3)
_PROBES = {  # images to test profiles with, by colour space: all greys, and colours from all over the cube
    "GRAY": Image.fromarray(_RAMP),
    "RGB": Image.fromarray(np.concatenate([np.repeat(_RAMP[..., None], 3, axis=2), _CUBE], axis=1)),
}
# Pillow's names for 16-bit colour, of which it keeps only the high byte, and for the same with the bytes swapped.
_FOREIGN = "L" if sys.byteorder == "big" else "B"  # the opposite of N, the machine's own order, in compressed TIFF
_ORDERS = {"B": "L", "L": "B", "N": _FOREIGN}
_SWAPPED = {f"{mode};16{order}": f"{mode};16{other}" for mode in ("RGB", "RGBA") for order, other in _ORDERS.items()}


def to_8_bit(image: ImageFile.ImageFile, content: bytes, kind: str) -> Image.Image:
    """The decoded image with 8 bits per channel. 16-bit levels v become round(v / 257), exactly. Raises Refused."""
    if kind == "PNG" and content[24] == 16 and "transparency" in image.info:
        raise Refused("16-bit: with a transparent colour; convert it to 8 bits per channel")
    if kind == "PNG" and content[24] == 16 and image.mode in ("RGB", "RGBA"):  # IHDR is always the first chunk
        return _deep_colour(image, content, kind)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_tiff(image)
    if kind == "TIFF" and image.tile and ";16" in _pixels(image.tile[0]) and image.mode not in ("I;16", "I;16B", "I"):
        return _deep_colour(image, content, kind)
    image.load()
    if kind == "PNG" and content[25] == 0 and content[24] in (2, 4) and "transparency" in image.info:
        most = 2 ** content[24] - 1  # Pillow stretches the levels to 0..255, but not the transparent one
        image.info["transparency"] = (image.info["transparency"] & most) * (255 // most)
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N"):
        values = np.asarray(image).astype(np.uint16)
        inverted = isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0
        return _from_16_bit(65535 - values if inverted else values)  # there 0 is white, which Pillow ignores
    if image.mode in ("I", "F"):
        raise Refused("32-bit: which level is white is not known; convert it to 8 or 16 bits per channel")
    return image


def _check_tiff(image: TiffImagePlugin.TiffImageFile) -> None:
    """Refuse what Pillow opens but decodes to wrong levels."""
    bits = image.tag_v2.get(_BITS, (1,))
    if 12 in bits:
        raise Refused("12-bit: convert it to 8 or 16 bits per channel")
    if max(bits) > 8 and len(bits) > 1 and image.tag_v2.get(_PLANES) == 2:
        raise Refused("16-bit: its channels lie in separate planes; convert it to 8 bits per channel")


def _deep_colour(image: ImageFile.ImageFile, content: bytes, kind: str) -> Image.Image:
    """A 16-bit colour image, decoded twice: once for the high bytes, once for the low ones."""
    if not all(_pixels(tile) in _SWAPPED for tile in image.tile):
        what = "grey with transparency" if kind == "PNG" else "of a kind that would be cut to its high bytes"
        raise Refused(f"16-bit: {what}; convert it to 8 bits per channel")
    with Image.open(io.BytesIO(content), formats=[kind]) as low:
        low.tile = [_swapped(tile) for tile in image.tile]
        values = np.asarray(image).astype(np.uint32) * 256 + np.asarray(low)
    return _from_16_bit(values)


def _pixels(tile: ImageFile._Tile) -> str:
    """Pillow's name for the pixel layout of a tile; some formats give it first in a tuple."""
    return str(tile.args[0] if isinstance(tile.args, tuple) else tile.args)


def _swapped(tile: ImageFile._Tile) -> ImageFile._Tile:
    name = _SWAPPED[_pixels(tile)]
    return tile._replace(args=(name, *tile.args[1:]) if isinstance(tile.args, tuple) else name)


def _from_16_bit(values: NDArray[Any]) -> Image.Image:
    return Image.fromarray(((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))


def to_srgb(image: Image.Image, profile: bytes | None, background: tuple[int, ...], *, grey: bool) -> Image.Image:
    """An image of any 8-bit mode as 8-bit L or RGB in sRGB, laid over `background` where transparent. Raises Refused.

    If `grey` is wanted, RGB without colour is made grey before the profile is applied, whose rounding would tint it.
    """
    alpha = None
    if image.mode in ("LA", "RGBA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("LA").convert("RGBA") if image.mode in ("LA", "La") else image.convert("RGBA")
        alpha = rgba.getchannel("A")
        image = rgba.getchannel("R") if image.mode in ("1", "L", "LA", "La") else rgba.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("P", "YCbCr", "RGBX"):
        image = image.convert("RGB")
    if profile:
        image = _apply(_uncoloured(image) if grey else image, profile)
    if image.mode == "CMYK":
        image = image.convert("RGB")
    if image.mode not in ("L", "RGB"):
        raise Refused(f"{image.mode}: convert it to grey or RGB")
    if alpha is not None and alpha.getextrema() != (255, 255):
        if image.mode == "L" and len(set(background)) > 1:
            image = image.convert("RGB")
        image = Image.composite(image, Image.new(image.mode, image.size, level(background, image.mode)), alpha)
    return image


def level(background: tuple[int, ...], mode: str) -> tuple[int, ...] | int:
    """The background in `mode`; for grey images its luma (ITU-R BT.601)."""
    if mode == "RGB":
        return background
    red, green, blue = background
    return (299 * red + 587 * green + 114 * blue + 500) // 1000


def _uncoloured(image: Image.Image) -> Image.Image:
    """The image as L if it is RGB with three equal channels, else unchanged."""
    pixels = np.asarray(image)
    return image.getchannel("R") if image.mode == "RGB" and (pixels == pixels[..., :1]).all() else image


def _apply(image: Image.Image, profile: bytes) -> Image.Image:
    transform = _transform(profile, image.mode)
    if transform is None:
        return image
    converted = ImageCms.applyTransform(image.convert(transform.input_mode), transform)
    assert converted is not None
    return converted.getchannel("R") if image.mode == "L" else converted


@functools.lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from the profile to sRGB; None if it moves no level by more than one. Raises Refused.

    A profile's name says little: some with "sRGB" in theirs have its primaries, but linear levels.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space in _PROBES and _changes_nothing(source, _PROBES[space]):
            return None
        return _to_srgb(source, "RGB" if (mode, space) == ("L", "RGB") else mode)  # RGB ones are often left on grey
    except (ImageCms.PyCMSError, OSError, ValueError):
        raise Refused(
            f"profile: the embedded colour profile is damaged or not meant for {mode}; convert the image to sRGB"
        ) from None


def _changes_nothing(source: ImageCms.ImageCmsProfile, probe: Image.Image) -> bool:
    converted = ImageCms.applyTransform(probe, _to_srgb(source, probe.mode))
    assert converted is not None
    difference = np.asarray(converted).astype(int) - np.asarray(probe.convert("RGB"))
    return bool(abs(difference).max() <= 1)


def _to_srgb(source: ImageCms.ImageCmsProfile, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(source, _SRGB, mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)


def from_array(values: NDArray[Any], max_pixels: int) -> Image.Image:
    """8-bit L or RGB from an array [H, W] or [H, W, 1 or 3]. Raises Refused.

    uint8 as it is, uint16 scaled by 1 / 257, bool as black and white, floats in [0, 1] times 255.
    """
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3) or 0 in values.shape:
        raise Refused(f"shape: {list(values.shape)} is not an image [H, W], [H, W, 1] or [H, W, 3]")
    if values.shape[0] * values.shape[1] > max_pixels:
        raise Refused(
            f"too large: {values.shape[1]} x {values.shape[0]} px, more than ingest.max_pixels {max_pixels:,}"
        )
    if values.dtype.newbyteorder("=") == np.uint16:
        return _from_16_bit(values)
    if values.dtype == np.bool_:
        values = values * np.uint8(255)
    elif values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise Refused("not finite: the array holds NaN or infinity")
        if values.min() < 0 or values.max() > 1:
            raise Refused(f"range: levels {values.min():.3g} to {values.max():.3g}; floats must lie in 0 to 1")
        values = np.rint(values.astype(np.float64) * 255).astype(np.uint8)
    if values.dtype != np.uint8:
        raise Refused(f"dtype: {values.dtype}; images are uint8, uint16, bool or floats in 0 to 1")
    return Image.fromarray(np.ascontiguousarray(values))
