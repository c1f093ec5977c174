"""The image store on disk: shards, manifest and lists; the same samples always give the same bytes."""

import csv
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib import format as npy
from numpy.typing import NDArray

from gan.attributes import bins
from stages.common.files import named, write_array
from stages.ingest._read import Samples, hex_digests
from stages.ingest._sample import Listing
from stages.store import SPLITS

COLUMNS = ("sha256", "source", "split", "label", "class", "width", "height", "group")  # of any manifest
_ROWS = 16384  # per row group of the manifest
_PIECE = 2**24  # bytes of a shard in memory at once


def shard_ends(sha256: NDArray[np.void], mean: int) -> list[int]:
    """Ends of the shards of images with these content hashes (V32 [n]), in order; about `mean` images each.

    A shard ends where the last 64 bits of a hash are divisible by `mean` (never before mean / 4, always at 4 * mean
    images), so that cuts follow content: images that come or go move only the cuts near them.
    """
    tails = np.ascontiguousarray(sha256).view(">u8").reshape(len(sha256), 4)[:, 3].astype(np.uint64)
    cuts = np.flatnonzero(tails % np.uint64(mean) == 0) + 1
    ends, start = [], 0
    while start < len(sha256):
        after = cuts[np.searchsorted(cuts, start + max(1, mean // 4)) :]
        end = min(int(after[0]) if len(after) else len(sha256), start + 4 * mean, len(sha256))
        ends.append(end)
        start = end
    return ends


def write_store(
    work: Path, samples: Samples, splits: NDArray[np.uint8], listing: Listing, shard_images: int
) -> tuple[str, dict[str, str]]:
    """Write shards and manifest.parquet below `work`; return the hash of all content and the SHA-256 of image files."""
    labels = listing.labels[samples.rows]
    names = sorted(listing.attributes)
    head: list[object] = [list(samples.shape), listing.classes, bins(samples.shape[2])]
    content = hashlib.sha256(json.dumps([*head, *([names] if names else [])]).encode())
    files: dict[str, str] = {}
    for number, span in enumerate(_spans(shard_ends(samples.records["sha256"], shard_images))):
        write_array(work / f"labels-{number:05d}.npy", labels[span])
        write_array(work / f"split-{number:05d}.npy", splits[span])
        digests = hex_digests(samples.records["sha256"][span])
        declared = [listing.attributes[name].take(samples.rows[span]) for name in names]
        path = work / f"images-{number:05d}.npy"
        for at, image in enumerate(_written(path, samples, span, files)):
            more = "".join(f" {json.dumps(values[at])}" for values in declared)
            side, label = SPLITS[splits[span.start + at]], labels[span.start + at]
            content.update(f"{digests[at]} {side} {label}{more}\n".encode())
            content.update(image.data)
    _write_manifest(work / "manifest.parquet", samples, splits, listing)
    return content.hexdigest(), files


def _written(path: Path, samples: Samples, span: slice, files: dict[str, str]) -> Iterator[NDArray[np.uint8]]:
    """The images of a shard, one by one, while a thread writes them; the file's SHA-256 is put into `files`.

    A shard may be larger than memory.
    """
    step = max(1, _PIECE // math.prod(samples.shape))
    head = {"descr": "|u1", "fortran_order": False, "shape": (span.stop - span.start, *samples.shape)}
    with ThreadPoolExecutor(1) as thread, named(path), path.open("wb") as file:
        hashed = _Hashed(file)
        npy.write_array_header_1_0(hashed, head)
        for start in range(span.start, span.stop, step):
            images = samples.pixels(slice(start, min(start + step, span.stop)))
            writing = thread.submit(hashed.write, images.data)
            yield from images
            writing.result()
        files[path.name] = hashed.sha256.hexdigest()


class _Hashed:
    """A file that is hashed as it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        self.sha256.update(data)
        return self._file.write(data)


def write_rows(path: Path, header: Sequence[str], rows: Iterable[tuple[str, ...]]) -> None:
    """Write a CSV file with sorted rows; names with commas, quotes and newlines stay one field."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(header)
        for row in sorted(rows):  # to readers, but not to the writer, a carriage return ends a row
            (quoting if any("\r" in field for field in row) else writer).writerow(row)


def _spans(ends: Sequence[int]) -> Iterator[slice]:
    yield from (slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True))


def _write_manifest(path: Path, samples: Samples, splits: NDArray[np.uint8], listing: Listing) -> None:
    """One row group at a time, so that a million rows are never Python objects at once."""
    writer = None
    for start in range(0, len(samples), _ROWS):
        part = slice(start, start + _ROWS)
        table = _manifest(samples.where(part), splits[part], listing)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
        del table
    assert writer is not None, "a store without images is refused before"
    writer.close()


def _manifest(samples: Samples, splits: NDArray[np.uint8], listing: Listing) -> pa.Table:
    records, labels = samples.records, listing.labels[samples.rows]
    columns = {
        "sha256": _column(records["sha256"].tobytes().hex().encode(), 64 * np.arange(len(records) + 1)),
        "source": _texts(listing.sources.raw(samples.rows)),
        "split": _named(SPLITS, splits),
        "label": _numbers(labels),
        "class": _named([*listing.classes, ""], labels),  # label -1 is the last
        "width": _numbers(records["width"]),
        "height": _numbers(records["height"]),
    }
    for place, (name, names) in enumerate(bins(samples.shape[2]).items()):
        columns[name] = _named(names, records["attributes"][:, place])
    assert columns.keys() <= {*COLUMNS, *bins(samples.shape[2])}, "an attribute could take the place of a column"
    columns |= {name: _texts(column.raw(samples.rows)) for name, column in listing.attributes.items()}
    if listing.groups is not None:
        columns["group"] = _texts(listing.groups.raw(samples.rows))
    return pa.table(columns)


def _named(names: Sequence[str], places: NDArray[Any]) -> pa.Array:
    encoded = [name.encode() for name in names]
    return _texts([encoded[place] for place in places.tolist()])


def _texts(values: Sequence[bytes]) -> pa.Array:
    return _column(b"".join(values), np.cumsum([0, *map(len, values)], dtype=np.int64))


def _column(data: bytes, offsets: NDArray[np.int64]) -> pa.Array:
    """Texts in UTF-8 from their buffers; `pa.array` would import pandas."""
    buffers = [pa.py_buffer(offsets.tobytes()), pa.py_buffer(data)]
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, *buffers).cast(pa.string())


def _numbers(values: NDArray[Any]) -> pa.Array:
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values.astype(np.int64).tobytes())])
