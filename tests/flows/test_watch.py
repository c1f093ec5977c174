"""New data are seen in commits and in sources, reported once when stable, and get a commit of their own."""

import sys
from pathlib import Path

import pytest
from tiny_helpers import set_params
from tiny_world import ME, commit, sh

from flows.work.repository import git, inputs
from flows.work.sources import imports, pointers, refreshed
from flows.work.watch import look
from flows.work.workspace import Workspace, fill, workspace


@pytest.fixture
def state(clone: Path) -> Path:
    return clone / ".ganops"


def test_a_commit_with_new_data_is_told_once_and_one_without_never(clone: Path, state: Path) -> None:
    told: list[str] = []
    for _ in range(2):
        assert not look(clone, state, told.append).news
    set_params(clone, train__seed=5)
    commit(clone)
    for _ in range(2):
        assert not look(clone, state, told.append).news
    (clone / "data" / "raw" / "two.txt").write_text("2")
    sh(clone, sys.executable, "-m", "dvc", "add", "-q", "data/raw")
    commit(clone)
    looks = [look(clone, state, told.append) for _ in range(3)]
    assert [item.news for item in looks] == [False, True, False]
    assert told == [looks[1].digest]


def test_what_was_not_taken_is_told_again(clone: Path, state: Path) -> None:
    def refuse(_digest: str) -> None:
        raise ValueError("no server")

    look(clone, state, refuse)
    (clone / "data" / "raw" / "two.txt").write_text("2")
    sh(clone, sys.executable, "-m", "dvc", "add", "-q", "data/raw")
    commit(clone)
    look(clone, state, refuse)
    told: list[str] = []
    with pytest.raises(ValueError, match="no server"):
        look(clone, state, refuse)
    assert look(clone, state, told.append).news and len(told) == 1


@pytest.mark.slow
def test_a_drop_folder_is_an_imported_source(clone: Path, state: Path) -> None:
    drop = clone.parent / "drop"
    drop.mkdir()
    (drop / "one.txt").write_text("1")
    dvc = [sys.executable, "-m", "dvc"]
    sh(clone, *dvc, "remove", "-q", "data/raw.dvc")
    sh(clone, "rm", "-rf", "data/raw")
    sh(clone, *dvc, "import-url", "-q", str(drop), "data/raw")
    sh(clone, "git", "add", "data/raw.dvc")
    start = commit(clone)
    before = sh(clone, "git", "status", "--porcelain")
    assert imports(clone, start) == ["data/raw.dvc"]
    assert pointers(clone, state, start) == ""
    assert refreshed(clone, state, start) == start
    look(clone, state, print)

    (drop / "two.txt").write_text("2")
    told: list[str] = []
    assert [look(clone, state, told.append).news for _ in range(3)] == [False, True, False]
    made = refreshed(clone, state, start)
    assert made == refreshed(clone, state, start) != start  # the same content, the same commit
    assert git(clone, "rev-parse", f"{made}^").strip() == start
    assert inputs(clone, made) != inputs(clone, start)
    with workspace(clone, state, made) as place:
        fill(place, lambda pull: pull())
        assert sorted(path.name for path in (place.path / "data" / "raw").iterdir()) == ["one.txt", "two.txt"]
    assert sh(clone, "git", "status", "--porcelain") == before
    assert [path.name for path in (clone / "data" / "raw").iterdir()] == ["one.txt"]

    sh(clone.parent, "rm", "-rf", "drop")
    with pytest.raises(ValueError, match=r"dvc update: .*drop.* does not exist"):
        refreshed(clone, state, start)


def test_the_default_images_are_made_only_under_their_own_datasheet(clone: Path, state: Path) -> None:
    sh(clone, "git", "rm", "-q", "--cached", "data/raw.dvc")
    (clone / "infra").mkdir()
    (clone / "infra" / "digits.py").write_text(
        "import pathlib, sys; 'covers' in pathlib.Path(sys.argv[-1]).read_text() or sys.exit(3)\n"
        "p = pathlib.Path('data/raw'); p.mkdir(); (p / 'made').touch()"
    )
    (clone / "data" / "datasheet.yaml").write_text("name: mine\n")
    sh(clone, "git", "add", "infra", "data/datasheet.yaml")
    own = commit(clone)
    with workspace(clone, state, own) as place, pytest.raises(ValueError, match="run `dvc add data/raw`"):
        fill(place, lambda pull: pull())
    (clone / "data" / "datasheet.yaml").write_text("name: digits\ncovers: abc\n")
    sh(clone, "git", *ME, "commit", "-qam", "theirs")
    with workspace(clone, state, git(clone, "rev-parse", "HEAD").strip()) as place:
        fill(place, lambda pull: pull())
        assert isinstance(place, Workspace) and (place.path / "data" / "raw" / "made").is_file()
