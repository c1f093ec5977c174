"""Archives, tables and arrays of raw data that hold an image among others: in data/raw, and in all versions under DVC.

A source such as `a.zip/3.png` names its container and what lies in it. Zip, tar and Parquet files are searched; arrays,
other record files and files that cannot be read are judged by name alone.
"""

import hashlib
import re
import subprocess
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flows.upkeep.holdings import RAW, SUMMARY, Cache

_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError, NotImplementedError,
           RuntimeError, pa.ArrowException)  # fmt: skip


def containers(project: Path, sources: set[str], sha256: str) -> list[Path]:
    """Files below data/raw that hold the image among others."""
    found = [
        project / RAW / name
        for name, inside in _containing(sources).items()
        if (project / RAW / name).is_file() and _holds(project / RAW / name, name, inside, sha256)
    ]
    return sorted(found)


def stored_containers(project: Path, cache: Cache, sources: set[str], sha256: str) -> set[str]:
    """MD5s of cached files, of any version of the raw data, that hold the image among others."""
    containing = _containing(sources)
    candidates = {(name, md5) for name, md5 in _versions(project, cache) if name in containing} if containing else set()
    return {
        md5
        for name, md5 in candidates
        if cache.path(md5).is_file() and _holds(cache.path(md5), name, containing[name], sha256)
    }


def needed(cache: Cache, objects: set[str]) -> set[str]:
    """Those of `objects` that a .dvc file of the workspace needs; all of them if the cache lacks a folder's list."""
    folders = {folder.md5: folder.files.values() for folder in cache.folders}
    outs = (out for out in cache.repo.index.outs if out.stage.is_data_source)
    tracked = {str(out.hash_info.value) for out in outs if out.hash_info}
    if any(md5.endswith(".dir") and md5 not in folders for md5 in tracked):
        return objects
    return objects & tracked.union(*(folders[md5] for md5 in tracked & folders.keys()))


def _containing(sources: set[str]) -> dict[str, set[str]]:
    """Every folder or file that may contain one of these, with the names that they would have inside it."""
    found: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        for slash in re.finditer("/", source):
            found[source[: slash.start()]].add(source[slash.end() :])
    return found


def _versions(project: Path, cache: Cache) -> Iterator[tuple[str, str]]:
    """(path below data/raw, MD5) of each file of all versions of the raw data."""
    tracked: dict[str, set[str]] = defaultdict(set)
    for md5, path in (*_tracked_now(project, cache), *_tracked_ever(project)):
        tracked[md5].add(path)
        if not md5.endswith(".dir"):
            yield path, md5
    for folder in cache.folders:
        if folder.md5 in tracked or SUMMARY not in folder.files:  # otherwise a stage made it
            for above in tracked.get(folder.md5, {""}):
                yield from ((f"{above}/{name}".removeprefix("/"), md5) for name, md5 in folder.files.items())


def _tracked_now(project: Path, cache: Cache) -> Iterator[tuple[str, str]]:
    """(MD5, path below data/raw) of everything that .dvc files of the workspace track there."""
    for out in cache.repo.index.outs:
        if out.stage.is_data_source and out.hash_info and Path(out.fs_path).is_relative_to(project / RAW):
            path = Path(out.fs_path).relative_to(project / RAW).as_posix()
            yield str(out.hash_info.value), path if path != "." else ""


def _tracked_ever(project: Path) -> Iterator[tuple[str, str]]:
    """The same for all commits; nothing if git knows no such file."""
    told = ("log", "--all", "--patch", "--format=", "--no-color", "--no-ext-diff", "--no-renames", "--dst-prefix=")
    command = ["git", "-c", "core.quotePath=false", *told, "--relative", "--", f"{RAW}.dvc", f"{RAW}/*.dvc"]
    answer = subprocess.run(command, cwd=project, capture_output=True, text=True, errors="replace")
    path = ""
    for line in answer.stdout.splitlines():
        if line.startswith("+++ "):
            path = line[4:].rstrip("\t").removesuffix(".dvc").removeprefix(RAW).removeprefix("/")
        elif match := re.match(r"\+.*\bmd5: ([0-9a-f]{32}(\.dir)?)$", line):
            yield match[1], path


def _holds(path: Path, name: str, inside: set[str], sha256: str) -> bool:
    """Whether a file called `name` holds that content, or a file of which one of `inside` is a record."""
    kind = name.lower()
    try:
        if kind.endswith(".zip"):
            members = _zip_members(path)
        elif kind.endswith((".tar", ".tar.gz", ".tgz")):
            members = _tar_members(path)
        elif kind.endswith(".parquet"):
            members = _cells(path)
        else:
            return True
        return any(
            digest == sha256 or any(record.startswith(f"{member}/") for record in inside) for member, digest in members
        )
    except _BROKEN:
        return True


def _zip_members(path: Path) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                with archive.open(info) as member:
                    yield info.filename, hashlib.file_digest(member, "sha256").hexdigest()  # type: ignore[arg-type]


def _tar_members(path: Path) -> Iterator[tuple[str, str]]:
    with tarfile.open(path) as archive:
        for info in archive:
            if member := archive.extractfile(info) if info.isfile() else None:
                yield info.name, hashlib.file_digest(member, "sha256").hexdigest()  # type: ignore[arg-type]


def _cells(path: Path) -> Iterator[tuple[str, str]]:
    for batch in pq.ParquetFile(path).iter_batches(batch_size=64):
        for cell in (cell for column in batch.columns for cell in column.to_pylist()):
            content = cell.get("bytes") if isinstance(cell, dict) else cell
            if isinstance(content, bytes):
                yield "", hashlib.sha256(content).hexdigest()
