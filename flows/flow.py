"""The retrain as a Prefect flow: plain functions, wrapped by `task` and `flow` here and nowhere else.

A step that refuses ends its task and the flow in state Failed with one sentence. Only failures for reasons outside the
work are retried: a stage that saved its work and asks to be resumed, a network, a registry that is away. A failed
validation or a red gate is final.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.states import Failed

from flows import ask
from flows.promotion.answer import WAITING
from flows.promotion.judge import Decision
from flows.promotion.promote import promote
from flows.state import Busy
from flows.tracking import pages, report
from flows.tracking.evidence import Candidate, read_candidate
from flows.tracking.follow import Following, follow
from flows.tracking.register import Registered, register, run_facts
from flows.tracking.registry import connect, sentences
from flows.tracking.report import Outcome
from flows.work import budget
from flows.work.decide import Work
from flows.work.pipeline import Reproduction, check_settings, reproduce, stage_names, stale
from flows.work.retry import Unavailable, patiently, pauses
from flows.work.testbench import Testbench
from stages.config import load_section
from stages.config.promote import PromoteConfig
from stages.config.retrain import RetrainConfig

T = TypeVar("T")
TRAIN = "train"
HAND_OVER_SECONDS = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Where and how one round is carried out. `held` is the descriptor of the lock on `state`.

    pull: fetch results that other machines pushed to the DVC remote. elsewhere: given the stages that are done, has
    another machine do stage `train` and says how that went; None: train here. publish: pushes a candidate before it is
    registered, and after the promotion whatever that changed; None for a run in place. begun: a `dvc repro` that is
    already running, for the first try.
    """

    project: Path
    state: Path
    held: int
    config: RetrainConfig
    pull: bool = False
    elsewhere: Callable[[list[str]], str] | None = None
    publish: Callable[[Candidate], list[str]] | None = None
    begun: list[Reproduction] = dataclasses.field(default_factory=list)


def run(project: Path, state: Path, held: int, work: Work, begun: Sequence[Reproduction] = ()) -> Outcome:
    """Carry out `work` in place as a Prefect flow run, under a lock that the caller holds; `begun` as in Job.

    Raises ValueError if no Prefect server answers, or if the settings are wrong.
    """
    config = load_section(RetrainConfig, project / "params.yaml", "retrain")
    outcome = Outcome.of(stage_names(project))
    job = Job(project=project, state=state, held=held, config=config, begun=list(begun))

    def retrain() -> Any:
        in_place(job, work, outcome)
        return ending(outcome)

    try:
        ended: Any = flow(name="retrain", description=__doc__)(retrain)(return_state=True)
    except RuntimeError as error:
        if "Failed to reach API" not in str(error) and "ephemeral" not in str(error):
            raise
        raise ValueError(f"Prefect: {error}; start that server, or unset PREFECT_API_URL for a temporary one") from None
    if outcome.error is None and not ended.is_completed():  # an error that no step expected
        outcome.error = ended.message or f"the flow run ended as {ended.name}"
    return outcome


def hand_over() -> None:
    """Send the logs and events that Prefect's threads still hold, before a temporary server ends."""
    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=HAND_OVER_SECONDS)


def in_place(job: Job, work: Work, outcome: Outcome) -> None:
    """Run rounds in the working copy until one ends with the inputs that it began with, at most `rounds` of them."""
    changed: dict[str, Any] = work.stale
    for number in range(job.config.rounds):
        before = outcome.candidate.work_key if outcome.candidate else None
        if number:
            get_run_logger().info("%s changed while this ran; running another round", ", ".join(changed))
            outcome.renew()
        carry_out(job, bool(changed), outcome)
        if outcome.error or (outcome.candidate and outcome.candidate.work_key == before):
            return
        if not (changed := stale(job.project)):
            return
    outcome.notes.append(
        f"{', '.join(changed)} changed again in the last round (retrain.rounds); the next run takes that up"
    )


def ending(outcome: Outcome) -> Any:
    """What the flow returns: Failed with the sentence, or nothing."""
    return Failed(message=outcome.error) if outcome.error else None


class StepFailed(Exception):
    """A task ended in state Failed; the message is its sentence. `again`: it failed for reasons outside the work."""

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


def step(name: str, work: Callable[[], T]) -> T:
    """Run `work` as a task called `name`. Raises StepFailed if it refuses; crashes and stops pass through."""
    results: list[T] = []
    refused: list[Exception] = []

    def body() -> Any:
        try:
            results.append(work())
        except (ValueError, OSError) as error:
            refused.append(error)
            return Failed(message=str(error))
        return None

    state = task(name=name, task_run_name=name, cache_policy=NO_CACHE)(body)(return_state=True)
    if not results:
        again = bool(refused) and isinstance(refused[0], Unavailable)
        raise StepFailed(state.message or f"{name} ended as {state.name}", again=again)
    return results[0]


def patient_step(name: str, work: Callable[[], T], config: RetrainConfig) -> T:
    """As `step`, but inside the task a service that is away is tried again, with growing pauses."""
    return step(name, lambda: patiently(work, pauses(config), get_run_logger().warning))


def carry_out(job: Job, stages: bool, outcome: Outcome) -> None:
    """One round: the stages if `stages` is true, then publish, register, promote. Never raises for a refusal."""
    try:
        with follow(job.project, job.state, _facts(job, outcome), get_run_logger().info) as following:
            if stages:
                _stages(job, outcome, following)
            candidate = outcome.candidate = step("read", lambda: read_candidate(job.project))
            if job.publish is not None:
                outcome.notes += step("push", lambda: _publish(job, candidate))
            run = following.run()
            outcome.registered = patient_step("register", lambda: _register(job, candidate, outcome, run), job.config)
            version = outcome.registered.version
            outcome.decision = patient_step("promote", lambda: _promote(job, candidate, version, outcome), job.config)
            if job.publish is not None:
                outcome.notes += step("push", lambda: _publish(job, candidate))
    except (StepFailed, ValueError, OSError) as error:
        outcome.error = str(error)
    _artifacts(job, outcome)


def _stages(job: Job, outcome: Outcome, following: Following) -> None:
    """Run what is stale; after a failure that may be retried, run it again after a pause."""
    names = stage_names(job.project)
    step("settings", lambda: check_settings(job.project))
    step("budget", lambda: budget.check(job.config, names, [job.project, job.state], job.state))
    seconds = {name: spent for name, (how, spent) in outcome.stages.items() if how == "ran"}  # of earlier rounds
    for wait in [*pauses(job.config), None]:
        try:
            if not _reproduce(job, outcome, seconds, following):
                _elsewhere(job, outcome, seconds, following)
            return
        except (StepFailed, Unavailable) as error:  # Unavailable: between two stages
            if wait is None or (isinstance(error, StepFailed) and not error.again):
                raise
            get_run_logger().warning("%s; trying again in %g s", error, wait)
            time.sleep(wait)


def _elsewhere(job: Job, outcome: Outcome, seconds: dict[str, float], following: Following) -> None:
    """Have `train` done by another machine, then the rest here."""
    assert job.elsewhere is not None
    names, elsewhere = stage_names(job.project), job.elsewhere
    told = step(TRAIN, lambda: elsewhere(names[: names.index(TRAIN)]))
    if not _reproduce(job, outcome, seconds, following):
        raise StepFailed(f"{told}, but the DVC remote does not hold it; give both clones the same default remote")
    outcome.notes.append(told)


def _reproduce(job: Job, outcome: Outcome, seconds: dict[str, float], following: Following) -> bool:
    """One task per stage that DVC runs, named after it, with its lines as they come; true once all stages are done.

    If another machine is to train, DVC is stopped as `train` begins: that it begins means that no cache has its result.
    """
    with job.begun.pop() if job.begun else reproduce(job.project, held=job.held, pull=job.pull) as running:
        try:
            for name in running.stages():
                if name == TRAIN:
                    if job.elsewhere is not None:
                        return False
                    following.training()
                with budget.metered(job.config, job.state, name, _log) as (tell, allowed):
                    try:
                        step(name, functools.partial(running.follow, tell, allowed))
                    except StepFailed as error:
                        told = f"stage {error}" if str(error).startswith(f"{name}:") else f"stage {name}: {error}"
                        raise StepFailed(told, again=error.again) from None
                    finally:
                        seconds[name] = seconds.get(name, 0.0) + running.seconds
        finally:
            outcome.stages = {
                name: ("ran" if how == "cached" and name in seconds else how, seconds.get(name, 0.0))
                for name, how in running.states.items()
            }
    return True


def _log(line: str) -> None:
    """Log a line in the task that runs now."""
    get_run_logger().info(line)


def _publish(job: Job, candidate: Candidate) -> list[str]:
    assert job.publish is not None
    done = job.publish(candidate)
    for line in done:
        get_run_logger().info(line)
    return done


def _facts(job: Job, outcome: Outcome) -> dict[str, Any]:
    seconds = {name: spent for name, (how, spent) in outcome.stages.items() if how == "ran"}
    return {**run_facts(job.project, seconds), "prefect.flow_run_id": str(runtime.flow_run.id)}


def _register(job: Job, candidate: Candidate, outcome: Outcome, run: str | None) -> Registered:
    with sentences():
        done = register(candidate, connect(job.state, candidate.name), _facts(job, outcome), run)
    get_run_logger().info("%s %s", candidate.name, done.note)
    return done


def _promote(job: Job, candidate: Candidate, version: str, outcome: Outcome) -> Decision:
    log = get_run_logger().info
    config = load_section(PromoteConfig, job.project / "params.yaml", "promote")
    with sentences():
        bench = Testbench(project=job.project, state=job.state, held=job.held, config=config, log=log)
        registry = connect(job.state, candidate.name)
        outcome.met = registry.number("champion")
        try:
            decision = promote(candidate, version, registry, bench)
        except Busy as error:  # somebody is moving the champion
            raise Unavailable(str(error)) from None
    log("%s: %s", decision.decision, decision.reason)
    if decision.decision == WAITING:
        ask.start(version, log)
    if decision.decision in ("red", "unfit", "slow", "held"):
        about = {"prefect.resource.id": "ganops.gate", "prefect.resource.name": f"{candidate.name} version {version}"}
        emit_event(
            event="ganops.gate.failed",
            resource=about,
            payload={"decision": decision.decision, "reason": decision.reason},
        )
    return decision


def _artifacts(job: Job, outcome: Outcome) -> None:
    """Show durations and, if there is a candidate, its pictures, measures, verdict and papers on Prefect's page."""
    create_table_artifact(report.durations(outcome), key="durations", description="Stages of this run")
    if outcome.candidate is None:
        return
    create_markdown_artifact(report.markdown(outcome), key="verdict", description="Verdict and promotion")
    if (grid := pages.picture(outcome.candidate)) is not None:
        create_image_artifact(grid, key="samples", description="Drawn by the candidate, row by row")
    if outcome.registered is not None:
        against = pages.differences(job.state, outcome.registered.version, outcome.met)
        table = pages.measures(outcome.candidate, against, outcome.met)
        create_markdown_artifact(table, key="measures", description="Measures with intervals, against the champion")
        papers = pages.papers(outcome.candidate, outcome.registered.version)
        create_markdown_artifact(papers, key="papers", description="Card and reports")
