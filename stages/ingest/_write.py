"""The image store on disk: shards, manifest and lists; the same rows always give the same bytes."""

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gan.attributes import bins, measure
from stages.common.files import write_array
from stages.ingest._read import Row
from stages.store import SPLITS


def shard_ends(hashes: Sequence[str], mean: int) -> list[int]:
    """Ends of the shards of images with these content hashes, in order; about `mean` images each.

    A shard ends where the last 64 bits of a hash are divisible by `mean` (never before mean / 4, always at 4 * mean
    images), so that cuts follow content: images that come or go move only the cuts near them.
    """
    ends, start = [], 0
    for end, sha in enumerate(hashes, start=1):
        size = end - start
        if size >= 4 * mean or (size >= mean // 4 and int(sha[-16:], 16) % mean == 0):
            ends.append(end)
            start = end
    return ends if start == len(hashes) else [*ends, len(hashes)]


def write_store(
    work: Path, rows: Sequence[Row], scratch: NDArray[np.uint8], classes: Sequence[str], shard_images: int
) -> str:
    """Write shards and manifest.parquet below `work`, and return the hash of all their content.

    `scratch` holds the pixels, uint8 [n, H, W, C], of row i at `rows[i].place`.
    """
    numbers = {name: label for label, name in enumerate(classes)}
    labels = np.array([numbers.get(row.class_name, -1) for row in rows], np.int64)
    splits = np.array([row.split for row in rows], np.uint8)
    names = bins(scratch.shape[3])
    attributes: dict[str, list[str]] = {name: [] for name in names}
    content = hashlib.sha256(json.dumps([list(scratch.shape[1:]), list(classes), names]).encode())
    for number, span in enumerate(_spans(shard_ends([row.sha256 for row in rows], shard_images))):
        images = scratch[[row.place for row in rows[span]]]
        write_array(work / f"images-{number:05d}.npy", images)
        write_array(work / f"labels-{number:05d}.npy", labels[span])
        write_array(work / f"split-{number:05d}.npy", splits[span])
        for name, indices in measure(images).items():
            attributes[name] += [names[name][index] for index in indices]
        for row, label, image in zip(rows[span], labels[span], images, strict=True):
            content.update(f"{row.sha256} {SPLITS[row.split]} {label}\n".encode() + image.tobytes())
    _write_manifest(work / "manifest.parquet", rows, labels, attributes)
    return content.hexdigest()


def write_pairs(path: Path, header: tuple[str, str], pairs: Sequence[tuple[str, str]]) -> None:
    """A CSV file of two columns, sorted; names with commas, quotes and newlines stay one field."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(sorted(pairs))


def _spans(ends: Sequence[int]) -> Iterator[slice]:
    yield from (slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True))


def _write_manifest(
    path: Path, rows: Sequence[Row], labels: NDArray[np.int64], attributes: dict[str, list[str]]
) -> None:
    columns = {
        "sha256": pa.array([row.sha256 for row in rows], pa.string()),
        "source": pa.array([row.source for row in rows], pa.string()),
        "split": pa.array([SPLITS[row.split] for row in rows], pa.string()),
        "label": pa.array(labels, pa.int64()),
        "class": pa.array([row.class_name for row in rows], pa.string()),
        "width": pa.array([row.width for row in rows], pa.int64()),
        "height": pa.array([row.height for row in rows], pa.int64()),
        **{name: pa.array(values, pa.string()) for name, values in attributes.items()},
    }
    pq.write_table(pa.table(columns), path, row_group_size=65536)
