"""Files that appear whole or not at all, and the digests that name their content."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:  # numpy loads only after its thread pools are fixed
    from numpy.typing import NDArray


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digests(folder: Path, known: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by relative POSIX path, in path order; those `known` are not read again."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path: path.relative_to(folder).as_posix() for path in files}
    return {name: known.get(name) or sha256_file(path) for path, name in names.items()}


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and digests of all files below a folder."""
    if path.is_dir():
        return hashlib.sha256(json.dumps(tree_digests(path)).encode()).hexdigest()
    return sha256_file(path)


def to_json(value: Any) -> str:
    """JSON text with a final newline. Raises ValueError for NaN and infinities: they are never silently written."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write beside `path`, flush to disk, then rename onto it: readers see the old file or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with named(path), partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Add this path to errors that name no file, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_json(path: Path, value: Any) -> None:
    """`to_json` written atomically."""
    write_atomically(path, to_json(value))


def write_array(path: Path, values: "NDArray[Any]") -> None:
    """An array as .npy; unlike numpy's own writing, it says what is wrong if the disk is full."""
    write_blocks(path, (values,), len(values))


def write_blocks(path: Path, blocks: "Iterable[NDArray[Any]]", count: int) -> None:
    """One array of `count` rows as .npy, written block by block, so that only one block need be in memory."""
    import numpy as np

    with named(path), path.open("wb") as file:
        for number, block in enumerate(blocks):
            if number == 0:
                write_array_header(file, block, count)
            file.write(np.ascontiguousarray(block).data)


def write_array_header(file: BinaryIO, block: "NDArray[Any]", count: int) -> None:
    """The head of an .npy file of `count` rows like those of `block`, which follow in C order."""
    from numpy.lib import format as npy

    header = {"descr": block.dtype.str, "fortran_order": False, "shape": (count, *block.shape[1:])}
    npy.write_array_header_1_0(file, header)


def read_array(path: Path, *, mapped: bool = False) -> "NDArray[Any]":
    """An array that `write_array` wrote, read or `mapped` into memory. Raises ValueError if it is cut short."""
    from numpy.lib import format as npy

    try:
        if mapped:
            return npy.open_memmap(path, mode="r")
        with path.open("rb") as file:
            return npy.read_array(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a complete array ({error}); rerun the stage that writes it") from None


def read_json(path: Path, *, format: int = 1, needs: Iterable[str] = ()) -> dict[str, Any]:
    """A JSON object that ganops wrote. Raises ValueError if it is not one, has another format, or lacks a key of
    `needs`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also numbers of too many digits, and lists nested too deeply
        raise ValueError(f"{path} is not a JSON file of ganops: {error}") from None
    if not isinstance(value, dict) or value.get("format") != format:
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        raise ValueError(f"{path} must be a JSON object with format {format}; found {found!r}")
    missing = [key for key in needs if key not in value]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; rerun the stage that writes it")
    return value


@contextlib.contextmanager
def output_folder(out: Path) -> Iterator[Path]:
    """A fresh folder beside `out` that takes its place when the block ends well.

    If the block fails or the process dies, what was at `out` is still there, whole.
    """
    partial, previous = out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.previous")
    if previous.exists() and not out.exists():
        previous.replace(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if out.exists():
            shutil.rmtree(previous, ignore_errors=True)
            out.replace(previous)
        partial.replace(out)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
