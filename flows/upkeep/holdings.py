"""Where the bytes of an image lie: data versions that hold it, and places in DVC, the state folder and the workspace.

A data version is an image store as ingest wrote it, in the workspace or in DVC's cache. DVC keeps a folder as an object
`<md5>.dir` that lists its files by their own MD5, so a store can be found by its manifest, whatever path it had.
"""

import contextlib
import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.common.files import read_json, sha256_file

if TYPE_CHECKING:
    from dvc.repo import Repo

_MANIFEST, _INFO = "manifest.parquet", "dataset.json"
SUMMARY = "summary.json"  # in every folder that a stage wrote
_REFUSED, _COPIES, _NEAR, _ACROSS = "quarantine.csv", "duplicates.csv", "near_duplicates.csv", "near_refused.csv"
_LISTS = (_MANIFEST, _INFO, _REFUSED, _COPIES)
RAW = "data/raw"
_RECORDS = "*.records"  # of decoded images


@dataclass(frozen=True)
class DataVersion:
    """An image store that holds the image: where it lies, and the image's split, source and shard."""

    data_hash: str
    place: str
    split: str
    source: str
    shard: str


@dataclass(frozen=True)
class Unstored:
    """An image store that read the image and left it out: where it lies, the image's source and why it was left out; if
    it is a copy, `copy_of` is the SHA-256 of the image that has its pixels, else empty."""

    data_hash: str
    place: str
    source: str
    reason: str
    copy_of: str = ""


@dataclass(frozen=True)
class Folder:
    """A folder in DVC's cache: its object and the MD5 of every file in it, by relative path."""

    md5: str
    files: dict[str, str]


@dataclass(frozen=True)
class Cache:
    """DVC's local cache, with all folders in it."""

    repo: "Repo"
    folders: list[Folder] = field(default_factory=list)

    def path(self, md5: str) -> Path:
        """Where the object with this MD5 lies, or would lie."""
        return Path(self.repo.cache.local.path) / md5[:2] / md5[2:]

    def file(self, folder: Folder, name: str) -> Path | None:
        """The object of a folder's file `name`; None if the cache lacks it."""
        path = self.path(folder.files[name]) if name in folder.files else None
        return path if path and path.is_file() else None


@contextlib.contextmanager
def open_repo(project: Path, settings: dict[str, Any] | None = None) -> "Iterator[Repo]":
    """The DVC repository of the project, with additional `settings`. Raises ValueError if DVC refuses."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(project), config=settings) as repo:
            yield repo
    except DvcException as error:
        raise ValueError(f"DVC: {' '.join(str(error).split())}") from None


def open_cache(repo: "Repo") -> Cache:
    """All folder objects of the local cache. Raises ValueError if one cannot be read: it could hold the image."""
    folders = []
    for path in sorted(Path(repo.cache.local.path).glob("??/*.dir")):
        try:
            files = {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_text(encoding="utf-8"))}
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{path} in DVC's cache is not a list of files as DVC writes it; remove it, then run `dvc fetch`"
                " or `dvc repro` to bring back what is needed"
            ) from None
        folders.append(Folder(path.parent.name + path.name, files))
    return Cache(repo, folders)


def data_versions(project: Path, cache: Cache, sha256: str) -> list[tuple[DataVersion, Folder | None]]:
    """Every image store that holds the image, the workspace's first, each with its folder in the cache if it has
    one."""
    found: list[tuple[DataVersion, Folder | None]] = []
    store = project / "data" / "ingest"
    if (store / _MANIFEST).is_file() and (store / _INFO).is_file():
        shards = {path.name: path for path in sorted(store.glob("images-*.npy"))}
        version = _version(store / _MANIFEST, store / _INFO, shards, sha256, "data/ingest")
        found += [(version, None)] if version else []
    for folder in cache.folders:
        manifest, info = cache.file(folder, _MANIFEST), cache.file(folder, _INFO)
        if manifest and info:
            names = sorted(name for name in folder.files if name.startswith("images-"))
            shards = {name: path for name in names if (path := cache.file(folder, name))}
            version = _version(manifest, info, shards, sha256, f"DVC cache {folder.md5}")
            found += [(version, folder)] if version else []
    return found


def _version(manifest: Path, info: Path, shards: dict[str, Path], sha256: str, place: str) -> DataVersion | None:
    digests = pq.read_table(manifest, columns=["sha256"])["sha256"].to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(digests == sha256)
    if not len(rows):
        return None
    row = int(rows[0])
    told = pq.read_table(manifest, columns=["source", "split"]).slice(row, 1).to_pylist()[0]
    ends, shard = 0, "?"
    for name, path in shards.items():
        ends += len(np.load(path, mmap_mode="r", allow_pickle=False))
        if row < ends:
            shard = name
            break
    return DataVersion(read_json(info)["data_hash"], place, told["split"], told["source"], shard)


def derived(cache: Cache, data_hashes: set[str]) -> list[tuple[str, Folder]]:
    """(stage, folder) of all else in the cache that stages made from these data: pages and arrays show images."""
    found = []
    for folder in cache.folders:
        path = cache.file(folder, SUMMARY)
        if path and _MANIFEST not in folder.files:
            summary = read_json(path)
            if summary.get("results", {}).get("data_hash") in data_hashes:
                found.append((str(summary.get("stage")), folder))
    return found


def only_in(cache: Cache, folders: list[Folder]) -> list[str]:
    """MD5s of these folders' objects, their own included, that no other folder of the cache needs."""
    mine = {folder.md5 for folder in folders}
    others = {md5 for folder in cache.folders if folder.md5 not in mine for md5 in folder.files.values()}
    files = {md5 for folder in folders for md5 in folder.files.values()}
    return sorted((files - others) | mine)


def unstored(project: Path, cache: Cache, sha256: str) -> list[Unstored]:
    """Every image store that read the image and left it out, the workspace's first."""
    store = {name: path for name in _LISTS if (path := project / "data" / "ingest" / name).is_file()}
    found = _left_out(store, "data/ingest", sha256)
    for folder in cache.folders:
        files = {name: cached for name in _LISTS if (cached := cache.file(folder, name))}
        found += _left_out(files, f"DVC cache {folder.md5}", sha256)
    return found


def _left_out(files: dict[str, Path], place: str, sha256: str) -> list[Unstored]:
    if not {_MANIFEST, _INFO} <= files.keys():
        return []
    refused, copies = (_rows(files[name]) if name in files else [] for name in (_REFUSED, _COPIES))
    digests = {row["source"]: row.get("sha256", "") for row in refused}
    refused, copies = ([row for row in rows if row.get("sha256") == sha256] for rows in (refused, copies))
    if copies:
        kept = pa.array([row["kept"] for row in copies])
        stored = pq.read_table(files[_MANIFEST], columns=["source", "sha256"], filters=pc.field("source").isin(kept))
        digests |= {row["source"]: row["sha256"] for row in stored.to_pylist()}
    data_hash = read_json(files[_INFO])["data_hash"]
    return [Unstored(data_hash, place, row["source"], f"refused, {row['reason']}") for row in refused] + [
        Unstored(data_hash, place, row["source"], f"a copy of {row['kept']}", digests.get(row["kept"], ""))
        for row in copies
    ]


def unstored_sources(project: Path, cache: Cache, sha256: str) -> set[str]:
    """The sources from which stores read the image and then refused it or left it out as a copy."""
    store = project / "data" / "ingest"
    lists = [path for name in (_REFUSED, _COPIES)
             for path in (store / name, *(cache.file(folder, name) for folder in cache.folders))]  # fmt: skip
    return {row["source"] for path in lists if path for row in _rows(path) if row.get("sha256") == sha256}


def raw_objects(cache: Cache, sha256: str, sources: set[str], files: list[Path]) -> list[str]:
    """MD5s of the image's own file under DVC: of `files`, which have its content, and of cached files with one of its
    `sources` as path, confirmed by content."""
    candidates = {folder.files[name] for folder in cache.folders for name in sources if name in folder.files}
    known = {md5 for md5 in candidates if cache.path(md5).is_file() and sha256_file(cache.path(md5)) == sha256}
    return sorted(known | {hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() for path in files})


def raw_files(project: Path, sha256: str) -> list[Path]:
    """Files below data/raw with exactly this content, whatever their names; reads every file."""
    files = (path for path in sorted((project / RAW).rglob("*")) if path.is_file() and not path.is_symlink())
    return [path for path in files if sha256_file(path) == sha256]


def origins(project: Path, repo: "Repo") -> list[tuple[str, Path]]:
    """What `dvc import-url` and `dvc import` fetched raw data from, each with the .dvc file that tracks it."""
    return [
        (str(dep), Path(stage.path))
        for stage in repo.index.stages
        if stage.is_data_source and any(Path(out.fs_path).is_relative_to(project / RAW) for out in stage.outs)
        for dep in stage.deps
    ]


def state_places(state: Path, sha256: str, data_hashes: set[str]) -> list[tuple[Path, str]]:
    """Paths in the state folder that hold the decoded image or its name, or were trained on it, each with a label."""
    needle = bytes.fromhex(sha256)
    found = [
        (folder, "decoded images")
        for folder in sorted((state / "ingest").glob("*/"))
        if any(_decoded(path.read_bytes(), needle) for path in folder.glob(_RECORDS))
    ]
    for path in sorted((state / "train").glob("*/trajectory.json")):
        if read_json(path).get("data_hash") in data_hashes:
            found.append((path.parent, "checkpoints of a training on it"))
    found += [
        (path, "its hash and name, kept to detect changes")
        for path in sorted((state / "ingest-since").glob("*.parquet"))
        if pq.read_table(path, columns=["sha256"], filters=pc.field("sha256") == sha256).num_rows
    ]
    return found


def _decoded(records: bytes, sha256: bytes) -> bool:
    """Whether a record has this content hash and pixels: the pixels' hash follows it, zeros if there are none."""
    return records.count(sha256) > records.count(sha256 + bytes(32))


def runs_of(texts: Iterator[tuple[str, str]], md5s: set[str]) -> list[str]:
    """Entries of a run cache, given as (path, text), that name one of these folders."""
    return sorted(path for path, text in texts if any(md5 in text for md5 in md5s))


def copies(project: Path, names: set[str]) -> list[str]:
    """Other raw images that show the same picture as those with these `names`, or nearly the same, according to ingest:
    copies that were left out, the same picture in other classes, and near duplicates, kept or refused. Of near
    duplicates ingest records only pairs, so not every one in a series is found."""
    store = project / "data" / "ingest"
    refused = [row for row in _rows(store / _REFUSED) if row.get("partner")]
    exact = [(row["source"], row["kept"]) for row in _rows(store / _COPIES)]
    exact += [(row["source"], row["partner"]) for row in refused if row["reason"].startswith("contradiction")]
    near = [(row["source"], row["near"]) for row in _rows(store / _NEAR)]
    near += [(row["source"], row["partner"]) for row in refused if row["reason"].startswith("near duplicate")]
    near += [(row["refused"], row["kept"]) for row in _rows(store / _ACROSS)]
    return sorted(_grown(_beside(_grown(names, exact), near), exact) - names)


def _grown(names: set[str], pairs: list[tuple[str, str]]) -> set[str]:
    """Everything that these pairs connect to `names`, directly or in steps."""
    while (more := _beside(names, pairs)) != names:
        names = more
    return names


def _beside(names: set[str], pairs: list[tuple[str, str]]) -> set[str]:
    """`names`, and whatever is paired with one of them."""
    return names | {name for pair in pairs if not names.isdisjoint(pair) for name in pair}


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a list that ingest wrote; none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
