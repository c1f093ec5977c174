"""numpy arrays: `.npz` files with an array of images and one of labels, or `.npy` files of the same names."""

import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from stages.ingest import _tree
from stages.ingest._cells import name_of
from stages.ingest._records import DAMAGED, LOST, intact, records
from stages.ingest._sample import Listing, ListingBuilder, Refused, check_count, refusal, stamp_of

_ADVICE = "arrays of Python objects (pickles) are never loaded"

_BROKEN = (OSError, EOFError, zlib.error, zipfile.BadZipFile)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Arrays below the raw folder."""

    name: Literal["arrays"]
    images: str
    """Array of images [n, H, W] or [n, H, W, C]: its key in .npz files, or its file name without .npy."""
    labels: str | None
    """Array of labels [n], whole numbers or text, named likewise; null for none."""
    classes: tuple[str, ...]
    """Names of the labels from 0 on; [] takes the labels as they are."""


def listing(config: Config, root: Path) -> Listing:
    """All images of all files. Raises ValueError for arrays that cannot be read or do not fit each other."""
    builder = ListingBuilder()
    for found in _tree.walk(root):
        if not isinstance(found, _tree.Entry):
            builder.refuse(*found)
            continue
        path = root / os.fsdecode(found.unit)
        if not found.place and (path.suffix == ".npz" or path.name == f"{config.images}.npy"):
            _add(config, path, found, builder)
        elif path.suffix == ".npy" and path.stem == config.labels:
            builder.paper(path, found.source)
        else:
            builder.refuse(found.source, "wrong type: neither an .npz file nor one of the named .npy files")
    return builder.finish(config.classes or None)


def _add(config: Config, path: Path, found: _tree.Entry, builder: ListingBuilder) -> None:
    shape = _shape(path, config.images)
    labels = _labels(config, path, shape[0]) if config.labels else None
    status, chain = path.stat(), path.stat().st_ino if path.suffix == ".npz" else -1
    for number in range(shape[0]):
        place, source = f"{number} {config.images}", f"{found.source}/{number:06d}"
        label = None if labels is None else name_of(labels[number])
        builder.add(
            source, found.unit, stamp_of(status, place), place=place, chain=chain, class_name=label,
            classes=config.classes,
        )  # fmt: skip


def contents(
    config: Config, root: Path, unit: bytes, places: Sequence[str], most: int
) -> Iterator[tuple[str, NDArray[Any]] | Refused]:
    """See `stages.ingest.sources`; arrays [H, W] or [H, W, C]."""
    path, numbers = root / os.fsdecode(unit), (int(place.split()[0]) for place in places)
    try:
        with _opened(path, config.images) as file:
            shape, kind = _header(file, path)
            size = int(np.prod(shape[1:])) * kind.itemsize
            whole = path.suffix != ".npz" or intact(file, shape[0] * size)
        if not whole:
            yield from (Refused(DAMAGED) for _ in places)
            return
        with _opened(path, config.images) as file:
            _header(file, path)
            for record in records(file, size, numbers):
                if isinstance(record, Refused):
                    yield record
                else:
                    yield "", np.frombuffer(record, kind).reshape(shape[1:])
    except _BROKEN as error:
        lost = str(refusal(error, LOST))
        yield from (Refused(lost) for _ in places)


class _Opened:
    """The bytes of one array, in a .npy file or a member of a .npz file."""

    def __init__(self, path: Path, key: str) -> None:
        self._archive = zipfile.ZipFile(path) if path.suffix == ".npz" else None
        self._file: IO[bytes] = self._archive.open(f"{key}.npy") if self._archive else path.open("rb")

    def __enter__(self) -> IO[bytes]:
        return self._file

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._archive:
            self._archive.close()


def _opened(path: Path, key: str) -> _Opened:
    try:
        return _Opened(path, key)
    except KeyError:
        raise ValueError(f"{path} holds no array {key!r}; ingest.source names the arrays") from None


def _header(file: IO[bytes], path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, kind = read(file)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile):
        raise
    except Exception:  # noqa: BLE001 - numpy parses the header as Python, and raises what the parser raises
        raise ValueError(f"{path} is not a complete numpy file") from None
    if kind.hasobject:
        raise ValueError(f"{path}: {_ADVICE}")
    if fortran and len(shape) > 1:
        raise ValueError(f"{path} is in Fortran order; write it with numpy.ascontiguousarray")
    return shape, kind


def _shape(path: Path, key: str) -> tuple[int, ...]:
    try:
        with _opened(path, key) as file:
            shape, kind = _header(file, path)
            there = _size(path, key, file)
    except (*_BROKEN, SyntaxError, NotImplementedError, RuntimeError):
        raise ValueError(f"{path} is not a complete numpy file") from None
    size = float(np.prod([float(edge) for edge in shape])) * kind.itemsize
    if len(shape) not in (3, 4) or 0 in shape or size != there:
        raise ValueError(
            f"{path} must hold a whole array [n, H, W] or [n, H, W, C]; its header says {list(shape)} of {kind}"
        )
    check_count(path, shape[0])
    return shape


def _size(path: Path, key: str, file: IO[bytes]) -> int:
    """Bytes that follow the header."""
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(f"{key}.npy").file_size
        if size > 1100 * path.stat().st_size:  # more than deflate can ever pack
            raise ValueError(f"{path} claims to unpack to {size:,} bytes")
        return size - file.tell()
    return path.stat().st_size - file.tell()


def _labels(config: Config, path: Path, count: int) -> NDArray[Any]:
    assert config.labels is not None
    beside = path if path.suffix == ".npz" else path.with_name(f"{config.labels}.npy")
    try:
        with _opened(beside, config.labels) as file:
            shape, kind = _header(file, beside)
            there = math.prod(shape)
            if there != count or kind.kind not in "uiU":  # before they are read
                raise ValueError(
                    f"{beside} must hold a whole number or text per image; it holds {there} labels of {kind} for "
                    f"{count} images"
                )
            if len(shape) > 2 or not 0 < there * kind.itemsize == _size(beside, config.labels, file):
                raise ValueError(f"{beside} does not hold the labels that its header promises")
            return np.frombuffer(file.read(), kind).reshape(-1)
    except (*_BROKEN, SyntaxError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{beside} cannot be read: {' '.join(str(error).split())}") from None
