"""The files of a raw folder in path order, including those inside its archives.

An archive stands for the folder that holds it, as if it had been unpacked there: `cat/more.zip` with `x.png` in it
gives a picture of `cat`, called `cat/more.zip/x.png`. Path order compares folder by folder, by the bytes of names.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.common.files import named
from stages.ingest import _archives
from stages.ingest._sample import Refused, as_text, refusal, stamp_of

Content = tuple[str, bytes]  # name that may claim a type, encoded bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: its place in the tree, its name for people, and how to read it (see Listing)."""

    parts: tuple[bytes, ...]
    source: str
    unit: bytes
    stamp: bytes
    place: str = ""
    chain: int = -1


Found = Entry | tuple[str, str]  # or the source and reason of what cannot be used


def walk(root: Path) -> Iterator[Found]:
    """Every visible file below `root`. Raises ValueError if that is no folder, OSError if one cannot be read."""
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder; --raw takes the folder that holds the raw data")
    base = root.resolve()
    yield from _files(os.fsencode(base), base)


def read(root: Path, unit: bytes, places: Sequence[str], most: int) -> Iterator[Content | Refused]:
    """The files at `places` of the file or archive `unit`, in that order; Refused for one of more than `most` bytes."""
    path = root / os.fsdecode(unit)
    if places == [""]:
        yield _whole(path, most)
    else:
        yield from _archives.read(path, places, most)


def _whole(path: Path, most: int) -> Content | Refused:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                return Refused(f"too large: {size:,} bytes, more than ingest.max_pixels pixels can take")
            return path.name, file.read(most + 1)
    except OSError as error:
        return refusal(error, f"unreadable: {error.strerror}")


def _files(top: bytes, root: Path) -> Iterator[Found]:
    """Folder by folder in path order, without recursion: folders may lie deeper than Python would go."""
    levels: list[tuple[tuple[bytes, ...], Iterator[os.DirEntry[bytes]]]] = [((), _entries(top))]
    while levels:
        above, entries = levels[-1]
        entry = next(entries, None)
        if entry is None:
            levels.pop()
            continue
        parts = (*above, entry.name)
        try:
            if entry.is_file(follow_symlinks=False) and not _archives.is_one(entry.name):
                yield _plain(entry, parts)
            elif entry.is_dir(follow_symlinks=False):
                levels.append((parts, _entries(entry.path)))
            else:
                yield from _file(entry, parts, root)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            yield as_text(b"/".join(parts)), "name: the whole path is longer than this system can open"


def _entries(path: bytes) -> Iterator[os.DirEntry[bytes]]:
    """The visible entries of a folder, sorted by the bytes of their names."""
    with os.scandir(path) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    return (entry for entry in found if not entry.name.startswith(b"."))


def _plain(entry: os.DirEntry[bytes], parts: tuple[bytes, ...]) -> Found:
    """An ordinary file, as nearly all are; only what must be done is done here, because there may be millions."""
    unit = b"/".join(parts)
    try:
        status = entry.stat(follow_symlinks=False)
        return Entry(parts, as_text(unit), unit, stamp_of(status) if status.st_nlink == 1 else _linked(status, parts))
    except FileNotFoundError:
        return as_text(unit), "unreadable: it has just gone"


def _file(entry: os.DirEntry[bytes], parts: tuple[bytes, ...], root: Path) -> Iterator[Found]:
    unit = b"/".join(parts)
    source = as_text(unit)
    try:
        if entry.is_symlink():
            _check_link(Path(os.fsdecode(entry.path)), root)
        status = entry.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Refused("not a file: a pipe, socket or device")
        if not _archives.is_one(entry.name):
            yield Entry(parts, source, unit, _linked(status, parts))
            return
        path = Path(os.fsdecode(entry.path))
        with named(path):
            members = _archives.members(path)
    except (Refused, FileNotFoundError) as reason:
        yield source, str(reason) if isinstance(reason, Refused) else "unreadable: it has just gone"
        return
    # A member lies in the folder of its archive, whose own name is only part of its source.
    for name, place, reason_ in sorted(members):
        inside = tuple(name.split(b"/"))
        if reason_:
            yield f"{source}/{as_text(name)}", reason_
        elif not any(part.startswith(b".") for part in inside):
            stamp = stamp_of(status, place)
            chain = status.st_ino if _archives.is_stream(entry.name) else -1
            yield Entry((*parts[:-1], *inside), f"{source}/{as_text(name)}", unit, stamp, place, chain)


def _linked(status: os.stat_result, parts: tuple[bytes, ...]) -> bytes:
    """The stamp of a file with several names, which may claim several types: each name has a stamp of its own."""
    return stamp_of(status, f"named {as_text(parts[-1])}")


def _check_link(path: Path, root: Path) -> None:
    target = Path(os.path.realpath(path))  # Path.resolve raises on a link that leads to itself
    if not target.is_relative_to(root):
        raise Refused("link: leads out of the folder; copy the image instead")
    if not target.is_file():
        raise Refused("link: leads to a folder or to nothing; copy the images instead")
