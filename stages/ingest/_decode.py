"""One file to one stored image, or the reason why not. The content decides, never the name alone."""

import io
import warnings
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from stages.ingest._folder import Refused

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"RIFF", "WebP or another RIFF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"%PDF", "PDF"),
    (b"PK\3\4", "ZIP"),
)
_EXTENSIONS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG"}
_PNG_REFUSED = {3: "palette: convert it to grey or RGB", 4: "RGBA: has transparency", 6: "RGBA: has transparency"}


@dataclass(frozen=True)
class Rules:
    """What every stored image is: pixels a side and channels; and the most pixels that are ever decoded."""

    resolution: int
    channels: int
    max_pixels: int

    @property
    def max_bytes(self) -> int:
        """No honest file of `max_pixels` 8-bit RGB pixels is larger; 16 MiB are left for what cameras embed."""
        return 3 * self.max_pixels + 2**24


def decode(content: bytes, name: str, rules: Rules) -> tuple[NDArray[np.uint8], int, int]:
    """The stored image, uint8 [resolution, resolution, channels], and the width and height of the file in pixels.

    Turned upright by its EXIF orientation, cropped to its central square, scaled down with antialiasing (Pillow's
    bicubic, after Parmar, Zhang, Zhu: "On aliased resizing", CVPR 2022); an image of the right size keeps its pixels.
    Raises Refused with the reason.
    """
    kind = _sniff(content, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata is common and harms no pixel
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _decode(content, kind, rules)
    except (Refused, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Refused(f"too large: more pixels than ingest.max_pixels {rules.max_pixels:,}") from None
    except UnidentifiedImageError:
        raise Refused(f"damaged: the header of this {kind} cannot be read") from None
    except Exception as error:  # noqa: BLE001 - decoders raise nearly anything on hostile bytes
        # Pillow's own words may hold memory addresses, which would differ from run to run.
        word = "truncated" if "truncated" in str(error).lower() else "damaged"
        raise Refused(f"{word}: this {kind} cannot be decoded") from None


def _sniff(content: bytes, name: str) -> str:
    """PNG or JPEG, from the first bytes; raises Refused for others and for a name that says otherwise."""
    if not content:
        raise Refused("empty: the file has no bytes")
    kind = next((kind for start, kind in _SIGNATURES if content.startswith(start)), "text or unknown")
    if kind not in ("PNG", "JPEG"):
        raise Refused(f"wrong type: the content is {kind}, not PNG or JPEG")
    claimed = _EXTENSIONS.get(PurePath(name).suffix.lower(), kind)
    if claimed != kind:
        raise Refused(f"wrong type: the content is {kind}, the name says {claimed}")
    return kind


def _decode(content: bytes, kind: str, rules: Rules) -> tuple[NDArray[np.uint8], int, int]:
    with Image.open(io.BytesIO(content), formats=[kind]) as image:
        _check_header(image, content, kind, rules)
        if kind == "PNG":
            _verify_png(content)
        image.load()
        upright = ImageOps.exif_transpose(image)
        stored = _channels(_square(upright, rules.resolution), rules)
        return stored, upright.width, upright.height


def _check_header(image: Image.Image, content: bytes, kind: str, rules: Rules) -> None:
    """Everything that can be refused before a single pixel is decoded."""
    width, height = image.size
    if width * height > rules.max_pixels:
        raise Refused(f"too large: {width} x {height} px, more than ingest.max_pixels {rules.max_pixels:,}")
    if min(width, height) < rules.resolution:
        raise Refused(f"too small: {width} x {height} px, ingest.resolution is {rules.resolution}")
    if kind == "PNG":
        depth, colour = content[24], content[25]  # IHDR is always the first chunk
        if depth == 16:  # Pillow drops the low byte of RGB without a word
            raise Refused("16-bit: convert it to 8 bits a channel")
        if colour in _PNG_REFUSED:
            raise Refused(_PNG_REFUSED[colour])
        if "transparency" in image.info:
            raise Refused("RGBA: has a transparent colour")
        if getattr(image, "is_animated", False):
            raise Refused("animated: holds several pictures")
    elif image.mode not in ("L", "RGB"):
        raise Refused(f"{image.mode}: convert it to grey or RGB")


def _verify_png(content: bytes) -> None:
    """Check every chunk to the end: decoding alone skips the checksums and accepts a missing end."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        image.verify()


def _square(image: Image.Image, side: int) -> Image.Image:
    """The central square, scaled down to `side` pixels."""
    if image.mode == "1":
        image = image.convert("L")
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    central = image.crop((left, top, left + edge, top + edge))
    return central if edge == side else central.resize((side, side), Image.Resampling.BICUBIC)


def _channels(image: Image.Image, rules: Rules) -> NDArray[np.uint8]:
    """uint8 [H, W, channels]. Grey is repeated for RGB; colour is refused for grey, unless it shows none."""
    pixels = np.asarray(image, dtype=np.uint8)
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], rules.channels, axis=2)
    if rules.channels == 1:
        if (pixels != pixels[:, :, :1]).any():
            raise Refused("colour: this store is grey; set ingest.channels: 3, or convert the image")
        return pixels[:, :, :1].copy()
    return pixels
