"""What changed since the last run from one folder to another: printed, but not stored, because a store follows from
its data alone. The last manifest is remembered in the state folder."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.ingest._again import places
from stages.store import SPLITS

_PART = 8192  # rows that are Python objects at once
_SHOWN = 3  # examples per kind


class _Rows(NamedTuple):
    """A manifest [n] as numbers: the first 64 bits of the content hash (of thirty million stores with a million images
    each, about one has two images that share them), the class as an index into all classes met, and the split."""

    keys: NDArray[np.uint64]
    classes: NDArray[np.int32]
    splits: NDArray[np.uint8]


def tell_changes(state: Path, raw: Path, out: Path) -> None:
    """Print which images came, went or changed class or split, and remember the manifest in `out` for the next time.

    If nothing is remembered, or it is damaged, nothing is printed."""
    manifest, memory = out / "manifest.parquet", state / "ingest-since" / f"{places(raw, out)}.parquet"
    with contextlib.suppress(OSError, ValueError, LookupError, pa.ArrowException):
        print(f"ingest: since the last run: {_changes(memory, manifest)}", file=sys.stderr)  # noqa: T201
    partial = memory.with_suffix(f".{os.getpid()}.partial")
    with contextlib.suppress(OSError):  # the store is whole without it
        memory.parent.mkdir(mode=0o700, exist_ok=True)
        shutil.copyfile(manifest, partial)
        partial.replace(memory)


def _changes(memory: Path, manifest: Path) -> str:
    classes: dict[str, int] = {}
    old, new = _read(memory, classes), _read(manifest, classes)
    order = np.argsort(old.keys)
    was = np.searchsorted(old.keys, new.keys, sorter=order)
    was = order[np.minimum(was, len(order) - 1, out=was)]
    known = old.keys[was] == new.keys
    gone = np.ones(len(order), np.bool_)
    gone[was[known]] = False
    kinds = (
        ("added", manifest, ~known),
        ("gone", memory, gone),
        ("with another label", manifest, known & (old.classes[was] != new.classes)),
        ("in another split", manifest, known & (old.splits[was] != new.splits)),
    )
    told = [f"{rows.sum():,} {kind} ({_examples(path, rows)})" for kind, path, rows in kinds if rows.any()]
    return ", ".join(told) or "the same images"


def _read(path: Path, classes: dict[str, int]) -> _Rows:
    """The manifest at `path`; its new classes are added to `classes`, which both manifests share."""
    with pq.ParquetFile(path) as file:
        count = file.metadata.num_rows
        rows = _Rows(np.empty(count, np.uint64), np.empty(count, np.int32), np.empty(count, np.uint8))
        for start, batch in _batches(file, ["sha256", "class", "split"]):
            part = slice(start, start + len(batch))
            digests = batch.column("sha256").to_pylist()
            rows.keys[part] = np.frombuffer(bytes.fromhex("".join(text[:16] for text in digests)), ">u8")
            rows.classes[part] = [classes.setdefault(name, len(classes)) for name in batch.column("class").to_pylist()]
            rows.splits[part] = [SPLITS.index(name) for name in batch.column("split").to_pylist()]
    return rows


def _examples(path: Path, rows: NDArray[np.bool_]) -> str:
    """Sources of the first of these rows of a manifest, quoted."""
    found: list[str] = []
    with pq.ParquetFile(path) as file:
        for start, batch in _batches(file, ["source"]):
            part = np.flatnonzero(rows[start : start + len(batch)])[: _SHOWN - len(found)]
            found += [repr(batch.column("source")[int(at)].as_py()) for at in part]
    return ", ".join([*found, *(["..."] if rows.sum() > _SHOWN else [])])


def _batches(file: pq.ParquetFile, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """These columns in parts, each with the number of its first row."""
    start = 0
    for batch in file.iter_batches(_PART, columns=columns):
        yield start, batch
        start += len(batch)
