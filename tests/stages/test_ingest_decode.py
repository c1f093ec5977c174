"""Every way of writing one picture comes to the same stored pixels, and these are the right ones."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stages.ingest._sample import Refused
from tests.stages.ingesting import encoded, noise, stored

pytestmark = pytest.mark.fast
WHITE = (255, 255, 255)


def merged(mode: str, pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.merge(mode, [Image.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(pixels, 2, 0)])


def png(depth: int, colour: int, values: NDArray[Any], chunks: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """A PNG of integer levels [H, W, channels], which Pillow cannot write at 16 bits; every filter type occurs."""
    height, width = values.shape[:2]
    rows = values.astype(">u2" if depth == 16 else "u1").reshape(height, -1)
    step = values.shape[2] * depth // 8
    raw, before = b"", bytes(rows.shape[1] * depth // 8)
    for number, row in enumerate(rows):
        line = row.tobytes()
        left = bytes(step) + line[:-step]
        if number % 3 == 1:
            raw += b"\1" + bytes((a - b) % 256 for a, b in zip(line, left, strict=True))
        elif number % 3 == 2:
            raw += b"\2" + bytes((a - b) % 256 for a, b in zip(line, before, strict=True))
        else:
            raw += b"\0" + line
        before = line
    return png_file(width, height, depth, colour, raw, chunks)


def png_file(
    width: int, height: int, depth: int, colour: int, raw: bytes, chunks: tuple[tuple[bytes, bytes], ...] = ()
) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + body


def test_an_image_of_the_right_size_keeps_its_pixels() -> None:
    grey, colour = noise(8, 8), noise(8, 8, 3)
    assert np.array_equal(stored(encoded(grey), channels=1)[..., 0], grey)
    assert np.array_equal(stored(encoded(grey)), np.repeat(grey[..., None], 3, 2))
    for kind, options in (("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        assert np.array_equal(stored(encoded(colour, kind, **options)), colour), kind


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_exif_orientation_is_undone(turn: int) -> None:
    upright = np.zeros((16, 16), np.uint8)
    upright[:8, :8], upright[:8, 8:], upright[8:, :8] = 255, 128, 64
    # EXIF: what must be done to the stored pixels; so store the inverse of it.
    inverse = {1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
               4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
               7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}[turn]  # fmt: skip
    image = Image.fromarray(upright)
    exif = Image.Exif()
    exif[0x0112] = turn
    content = encoded(image.transpose(inverse) if inverse is not None else image, exif=exif)
    assert np.array_equal(stored(content, channels=1, resolution=16)[..., 0], upright)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (6, 4)], ids=["grey", "RGB", "RGBA"])
def test_sixteen_bits_are_rounded_not_cut(colour: int, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (8, 8, channels))
    values[0, 0], values[0, 1], values[0, 2], values[0, 3] = 0, 65535, 255, 128
    if channels == 4:
        values[..., 3] = 65535
    image = stored(png(16, colour, values))
    expected = np.rint(values[..., :3] / 257)
    assert np.array_equal(image, np.broadcast_to(expected, (8, 8, 3)))
    assert image[0, 2, 0] == 1, "cutting the low byte would give 0"


def tiff_16(values: NDArray[Any], order: str, packed: bool) -> bytes:
    """A 16-bit TIFF of colour [H, W, 3 or 4], in one strip; Pillow writes none. order: `<` or `>`."""
    height, width, samples = values.shape
    pixels = values.astype(f"{order}u2").tobytes()
    pixels = zlib.compress(pixels) if packed else pixels
    fields = [(256, 1, width), (257, 1, height), (258, samples, 8), (259, 1, 8 if packed else 1), (262, 1, 2)]
    fields += [(273, 1, 16), (277, 1, samples), (278, 1, height), (279, 1, len(pixels))]
    fields += [(338, 1, 2)] if samples == 4 else []
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 16 + len(pixels))
    table = struct.pack(f"{order}H", len(fields))
    for tag, count, value in fields:
        table += struct.pack(f"{order}HHII", tag, 4 if tag != 258 else 3, count, value)
    return head + struct.pack(f"{order}4H", 16, 16, 16, 16) + pixels + table + bytes(4)


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "deflated"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("samples", [3, 4])
def test_sixteen_bit_colour_tiff_is_rounded_not_cut(samples: int, order: str, packed: bool) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (8, 8, samples))
    values[..., 3:] = 65535
    assert np.array_equal(stored(tiff_16(values, order, packed)), np.rint(values[..., :3] / 257))


def test_sixteen_bit_tiff() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (8, 8)).astype(np.uint16)
    assert np.array_equal(stored(encoded(Image.fromarray(values), "TIFF"), channels=1)[..., 0], np.rint(values / 257))


@pytest.mark.parametrize("background", [WHITE, (0, 0, 0), (10, 200, 30)])
def test_transparent_pixels_lie_over_the_background(background: tuple[int, int, int]) -> None:
    pixels = noise(8, 8, 4)
    pixels[0, 0, 3], pixels[0, 1, 3] = 0, 255
    image = stored(encoded(pixels), background=background)
    alpha = pixels[..., 3:] / 255
    expected = pixels[..., :3] * alpha + np.array(background) * (1 - alpha)
    assert abs(image - expected).max() <= 1
    assert tuple(image[0, 0]) == background and np.array_equal(image[0, 1], pixels[0, 1, :3])


def test_grey_with_transparency_stays_grey_over_grey() -> None:
    pixels = noise(8, 8, 2)
    image = stored(encoded(merged("LA", pixels)), channels=1, background=(0, 0, 0))
    assert abs(image[..., 0] - pixels[..., 0] * (pixels[..., 1] / 255)).max() <= 1


def test_a_transparent_colour_and_a_transparent_palette_entry() -> None:
    grey = noise(8, 8)
    grey[grey == 7] = 8
    grey[2, 3] = 7
    image = stored(encoded(Image.fromarray(grey), transparency=7), channels=1)
    assert image[2, 3, 0] == 255 and np.array_equal(np.delete(image[..., 0], 19), np.delete(grey, 19))
    palette = Image.fromarray(grey % 4).convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    image = stored(encoded(palette, transparency=1))
    table = np.array([[255, 0, 0], [255, 255, 255], [0, 0, 255], [9, 9, 9]])
    assert np.array_equal(image, table[grey % 4])


def test_a_palette_becomes_its_colours() -> None:
    indices = noise(8, 8) % 3
    palette = Image.fromarray(indices).convert("P")
    palette.putpalette([10, 20, 30, 200, 100, 50, 7, 7, 7])
    for kind in ("PNG", "GIF", "BMP"):
        image = stored(encoded(palette, kind))
        assert np.array_equal(image, np.array([[10, 20, 30], [200, 100, 50], [7, 7, 7]])[indices]), kind
    palette.putpalette([0, 0, 0, 90, 90, 90, 255, 255, 255])
    assert np.array_equal(stored(encoded(palette), channels=1)[..., 0], np.array([0, 90, 255])[indices])


def test_one_bit() -> None:
    bits = noise(8, 8) > 128
    assert np.array_equal(stored(encoded(Image.fromarray(bits)), channels=1)[..., 0], bits * 255)


def test_cmyk() -> None:
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[..., 0], inks[..., 3] = 255, 51  # cyan, and a fifth of black
    image = stored(encoded(merged("CMYK", inks), "TIFF"))
    assert abs(image - np.array([0, 204, 204])).max() <= 1
    photo = Image.fromarray(np.full((16, 16, 3), (200, 30, 60), np.uint8)).convert("CMYK")
    assert abs(stored(encoded(photo, "JPEG", quality=95)) - np.array([200, 30, 60])).max() <= 6


def plain_tiff(bits: int, photometric: int, strips: list[bytes], planes: int = 1) -> bytes:
    """8 x 8 px, little-endian, one strip a plane, nothing packed."""
    samples, counts = len(strips) if planes == 2 else 1, [len(strip) for strip in strips]
    fields = [(256, [8]), (257, [8]), (258, [bits] * samples), (259, [1]), (262, [photometric]), (273, []),
              (277, [samples]), (278, [8]), (279, counts), (284, [planes])]  # fmt: skip
    end = 8 + 2 + 12 * len(fields) + 4
    fields[5] = (273, [end + 256 + sum(counts[:at]) for at in range(len(strips))])
    table, more = struct.pack("<H", len(fields)), b""
    for tag, values in fields:
        kind = "H" if tag == 258 else "I"
        content = struct.pack(f"<{len(values)}{kind}", *values)
        table += struct.pack("<HHI", tag, 3 if kind == "H" else 4, len(values))
        table += content.ljust(4, b"\0") if len(content) <= 4 else struct.pack("<I", end + len(more))
        more += content if len(content) > 4 else b""
    return b"II*\0" + struct.pack("<I", 8) + table + bytes(4) + more.ljust(256, b"\0") + b"".join(strips)


def test_tiff_whose_zero_is_white_is_no_negative() -> None:
    levels = np.random.default_rng(0).integers(0, 65536, (8, 8)).astype("<u2")
    image = stored(plain_tiff(16, 0, [levels.tobytes()]), channels=1)[..., 0]
    assert np.array_equal(image, np.rint((65535 - levels.astype(float)) / 257))
    assert np.array_equal(stored(plain_tiff(16, 1, [levels.tobytes()]), channels=1)[..., 0], np.rint(levels / 257))
    assert np.array_equal(stored(plain_tiff(8, 0, [bytes(range(64))]), channels=1).ravel(), 255 - np.arange(64))
    packed = encoded(Image.fromarray(levels), "TIFF", tiffinfo={262: 0}, compression="tiff_lzw")
    assert np.array_equal(stored(packed, channels=1)[..., 0], image)


def test_tiff_that_would_be_decoded_to_other_levels_is_refused() -> None:
    """White of 12 bits became nearly black, and of planes of 16 bits the low bytes were taken for pixels, too."""
    with pytest.raises(Refused, match="12-bit: convert it"):
        stored(plain_tiff(12, 1, [b"\xff" * 96]), channels=1)
    planes = [np.full((8, 8), level, "<u2").tobytes() for level in (0x0102, 0x8003, 0xFF04)]
    with pytest.raises(Refused, match="16-bit: its channels lie in separate planes"):
        stored(plain_tiff(16, 2, planes, planes=2))
    planes = [bytes([level]) * 64 for level in (1, 128, 255)]
    assert np.array_equal(stored(plain_tiff(8, 2, planes, planes=2)), np.broadcast_to([1, 128, 255], (8, 8, 3)))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_the_transparent_level_of_a_grey_png_is_meant_in_its_own_depth(depth: int) -> None:
    most = 2**depth - 1
    values = np.arange(64).reshape(8, 8) % (most + 1)
    bits = (values[..., None] >> np.arange(depth)[::-1] & 1).reshape(8, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    content = png_file(8, 8, depth, 0, rows, ((b"tRNS", struct.pack(">H", most)),))
    image = stored(content, channels=1, background=(7, 7, 7))[..., 0]
    assert np.array_equal(image, np.where(values == most, 7, values * 255 // most))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_odd_metadata_turn_no_good_image_into_a_damaged_one(kind: str) -> None:
    """A negative number, a fraction with a sign, a float, text: written again they would not fit."""
    upright = noise(16, 24)
    turned = struct.pack("<HHIHH", 274, 3, 1, 6, 0)
    odd = [struct.pack("<HHIi", tag, 9, 1, -5) for tag in (256, 282)] + [struct.pack("<HHIf", 700, 11, 1, 1.5)]
    pixels = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    options: dict[str, Any] = {"quality": 100} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    for field in odd:
        body = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + b"".join(sorted([field, turned], key=lambda one: one[:2]))
        content = encoded(pixels.convert("RGB"), kind, exif=body + bytes(4), **options)
        image = stored(content, fit="stretch", resolution=16)
        known = stored(encoded(Image.fromarray(upright)), fit="stretch", resolution=16)
        assert abs(image.astype(int) - known).mean() < 2
    garbage = stored(encoded(pixels.convert("RGB"), kind, exif=b"Exif\0\0garbagegarbage", **options), resolution=16)
    assert garbage.shape == (16, 16, 3)


# ---- shape


def halves(width: int, height: int) -> NDArray[np.uint8]:
    pixels = np.zeros((height, width), np.uint8)
    pixels[:, width // 2 :] = 200
    return pixels


def test_crop_pad_and_stretch() -> None:
    content = encoded(halves(32, 16))
    crop, pad, stretch = (stored(content, channels=1, fit=fit)[..., 0] for fit in ("crop", "pad", "stretch"))
    for image in (crop, stretch, pad[2:6]):  # bicubic overshoots a little beside the edge
        assert (image[:, :3] <= 3).all() and (abs(image[:, 5:] - 200) <= 3).all()
    assert (crop[:, 3] < 40).all() and (crop[:, 4] > 160).all(), "the edge lies in the middle of the central square"
    assert (pad[:2] == 255).all() and (pad[6:] == 255).all()
    colour = stored(encoded(noise(4, 8, 3)), fit="pad", background=(1, 2, 3), upscale=True)
    grey = stored(encoded(noise(4, 8)), fit="pad", background=(1, 2, 3), upscale=True)
    assert (grey[0] == (1, 2, 3)).all() and (grey[2:6, :, 0] == grey[2:6, :, 1]).all()
    assert (colour[:2] == (1, 2, 3)).all() and (colour[6:] == (1, 2, 3)).all()


def test_scaling_down_is_antialiased() -> None:
    """Stripes one pixel wide become grey; without antialiasing they alias into stripes or into one of the levels."""
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    image = stored(encoded(stripes), channels=1)
    assert abs(image - 127.5).max() <= 8


def test_scaling_agrees_with_the_same_filter_in_floating_point() -> None:
    pixels = noise(40, 40)
    exact = np.asarray(Image.fromarray(pixels.astype(np.float32)).resize((8, 8), Image.Resampling.BICUBIC))
    assert abs(stored(encoded(pixels), channels=1)[..., 0] - exact).max() <= 1


def test_smaller_images_are_refused_or_enlarged() -> None:
    content = encoded(np.full((4, 6), 77, np.uint8))
    with pytest.raises(Refused, match="too small: 6 x 4 px"):
        stored(content)
    assert (stored(content, upscale=True) == 77).all()
    with pytest.raises(Refused, match="too small"):
        stored(np.zeros((4, 6), np.uint8))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"), "32-bit"),
        (png(16, 4, np.full((8, 8, 2), 999)), "16-bit: grey with transparency"),
        (png(16, 2, np.full((8, 8, 3), 999), ((b"tRNS", bytes(6)),)), "16-bit: with a transparent colour"),
        (encoded(noise(8, 8), "GIF", save_all=True, append_images=[Image.fromarray(noise(8, 8, seed=1))]), "animated"),
        (encoded(noise(8, 8), "TIFF", save_all=True, append_images=[Image.fromarray(noise(8, 8, seed=1))]), "animated"),
        (encoded(noise(8, 8, 3), "WEBP", save_all=True, append_images=[Image.fromarray(noise(8, 8, 3)[::-1])]), "anim"),
        (encoded(merged("LAB", noise(8, 8, 3)), "TIFF"), "LAB: convert it"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "wrong type: the content is RIFF"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_without_a_guess_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        stored(content)


def test_a_photograph_with_a_preview_behind_it_is_one_picture() -> None:
    content = encoded(noise(16, 16, 3), "MPO", save_all=True, append_images=[Image.fromarray(noise(8, 8, 3))])
    assert content[:3] == b"\xff\xd8\xff"
    first = np.asarray(Image.open(io.BytesIO(content)).resize((8, 8), Image.Resampling.BICUBIC))
    assert np.array_equal(stored(content, "phone.jpg"), first)
