"""The MNIST family's IDX files, plain or gzip: `<name>-images-idx3-ubyte` with `<name>-labels-idx1-ubyte` beside it.

Some tools unpack them with a dot before `idx`, or each file into a folder of its own name.

The format (Y. LeCun): two zero bytes, 8 for unsigned bytes, the number of dimensions, each dimension as a big-endian
32-bit number, then the values.
"""

import gzip
import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from stages.common.files import named
from stages.ingest import _tree
from stages.ingest._records import BROKEN, DAMAGED, intact, records
from stages.ingest._sample import Listing, ListingBuilder, Refused, as_text, check_count, refusal, stamp_of

_NAME = re.compile(r"(.*-)(images|labels)([-.])idx([13])-ubyte((?:\.gz)?)", re.DOTALL)
_KINDS = {"images": "3", "labels": "1"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """IDX files below the raw folder."""

    name: Literal["idx"]
    labels: bool
    """Whether the labels beside the images are read."""
    classes: tuple[str, ...]
    """Names of the labels from 0 on; [] takes the numbers themselves."""
    transposed: bool
    """Whether rows and columns are exchanged, as in EMNIST."""


def listing(config: Config, root: Path) -> Listing:
    """All images of all pairs of files. Raises ValueError for a file that is not a whole IDX file."""
    builder = ListingBuilder()
    for found in _tree.walk(root):
        if not isinstance(found, _tree.Entry):
            builder.refuse(*found)
            continue
        kind = "" if found.place else _kind(os.fsdecode(found.parts[-1]))
        if kind == "images":
            _add(config, root, found, builder)
        elif not kind:
            builder.refuse(found.source, "wrong type: its name is not that of an IDX file")
        elif _other(root, root / os.fsdecode(found.unit)) is None:
            builder.refuse(found.source, "no images: labels without a file of images beside them")
    return builder.finish(config.classes or None)


def _add(config: Config, root: Path, found: _tree.Entry, builder: ListingBuilder) -> None:
    path = root / os.fsdecode(found.unit)
    with named(path), _open(path) as file:
        shape = _shape(file, path, 3)
    check_count(path, shape[0])
    labels: NDArray[np.uint8] | None = None
    if config.labels:
        there = _other(root, path)
        if there is None:
            beside = path.with_name(_others(path.name)[0])
            raise ValueError(f"{beside} does not exist; put it beside the images, or set ingest.source.labels: false")
        labels = _labels(there, shape[0])
        _check_classes(config, there, labels)
        builder.paper(there, as_text(os.fsencode(there.relative_to(root))))
    status, chain = path.stat(), path.stat().st_ino if path.suffix == ".gz" else -1
    for number in range(shape[0]):
        place = f"{number} {config.transposed}"
        builder.add(
            f"{found.source}/{number:06d}", found.unit, stamp_of(status, place), place=place, chain=chain,
            class_name=None if labels is None else str(labels[number]), classes=config.classes,
        )  # fmt: skip


def _kind(name: str) -> str:
    """`images`, `labels`, or nothing, by the name of a file."""
    found = _NAME.fullmatch(name)
    return found[2] if found and found[4] == _KINDS[found[2]] else ""


def _others(name: str) -> list[str]:
    """What the other file of a pair may be called: first in the same style, then with the other mark, packed or not."""
    if not _kind(name):
        return []
    found = _NAME.fullmatch(name)
    assert found is not None
    stem, kind, own, _, packed = found.groups()
    other = "labels" if kind == "images" else "images"
    marks, ends = (own, "-" if own == "." else "."), (packed, "" if packed else ".gz")
    return [f"{stem}{other}{mark}idx{_KINDS[other]}-ubyte{end}" for mark in marks for end in ends]


def _other(root: Path, path: Path) -> Path | None:
    """The other file of a pair: beside this one, or in a folder of its own name beside this one's folder."""
    folders = [path.parent]
    if path.parent != root:
        folders += [path.parent.with_name(name) for name in _others(path.parent.name)]
    places = (folder / name for folder in folders for name in _others(path.name))
    return next((place for place in places if place.is_file()), None)


def contents(
    config: Config, root: Path, unit: bytes, places: Sequence[str], most: int
) -> Iterator[tuple[str, NDArray[np.uint8]] | Refused]:
    """See `stages.ingest.sources`; arrays [H, W]."""
    path, numbers = root / os.fsdecode(unit), (int(place.split()[0]) for place in places)
    with _open(path) as file:
        count, height, width = _shape(file, path, 3)
        if path.suffix == ".gz" and not intact(file, count * height * width):
            yield from (Refused(DAMAGED) for _ in places)
            return
    with _open(path) as file:
        _shape(file, path, 3)
        for record in records(file, height * width, numbers):
            if isinstance(record, Refused):
                yield record
                continue
            image = np.frombuffer(record, np.uint8).reshape(height, width)
            yield "", image.T if config.transposed else image


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _shape(file: BinaryIO, path: Path, dimensions: int) -> tuple[int, ...]:
    """The dimensions that the header gives; for plain files checked against their size."""
    size = 4 + 4 * dimensions
    try:
        head = file.read(size)
    except BROKEN as error:
        refusal(error, "")  # raises again what may happen to a sound file
        head = b""
    if len(head) < size or head[:4] != bytes([0, 0, 8, dimensions]):
        raise ValueError(f"{path} is not an IDX file of unsigned bytes with {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", head[4:])
    values, there = int(np.prod([float(edge) for edge in shape])), path.stat().st_size
    if 0 in shape or max(shape[1:], default=1) > 2**15 or (path.suffix != ".gz" and there != size + values):
        raise ValueError(f"{path} promises {' x '.join(map(str, shape))} values, but does not hold them")
    if path.suffix == ".gz" and values > 1100 * there:  # more than gzip can ever pack
        raise ValueError(f"{path} promises {' x '.join(map(str, shape))} values, but cannot hold them")
    return shape


def _labels(path: Path, count: int) -> NDArray[np.uint8]:
    with named(path), _open(path) as file:
        (labels,) = _shape(file, path, 1)
        if labels != count:
            raise ValueError(f"{path} holds {labels} labels for {count} images")
        try:
            values = np.frombuffer(file.read(labels + 1), np.uint8)  # past the end, where the checksum is compared
        except EOFError:
            raise ValueError(f"{path} is truncated: it ends before its labels do, or their checksum") from None
        except BROKEN as error:
            refusal(error, "")
            raise ValueError(f"{path} is damaged: its checksum does not agree with the labels in it") from None
    if len(values) != count:
        raise ValueError(f"{path} holds {len(values)} labels for {count} images")
    return values


def _check_classes(config: Config, path: Path, labels: NDArray[np.uint8]) -> None:
    if config.classes and labels.max(initial=0) >= len(config.classes):
        raise ValueError(
            f"{path} holds label {labels.max()}, but ingest.source.classes names {len(config.classes)} classes"
        )
