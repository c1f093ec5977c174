"""Publish what a deployed run made, in the one safe order: data first, then the pointer to them.

First `dvc push` with the run cache, then a check that the remote has all of it, then `dvc.lock` as a commit on a branch
of its own, then `git push`. Names, dates and author follow from the work alone, so repeating it makes the same commit.
"""

import json
from pathlib import Path

from flows.tracking.evidence import Candidate
from flows.work.repository import git, git_remote
from flows.work.sources import record
from flows.work.testbench import rules_sha256
from flows.work.workspace import Workspace, dvc

BRANCHES = "ganops/run-"
MARKS = ("Inputs", "Work-Key", "Model", "Candidate", "Evidence", "Rules")


def push_data(place: Workspace) -> str:
    """Push all data of the workspace to the DVC remote and check that they arrived; returns what was done, in words.

    Raises ValueError if the remote refuses or lacks something afterwards; Unavailable if it is away.
    """
    if place.remote is None:
        return "no DVC remote is configured: data and run branch stay on this machine"
    dvc(place.path, "push", "--run-cache")
    missing = json.loads(dvc(place.path, "status", "--cloud", "--json") or "{}")
    if missing:
        some = ", ".join(sorted(missing)[:3])
        raise ValueError(
            f"the DVC remote {place.remote} lacks {len(missing)} files after the push ({some}), so nothing was"
            " committed; run it again"
        )
    return f"the DVC remote {place.remote} holds all data and the run cache"


def commit_run(place: Workspace, commit: str, marks: dict[str, str], title: str) -> str:
    """Commit what the run changed on top of `commit`, on its run branch; returns the branch's name.

    Raises ValueError if a branch of that name holds something else.
    """
    branch = f"{BRANCHES}{marks['Work-Key'][:12]}-{commit[:8]}"
    before = git(place.path, "rev-parse", "HEAD").strip()
    text = f"{title}\n\n" + "".join(f"{key}: {value}\n" for key, value in marks.items())
    made = record(place, text, also="dvc.lock")
    found = git(place.path, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}").strip()
    if found not in ("", before) and made not in git(place.path, "rev-list", f"{before}..{found}").split():
        raise ValueError(_diverged(branch))
    if not found or found == before:
        git(place.path, "branch", "--force", branch, made)
    return branch


def push_branch(place: Workspace, branch: str) -> str:
    """Push the run branch to the git remote, if there is one and others can get its data; returns what was done, in
    words.

    Raises ValueError if the remote's branch of that name has other commits; Unavailable if the remote is away.
    """
    if (remote := git_remote(place.home)) is None:
        return f"branch {branch} stays here: this clone has no git remote"
    if place.remote is None:
        return f"branch {branch} stays here: without a DVC remote nobody else could get the data that it names"
    try:
        git(place.home, "push", "--quiet", remote, f"refs/heads/{branch}:refs/heads/{branch}")
    except ValueError as error:
        if "[rejected]" in str(error):
            raise ValueError(f"on {remote}, {_diverged(branch)}") from None
        raise
    return f"branch {branch} is on {remote}"


def marks(project: Path, source: str, candidate: Candidate) -> dict[str, str]:
    """The lines in which a run branch says what it holds; `source` is the digest of the commit's inputs."""
    rules = rules_sha256(project / "params.yaml")
    values = (source, candidate.work_key, candidate.name, candidate.key, candidate.evidence_sha256, rules)
    return dict(zip(MARKS, values, strict=True))


def made_before(project: Path, source: str) -> dict[str, str] | None:
    """The lines of a run branch that was made from these inputs; None if there is none."""
    bodies = git(project, "for-each-ref", "--format=%(contents:body)%01", f"refs/heads/{BRANCHES}*").split("\1")
    for body in bodies:
        lines = (line.partition(": ") for line in body.strip().splitlines())
        found = {key: value for key, _, value in lines}
        if found.get("Inputs") == source and found.keys() == set(MARKS):
            return found
    return None


def _diverged(branch: str) -> str:
    return (
        f"branch {branch} holds another history, which is not overwritten;"
        f" look at it, then delete or rename it (`git branch -m {branch} NAME`) and run it again"
    )
