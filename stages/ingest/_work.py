"""The order of the work of ingest: datasheet, files, pixels, duplicates, store."""

import hashlib
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from gan.attributes import bins
from stages.common.files import output_folder, write_json
from stages.common.summary import Summary, write_summary
from stages.config.ingest import IngestConfig
from stages.ingest._datasheet import check_covers, content_hash, read_datasheet
from stages.ingest._decode import Rules
from stages.ingest._folder import File, Refused, list_files
from stages.ingest._read import Row, read_bytes, read_images, without_copies
from stages.ingest._write import write_pairs, write_store
from stages.store import SPLITS

FORMAT = 1


def ingest(config: IngestConfig, raw: Path, datasheet: Path, out: Path) -> Summary:
    """See `stages.ingest.run`."""
    sheet = read_datasheet(datasheet)
    listing = list_files(raw, config.labels)
    rules = Rules(config.resolution, config.channels, config.max_pixels)
    if "covers" in sheet:
        check_covers(sheet, content_hash(_hashes(listing.files, rules)), datasheet, raw)
    with output_folder(out) as work:
        with tempfile.TemporaryFile(dir=work) as scratch:
            rows, damaged, read = read_images(listing.files, scratch, rules, config.splits)
            kept, copies, contradictions = without_copies(rows)
            refused = listing.refused + damaged + contradictions
            _check(config, raw, listing.classes, kept, refused, len(copies))
            data_hash = _store(work, scratch, kept, rules, listing.classes, config.shard_images)
        write_pairs(work / "quarantine.csv", ("source", "reason"), refused)
        write_pairs(work / "duplicates.csv", ("source", "kept"), copies)
        counts = _counts(kept, len(copies), len(refused))
        write_json(
            work / "dataset.json",
            {
                "format": FORMAT,
                "resolution": config.resolution,
                "channels": config.channels,
                "classes": listing.classes,
                "attributes": bins(config.channels),
                "counts": counts,
                "data_hash": data_hash,
                "datasheet": sheet,
            },
        )
        results = {
            "data_hash": data_hash,
            "counts": counts,
            "refused": dict(_reasons(refused).most_common()),
            "datasheet": sheet,
        }
        summary = write_summary(
            work,
            stage="ingest",
            config=config,
            inputs={"raw": content_hash(read), "datasheet": datasheet},
            results=results,
        )
    _tell(counts, out)
    return summary


def _hashes(files: Sequence[File], rules: Rules) -> list[tuple[str, str]]:
    """(sha256, source) of all files that can be read, in path order."""
    found = []
    for file in tqdm(files, desc="hash", unit="image", disable=None):
        try:
            found.append((hashlib.sha256(read_bytes(file, rules.max_bytes)).hexdigest(), file.source))
        except Refused as reason:
            found.append((str(reason), file.source))
    return found


def _check(
    config: IngestConfig,
    raw: Path,
    classes: Sequence[str],
    kept: Sequence[Row],
    refused: Sequence[tuple[str, str]],
    copies: int,
) -> None:
    """Raise ValueError where too little is left to go on with."""
    read = len(kept) + copies + len(refused)
    share = len(refused) / read
    if not kept or share > config.max_refused_share:
        what = "none is left" if not kept else f"more than ingest.max_refused_share {config.max_refused_share:g}"
        raise ValueError(
            f"{len(refused)} of {read} files in {raw} are refused ({share:.1%}), {what}: {_examples(refused)}; "
            "mend or remove them"
        )
    empty = sorted(set(classes) - {row.class_name for row in kept})
    if empty:
        raise ValueError(f"no image of class {empty[0]!r} could be kept; add images to {raw / empty[0]}, or remove it")


def _store(
    work: Path, scratch: BinaryIO, rows: Sequence[Row], rules: Rules, classes: Sequence[str], shard_images: int
) -> str:
    scratch.flush()
    shape = (-1, rules.resolution, rules.resolution, rules.channels)
    pixels = np.memmap(scratch, np.uint8, mode="r").reshape(shape)
    return write_store(work, rows, pixels, classes, shard_images)


def _counts(kept: Sequence[Row], copies: int, refused: int) -> dict[str, int]:
    splits = Counter(row.split for row in kept)
    read = len(kept) + copies + refused
    sides = {name: splits[code] for code, name in enumerate(SPLITS)}
    return {"read": read, "kept": len(kept), "duplicates": copies, "refused": refused, **sides}


def _reasons(refused: Sequence[tuple[str, str]]) -> Counter[str]:
    """How many files each kind of reason refused."""
    return Counter(sorted(reason.split(":")[0] for _, reason in refused))


def _examples(refused: Sequence[tuple[str, str]]) -> str:
    """The three commonest kinds of reason, each with its first file; names are quoted, so one line it stays."""
    parts = []
    for kind, count in _reasons(refused).most_common(3):
        source, reason = min(pair for pair in refused if pair[1].split(":")[0] == kind)
        parts.append(f"{count} x {kind}, such as {source!r} ({reason})")
    return "; ".join(parts)


def _tell(counts: dict[str, Any], out: Path) -> None:
    numbers = ", ".join(f"{value:,} {name}" for name, value in counts.items())
    more = f"; see {out / 'quarantine.csv'}" if counts["refused"] else ""
    print(f"ingest: {numbers}{more}", file=sys.stderr)  # noqa: T201
