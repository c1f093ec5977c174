"""A deployed retrain: from a commit, in a workspace of its own, until everything on the branch has been trained.

The event or schedule that started it is only a hint. What is to be done follows from the commit's inputs and from the
registry, looked up at the start and again at the end; what changed meanwhile is taken up by another round, or by the
next run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows import elsewhere
from flows.flow import Job, StepFailed, carry_out, ending, step
from flows.state import alone, hold
from flows.tracking.evidence import Candidate
from flows.tracking.report import Outcome, lines
from flows.work import errand, publish
from flows.work.decide import told
from flows.work.pipeline import check_lock, stage_names
from flows.work.repository import chosen, git, head, inputs, section
from flows.work.retry import FIRST_PAUSES, patiently, pauses
from flows.work.sources import refreshed
from flows.work.workspace import Workspace, fill, workspace
from stages.config.retrain import RetrainConfig

Log = Callable[[str], None]
LOOK_SECONDS = 3600.0  # how long a run waits for a look at the sources: buckets can be large


def isolated(project: Path, state: Path, commit: str | None, log: Log) -> Any:
    """Run rounds from `commit`, or from the branch's newest one; returns None, or state Failed with a sentence.

    Raises ValueError if the clone, the commit or its settings do not allow a start; nothing was done then.
    """
    target = patiently(lambda: _start(project, state, commit), FIRST_PAUSES, log)
    config = section(RetrainConfig, project, target, "retrain")
    if git(project, "status", "--porcelain", "--untracked-files=no").strip():
        log("this run ignores the uncommitted changes in the working copy; commit them to train with them")
    outcome: Outcome | None = None
    with hold(state, config.wait_minutes * 60) as held:
        for _round in range(config.rounds):
            source = inputs(project, target)
            if done := finished(project, state, source):
                log(f"nothing to do for commit {target[:8]}: {done}")
                return ending(outcome) if outcome else None
            outcome = _once(project, state, held, target, source, config, log)
            newest = target if commit or outcome.error else _newest(project, state, target, config, log)
            if newest == target or inputs(project, newest) == source:
                return ending(outcome)
            log(f"the branch moved on to {newest[:8]} while this ran")
            target = newest
    log(f"the branch is now at {target[:8]}, which the next run takes up")
    return ending(outcome) if outcome else None


def finished(project: Path, state: Path, source: str) -> str | None:
    """In words, what the registry holds for these inputs, whole and decided; None if something is left to do."""
    known = publish.made_before(project, source)
    if known is None:
        return None
    return told(state, known["Model"], known["Candidate"], known["Evidence"], known["Rules"])


def _start(project: Path, state: Path, commit: str | None) -> str:
    """The commit that somebody chose, else the branch's newest one with the data that its sources hold now."""
    if commit:
        return chosen(project, commit)
    with alone(state, "watch", LOOK_SECONDS):
        return refreshed(project, state, head(project))


def _newest(project: Path, state: Path, target: str, config: RetrainConfig, log: Log) -> str:
    """The commit from which a run would start now; if that cannot be told, `target`: the next run will see."""
    try:
        return patiently(lambda: _start(project, state, None), pauses(config), log)
    except ValueError as error:
        log(f"cannot tell whether the branch has moved on: {error}")
        return target


def _once(project: Path, state: Path, held: int, commit: str, source: str, config: RetrainConfig, log: Log) -> Outcome:
    """One round from `commit`, in a worktree that is removed afterwards, or kept and named if the round failed."""
    with workspace(project, state, commit) as place:
        log(f"commit {commit[:8]} in {place.path}")
        outcome = Outcome.of(stage_names(place.path))
        job = Job(
            project=place.path,
            state=state,
            held=held,
            config=config,
            pull=place.remote is not None,
            elsewhere=(lambda ready: _elsewhere(place, ready, config, log)) if config.elsewhere else None,
            publish=lambda candidate: _hand_on(place, commit, source, candidate, config, log),
        )
        try:
            step("workspace", lambda: _ready(place, config, log))
            carry_out(job, True, outcome)
        except StepFailed as error:
            outcome.error = str(error)
        if outcome.error is not None:
            place.keep = True
            outcome.notes.append(f"the workspace is kept in {place.path} until the next run")
    for line in lines(outcome):
        log(line)
    return outcome


def _elsewhere(place: Workspace, ready: list[str], config: RetrainConfig, log: Log) -> str:
    """Have another machine train, with what the stages `ready` have made."""
    assert config.elsewhere is not None
    with errand.offered(place, ready, lambda push: patiently(push, pauses(config), log)) as commit:
        return elsewhere.train(commit, config.elsewhere, log)


def _ready(place: Workspace, config: RetrainConfig, log: Log) -> None:
    check_lock(place.path)
    fill(place, lambda pull: patiently(pull, pauses(config), log))


def _hand_on(
    place: Workspace, commit: str, source: str, candidate: Candidate, config: RetrainConfig, log: Log
) -> list[str]:
    """Push the data, then the commit that names them, unless already pushed; returns what was done, in words."""
    handed = git(place.path, "rev-parse", "HEAD").strip() != commit
    if handed and not git(place.path, "status", "--porcelain", "--untracked-files=no").strip():
        return []
    done = patiently(lambda: publish.push_data(place), pauses(config), log)
    title = f"{'After the promotion in the run' if handed else 'Run'} of {commit[:8]}: {candidate.name}"
    branch = publish.commit_run(place, commit, publish.marks(place.path, source, candidate), title)
    return [done, patiently(lambda: publish.push_branch(place, branch), pauses(config), log)]
