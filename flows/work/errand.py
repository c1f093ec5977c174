"""A training on another machine: what is handed to that machine, what it does, and what it hands back.

The coordinator pushes the data that `train` reads and a commit whose `dvc.lock` names them, on a branch of its own. The
other machine runs `dvc repro --pull train` for that commit in a worktree and pushes the result with DVC's run cache,
where the coordinator's own `dvc repro --pull` finds it.
"""

import contextlib
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from flows.state import alone
from flows.work import budget
from flows.work.pipeline import reproduce
from flows.work.repository import git, git_remote, section
from flows.work.retry import patiently, pauses
from flows.work.sources import signature
from flows.work.workspace import Workspace, dvc, workspace
from stages.config.retrain import RetrainConfig

STAGE = "train"
_BRANCH = "ganops/train-"
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@contextlib.contextmanager
def offered(place: Workspace, done: list[str], waiting: Callable[[Callable[[], str]], str]) -> Iterator[str]:
    """The commit to be trained, on the git remote as long as the block runs, with the results of the stages `done`.

    `waiting` calls what it is given, and again if that raises Unavailable. Raises ValueError if a remote is missing or
    refuses.
    """
    remote = git_remote(place.home)
    if place.remote is None or remote is None:
        lacking = "DVC remote" if place.remote is None else "git remote"
        raise ValueError(
            f"retrain.elsewhere hands work over through a DVC and a git remote, and there is no {lacking}; add it,"
            " or set retrain.elsewhere to null to train here"
        )
    waiting(lambda: dvc(place.path, "push", "--run-cache", *done))
    commit = _commit(place)
    branch = f"refs/heads/{_BRANCH}{commit[:12]}"
    waiting(lambda: git(place.home, "push", "--quiet", "--force", remote, f"{commit}:{branch}"))
    try:
        yield commit
    finally:
        with contextlib.suppress(ValueError):  # a leftover branch is one name too many and does no harm
            git(place.home, "push", "--quiet", remote, f":{branch}")


def _commit(place: Workspace) -> str:
    """The workspace's commit with its present `dvc.lock`; HEAD and index stay. Same content, same commit."""
    with tempfile.TemporaryDirectory() as folder:
        extra = {"GIT_INDEX_FILE": f"{folder}/index", **signature(place)}
        git(place.path, "read-tree", "HEAD", extra=extra)
        git(place.path, "add", "--force", "--", "dvc.lock", extra=extra)
        tree = git(place.path, "write-tree", extra=extra).strip()
        text = "To be trained on another machine"
        return git(place.path, "commit-tree", tree, "-p", "HEAD", "-m", text, extra=extra).strip()


def carry_out(project: Path, state: Path, commit: str, log: Callable[[str], None]) -> str:
    """On the other machine: train `commit`, which was offered, and push the result; returns what was done, in words.

    Raises ValueError if that cannot be done, Unavailable if it may be tried again.
    """
    if not _HASH.fullmatch(commit):
        raise ValueError(f"a training starts from a commit's full hash; received {commit[:80]!r}")
    began, waits = time.monotonic(), (5.0, 20.0)
    patiently(lambda: _fetch(project, commit), waits, log)
    config = section(RetrainConfig, project, commit, "retrain")
    with alone(state, "training") as held, workspace(project, state, commit, "trainings") as place:
        if place.remote is None:
            raise ValueError("this clone has no default DVC remote to pull data from and push results to; add it")
        budget.check(config, [item.stage for item in config.budgets], [project, state], state)
        _train(place, state, held, config, log)
        patiently(lambda: dvc(place.path, "push", "--run-cache", STAGE), pauses(config), log)
        return f"commit {commit[:8]} is trained and pushed to {place.remote} in {time.monotonic() - began:.0f} s"


def _fetch(project: Path, commit: str) -> None:
    if (remote := git_remote(project)) is None:
        raise ValueError(f"{project} has no git remote to fetch the commit from; add it")
    git(project, "fetch", "--quiet", "--no-tags", remote, f"refs/heads/{_BRANCH}{commit[:12]}")
    git(project, "cat-file", "-e", f"{commit}^{{commit}}")


def _train(place: Workspace, state: Path, held: int, config: RetrainConfig, log: Callable[[str], None]) -> None:
    with reproduce(place.path, held=held, pull=True, only=STAGE) as running:
        for name in running.stages():
            with budget.metered(config, state, name, log) as (tell, seconds):
                running.follow(tell, seconds)
