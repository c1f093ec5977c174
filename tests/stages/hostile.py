"""A generator of hostile input: every format, damaged in every way that we could think of, from one seed."""

import gzip
import io
import json
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.stages.ingesting import encoded, noise, png


def seeds() -> dict[str, bytes]:
    """One sound file of each kind, by name."""
    grey, colour, clear = noise(16, 16), noise(24, 16, 3), noise(16, 16, 4)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    palette = Image.fromarray(grey).convert("P")
    smooth = Image.fromarray(noise(4, 4, 3)).resize((40, 40))
    return {
        "grey.png": encoded(grey), "colour.png": encoded(colour), "clear.png": encoded(clear),
        "palette.png": encoded(palette), "keyed.png": encoded(palette, transparency=3),
        "deep.png": encoded(Image.fromarray(grey.astype(np.uint16) * 250)),
        "bit.png": encoded(Image.fromarray(grey > 9)),
        "moving.png": encoded(grey, save_all=True, append_images=[Image.fromarray(noise(16, 16, seed=1))]),
        "photo.jpg": encoded(smooth, "JPEG"), "progressive.jpg": encoded(smooth, "JPEG", progressive=True),
        "turned.jpg": encoded(smooth, "JPEG", exif=exif), "inks.jpg": encoded(smooth.convert("CMYK"), "JPEG"),
        "profile.jpg": encoded(smooth, "JPEG", icc_profile=bytes(range(256)) * 3),
        "one.gif": encoded(palette, "GIF"), "bmp.bmp": encoded(colour, "BMP"),
        "lzw.tif": encoded(colour, "TIFF", compression="tiff_lzw"), "raw.tif": encoded(clear, "TIFF"),
        "flate.tiff": encoded(colour, "TIFF", compression="tiff_adobe_deflate"),
        "jpeg.tif": encoded(colour, "TIFF", compression="jpeg"),
        "lossy.webp": encoded(colour, "WEBP"), "exact.webp": encoded(clear, "WEBP", lossless=True),
    }  # fmt: skip


def archives() -> dict[str, bytes]:
    files = {f"{kind}/{at}.png": png(10 * at + len(kind)) for kind in ("cat", "bird") for at in range(4)}
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return {
        "a.zip": zipped.getvalue(),
        "a.tar": tarred.getvalue(),
        "a.tar.gz": gzip.compress(tarred.getvalue(), mtime=0),
    }


def tables() -> dict[str, bytes]:
    """Files of the other sources, with the names that these look for."""

    def saved(write: Callable[[io.BytesIO], Any]) -> bytes:
        buffer = io.BytesIO()
        write(buffer)
        return buffer.getvalue()

    images, labels = noise(6, 8, 8), np.arange(6, dtype=np.uint8) % 2
    cells = pa.table({"image": [{"bytes": png(at), "path": "x.png"} for at in range(6)], "label": [0, 1] * 3})
    shard = io.BytesIO()
    with tarfile.open(fileobj=shard, mode="w") as tar:
        for at in range(6):
            for end, content in (
                ("png", png(at)),
                ("cls", b"01"[at % 2 : at % 2 + 1]),
                ("json", json.dumps({"k": at}).encode()),
            ):
                info = tarfile.TarInfo(f"{at}.{end}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return {
        "a-images-idx3-ubyte": bytes([0, 0, 8, 3]) + struct.pack(">3I", 6, 8, 8) + images.tobytes(),
        "a-images-idx3-ubyte.gz": gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 6, 8, 8) + images.tobytes()),
        "data_batch_1.bin": b"".join(bytes([at % 2]) + noise(3072, seed=at).tobytes() for at in range(3)),
        "x.npy": saved(lambda file: np.save(file, images)),
        "all.npz": saved(lambda file: np.savez_compressed(file, x=images, y=labels)),
        "cells.parquet": saved(lambda file: pq.write_table(cells, file)),
        "shard.tar": shard.getvalue(),
        "list.csv": b"file,kind\n" + b"".join(b"%d.png,%c\n" % (at, 97 + at % 2) for at in range(6)),
    }


def mutated(content: bytes, dice: random.Random) -> bytes:
    """Damaged in one to three ways."""
    for _ in range(dice.randint(1, 3)):
        content = dice.choice(_WAYS)(content, dice)
    return content


def _cut(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content) + 1)]


def _flip(content: bytes, dice: random.Random) -> bytes:
    body = bytearray(content)
    for _ in range(dice.choice((1, 2, 8, 40)) if body else 0):
        body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
    return bytes(body)


def _overwrite(content: bytes, dice: random.Random) -> bytes:
    at, length = dice.randrange(len(content) + 1), dice.choice((1, 2, 4, 8, 64))
    return content[:at] + dice.choice((b"\xff", b"\0", b"\x7f", b"\x80")) * length + content[at + length :]


def _drop(content: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(content) + 1)
    return content[:at] + content[at + dice.choice((1, 4, 100)) :]


def _repeat(content: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(content) + 1)
    return content[:at] + content[at : at + dice.choice((1, 12, 200))] * dice.choice((2, 3, 50)) + content[at:]


def _grow(content: bytes, dice: random.Random) -> bytes:
    return content + dice.randbytes(dice.choice((1, 100, 5000)))


def _garble(content: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(content) + 1)
    return content[:at] + dice.randbytes(len(content) - at)


def _sound_checksums(content: bytes, dice: random.Random) -> bytes:
    """A PNG with a changed chunk whose checksum is right, so that the decoder has to find out."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _flip(content, dice)
    chunks, at = [], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return content
    which = dice.randrange(len(chunks))
    chunks[which] = (chunks[which][0], _flip(chunks[which][1], dice))
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return content[:8] + body


_WAYS = (_cut, _flip, _flip, _overwrite, _drop, _repeat, _grow, _garble, _sound_checksums)


def corpus(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` damaged image files, some under the name of another kind."""
    dice, sound = random.Random(seed), seeds()
    for number in range(count):
        name = dice.choice(sorted(sound))
        content = mutated(sound[name], dice)
        suffix = Path(dice.choice(sorted(sound)) if dice.random() < 0.1 else name).suffix
        yield f"{number:05d} {Path(name).stem}{suffix}", content


def lying_tar(dice: random.Random) -> bytes:
    """Every kind of member that must not be believed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=dice.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))) as tar:
        for name in ("../out.png", "/abs.png", "a/../../up.png", "C:\\x.png", "ok.png", "twice.png", "twice.png",
                     "x\nX.png", "n" * 300 + ".png", "größe.png"):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size = len(png(7))
            tar.addfile(info, io.BytesIO(png(7)))
        for name, kind in (("sym.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE), ("pipe.png", tarfile.FIFOTYPE),
                           ("disk.png", tarfile.BLKTYPE), ("tty.png", tarfile.CHRTYPE)):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    return buffer.getvalue()


def lying_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("../out.png", "/abs.png", "a/../../up.png", "C:\\x.png", "ok.png", "größe.png"):
            archive.writestr(name, png(8))
        link = zipfile.ZipInfo("sym.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr(zipfile.ZipInfo("twice.png"), png(1))
        archive.writestr(zipfile.ZipInfo("twicf.png"), png(2))
        archive.writestr("squeezed.png", png(3), zipfile.ZIP_LZMA)
    return buffer.getvalue().replace(b"twicf", b"twice")


def crowded_zip(members: int) -> bytes:
    """Empty members that all lie at one place; the list alone makes the size."""
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 5, 0) + b"x.png"
    entries = b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0) + b"%07d.png" % at
        for at in range(members)
    )
    many = min(members, 65535)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, many, many, len(entries), len(local), 0)
    return local + entries + end
