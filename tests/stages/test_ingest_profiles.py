"""Embedded colour profiles: what they say is done, and a damaged one is refused."""

import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from stages.ingest._sample import Refused
from tests.stages.ingesting import encoded, noise, stored

pytestmark = pytest.mark.fast


def matrix_profile(swap: bool, name: str = "a test profile", levels: NDArray[np.float64] | None = None) -> bytes:
    """An ICC profile (version 2) with sRGB's primaries, red and blue exchanged or not, and linear tone curves, or
    curves of linear `levels` [n] in 0 to 1."""

    def s15(values: tuple[float, ...]) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    red, green, blue = (0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)
    first, last = (blue, red) if swap else (red, blue)
    entries = np.rint(65535 * levels).astype(">u2").tobytes() if levels is not None else b""
    curve = b"curv" + bytes(4) + struct.pack(">I", len(entries) // 2) + entries + bytes(-len(entries) % 4 or 4)
    text = name.encode() + b"\0"
    about = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78 + (-len(text) - 78 - 12) % 4)
    tags = [(b"desc", about), (b"wtpt", s15((0.9642, 1, 0.8249))), (b"rXYZ", s15(first)), (b"gXYZ", s15(green)),
            (b"bXYZ", s15(last)), (b"rTRC", curve), (b"gTRC", curve), (b"bTRC", curve)]  # fmt: skip
    table, body, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags:
        table += name + struct.pack(">II", offset + len(body), len(content))
        body += content
    size = offset + len(body)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head = (head + bytes(12) + b"acsp").ljust(68, b"\0") + struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


def srgb(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_an_embedded_profile_is_converted_to_srgb() -> None:
    pixels = noise(8, 8, 3)
    expected = 255 * srgb(pixels / 255)
    image = stored(encoded(pixels, icc_profile=matrix_profile(swap=False)))
    assert abs(image - expected).max() <= 2
    swapped = stored(encoded(pixels, icc_profile=matrix_profile(swap=True)))
    assert abs(swapped - expected[..., ::-1]).max() <= 2


def test_a_profile_of_srgb_changes_nothing() -> None:
    pixels = noise(8, 8, 3)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(stored(encoded(pixels, icc_profile=profile)), pixels)


def test_a_profile_is_srgb_by_what_it_does_not_by_its_name() -> None:
    """Linear levels under a name with sRGB in it were taken for sRGB, and the images stayed dark."""
    pixels = noise(8, 8, 3)
    image = stored(encoded(pixels, icc_profile=matrix_profile(False, "sRGB built-in, linear")))
    assert abs(image - 255 * srgb(pixels / 255)).max() <= 2
    encoded_levels = np.arange(1024) / 1023
    linear = np.where(encoded_levels <= 0.04045, encoded_levels / 12.92, ((encoded_levels + 0.055) / 1.055) ** 2.4)
    profile = matrix_profile(False, "what a camera calls it", linear)
    assert np.array_equal(stored(encoded(pixels, icc_profile=profile)), pixels)
    grey = noise(8, 8)
    assert np.array_equal(stored(encoded(grey, icc_profile=profile), channels=1)[..., 0], grey), "often left on grey"


def test_a_profile_under_transparency() -> None:
    pixels = noise(8, 8, 4)
    pixels[..., 3] = 255
    image = stored(encoded(pixels, icc_profile=matrix_profile(swap=False)))
    assert abs(image - 255 * srgb(pixels[..., :3] / 255)).max() <= 2


def test_lab_with_its_profile() -> None:
    pixels = np.full((8, 8, 3), (200, 90, 60), np.uint8)
    image = stored(encoded(Image.fromarray(pixels).convert("LAB"), "TIFF"))
    assert abs(image - pixels).max() <= 4


@pytest.mark.parametrize("profile", [b"garbage", b"\0" * 128, matrix_profile(False)[:200]])
def test_a_damaged_profile_is_refused(profile: bytes) -> None:
    with pytest.raises(Refused, match="profile: the embedded colour profile is damaged"):
        stored(encoded(noise(8, 8, 3), icc_profile=profile))


def test_a_profile_for_another_kind_of_image_is_refused() -> None:
    with pytest.raises(Refused, match="not meant for CMYK"):
        stored(encoded(Image.new("CMYK", (8, 8)), "TIFF", icc_profile=matrix_profile(False)))


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_under_a_profile_of_colour_is_grey(channels: int) -> None:
    """Programs leave "sRGB" of a plain power on grey pictures, and write grey ones as RGB; rounding is no colour."""
    profile = matrix_profile(False, "sRGB of a power", np.linspace(0, 1, 1024) ** 2.2)
    grey = noise(8, 8)
    wanted = np.repeat(255 * srgb((grey[..., None] / 255) ** 2.2), channels, axis=2)
    three = np.repeat(grey[..., None], 3, axis=2)
    clear = np.concatenate([three, np.full((8, 8, 1), 255, np.uint8)], axis=2)
    for written in (grey, three, clear):
        assert abs(stored(encoded(written, icc_profile=profile), channels=channels) - wanted).max() <= 2
