"""CIFAR-10 and CIFAR-100 in the binary version (A. Krizhevsky, 2009): `*.bin` files, and names in `*.txt` beside them.

A record is one label byte (CIFAR-10), or a coarse and a fine one (CIFAR-100), and 3,072 bytes: 32 x 32 pixels, all red
values first, then green, then blue. CIFAR-100 is recognised by its `fine_label_names.txt`.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.ingest import _tree
from stages.ingest._records import records
from stages.ingest._sample import Listing, ListingBuilder, Refused, stamp_of

_PIXELS = 3 * 32 * 32
_PACKED = "wrong type: lies in an archive; unpack it, or use source torchvision, which reads the publisher's archive"
_NAMES = {"fine": "fine_label_names.txt", "coarse": "coarse_label_names.txt", "ten": "batches.meta.txt"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """CIFAR's binary files below the raw folder."""

    name: Literal["cifar"]
    labels: Literal["fine", "coarse", "none"]
    """Which label of CIFAR-100; CIFAR-10 has the `fine` one only. `none`: images carry no labels."""


def listing(config: Config, root: Path) -> Listing:
    """All records. Raises ValueError if names are missing, a file ends inside a record, or a label has no name."""
    builder = ListingBuilder()
    names: dict[str, None] = {}
    for found in _tree.walk(root):
        if not isinstance(found, _tree.Entry):
            builder.refuse(*found)
            continue
        path = root / os.fsdecode(found.unit)
        if found.place:
            builder.refuse(found.source, _PACKED)
        elif path.suffix == ".bin":
            names |= _add(config, path, found, builder)
        elif path.name in _NAMES.values():
            builder.paper(path, found.source)
        elif path.name != "readme.html":
            builder.refuse(found.source, "wrong type: its name is not that of a file of CIFAR's binary version")
    return builder.finish([] if config.labels == "none" else list(names))


def _add(config: Config, path: Path, found: _tree.Entry, builder: ListingBuilder) -> dict[str, None]:
    hundred = path.with_name(_NAMES["fine"]).is_file()
    if config.labels == "coarse" and not hundred:
        raise ValueError(f"{path} is CIFAR-10, which has no coarse labels; set ingest.source.labels: fine")
    beside = path.with_name(_NAMES[config.labels if hundred and config.labels != "none" else "ten"])
    try:
        names = beside.read_text(encoding="utf-8").split() if config.labels != "none" and beside.is_file() else []
    except UnicodeDecodeError:
        raise ValueError(f"{beside} is not UTF-8 text") from None
    if config.labels != "none" and not names:
        raise ValueError(f"{beside} does not exist or names nothing; it belongs beside {path.name}")
    record, status = _PIXELS + 1 + hundred, path.stat()
    if not status.st_size or status.st_size % record:
        raise ValueError(f"{path} must hold whole records of {record:,} bytes; it holds {status.st_size:,} bytes")
    labels = np.memmap(path, np.uint8, "r").reshape(-1, record)[:, 1 if config.labels == "fine" and hundred else 0]
    if names and labels.max() >= len(names):
        raise ValueError(f"{path} holds label {labels.max()}, but {beside.name} names {len(names)} classes")
    for number, label in enumerate(labels.tolist()):
        place = f"{number} {record - _PIXELS}"
        name = names[label] if names else None
        builder.add(f"{found.source}/{number:06d}", found.unit, stamp_of(status, place), place=place, class_name=name)
    return dict.fromkeys(names)


def contents(
    config: Config, root: Path, unit: bytes, places: Sequence[str], most: int
) -> Iterator[tuple[str, NDArray[np.uint8]] | Refused]:
    """See `stages.ingest.sources`; arrays [32, 32, 3]."""
    numbers, lead = (int(place.split()[0]) for place in places), int(places[0].split()[1])
    with (root / os.fsdecode(unit)).open("rb") as file:
        for record in records(file, lead + _PIXELS, numbers):
            if isinstance(record, Refused):
                yield record
            else:
                yield "", np.frombuffer(record, np.uint8)[lead:].reshape(3, 32, 32).transpose(1, 2, 0)
