"""Parquet files with embedded image bytes, as Hugging Face datasets are laid out.

The image column is bytes, or a struct of `bytes` and `path`; class names come from the schema's `huggingface` metadata
if it has them.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stages.ingest import _tree
from stages.ingest._cells import check_columns, name_of, text_of
from stages.ingest._sample import Listing, ListingBuilder, Refused, check_count, refusal, stamp_of

_BATCH = 64  # images in memory at once


@dataclass(frozen=True, kw_only=True)
class Config:
    """Parquet files below the raw folder."""

    name: Literal["parquet"]
    image: str
    """Column of encoded images."""
    label: str | None
    """Column of classes: numbers or text; null for none."""
    group: str | None
    """Column of persons, patients, products: images of one group are never divided between splits. null for none."""
    attributes: tuple[str, ...]
    """Further columns that go into the store's manifest as text."""


def listing(config: Config, root: Path) -> Listing:
    """All rows of all files. Raises ValueError if a file cannot be read or lacks a column."""
    builder = ListingBuilder(config.attributes, config.group is not None)
    classes: list[str] | None = None
    for found in _tree.walk(root):
        if not isinstance(found, _tree.Entry):
            builder.refuse(*found)
        elif not found.source.lower().endswith(".parquet") or found.place:
            builder.refuse(found.source, "wrong type: its name is not that of a Parquet file")
        else:
            names = _add(config, root / os.fsdecode(found.unit), found, builder)
            if classes is not None and names != classes:
                raise ValueError(f"{root}: its Parquet files name different classes ({found.source} is one)")
            classes = names
    return builder.finish(classes or None)


def _add(config: Config, path: Path, found: _tree.Entry, builder: ListingBuilder) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names_of = [name for name in (config.label, config.group) if name]
    said = names_of + list(config.attributes)
    try:
        file = pq.ParquetFile(path)
        check_columns(path, file.schema_arrow.names, [config.image, *said])
        check_count(path, file.metadata.num_rows)
        names = _class_names(file.schema_arrow.metadata, config.label)
        table = file.read(columns=said)
        columns = [_texts(table[name], name_of if at < len(names_of) else text_of) for at, name in enumerate(said)]
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {' '.join(str(error).split())}") from None
    status, row = path.stat(), 0
    for group in range(file.num_row_groups):
        for inside in range(file.metadata.row_group(group).num_rows):
            place, source = f"{inside} {group} {config.image}", f"{found.source}/{row:06d}"
            said_of = [text for column in columns if (text := column[row]) is not None]
            row += 1
            if len(said_of) < len(said):
                builder.refuse(source, "name: a column holds bytes that are not UTF-8 text")
                continue
            label = said_of.pop(0) if config.label else None
            person = said_of.pop(0) if config.group else ""
            if config.group and not person:
                builder.refuse(source, "no group: the column is empty")
                continue
            builder.add(
                source, found.unit, stamp_of(status, place), place=place, chain=status.st_ino * 65536 % 2**62 + group,
                class_name=label, classes=names, group=person, attributes=said_of,
            )  # fmt: skip
    return names


def _texts(column: Any, read: Callable[[Any], str]) -> list[str | None]:
    """Every cell as text; None for one whose bytes are not text."""
    try:
        return [read(value) for value in column.to_pylist()]
    except (UnicodeDecodeError, Refused):
        return [_text(cell, read) for cell in column]


def _text(cell: Any, read: Callable[[Any], str]) -> str | None:
    try:
        return read(cell.as_py())
    except (UnicodeDecodeError, Refused):
        return None


def _class_names(metadata: dict[bytes, bytes] | None, label: str | None) -> list[str]:
    """Names of the labels by the Hugging Face features in the schema; empty if it gives none."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        names = features[label].get("names", [])
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def contents(
    config: Config, root: Path, unit: bytes, places: Sequence[str], most: int
) -> Iterator[tuple[str, bytes] | Refused]:
    """See `stages.ingest.sources`; `places` lie in one row group, in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = iter([int(place.split()[0]) for place in places])
    given = row = 0
    target: int | None = next(wanted)
    try:
        file = pq.ParquetFile(root / os.fsdecode(unit))
        group = int(places[0].split()[1])
        for batch in file.iter_batches(_BATCH, row_groups=[group], columns=[config.image], use_threads=False):
            column = batch.column(0)
            while target is not None and target < row + len(column):
                yield _cell(column[target - row], most)
                given, target = given + 1, next(wanted, None)
            row += len(column)
            if target is None:
                return
    except (pa.ArrowException, OSError) as error:
        refusal(error, "")
    for _ in range(given, len(places)):
        yield Refused("damaged: this part of the Parquet file cannot be read")


def _cell(cell: Any, most: int) -> tuple[str, bytes] | Refused:
    try:
        name, value = "", cell.as_py()
    except UnicodeDecodeError:
        return Refused("name: the path in the cell is not UTF-8 text")
    if isinstance(value, dict):
        name, value = value.get("path") or "", value.get("bytes")
    if not isinstance(value, bytes):
        return Refused("no image: the cell holds no bytes; images beside the file are read with source manifest")
    if len(value) > most:
        return Refused(f"too large: {len(value):,} bytes, more than ingest.max_pixels pixels can take")
    return name, value
