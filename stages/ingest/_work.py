"""The steps of ingest in order: datasheet, listing, pixels, duplicates, store."""

import importlib
import itertools
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gan.attributes import bins
from stages.common.files import output_folder, tree_digests, write_json
from stages.common.summary import Summary, write_summary
from stages.config.ingest import IngestConfig
from stages.ingest._archives import is_one
from stages.ingest._copies import Distinct, distinct
from stages.ingest._croissant import write_croissant
from stages.ingest._datasheet import check_covers, content_hash, read_datasheet
from stages.ingest._decode import Rules
from stages.ingest._erased import Tombstone, contents, read_tombstones, without_erased
from stages.ingest._licences import check_accepted
from stages.ingest._read import Refusal, Refusals, Samples, hex_digests, prune, read_samples, work_folder
from stages.ingest._sample import Listing
from stages.ingest._texts import Texts
from stages.ingest._worker import Job
from stages.ingest._write import COLUMNS, write_rows, write_store
from stages.state import exclusive, state_folder
from stages.store import SPLITS

FORMAT = 1
QUARANTINE = "quarantine.csv"
_PART = 8192  # samples that are Python objects at once
_MOST_VALUES = 1000  # listed per declared attribute; with more, drift does not treat it as categorical either
# Reasons for which an archive is refused as a whole.
_LOST = ("damaged", "truncated", "bomb", "too large", "unreadable", "wrong type")
_PASSING = ("unreadable", "changed", "crashed")  # kinds of reasons that may be gone next time


def ingest(
    config: IngestConfig, raw: Path, datasheet: Path, erased: Path | None, out: Path, remember: Callable[[], None]
) -> Summary:
    """Read all, write the store anew and `remember` it while nobody else can write; see `stages.ingest.run`."""
    sheet, tombstones = read_datasheet(datasheet, config.use), read_tombstones(erased)
    check_accepted(sheet, config.licences, config.use)
    listing: Listing = importlib.import_module(f"stages.ingest.sources.{config.source.name}").listing(
        config.source, raw
    )
    own = {*COLUMNS, *bins(config.channels)}
    if taken := sorted(name for name in listing.attributes if name in own or name.startswith("measured_")):
        raise ValueError(
            "ingest.source.attributes must not have the names of the manifest's own columns, nor begin with measured_; "
            f"received {taken[0]!r}: rename it in your data, or leave it out"
        )
    if not len(listing) and not listing.refused:
        raise ValueError(
            f"{raw} holds no files that source {config.source.name} reads; put your data there, or run `make data` "
            "to fetch the digits"
        )
    _check_archives(config, raw, listing)
    rules = Rules(
        config.resolution, config.channels, config.fit, config.upscale, config.background, config.max_pixels
    )  # fmt: skip
    folder = work_folder(state_folder(), raw, rules, config.source.name)
    with exclusive(folder):
        job = Job(config.source, raw.resolve(), folder, rules, contents(tombstones))
        samples, damaged, hashes, stale = read_samples(job, listing, config.processes)
        samples, damaged = without_erased(samples, damaged, listing, tombstones)
        summary = _write(config, raw, datasheet, sheet, tombstones, out, folder, listing, samples, damaged, hashes)
        prune(folder, stale)
        if not any(kind in summary.results["refused"] for kind in _PASSING):
            remember()
    return summary


def _write(
    config: IngestConfig,
    raw: Path,
    datasheet: Path,
    sheet: dict[str, Any],
    tombstones: list[Tombstone],
    out: Path,
    memory: Path,
    listing: Listing,
    samples: Samples,
    damaged: Refusals,
    hashes: NDArray[np.void],
) -> Summary:
    content = content_hash(itertools.chain(_read(listing, hashes), _papers(listing)))
    if "covers" in sheet:
        check_covers(sheet, content, datasheet, raw)
    result = distinct(samples, listing, config.splits, config.near_duplicates, memory)
    refused = [*(Refusal(*one) for one in listing.refused), *damaged, *result.refused]
    _check(config, raw, listing, result, refused, memory / QUARANTINE)
    counts = _counts(result, len(refused))
    with output_folder(out) as work:
        data_hash, images = write_store(work, result.samples, result.splits, listing, config.shard_images)
        write_rows(work / QUARANTINE, Refusal._fields, refused)
        write_rows(work / "duplicates.csv", ("source", "kept", "sha256"), result.copies)
        write_rows(work / "near_duplicates.csv", ("source", "near"), result.near)
        write_rows(work / "near_refused.csv", ("refused", "split", "kept", "squared_distance"), result.near_refused)
        info = _dataset(config, listing, result, counts, data_hash, sheet)
        write_json(work / "dataset.json", info)
        digests = tree_digests(work, images)
        write_croissant(work, info, pq.read_schema(work / "manifest.parquet"), digests)
        results = {
            "data_hash": data_hash, "counts": counts, "refused": dict(_reasons(refused).most_common()),
            "near_duplicates": {"kept": len(result.near), "crowded": result.crowded}, "datasheet": sheet,
            "erased": tombstones,
        }  # fmt: skip
        inputs: dict[str, Path | str] = {"raw": content, "datasheet": datasheet}
        summary = write_summary(work, stage="ingest", config=config, inputs=inputs, results=results, known=digests)
    _tell(counts, out)
    return summary


def _read(listing: Listing, hashes: NDArray[np.void]) -> Iterator[tuple[str, str]]:
    """(sha256, source) of every sample whose content was read."""
    read = np.flatnonzero(hashes.view("S32") != b"")
    for start in range(0, len(read), _PART):
        part = read[start : start + _PART]
        yield from zip(hex_digests(hashes[part]), listing.sources.take(part), strict=True)


def _papers(listing: Listing) -> Iterator[tuple[str, str]]:
    """(sha256, name) of every file that says something about samples."""
    for start in range(0, len(listing.papers), _PART):
        for line in listing.papers.take(range(start, min(start + _PART, len(listing.papers)))):
            sha256, _, name = line.partition(" ")
            yield sha256, name


def _dataset(
    config: IngestConfig,
    listing: Listing,
    result: Distinct,
    counts: dict[str, int],
    data_hash: str,
    sheet: dict[str, Any],
) -> dict[str, Any]:
    """What the store holds. `sample` and `condition` say in one place what a row is and what it is conditioned on."""
    return {
        "format": FORMAT,
        "sample": {"kind": "image", "dtype": "uint8", "shape": [config.resolution, config.resolution, config.channels]},
        "condition": {"kind": "class" if listing.classes else "none"},
        "resolution": config.resolution,
        "channels": config.channels,
        "classes": listing.classes,
        "attributes": bins(config.channels),
        "declared": {name: _values(column, result.samples.rows) for name, column in listing.attributes.items()},
        "grouped": listing.groups is not None,
        "counts": counts,
        "data_hash": data_hash,
        "datasheet": sheet,
    }


def _values(column: Texts, rows: NDArray[np.int64]) -> list[str] | None:
    """The distinct values of a column, sorted; None if there are more than _MOST_VALUES."""
    found: set[str] = set()
    for start in range(0, len(rows), _PART):
        found.update(column.take(rows[start : start + _PART]))
        if len(found) > _MOST_VALUES:
            return None
    return sorted(found)


def _check_archives(config: IngestConfig, raw: Path, listing: Listing) -> None:
    """Raise ValueError if archives refused as a whole, which count as one file each, hold too many of the bytes."""
    sizes = {
        (source, reason): path.stat().st_size
        for source, reason in listing.refused
        if reason.startswith(_LOST) and is_one(os.fsencode(source)) and (path := raw / source).is_file()
    }
    lost = sum(sizes.values())
    total = lost + listing.bytes_read() if sizes else 0
    if len(listing) and lost > config.max_refused_share * total:
        source, reason = max(sizes, key=lambda one: (sizes[one], one))
        raise ValueError(
            f"{raw / source} is refused as a whole ({reason}); such archives hold {lost:,} of {total:,} bytes in {raw} "
            f"({lost / total:.1%}), more than ingest.max_refused_share {config.max_refused_share:g}; repair or remove "
            "them, or raise that limit"
        )


def _check(config: IngestConfig, raw: Path, listing: Listing, result: Distinct, refused: Refusals, told: Path) -> None:
    """Raise ValueError if too little is left to go on with; the file `told` then lists all that is refused."""
    told.unlink(missing_ok=True)
    kept = len(result.samples)
    read = kept + len(result.copies) + len(refused)
    share = len(refused) / read
    if not kept or share > config.max_refused_share:
        what = "none is left" if not kept else f"more than ingest.max_refused_share {config.max_refused_share:g}"
        write_rows(told, Refusal._fields, refused)
        near = any(row.reason.startswith("near duplicate") for row in refused)
        known = [f"`{name}` in ingest.source, or " for name in ("group", "groups") if hasattr(config.source, name)]
        ways = f"; against near duplicates, set {''.join(known)}other limits in ingest.near_duplicates" * near
        raise ValueError(
            f"{len(refused)} of {read} files in {raw} are refused ({share:.1%}), {what}: {_examples(refused)}; all "
            f"are listed in {told}; repair or remove them, or raise ingest.max_refused_share{ways}"
        )
    present = set(np.unique(listing.labels[result.samples.rows]).tolist())
    empty = [name for label, name in enumerate(listing.classes) if label not in present]
    if empty:
        raise ValueError(f"no image of class {empty[0]!r} could be kept; add images to {raw / empty[0]}, or remove it")


def _counts(result: Distinct, refused: int) -> dict[str, int]:
    kept, copies = len(result.samples), len(result.copies)
    sides = np.bincount(result.splits, minlength=len(SPLITS)).tolist()
    read = kept + copies + refused
    return {
        "read": read,
        "kept": kept,
        "duplicates": copies,
        "refused": refused,
        **dict(zip(SPLITS, sides, strict=True)),
    }


def _reasons(refused: Refusals) -> Counter[str]:
    """How many samples each kind of reason refused."""
    return Counter(sorted(reason.split(":")[0] for _, reason, *_ in refused))


def _examples(refused: Refusals) -> str:
    """The three commonest kinds of reason, each with its first file; names are quoted, so it stays one line."""
    parts = []
    for kind, count in _reasons(refused).most_common(3):
        source, reason, *_ = min(row for row in refused if row[1].split(":")[0] == kind)
        parts.append(f"{count} x {kind}, such as {source!r} ({reason})")
    return "; ".join(parts)


def _tell(counts: dict[str, int], out: Path) -> None:
    numbers = ", ".join(f"{value:,} {name}" for name, value in counts.items())
    more = f"; see {out / QUARANTINE}" if counts["refused"] else ""
    print(f"ingest: {numbers}{more}", file=sys.stderr)  # noqa: T201
