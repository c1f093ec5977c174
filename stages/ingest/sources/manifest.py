"""A table that names image files, with a class, a group and any attributes for each: CSV, Parquet, or CelebA's own.

CelebA's attribute file (list_attr_celeba.txt: a count, the attribute names, then a file name and 1 or -1 for each) is
recognised by its first line. Files may lie in archives. Rows are taken in path order of their files, whatever their
order in the table.
"""

import contextlib
import csv
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TextIO

from stages.ingest import _tree
from stages.ingest._cells import check_columns, name_of, text_of
from stages.ingest._sample import Listing, ListingBuilder, Refused, as_text, is_number


@dataclass(frozen=True, kw_only=True)
class Config:
    """A manifest below the raw folder."""

    name: Literal["manifest"]
    file: str
    """The table, relative to the raw folder: .csv, .tsv, .parquet, or CelebA's .txt."""
    images: str
    """Folder below the raw folder that its file names are relative to; `.` is the raw folder itself."""
    path: str
    """Column of file names; in CelebA's file it has no name of its own and is called `file`."""
    label: str | None
    """Column of classes; null for none."""
    group: str | None
    """Column of persons, patients, products: images of one group are never divided between splits. null for none."""
    attributes: tuple[str, ...]
    """Further columns that go into the store's manifest as text."""
    unlisted: Literal["refuse", "ignore"]
    """What happens to files below `images` that the table does not name."""


_TWICE = "twice: several files have the name that the manifest gives"
Row = tuple[str | None, str, tuple[str, ...]]  # class, group, attributes
Rows = dict[str, Row | str]  # by file name; a text is the reason why the file cannot be used


def listing(config: Config, root: Path) -> Listing:
    """The files that the table names. Raises ValueError if the table cannot be read or lacks a column."""
    path = root / config.file
    if not path.is_file():
        raise ValueError(f"{path} does not exist; ingest.source.file names the manifest, relative to {root}")
    if not path.resolve().is_relative_to(root.resolve()):  # nobody would notice that it changed
        raise ValueError(f"{path} leads out of {root}; put the manifest that ingest.source.file names into that folder")
    builder = ListingBuilder(config.attributes, config.group is not None)
    builder.paper(path, config.file)
    rows = _rows(config, path, builder)
    _check_labels(config, rows)
    above, own = _parts(config.images), _parts(config.file)
    taken: dict[str, int] = {}  # row of the listing, by name
    for found in _tree.walk(root):
        if not isinstance(found, _tree.Entry):
            builder.refuse(*found)
        elif found.parts != own and found.parts[: len(above)] == above:
            name = b"/".join(found.parts[len(above) :]).decode("utf-8", "surrogateescape")
            _take(config, builder, found, name, rows.get(name), taken)
    for name in rows.keys() - taken.keys():
        reason = f"missing: {config.file} names it, and there is no such file{_hint(root / config.images, name)}"
        builder.refuse(as_text(os.fsencode(name)), reason)
    return builder.finish()


def contents(
    config: Config, root: Path, unit: bytes, places: Sequence[str], most: int
) -> Iterator[tuple[str, bytes] | Refused]:
    """See `stages.ingest.sources`."""
    return _tree.read(root, unit, places, most)


def _take(
    config: Config, builder: ListingBuilder, found: _tree.Entry, name: str, row: Row | str | None, taken: dict[str, int]
) -> None:
    if row is None:
        if config.unlisted == "refuse":
            builder.refuse(found.source, f"unlisted: {config.file} does not name it")
    elif isinstance(row, str):
        taken[name] = -1
        builder.refuse(found.source, row)
    elif name in taken:  # one of them lies in an archive, and nobody knows which one the table means
        builder.withdraw(taken[name], _TWICE)
        builder.refuse(found.source, _TWICE)
    else:
        taken[name] = len(builder)
        builder.add(
            found.source, found.unit, found.stamp, place=found.place, chain=found.chain, class_name=row[0],
            group=row[1], attributes=row[2],
        )  # fmt: skip


def _hint(folder: Path, name: str) -> str:
    """What to do if the file that is meant has a slightly different name."""
    ways = {name.replace("\\", "/"): "/ in place of each backslash"}
    ways |= {unicodedata.normalize(form, name): f"its accents in Unicode's form {form}" for form in ("NFC", "NFD")}
    for other, way in ways.items():
        with contextlib.suppress(OSError):  # of a name longer than any
            if other != name and ".." not in other.split("/") and (folder / other).is_file():
                return f", but there is one with {way}; write its name so in the manifest"
    return ""


def _parts(path: str) -> tuple[bytes, ...]:
    return tuple(part.encode() for part in PurePosixPath(path).parts)


def _rows(config: Config, path: Path, builder: ListingBuilder) -> Rows:
    """What the table says about each file; a row that repeats or contradicts another is refused."""
    rows: Rows = {}
    columns = [config.path, *(name for name in (config.label, config.group) if name), *config.attributes]
    for values in _table(path, columns):
        fields = dict(zip(columns, values, strict=True))
        try:
            name = text_of(fields[config.path])
        except Refused as reason:
            builder.refuse(config.file, reason)
            continue
        if not name:
            builder.refuse(config.file, "no name: a row of the manifest names no file")
            continue
        name, row = str(PurePosixPath(name)), _row(config, fields)
        if name not in rows:
            rows[name] = row
        elif rows[name] == row:
            builder.refuse(as_text(os.fsencode(name)), "repeated: the manifest names this file more than once")
        else:
            rows[name] = "contradiction: the manifest says different things about this file"
            builder.refuse(as_text(os.fsencode(name)), str(rows[name]))
    return rows


def _row(config: Config, fields: dict[str, Any]) -> Row | str:
    try:
        label = name_of(fields[config.label]) if config.label else None
        if label == "":
            return f"no label: column {config.label} is empty"
        group = name_of(fields[config.group]) if config.group else ""
        if config.group and not group:
            return f"no group: column {config.group} is empty"
        return label, group, tuple(text_of(fields[name]) for name in config.attributes)
    except Refused as reason:
        return str(reason)


def _table(path: Path, columns: list[str]) -> Iterator[list[Any]]:
    """The wanted columns, row by row; a field that is missing is empty."""
    try:
        if path.suffix.lower() == ".parquet":
            yield from _parquet(path, columns)
            return
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            yield from _celeba(file, path, columns) if first.strip().isdecimal() else _csv(file, path, columns)
    except (UnicodeDecodeError, csv.Error, OSError, _arrow_errors()) as error:
        raise ValueError(f"{path} cannot be read as a table: {' '.join(str(error).split())}") from None


def _arrow_errors() -> type[Exception]:
    import pyarrow as pa

    return pa.ArrowException


def _csv(file: TextIO, path: Path, columns: list[str]) -> Iterator[list[str]]:
    reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    names = next(reader, [])
    places = _places(path, names, columns)
    for row in reader:
        if any(row[len(names) :]):
            raise ValueError(
                f"{path} has {len(row)} fields in line {reader.line_num}, but {len(names)} columns; quote fields that "
                "hold a comma"
            )
        if row:
            yield [row[place] if place < len(row) else "" for place in places]


def _celeba(file: TextIO, path: Path, columns: list[str]) -> Iterator[list[str]]:
    file.readline()
    places = _places(path, ["file", *file.readline().split()], columns)
    for line in file:
        row = line.split()
        if row:
            yield [row[place] if place < len(row) else "" for place in places]


def _parquet(path: Path, columns: list[str]) -> Iterator[list[Any]]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path)
    check_columns(path, table.schema_arrow.names, columns)
    for batch in table.iter_batches(columns=columns):
        values = [batch.column(name).to_pylist() for name in columns]
        yield from map(list, zip(*values, strict=True))


def _places(path: Path, names: list[str], columns: list[str]) -> list[int]:
    check_columns(path, names, columns)
    return [names.index(name) for name in columns]


def _check_labels(config: Config, rows: Rows) -> None:
    """Raise ValueError for numbers beside words: they are two ways of labelling, or a shifted column."""
    labels = {row[0] for row in rows.values() if isinstance(row, tuple) and row[0] is not None}
    numbers = set(filter(is_number, labels))
    if numbers and numbers != labels:
        raise ValueError(
            f"{config.file}: column {config.label} mixes numbers such as {min(numbers)!r} and words such as "
            f"{min(labels - numbers)!r}; label all images in one way"
        )
