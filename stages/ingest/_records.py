"""Streams of numbers inside published files: plain or gzip, in zip and tar archives, and arrays of MATLAB's version 5.

Nothing is unpacked to disk, and no more than asked for is held in memory. MATLAB's format is its "Level 5 MAT-File
Format": 128 bytes, then elements of (type, size in bytes, data), compressed with zlib or not; an array consists of
flags, dimensions, name and numbers.
"""

import gzip
import hashlib
import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stages.ingest._sample import Refused, refusal

BROKEN = (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile, ValueError, struct.error)
LOST = "truncated: the file ends inside this image, or is damaged before it"
DAMAGED = "damaged: the checksum of the file that holds it does not agree with what is in it"
_PIECE = 2**20  # bytes
_MATRIX, _PACKED = 14, 15  # MATLAB's types of elements
_NUMBERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}


def md5_of(path: Path) -> str:
    """The MD5 of a file in hexadecimal; publishers state it, and it guards against accidents only."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextmanager
def opened(path: Path, member: str = "") -> Iterator[BinaryIO]:
    """The file, or `member` of it if it is a zip or tar archive; whatever is called .gz is decompressed on the way.

    Raises ValueError if the archive lacks this member, and one of BROKEN for what cannot be read.
    """
    with ExitStack() as stack:
        file: IO[bytes]
        try:
            if not member:
                file = stack.enter_context(path.open("rb"))
            elif path.suffix == ".zip":
                file = stack.enter_context(stack.enter_context(zipfile.ZipFile(path)).open(member))
            else:
                archive = stack.enter_context(tarfile.open(path))
                file = stack.enter_context(cast(IO[bytes], archive.extractfile(member)))
        except KeyError:
            raise ValueError(f"{path} holds no {member}") from None
        if (member or path.name).endswith(".gz"):
            file = stack.enter_context(cast(IO[bytes], gzip.GzipFile(fileobj=file)))
        yield cast(BinaryIO, file)


def numbers(path: Path, member: str = "", *, skip: int = 0, kind: DTypeLike = np.uint8) -> NDArray[np.generic]:
    """All numbers after the first `skip` bytes."""
    with opened(path, member) as file:
        forward(file, skip)
        return np.frombuffer(file.read(), kind)


def matlab_numbers(path: Path, array: str) -> NDArray[np.generic]:
    """All numbers of an array, column by column, in the type they are stored in."""
    with path.open("rb") as file:
        stream, kind, size = matlab_array(file, array)
        return np.frombuffer(stream.read(size), kind)


def forward(file: IO[bytes], count: int) -> None:
    """Skip `count` bytes. Raises EOFError if there are fewer."""
    while count > 0:
        passed = len(file.read(min(count, _PIECE)))
        if not passed:
            raise EOFError
        count -= passed


def records(file: IO[bytes], size: int, places: Iterable[int]) -> Iterator[bytes | Refused]:
    """The records of `size` bytes at ascending places from the file's position on; after a lost one all are refused."""
    at, record = 0, bytes(size)
    for place in places:
        if len(record) == size:
            try:
                skipped = (place - at) * size
                file.seek(skipped, os.SEEK_CUR) if file.seekable() else forward(file, skipped)
                record, at = file.read(size), place + 1
            except BROKEN as error:
                refusal(error, LOST)
                record = b""
        yield record if len(record) == size else Refused(LOST)


def intact(file: IO[bytes], size: int) -> bool:
    """Whether exactly `size` bytes follow, and match the checksum of whatever they are compressed in.

    The checksum is compared only at the end, so a reader that stops after what is promised never learns of damage.
    """
    try:
        forward(file, size)
        return not file.read(1)
    except BROKEN as error:
        refusal(error, DAMAGED)
        return False


def matlab_array(file: BinaryIO, name: str) -> tuple[IO[bytes], str, int]:
    """A stream that begins at the array's numbers (column by column), their numpy type, and their size in bytes.

    Raises ValueError if the file is not of version 5 (little-endian), or has no such array of real numbers.
    """
    if file.read(128)[124:] != b"\x00\x01IM":
        raise ValueError("not a MATLAB file of version 5")
    while head := file.read(8):
        kind, size = struct.unpack("<2I", head)
        end, inner = file.tell() + size, cast(IO[bytes], file)
        if kind == _PACKED:
            inner = io.BufferedReader(_Inflated(file))
            kind, _ = struct.unpack("<2I", inner.read(8))
        if kind == _MATRIX:
            _element(inner)  # flags
            _element(inner)  # dimensions
            if _element(inner).decode() == name:
                kind, size, inside = _tag(inner)
                if kind not in _NUMBERS:
                    break
                return inner if inside is None else io.BytesIO(inside), _NUMBERS[kind], size
        file.seek(end)
    raise ValueError(f"no array {name} of real numbers")


def _tag(file: IO[bytes]) -> tuple[int, int, bytes | None]:
    """(type, size in bytes) of an element, and its data if that is four bytes or fewer, stored in the tag itself."""
    head = file.read(8)
    kind, size = struct.unpack("<2I", head)
    return (kind & 0xFFFF, kind >> 16, head[4:]) if kind >> 16 else (kind, size, None)


def _element(file: IO[bytes]) -> bytes:
    """The data of a small element; elements end at multiples of eight bytes."""
    _, size, inside = _tag(file)
    if size > _PIECE:
        raise ValueError("the header of an array claims an impossible size")
    return inside[:size] if inside is not None else file.read(size + -size % 8)[:size]


class _Inflated(io.RawIOBase):
    """What the zlib stream that begins at the position of `file` unpacks to."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._inflate = file, zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = b""
        while not found and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(_PIECE)
            found = self._inflate.decompress(packed, len(buffer))
            if not packed and not found:
                raise EOFError("the file ends inside an array")
        buffer[: len(found)] = found
        return len(found)
