"""Zip and tar files, read member by member: nothing is unpacked to disk, and what an archive may unpack to is limited.

What a member says of itself is not trusted: names that lead out of the archive, links, devices, names that occur twice
and encrypted members are refused one by one; an archive that unpacks to more than a hundred times its size (and 16 MiB)
is refused as a whole.
"""

import gzip
import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from stages.ingest._sample import Refused, refusal

Member = tuple[bytes, str, str]  # name, place, reason why it cannot be used ("" if it can)
_STREAMS = (b".tar.gz", b".tgz")
_ENDINGS = (b".zip", b".tar", *_STREAMS)
_RATIO, _FREE = 100, 2**24  # an archive may unpack to this many times its size plus this many bytes
_MOST_DIRECTORY = 2**25  # bytes of a zip file's list of members, some 400,000 of them
_MOST_HEADER = 2**20  # bytes of one tar header with its extensions
_MOST_NAME, _SHOWN = 4096, 200  # bytes of a member's name; bytes shown of a longer one
_MOST_MEMBERS = 1_000_000
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, struct.error,
           NotImplementedError, RuntimeError, OverflowError, IndexError)  # fmt: skip


def is_one(name: bytes) -> bool:
    """Whether a file of this name is treated as an archive."""
    return name[-4:].lower() in (b".zip", b".tar", b".tgz", b"r.gz") and name.lower().endswith(_ENDINGS)


def is_stream(name: bytes) -> bool:
    """Whether the members of an archive of this name can only be read one after another."""
    return name.lower().endswith(_STREAMS)


def members(path: Path) -> list[Member]:
    """All members except folders. Raises Refused if the archive cannot be read or unpacks to too much."""
    try:
        found = _zip_members(path) if path.name.lower().endswith(".zip") else _tar_members(path)
    except _BROKEN as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise refusal(error, "damaged: this archive cannot be read to its end") from None
    twice = {name for name, count in Counter(name for name, _, _ in found).items() if count > 1}
    return [(name, place, "twice: the archive holds several files of this name") if name in twice and not reason
            else (name, place, reason) for name, place, reason in found]  # fmt: skip


def read(path: Path, places: Sequence[str], most: int) -> Iterator[tuple[str, bytes] | Refused]:
    """Name and content of the members at `places`, in that order; Refused if damaged or larger than `most` bytes."""
    try:
        with path.open("rb") as file:
            if path.name.lower().endswith(".zip"):
                yield from (_guarded(_zip_content, file, place, most) for place in places)
            elif is_stream(os.fsencode(path.name)):
                yield from _stream_contents(file, places, most)
            else:
                yield from (_guarded(_tar_content, file, place, most) for place in places)
    except OSError as error:
        said = str(refusal(error, f"unreadable: {error.strerror}"))
        yield from (Refused(said) for _ in places)


def _guarded(content, file: BinaryIO, place: str, most: int) -> tuple[str, bytes] | Refused:  # type: ignore[no-untyped-def]
    try:
        return content(file, place, most)
    except Refused as reason:
        return reason
    except _BROKEN as error:
        return refusal(error, "damaged: this member of the archive cannot be read")


def _reason(name: bytes) -> str:
    """Why a member of this name cannot be used, or "". Members are never unpacked, but a name that lies is refused."""
    if name.startswith(b"/") or b"\\" in name or name[1:2] == b":":
        return "name: absolute, or written for another system"
    if b"\0" in name or b".." in name.split(b"/"):
        return "name: leads out of the archive"
    return ""


def _member(name: bytes, place: str, reason: str) -> Member:
    """A member; a name longer than any path is cut, as there may be thousands, each as long as a header may be."""
    if len(name) > _MOST_NAME:
        return name[:_SHOWN] + b"...", "", f"name: {len(name):,} bytes, and no path is longer than {_MOST_NAME:,}"
    return _plain(name) if not reason else name, place, reason


def _plain(name: bytes) -> bytes:
    return b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))


def _too_large(size: int, most: int) -> Refused:
    return Refused(f"too large: {size:,} bytes, more than ingest.max_pixels pixels can take ({most:,})")


def _zip_members(path: Path) -> list[Member]:
    with path.open("rb") as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
        if end is None:
            raise Refused("wrong type: the content is not a zip file")
        if end[5] > _MOST_DIRECTORY:  # the size of its list, checked before that is read
            raise Refused(f"too large: the list of its members takes {end[5]:,} bytes; split the archive")
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    if sum(info.file_size for info in infos) > _RATIO * path.stat().st_size + _FREE:
        raise Refused("bomb: unpacks to more than a hundred times its size")
    found = []
    for info in infos:
        name = info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437", "backslashreplace")
        kind = (info.external_attr >> 16) & 0o170000
        reason = _reason(name)
        if info.is_dir() and not reason:
            continue
        if kind not in (0, 0o100000):
            reason = reason or "link: or another entry that is not a regular file"
        if info.flag_bits & 0x1:
            reason = reason or "encrypted: no password is ever tried"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            reason = reason or "compression: only stored and deflated members are read"
        place = f"{info.header_offset} {info.compress_type} {info.compress_size} {info.file_size} {info.CRC}"
        found.append(_member(name, place, reason))
    return found


def _zip_content(file: BinaryIO, place: str, most: int) -> tuple[str, bytes]:
    """One member by its local header, so that the archive's list need not be parsed again."""
    offset, method, packed, size, crc = map(int, place.split())
    if max(packed, size) > most:
        raise _too_large(max(packed, size), most)
    file.seek(offset)
    header = file.read(30)
    if header[:4] != b"PK\3\4":
        raise Refused("damaged: this member of the archive cannot be read")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    name = file.read(name_length).decode("utf-8", "replace")
    file.seek(extra_length, os.SEEK_CUR)
    content = file.read(packed)
    if method == zipfile.ZIP_DEFLATED:
        content = zlib.decompressobj(-15).decompress(content, size + 1)
    if len(content) != size or zlib.crc32(content) != crc:
        raise Refused("damaged: this member of the archive cannot be read")
    return name, content


class _Bounded(io.RawIOBase):
    """A file that refuses any `read` larger than a header may be, and any content past `limit` bytes: a bomb's."""

    def __init__(self, inner: IO[bytes], limit: int) -> None:
        self.inner, self.limit, self.last = inner, limit, b""

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > _MOST_HEADER:
            raise Refused("damaged: a header of this archive claims an impossible size")
        self.last = self._counted(self.inner.read(size))
        return self.last

    def content(self, size: int) -> bytes:
        return self._counted(self.inner.read(size))

    def _counted(self, content: bytes) -> bytes:
        if self.inner.tell() > self.limit:
            raise Refused("bomb: unpacks to more than a hundred times its size")
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET and offset > self.limit:
            raise Refused("bomb: unpacks to more than a hundred times its size")
        return self.inner.seek(offset, whence)

    def tell(self) -> int:
        return self.inner.tell()


def _bounded(file: BinaryIO, stream: bool) -> _Bounded:
    limit = _RATIO * os.fstat(file.fileno()).st_size + _FREE
    inner: IO[bytes] = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if stream else file
    return _Bounded(inner, limit)


def _infos(bounded: _Bounded) -> Iterator[tarfile.TarInfo]:
    """The headers one by one: tarfile would keep them all, and stops silently at a damaged one."""
    with tarfile.open(fileobj=bounded, mode="r:", errorlevel=2) as archive:
        number = 0
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]
            number += 1
            if number > _MOST_MEMBERS:
                raise Refused(f"too large: holds more than {_MOST_MEMBERS:,} members; split the archive")
            yield info
    if not bounded.last:
        raise Refused("truncated: this archive has no end; its last members may be lost")
    if bounded.last.strip(b"\0"):
        raise Refused("damaged: this archive cannot be read to its end")
    while padding := bounded.content(_MOST_HEADER):
        if padding.strip(b"\0"):
            raise Refused("damaged: something follows the end of this archive, perhaps another one; separate them")


def _tar_members(path: Path) -> list[Member]:
    stream, found = is_stream(os.fsencode(path.name)), []
    with path.open("rb") as file:
        for number, info in enumerate(_infos(_bounded(file, stream))):
            if info.isdir():
                continue
            name = info.name.encode("utf-8", "surrogateescape")
            reason = _reason(name)
            if not info.isreg() or info.sparse:
                reason = reason or ("link: " if info.issym() or info.islnk() else "not a file: ") + "in an archive"
            last = os.fsencode(PurePosixPath(info.name).name[:_MOST_NAME]).decode("utf-8", "replace")
            place = f"{number} {info.size}" if stream else f"{info.offset_data} {info.size} {last}"
            found.append(_member(name, place, reason))
    return found


def _tar_content(file: BinaryIO, place: str, most: int) -> tuple[str, bytes]:
    offset, size, name = place.split(" ", 2)
    if int(size) > most:
        raise _too_large(int(size), most)
    file.seek(int(offset))
    content = file.read(int(size))
    if len(content) < int(size):
        raise Refused("truncated: the archive ends inside this member")
    return name, content


def _stream_contents(file: BinaryIO, places: Sequence[str], most: int) -> Iterator[tuple[str, bytes] | Refused]:
    """Members by number, read in one pass; what follows damage in the stream is refused as damaged."""
    wanted = {int(place.split()[0]): at for at, place in enumerate(places)}
    found: dict[int, tuple[str, bytes] | Refused] = {}
    next_out, bounded = 0, _bounded(file, stream=True)
    try:
        for number, info in enumerate(_infos(bounded)):
            if number in wanted:
                if info.size > most:
                    found[wanted[number]] = _too_large(info.size, most)
                else:
                    bounded.seek(info.offset_data)
                    found[wanted[number]] = (PurePosixPath(info.name).name, bounded.content(info.size))
            while next_out in found:  # places come in stream order, so that nothing piles up
                yield found.pop(next_out)
                next_out += 1
            if next_out == len(places):
                return
    except Refused:
        pass
    except _BROKEN as error:
        refusal(error, "")
    for _ in range(next_out, len(places)):
        yield Refused("damaged: the archive cannot be read up to this member")
