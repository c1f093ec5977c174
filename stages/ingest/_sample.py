"""What a source says about its samples before any is read: a table stored by column, so a million rows stay small.

A sample is whatever one row of the table stands for: today one image with at most one label.
"""

import array
import errno
import hashlib
import os
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.common.files import sha256_file
from stages.ingest._texts import Texts

STAMP = 48  # bytes
_MOST_IMAGES = 1_000_000  # that a file with fewer bytes than this may hold
UNLABELLED = -1
_FIELDS, _WHOLE = struct.Struct("<QQqqq"), bytes(8)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class Refused(Exception):
    """A sample that cannot be used; the text is the reason, `category: detail`."""


def refusal(error: Exception, damage: str) -> Refused:
    """What a failed read says about a file for good: that it may not be read or is not there, or its `damage`.

    Any other system error, such as one of a disk or a network, may be gone next time: it is raised again.
    """
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.EACCES, errno.EPERM, errno.ENOENT):
        return Refused(f"unreadable: {os.strerror(code)}")
    if code not in (None, errno.EINVAL):  # EINVAL: a damaged file names an invalid place
        raise error
    return Refused(damage)


@dataclass(frozen=True)
class Listing:
    """All samples in store order, and what is refused for its location or kind alone.

    Row i is read from `places[i]` of the file `units[i]` below the raw folder; `stamps[i]` changes when that file does.
    Rows with the same `chains[i]` >= 0 must be read together (a compressed stream); those with -1 stand alone.
    """

    sources: Texts  # text that names the sample to people
    units: Texts  # path as bytes
    places: Texts  # text that only the source understands; "" is the whole file
    stamps: NDArray[np.void]  # V48
    chains: NDArray[np.int64]
    labels: NDArray[np.int64]  # index into `classes`; -1 for none
    classes: list[str]
    groups: Texts | None  # what must never be divided between splits
    attributes: dict[str, Texts]  # declared ones, as text
    refused: list[tuple[str, str]]  # (source, reason)
    papers: Texts  # `sha256 name` of files that say something about the samples, such as a manifest or labels

    def __len__(self) -> int:
        return len(self.labels)

    def bytes_read(self) -> int:
        """Size of all files that samples are read from."""
        files = self.stamps.view("<u8").reshape(-1, STAMP // 8)[:, :3]  # device, inode, size
        return int(np.unique(files, axis=0)[:, 2].sum())

    def without(self, rows: Iterable[int]) -> "Listing":
        """All samples but these."""
        stay = np.delete(np.arange(len(self)), list(rows))
        return replace(
            self, sources=self.sources.where(stay), units=self.units.where(stay), places=self.places.where(stay),
            stamps=self.stamps[stay], chains=self.chains[stay], labels=self.labels[stay],
            groups=self.groups and self.groups.where(stay),
            attributes={name: column.where(stay) for name, column in self.attributes.items()},
        )  # fmt: skip


@dataclass
class ListingBuilder:
    """Collects samples in store order; `names` are the declared attributes that every sample has."""

    names: Sequence[str] = ()
    grouped: bool = False
    refused: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._sources, self._units, self._places = Texts(), Texts(), Texts()
        self._groups, self._attributes = Texts(), {name: Texts() for name in self.names}
        self._stamps, self._chains, self._classes = bytearray(), array.array("q"), array.array("q")
        self._codes: dict[str, int] = {}
        self._papers, self._withdrawn = Texts(), set[int]()

    def __len__(self) -> int:
        return len(self._classes)

    def add(
        self,
        source: str,
        unit: bytes,
        stamp: bytes,
        *,
        place: str = "",
        chain: int = -1,
        class_name: str | None = None,
        classes: Sequence[str] = (),
        group: str = "",
        attributes: Sequence[str] = (),
    ) -> None:
        """Add a sample. `class_name` None means unlabelled; with `classes` it is a number, an index into them. An empty
        or unknown one is refused."""
        if class_name == "":
            return self.refuse(source, "no label: an empty text")
        if class_name is not None and classes:
            place_of = int(class_name) if class_name.isdecimal() and len(class_name) < 10 else len(classes)
            if place_of >= len(classes):
                return self.refuse(source, f"label: {class_name!r} is not one of the {len(classes)} classes")
            class_name = classes[place_of]
        if class_name and not _is_text(class_name):
            return self.refuse(source, f"label: {class_name!r} is not text: it holds half a surrogate pair")
        self._sources.append(source)
        self._units.append(unit)
        self._places.append(place)
        self._stamps += stamp
        self._chains.append(chain)
        code = UNLABELLED if class_name is None else self._codes.setdefault(class_name, len(self._codes))
        self._classes.append(code)
        if self.grouped:
            self._groups.append(group)
        if self._attributes:
            for column, value in zip(self._attributes.values(), attributes, strict=True):
                column.append(value)

    def refuse(self, source: str, reason: object) -> None:
        """Refuse a sample for its location or kind alone."""
        self.refused.append((source, str(reason)))

    def withdraw(self, row: int, reason: str) -> None:
        """Refuse the sample of this row after all."""
        if row not in self._withdrawn:
            self._withdrawn.add(row)
            self.refuse(self._sources[row], reason)

    def paper(self, path: Path, name: str) -> None:
        """Record a file that says something about the samples."""
        self.paper_of(sha256_file(path), name)

    def paper_of(self, sha256: str, name: str) -> None:
        """The same, by the hash of its content."""
        self._papers.append(f"{sha256} {name}")

    def finish(self, classes: Sequence[str] | None = None) -> Listing:
        """The listing; labels are indices into `classes`, by default the names that occur, sorted by `in_order`.

        Raises ValueError for a single class, from which no later stage can learn."""
        names = in_order(self._codes) if classes is None else list(classes)
        if len(names) == 1 and len(self):
            raise ValueError(
                f"all images are of one class, {names[0]!r}, but labels need two or more; set ingest.source.labels (or "
                "label) to none, null or false, whichever the source takes"
            )
        places = {name: place for place, name in enumerate(names)}
        table = np.array([places[name] for name in self._codes] + [UNLABELLED], np.int64)  # code -1 is the last
        listing = Listing(
            self._sources, self._units, self._places,
            np.frombuffer(self._stamps, f"V{STAMP}"), np.array(self._chains, np.int64),
            table[np.array(self._classes, np.int64)], names,
            self._groups if self.grouped else None,
            self._attributes,
            self.refused, self._papers,
        )  # fmt: skip
        return listing.without(self._withdrawn) if self._withdrawn else listing


def check_count(path: Path, count: int) -> None:
    """Raise ValueError for a file that claims more images than its size allows; listing them would take minutes."""
    if count > max(_MOST_IMAGES, path.stat().st_size):
        raise ValueError(f"{path} claims to hold {count:,} images, more than it has bytes")


def in_order(names: Iterable[str]) -> list[str]:
    """Class names in label order: by value if all are numbers, else by their UTF-8 bytes."""
    found = list(names)
    if all(map(is_number, found)):
        return sorted(found, key=lambda name: (Decimal(name), name))
    return sorted(found, key=lambda name: name.encode())


def is_number(name: str) -> bool:
    """Whether a class name is a number, whole or with decimals."""
    return _NUMBER.fullmatch(name) is not None


def _is_text(name: str) -> bool:
    """Whether it can be encoded: JSON may name half of a surrogate pair."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def stamp_of(status: os.stat_result, place: str = "") -> bytes:
    """48 bytes that change whenever the file does (as in git's index) and that differ for each place in it."""
    fields = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return _FIELDS.pack(*fields) + (hashlib.blake2b(place.encode(), digest_size=8).digest() if place else _WHOLE)


def as_text(name: bytes) -> str:
    r"""A file name as UTF-8 text; bytes that are not UTF-8 are written \xNN."""
    return name.decode("utf-8", "backslashreplace")
