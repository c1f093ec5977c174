"""Housekeeping on real stores: DVC's cache, MLflow's database and files, git branches, the state folder."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_helpers import aliases, night, repro, set_params

from flows.housekeeping import main
from flows.state import hold
from flows.tracking.registry import connect


def made(project: Path, state: Path, raw: str, **changes: Any) -> str:
    """Run the pipeline, register and decide; the decision."""
    (project / "data" / "raw" / "one.txt").write_text(raw)
    set_params(project, **changes)
    repro(project)
    return night(project, state).decision


def objects(project: Path, lock: Path) -> set[bool]:
    """Whether DVC's cache has all outputs that a lock file names."""
    outs = [out for stage in yaml.safe_load(lock.read_text())["stages"].values() for out in stage["outs"]]
    cache = project / ".dvc" / "cache" / "files" / "md5"
    return {(cache / out["md5"][:2] / out["md5"][2:]).exists() for out in outs if out["path"] == "data/train"}


def run_branch(project: Path, name: str, key: str) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(project)]
    tree = subprocess.run([*git, "rev-parse", "HEAD^{tree}"], check=True, capture_output=True, text=True).stdout.strip()
    message = f"Run\n\nCandidate: {key}\n"
    commit = subprocess.run([*git, "commit-tree", tree, "-m", message], check=True, capture_output=True, text=True)
    subprocess.run([*git, "branch", f"ganops/run-{name}", commit.stdout.strip()], check=True)


def contents(project: Path, state: Path) -> set[str]:
    """All files that housekeeping might touch; not the databases' own scratch files."""
    folders = [state / name for name in ("artifacts", "train", "features", "worktrees", "consumer")]
    folders.append(project / ".dvc" / "cache" / "files")
    return {str(path) for folder in folders for path in folder.rglob("*")}


@pytest.fixture
def grown(project: Path, state: Path) -> Path:
    """Four nights: a champion, a better one on other data, two red ones; and what such nights leave."""
    assert made(project, state, "1") == "promoted"
    assert made(project, state, "2", train__quality=2.0) == "promoted"
    assert made(project, state, "3", train__quality=3.0, card__quality=99) == "red"
    assert made(project, state, "4", train__quality=4.0) == "red"
    registry = connect(state, "tiny")
    for name, key in (("a", registry.versions()[0].tags["idempotence_key"]), ("b", "nobody"), ("c", "nobody")):
        run_branch(project, name, key)
    (state / "features" / "old").mkdir(parents=True)
    (state / "worktrees" / "run-1").mkdir(parents=True)
    (state / "consumer").mkdir()
    for digest in (registry.versions()[1].tags["onnx_sha256"], "f" * 64):
        (state / "consumer" / f"{digest}.onnx").write_text("kept by a consumer")
    return project


@pytest.mark.slow  # four trainings' worth of DVC, then five sweeps
def test_it_removes_what_nobody_needs_and_nothing_else(grown: Path, state: Path, capsys: Any) -> None:
    registry = connect(state, "tiny")
    versions, before = registry.versions(), contents(grown, state)
    files = {str(version.version): Path(registry.source(version).removeprefix("file://")) for version in versions}
    locks = {number: folder / "pipeline" / "dvc.lock" for number, folder in files.items()}
    red = grown / "red.lock"
    red.write_text(locks["3"].read_text())
    with hold(state):
        assert main(["--days", "0"]) == 1
    assert "another retrain holds" in capsys.readouterr().err
    assert main([]) == 0  # nothing is 30 days old
    assert main(["--days", "0", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "would remove version 3 (red)" in said and "would remove the run branch ganops/run-b" in said
    assert before - contents(grown, state) == set()
    assert [str(version.version) for version in registry.versions()] == ["1", "2", "3", "4"]

    assert main(["--days", "0"]) == 0
    assert [str(version.version) for version in registry.versions()] == ["1", "2", "4"]
    assert aliases(registry) == {"champion": "2", "previous": "1"}
    assert all(registry.intact(version) for version in registry.versions())
    assert not files["3"].exists()
    assert [objects(grown, locks[number]) for number in "124"] == [{True}] * 3
    assert objects(grown, red) == {False}
    listed = subprocess.run(["git", "branch", "--list", "ganops/*"], cwd=grown, capture_output=True, text=True).stdout
    assert listed.split() == ["ganops/run-a", "ganops/run-c"]
    assert subprocess.run(["git", "tag"], cwd=grown, capture_output=True, text=True).stdout == ""
    records = (json.loads(path.read_text()) for path in state.glob("train/*/trajectory.json"))
    kept = {record["data_hash"] for record in records}
    assert kept == {version.tags["data_hash"] for version in registry.versions()}
    assert not (state / "features" / "old").exists()
    assert not (state / "worktrees" / "run-1").exists()
    assert [path.stem for path in (state / "consumer").iterdir()] == [versions[1].tags["onnx_sha256"]]


def test_a_cache_of_others_and_versions_that_name_no_data_are_left_alone(
    project: Path, state: Path, tmp_path: Path, capsys: Any
) -> None:
    assert made(project, state, "1") == "promoted"
    registry = connect(state, "tiny")
    papers = Path(registry.source(registry.versions()[0]).removeprefix("file://")) / "pipeline"
    for path in papers.iterdir():
        path.unlink()
    before = contents(project, state)
    assert main(["--days", "0"]) == 0
    assert "version 1 was registered without dvc.lock: DVC's cache is left alone" in capsys.readouterr().out
    shared = ["dvc", "cache", "dir", "--local", str(tmp_path / "shared")]
    subprocess.run([sys.executable, "-m", *shared], cwd=project, check=True)
    assert main(["--days", "0"]) == 0
    assert "lies outside the project and may be shared with others" in capsys.readouterr().out
    assert before - contents(project, state) == set()
    assert main(["--days", "-1"]) == 1
    assert "--days must be 0 or more; received -1" in capsys.readouterr().err
