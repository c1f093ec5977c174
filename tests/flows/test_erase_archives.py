"""Which archives, tables and imported data an erasure finds, in the raw folder, in DVC's cache and in a remote."""

import functools
import hashlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dvc.repo import Repo
from tiny_images import holding, sh

from flows.erase import erase
from flows.state import settle
from flows.upkeep.containers import containers
from stages.common.files import sha256_file
from stages.ingest.sources.arrays import Config as Arrays
from tests.stages.ingesting import ingest, noise, png, tarred, zipped

QUIET = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's own


@pytest.fixture
def packing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a folder as its remote and git, and no data yet."""
    project = tmp_path / "project"
    (project / "data" / "raw").mkdir(parents=True)
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))
    settle()
    sh(project, "git", "init", "-q")
    with Repo.init(str(project)) as repo, repo.config.edit() as settings:
        settings["remote"]["store"] = {"url": str(tmp_path / "remote")}
        settings["core"]["remote"] = "store"
    return project


def versioned(project: Path, name: str, content: bytes, tracked: str = "data/raw") -> Path:
    """Write a raw file, put `tracked` under DVC, push, commit; the object of the file in the cache."""
    path = project / "data" / "raw" / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)  # it may be a link into the cache
    path.write_bytes(content)
    with Repo(str(project)) as repo:
        repo.add(str(project / tracked))
        repo.push()
    sh(project, "git", "add", "-A")
    sh(project, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", name)
    md5 = hashlib.md5(content).hexdigest()
    return project / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]


def told(report: dict[str, Any], kind: str) -> dict[str, bool]:
    """Objects that hold the image, by their MD5, and whether they may go."""
    return {one["where"][-32:]: one["removable"] for one in report["places"] if one["kind"] == kind}


def md5s(*objects: Path) -> set[str]:
    return {path.parent.name + path.name for path in objects}


@QUIET
@pytest.mark.parametrize(
    ("tracked", "name", "pack"),
    [
        ("data/raw", "a/daily.zip", zipped),
        ("data/raw/daily.tar.gz", "daily.tar.gz", functools.partial(tarred, mode="w:gz")),
        ("data/raw/a", "a/daily.tar", tarred),
    ],
)
def test_archives_in_cache_and_remote_go_once_they_are_written_anew(
    packing: Path, tmp_path: Path, tracked: str, name: str, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    """Every version that holds it, and none that does not; in the second run no manifest tells of it any more."""
    state, remote, images = tmp_path / "state", tmp_path / "remote", {f"{seed}.png": png(seed) for seed in range(6)}
    victim = hashlib.sha256(images["3.png"]).hexdigest()
    names = list(images)
    before, older, packed = (
        versioned(packing, name, pack({one: images[one] for one in names[:most]}), tracked) for most in (3, 5, 6)
    )
    old = packed.read_bytes()
    ingest(packing / "data" / "raw", "ingest")

    done = erase(packing, state, victim, "asked for", remove=True)
    for kind in ("cache", "remote"):
        held = told(done, kind)
        assert {md5: held[md5] for md5 in md5s(older, packed)} == {packed.parent.name + packed.name: False,
                                                                  older.parent.name + older.name: True}  # fmt: skip
        assert not md5s(before) & held.keys()
    assert "the whole object is removed" in str(done["places"]) and "rewrite it without the image, `dvc add` it" in str(
        done["places"]
    )
    assert before.is_file() and packed.is_file() and not older.is_file()

    shutil.rmtree(packing / "data" / "ingest")  # as the next `dvc repro` does, for what follows
    current = versioned(packing, name, pack({one: images[one] for one in names if one != "3.png"}), tracked)
    again = erase(packing, state, victim, "x", remove=True)
    assert told(again, "cache") == told(again, "remote") == {packed.parent.name + packed.name: True}
    assert again["tombstone"] == done["tombstone"]
    assert not holding([packing / ".dvc", remote], old)
    assert before.is_file() and current.is_file()
    assert erase(packing, state, victim, None, remove=False)["places"] == []


@QUIET
def test_of_records_the_name_tells_and_no_shard_is_taken_for_one(packing: Path, tmp_path: Path) -> None:
    """Arrays have the names of an image store's own; a clone without the list of data/raw lets nothing go."""
    pictures = noise(6, 8, 8)
    arrays = Arrays(name="arrays", images="images-00000", labels=None, classes=())
    contents = []
    for stack in (pictures, pictures[::-1]):
        buffer = io.BytesIO()
        np.save(buffer, stack)
        contents.append(buffer.getvalue())
    older = versioned(packing, "images-00000.npy", contents[0])
    stored = ingest(packing / "data" / "raw", "ingest", source=arrays)
    with Repo(str(packing)) as repo:
        repo.add(str(packing / "data" / "ingest"))
    packed = versioned(packing, "images-00000.npy", contents[1])
    places = erase(packing, tmp_path / "state", stored.rows[0]["sha256"], None, remove=False)["places"]
    held = {one["where"][-32:]: one["removable"] for one in places if "array" in one["what"] and one["kind"] == "cache"}
    assert held == {older.parent.name + older.name: True, packed.parent.name + packed.name: False}

    erase(packing, tmp_path / "state", stored.rows[0]["sha256"], "asked for", remove=True)
    shutil.rmtree(packing / ".dvc" / "cache")
    places = erase(packing, tmp_path / "state", stored.rows[0]["sha256"], "asked for", remove=True)["places"]
    assert [(one["where"][-32:], one["removable"]) for one in places if one["kind"] == "remote"] == [
        (packed.parent.name + packed.name, False)
    ]


@QUIET
@pytest.mark.parametrize("tracked", ["", "january"])
def test_the_origin_of_imported_data_stays_and_is_named(packing: Path, tmp_path: Path, tracked: str) -> None:
    """What is erased here alone comes back with the next `dvc update`."""
    drop, raw = tmp_path / "drop", packing / "data" / "raw"
    drop.mkdir()
    for seed in range(6):
        (drop / f"{seed}.png").write_bytes(png(seed))
    victim = sha256_file(drop / "3.png")
    if not tracked:
        raw.rmdir()
    with Repo(str(packing)) as repo:
        repo.imp_url(str(drop), str(raw / tracked))
    ingest(raw, "ingest")
    follows = "data/raw/january.dvc" if tracked else "data/raw.dvc"
    for comes_back in (True, False):
        if not comes_back:
            (drop / "3.png").unlink()
        done = erase(packing, tmp_path / "state", victim, "asked for", remove=True)
        (origin,) = (place for place in done["places"] if place["kind"] == "origin")
        assert origin["where"] == str(drop) and not origin["removable"]
        assert f"erase it there first, or the next `dvc update {follows}` brings it back" in origin["what"]
        assert not holding([raw, packing / ".dvc"], png(3))
        with Repo(str(packing)) as repo:
            repo.update([str(packing / follows)])
        assert bool(holding([raw, packing / ".dvc"], png(3))) == comes_back


@pytest.mark.fast
@pytest.mark.parametrize("struct", [True, False])
def test_tables_and_archives_of_records_are_looked_into(tmp_path: Path, struct: bool) -> None:
    raw = tmp_path / "data" / "raw"
    raw.mkdir(parents=True)
    cells = [{"bytes": png(seed), "path": None} if struct else png(seed) for seed in range(3)]
    pq.write_table(pa.table({"image": cells, "label": [0, 1, 2]}), raw / "a.parquet")
    (raw / "a.zip").write_bytes(zipped({"deep/digits-ubyte": b"records", "other": b""}))
    (raw / "b.zip").write_bytes(b"no archive")
    names = ("a.parquet/000001", "a.zip/deep/digits-ubyte/000001", "b.zip/1.png", "gone.zip/1.png")
    for seed, held in ((1, ["a.parquet", "a.zip", "b.zip"]), (4, ["a.zip", "b.zip"])):
        digest = hashlib.sha256(png(seed)).hexdigest()
        assert [path.name for path in containers(tmp_path, {*names}, digest)] == held
