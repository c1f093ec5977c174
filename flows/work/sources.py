"""Data that come from elsewhere: `dvc import-url SOURCE data/raw`; SOURCE is a bucket, an address or a drop folder.

A run looks up what the sources hold now. If that differs from what the commit says, the new pointers become a commit on
top of it, whose hash follows from the content alone, and the run starts from there; its run branch includes that
commit.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from flows.work.repository import git
from flows.work.workspace import Workspace, dvc, workspace

LOOKS = "looks"
_FIXED = {"NAME": "ganops", "EMAIL": "ganops@localhost"}


def imports(project: Path, commit: str) -> list[str]:
    """The .dvc files of `commit` whose data come from a source."""
    names = [name for name in git(project, "ls-tree", "-r", "-z", "--name-only", commit).split("\0") if name]
    found = []
    for name in names:
        if name.endswith(".dvc"):
            content = yaml.safe_load(git(project, "show", f"{commit}:{name}"))
            if isinstance(content, dict) and content.get("deps"):
                found.append(name)
    return found


def pointers(project: Path, state: Path, commit: str) -> str:
    """What the sources of `commit` hold now (JSON) if that differs from what it says, else empty. Fetches nothing."""
    names = imports(project, commit)
    if not names:
        return ""
    with workspace(project, state, commit, LOOKS) as place:
        before = {name: _source(place.path / name) for name in names}
        for name in names:
            dvc(place.path, "update", "--no-download", name)
        after = {name: _source(place.path / name) for name in names}
    return json.dumps(after, sort_keys=True) if after != before else ""


def _source(pointer: Path) -> Any:
    """The part of a pointer that names its source; `--no-download` always rewrites the other part."""
    return yaml.safe_load(pointer.read_text(encoding="utf-8"))["deps"]


def refreshed(project: Path, state: Path, commit: str) -> str:
    """`commit`, or a commit on top of it that names what the sources hold now, which is in DVC's cache then.

    Raises ValueError if a source is gone, Unavailable if it does not answer.
    """
    if not pointers(project, state, commit):
        return commit
    with workspace(project, state, commit, LOOKS) as place:
        for name in imports(project, commit):
            dvc(place.path, "update", name)
        return record(place, f"Data as their sources hold them, on {commit[:8]}")


def record(place: Workspace, text: str, also: str | None = None) -> str:
    """Commit what changed in the workspace, and the file `also`; returns the commit's hash. Author and dates are fixed
    by the parent commit, so that the same content gives the same commit."""
    git(place.path, "add", "--update")
    if also is not None:
        git(place.path, "add", "--force", "--", also)
    signed = signature(place)
    git(place.path, "-c", "commit.gpgSign=false", "commit", "--quiet", "--allow-empty", "-m", text, extra=signed)
    return git(place.path, "rev-parse", "HEAD").strip()


def signature(place: Workspace) -> dict[str, str]:
    """Author and dates, for git's environment, of a commit on top of the workspace's: the same for the same parent."""
    date = git(place.path, "show", "--no-patch", "--format=%cI", "HEAD").strip()
    fixed = {f"GIT_{who}_{key}": value for who in ("AUTHOR", "COMMITTER") for key, value in _FIXED.items()}
    return {**fixed, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
