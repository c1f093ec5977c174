"""Erase an image at a person's request: `python -m flows.erase SHA256 [--remove --reason TEXT]`.

Without --remove it lists every place where the bytes remain and changes nothing. With it, a tombstone is written first:
from then on ingest refuses the image, and the next card mentions the erasure. Then every copy that may go is removed,
and every model version that was trained or scored on the image is marked. What cannot be removed from here is listed.
"""

import argparse
import dataclasses
import datetime
import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.command import command
from flows.state import hold, settle
from flows.tracking.registry import Registry, connect, model_name, plain, sentences, unmade
from flows.upkeep.containers import containers, needed, stored_containers
from flows.upkeep.holdings import (
    RAW,
    DataVersion,
    Folder,
    copies,
    data_versions,
    derived,
    only_in,
    open_cache,
    open_repo,
    origins,
    raw_files,
    raw_objects,
    runs_of,
    state_places,
    unstored_sources,
)  # fmt: skip
from stages.common.files import read_json, write_json

if TYPE_CHECKING:
    from dvc.repo import Repo

TOMBSTONES = Path("data/erased.json")
PICTURES = {"validate", "reference", "evaluate", "audit"}  # stages whose outputs hold real images
_OBJECT = "image, shard or page"
_WHOLE = "an older archive, table or array, no longer in use, that holds it among others: the whole object is removed"
_IN_USE = (
    "archive, table or array in use that holds it: rewrite it without the image, `dvc add` it, then run this again"
)
TAG = "erased"  # tag of a model version: JSON, the image's SHA-256 mapped to date, reason and the image's split


@dataclasses.dataclass(frozen=True)
class Object:
    """An object under DVC that holds the bytes: what it is, and whether it may go."""

    md5: str
    what: str
    free: bool


@dataclasses.dataclass(frozen=True)
class Place:
    """One place that holds the bytes, or what was made from them; without `remove` it cannot be cleared from here."""

    kind: str
    where: str
    what: str
    remove: Callable[[], object] | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """List or erase; exit code 0 done, 1 failed."""
    parser = argparse.ArgumentParser(prog="python -m flows.erase", description=__doc__)
    parser.add_argument("sha256", help="SHA-256 of the image's content, as in manifest.parquet and quarantine.csv")
    parser.add_argument("--remove", action="store_true", help="erase; without it, the places are only listed")
    parser.add_argument("--reason", help="why, for the tombstone and the card; name nobody in it")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    options = parser.parse_args(argv)

    def act() -> int:
        report = erase(Path.cwd(), settle(), options.sha256.lower(), options.reason, remove=options.remove)
        sys.stdout.write(json.dumps(report, indent=2) + "\n" if options.json else _text(report))
        return 0

    return command("erase", act)


def erase(project: Path, state: Path, sha256: str, reason: str | None, *, remove: bool) -> dict[str, Any]:
    """What was found, and with `remove` what was done about it. Raises ValueError for a wrong hash or no reason."""
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError(f"an image is named by its SHA-256, 64 hexadecimal digits; received {sha256!r}")
    said = plain(reason or "")
    if remove and not said:
        raise ValueError("--remove needs --reason: the tombstone and the next card must say why; name nobody in it")
    with hold(state), open_repo(project) as repo, sentences():
        versions, places, names, held, registry = _find(project, state, repo, sha256)
        entry = _entry(project, sha256, said, held) if remove else None
        if entry:
            _bury(project, entry)
            for place in places:
                if place.remove:
                    place.remove()
        marked = _mark(registry, versions, entry, sha256)
    return {
        "format": 1,
        "sha256": sha256,
        "removed": remove,
        "tombstone": entry,
        "data_versions": [dataclasses.asdict(version) for version in versions],
        "places": [
            {"kind": place.kind, "where": place.where, "what": place.what, "removable": place.remove is not None}
            for place in places
        ],
        "models": marked,
        "copies": copies(project, names),
    }


def _find(
    project: Path, state: Path, repo: "Repo", sha256: str
) -> tuple[list[DataVersion], list[Place], set[str], set[str], Registry | None]:
    """Data versions that hold the image, places of its bytes, names that ingest gives it, the MD5s of archives, tables
    and arrays under DVC that hold it, and the registry."""
    cache = open_cache(repo)
    found = data_versions(project, cache, sha256)
    versions = [version for version, _ in found]
    sources = {version.source for version in versions} | unstored_sources(project, cache, sha256)
    hashes = {version.data_hash for version in versions}
    made = derived(cache, hashes)
    ours = [folder for _, folder in found if folder] + [folder for stage, folder in made if stage in PICTURES]
    files = raw_files(project, sha256)
    held = stored_containers(project, cache, sources, sha256) | _remembered(project, sha256)
    in_use = needed(cache, held)
    objects = [
        Object(md5, _OBJECT, True) for md5 in (*only_in(cache, ours), *raw_objects(cache, sha256, sources, files))
    ]
    objects += [Object(md5, _IN_USE if md5 in in_use else _WHOLE, md5 not in in_use) for md5 in sorted(held)]
    places = [Place("raw", _short(project, path), "the image itself", path.unlink) for path in files]
    places += [
        Place("raw", _short(project, path), "holds it among others: rewrite that file without it")
        for path in containers(project, sources, sha256)
    ]
    places += [
        Place("origin", origin, f"not searched: erase it there first, or the next `dvc update {name}` brings it back")
        for origin, name in ((origin, _short(project, path)) for origin, path in origins(project, repo))
    ]
    places += [Place("workspace", "data/", "store, pages and arrays made from it; `dvc repro` replaces them")] * any(
        version.place == "data/ingest" for version in versions
    )
    places += [
        Place("cache", f"DVC object {one.md5}", one.what, _unlinker(cache.path(one.md5)) if one.free else None)
        for one in objects
        if cache.path(one.md5).is_file()
    ]
    places += [
        Place(
            "cache", f"DVC folder {folder.md5}", f"weights and numbers of {stage}, no image: make them again without it"
        )
        for stage, folder in made
        if stage not in PICTURES
    ]
    places += _run_cache(repo, ours)
    for name in _remotes(repo):
        places += _remote(repo, name, objects, ours)
    places += [
        Place(
            "state",
            f"state folder, {path.relative_to(state)}",
            what,
            _tree_remover(path) if path.is_dir() else _unlinker(path),
        )
        for path, what in state_places(state, sha256, hashes)
    ]
    names = sources | {path.relative_to(project / RAW).as_posix() for path in files}
    registry = None if unmade(state) else connect(state, model_name(project / "params.yaml"))
    return versions, places, names, held, registry


def _unlinker(path: Path) -> Callable[[], object]:
    return lambda: path.unlink(missing_ok=True)


def _tree_remover(path: Path) -> Callable[[], object]:
    return lambda: shutil.rmtree(path)


def _short(project: Path, path: Path) -> str:
    return path.relative_to(project).as_posix()


def _run_cache(repo: "Repo", folders: Sequence[Folder]) -> list[Place]:
    root = Path(repo.stage_cache.cache_dir)
    texts = ((str(path), path.read_text(encoding="utf-8")) for path in sorted(root.glob("*/*/*")) if path.is_file())
    found = runs_of(texts, {folder.md5 for folder in folders})
    what = "would restore results that hold it"
    return [Place("run cache", Path(path).name[:12], what, _unlinker(Path(path))) for path in found]


def _remotes(repo: "Repo") -> list[str]:
    return sorted(repo.config["remote"])


def _remote(repo: "Repo", name: str, objects: Sequence[Object], folders: Sequence[Folder]) -> list[Place]:
    """The same objects and runs in a remote, whatever kind of storage that is."""
    odb, older = repo.cloud.get_remote_odb(name, "erase"), repo.cloud.get_remote_odb(name, "erase", "md5-dos2unix")
    fs = odb.fs
    try:
        paths = [odb.oid_to_path(one.md5) for one in objects]
        places = [
            Place("remote", f"{name}: {one.md5}", one.what, _remote_remover(fs, path) if one.free else None)
            for one, path in zip(objects, paths, strict=True)
            if fs.exists(path)
        ]
        root = fs.join(older.path, "runs")
        runs = list(fs.find(root)) if fs.exists(root) else []
        texts = ((path, _remote_text(fs, path)) for path in sorted(runs))
        found = runs_of(texts, {folder.md5 for folder in folders})
    except Exception as error:  # noqa: BLE001  every kind of storage has its own errors; the place must be listed
        said = " ".join(str(error).split())[:200]
        return [Place("remote", name, f"could not be searched ({type(error).__name__}: {said}); run this again")]
    what = "would restore results that hold it"
    return places + [Place("remote", f"{name}: run {path.rsplit('/')[-1][:12]}", what, _remote_remover(fs, path))
                     for path in found]  # fmt: skip


def _remote_text(fs: Any, path: str) -> str:
    with fs.open(path, "r", encoding="utf-8") as file:
        return str(file.read())


def _remote_remover(fs: Any, path: str) -> Callable[[], object]:
    return lambda: fs.remove(path)


def _entry(project: Path, sha256: str, reason: str, held: set[str]) -> dict[str, Any]:
    """The tombstone; an existing one keeps its date and reason. It records the MD5s of the objects that `held` the
    image, so that they are found again when no manifest names it any more."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    standing = _standing(project, sha256) or {"sha256": sha256, "date": today, "reason": reason}
    return {**standing, "containers": sorted(held)} if held else standing


def _remembered(project: Path, sha256: str) -> set[str]:
    return set((_standing(project, sha256) or {}).get("containers", ()))


def _standing(project: Path, sha256: str) -> dict[str, Any] | None:
    return next((entry for entry in _tombstones(project) if entry["sha256"] == sha256), None)


def _tombstones(project: Path) -> list[dict[str, Any]]:
    path = project / TOMBSTONES
    return list(read_json(path, needs=("images",))["images"]) if path.is_file() else []


def _bury(project: Path, entry: dict[str, Any]) -> None:
    others = [other for other in _tombstones(project) if other["sha256"] != entry["sha256"]]
    images = sorted([*others, entry], key=lambda one: one["sha256"])
    write_json(project / TOMBSTONES, {"format": 1, "images": images})


def _mark(
    registry: Registry | None, versions: Sequence[DataVersion], entry: dict[str, Any] | None, sha256: str
) -> list[dict[str, Any]]:
    """The model versions made from these data; given a tombstone, each is marked with it."""
    splits = {version.data_hash: version.split for version in versions}
    found = []
    for model in registry.versions() if registry and registry.exists() else []:
        split = splits.get(model.tags.get("data_hash", ""))
        marks = json.loads(model.tags.get(TAG, "{}"))
        if split is None and sha256 not in marks:
            continue
        if entry and registry and split and sha256 not in marks:
            marks[sha256] = {"date": entry["date"], "reason": entry["reason"], "split": split}
            registry.tag(str(model.version), **{TAG: json.dumps(marks, sort_keys=True)})
        found.append(
            {"version": str(model.version), "aliases": sorted(model.aliases), "split": split or marks[sha256]["split"],
             "marked": sha256 in marks}
        )  # fmt: skip
    return found


def _text(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"image {report['sha256']}"]
    lines += [f"  {one['place']}: {one['source']}, {one['split']}, {one['shard']}" for one in report["data_versions"]]
    lines += ["  in no data version of the workspace or of DVC's cache"] * (not report["data_versions"])
    for place in report["places"]:
        done = "removed" if report["removed"] else "can be removed"
        fate = done if place["removable"] else "stays"
        lines.append(f"{fate:>14}  {place['kind']}: {place['where']} ({place['what']})")
    for model in report["models"]:
        alias = f" ({', '.join(model['aliases'])})" if model["aliases"] else ""
        fate = "marked" if model["marked"] else "can be marked"
        lines.append(f"{fate:>14}  model version {model['version']}{alias}: it was in its {model['split']} split")
    lines += [
        f"{'look at':>14}  {source}: the same picture, or nearly, under another hash; erase it too if it must go"
        for source in report["copies"]
    ]
    if report["removed"]:
        lines += [
            f"{TOMBSTONES} keeps date and reason. Now run `dvc add data/raw` if raw data are under DVC, `dvc repro`,",
            f"`dvc push`, and commit {TOMBSTONES}. Existing weights have still seen it: train and promote new ones.",
        ]
    else:
        lines.append("Nothing was changed. To erase it: --remove --reason TEXT")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
