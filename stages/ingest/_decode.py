"""One encoded file or raw array in, one stored image out, or the reason why not. The content decides, not the name."""

import io
import warnings
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from stages.ingest import _colour
from stages.ingest._sample import Refused

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "big-endian BigTIFF"),  # Pillow takes it for TIFF
    (b"RIFF", "RIFF"),
    (b"%PDF", "PDF"),
    (b"PK\3\4", "ZIP"),
    (b"\x1f\x8b", "GZIP"),
    (b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF"}  # after `ftyp`
_CONVERTED = (*_BRANDS.values(), "JPEG 2000", "big-endian BigTIFF")
_DECODED = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_EXTENSIONS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".webp": "WEBP", ".gif": "GIF",
    ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
CLAIMS = ["", *sorted({*_EXTENSIONS.values()})]  # what a name may claim; an index into this list is stored


@dataclass(frozen=True)
class Rules:
    """What every stored image is and how it is made; fields as in stages/config/ingest.py."""

    resolution: int
    channels: int
    fit: str
    upscale: bool
    background: tuple[int, ...]
    max_pixels: int

    @property
    def max_bytes(self) -> int:
        """No honest file of `max_pixels` 8-bit RGB pixels is larger; 16 MiB allow for what cameras embed."""
        return 3 * self.max_pixels + 2**24


def claim(name: str) -> int:
    """The format that the name claims, as an index into CLAIMS."""
    return CLAIMS.index(_EXTENSIONS.get(PurePath(name).suffix.lower(), ""))


def decode(content: bytes | NDArray[Any], name: str, rules: Rules) -> tuple[NDArray[np.uint8], int, int]:
    """The stored image, uint8 [resolution, resolution, channels], and the upright original's width and height in px.

    It is turned upright by its EXIF orientation, converted to sRGB by its embedded profile, laid over `background`
    where transparent, made square by `fit` and scaled with antialiasing (Pillow's bicubic, after Parmar, Zhang, Zhu:
    "On aliased resizing", CVPR 2022); an image of the right size in 8-bit grey or RGB keeps its pixels. Raises Refused.
    """
    if not isinstance(content, bytes):
        return _finish(_colour.from_array(content, rules.max_pixels), rules)
    kind = _sniff(content, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata is common and harms no pixel
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _decode(content, kind, rules)
    except Refused:
        raise
    except MemoryError:
        raise Refused("too large: decoding it takes more memory than a process may use") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Refused(f"too large: more pixels than ingest.max_pixels {rules.max_pixels:,}") from None
    except UnidentifiedImageError:
        raise Refused(f"damaged: the header of this {kind} cannot be read") from None
    except Exception as error:  # noqa: BLE001 - decoders raise nearly anything on hostile bytes
        # Pillow's own words may hold memory addresses, which would differ from run to run.
        word = "truncated" if "truncated" in str(error).lower() else "damaged"
        raise Refused(f"{word}: this {kind} cannot be decoded") from None


def _sniff(content: bytes, name: str) -> str:
    """The format by its first bytes. Raises Refused if it is not one that is decoded, or if the name claims another."""
    if not content:
        raise Refused("empty: the file has no bytes")
    kind = next((kind for start, kind in _SIGNATURES if content.startswith(start)), "text or unknown")
    if kind == "RIFF" and content[8:12] == b"WEBP":
        kind = "WEBP"
    if content[4:8] == b"ftyp":
        kind = _BRANDS.get(content[8:12], kind)
    if kind not in _DECODED:
        what = f"the content is {kind}, not {', '.join(_DECODED[:-1])} or {_DECODED[-1]}"
        raise Refused(f"wrong type: {what}{'; convert it to PNG' * (kind in _CONVERTED)}")
    claimed = CLAIMS[claim(name)]
    if claimed not in ("", kind):
        raise Refused(f"wrong type: the content is {kind}, the name says {claimed}")
    return kind


def _decode(content: bytes, kind: str, rules: Rules) -> tuple[NDArray[np.uint8], int, int]:
    with Image.open(io.BytesIO(content), formats=[kind]) as image:
        _check_header(image, kind, rules)
        if kind == "PNG":
            _verify_png(content)
        plain = _colour.to_8_bit(image, content, kind)
        turn = _TURNS.get(_orientation(image, kind))
        plain = plain if turn is None else plain.transpose(turn)
        profile, grey = image.info.get("icc_profile"), rules.channels == 1
        return _finish(_colour.to_srgb(plain, profile, rules.background, grey=grey), rules)


def _orientation(image: Image.Image, kind: str) -> Any:
    """The EXIF orientation; 1, upright, if none can be read, because odd metadata harms no pixel."""
    if kind == "TIFF":  # Pillow has turned it on loading
        return 1
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - nearly anything may be raised
        return 1


def _check_header(image: Image.Image, kind: str, rules: Rules) -> None:
    """Everything that can be refused before a single pixel is decoded."""
    width, height = image.size
    if width * height > rules.max_pixels:
        raise Refused(f"too large: {width} x {height} px, more than ingest.max_pixels {rules.max_pixels:,}")
    if min(width, height) < (1 if rules.upscale else rules.resolution):
        raise _too_small(width, height, rules)
    if kind != "JPEG" and getattr(image, "n_frames", 1) > 1:  # cameras append previews to JPEG
        raise Refused("animated: holds several pictures")


def _too_small(width: int, height: int, rules: Rules) -> Refused:
    return Refused(f"too small: {width} x {height} px, ingest.resolution is {rules.resolution}")


def _verify_png(content: bytes) -> None:
    """Check every chunk to the end: decoding alone skips the checksums and accepts a missing end."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        image.verify()


def _finish(image: Image.Image, rules: Rules) -> tuple[NDArray[np.uint8], int, int]:
    """The stored image, and width and height before scaling, from an upright image in 8-bit L or RGB."""
    if not rules.upscale and min(image.size) < rules.resolution:
        raise _too_small(*image.size, rules)
    if rules.channels == 3 and image.mode == "L" and len(set(rules.background)) > 1:
        image = image.convert("RGB")  # L has no room for a coloured background
    stored = _channels(_SHAPES[rules.fit](image, rules.resolution, rules.background), rules)
    return stored, image.width, image.height


def _crop(image: Image.Image, side: int, background: tuple[int, ...]) -> Image.Image:
    """The central square."""
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    central = image if image.width == image.height else image.crop((left, top, left + edge, top + edge))
    return _stretch(central, side, background)


def _pad(image: Image.Image, side: int, background: tuple[int, ...]) -> Image.Image:
    """The whole image in the middle of a square of background."""
    longest = max(image.size)
    width, height = (max(1, (side * edge + longest // 2) // longest) for edge in image.size)
    if (width, height) == (side, side):
        return _stretch(image, side, background)
    square = Image.new(image.mode, (side, side), _colour.level(background, image.mode))
    scaled = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)
    square.paste(scaled, ((side - width) // 2, (side - height) // 2))
    return square


def _stretch(image: Image.Image, side: int, background: tuple[int, ...]) -> Image.Image:
    return image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BICUBIC)


_SHAPES = {"crop": _crop, "pad": _pad, "stretch": _stretch}


def _channels(image: Image.Image, rules: Rules) -> NDArray[np.uint8]:
    """uint8 [H, W, channels]. Grey is repeated for RGB; in a grey store RGB is refused unless it is colourless."""
    pixels = np.asarray(image, dtype=np.uint8)
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], rules.channels, axis=2)
    if rules.channels == 1:
        if (pixels != pixels[:, :, :1]).any():
            raise Refused("colour: this store is grey; set ingest.channels: 3, or convert the image")
        return pixels[:, :, :1].copy()
    return pixels
