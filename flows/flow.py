"""The retrain as a Prefect flow: plain functions, wrapped by `task` and `flow` here and nowhere else.

A step that refuses ends its task and the flow in state Failed with one sentence. Nothing is retried: a failed
validation stays failed, and whoever starts the flow again goes on from the files.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Failed

from flows import report
from flows.decide import Work, decide
from flows.evidence import Candidate, read_candidate
from flows.pipeline import reproduce, stage_names
from flows.promote import Bench, Decision, promote
from flows.register import Registered, register, run_facts
from flows.registry import connect, sentences
from flows.report import Outcome
from flows.state import hold, settle
from stages.config import load_section
from stages.config.promote import PromoteConfig

T = TypeVar("T")


def run(project: Path, state: Path, held: int, work: Work) -> Outcome:
    """Carry out `work` as a Prefect flow run, under a lock that the caller holds.

    Raises ValueError where no Prefect server answers.
    """
    outcome = Outcome(stages=dict.fromkeys(stage_names(project), ("cached", 0.0)))

    def retrain() -> Any:
        return _carry_out(project, state, held, work, outcome)

    try:
        flow(name="retrain", description=__doc__)(retrain)(return_state=True)
    except RuntimeError as error:
        if "Failed to reach API" not in str(error) and "ephemeral" not in str(error):
            raise
        raise ValueError(f"Prefect: {error}; start that server, or unset PREFECT_API_URL for a temporary one") from None
    return outcome


def deployed() -> Any:
    """Retrain in the worker's folder where anything is stale, then register and promote."""
    project, state = Path.cwd(), settle()
    try:
        with hold(state) as held:
            work = decide(project, state)
            if work.done:
                get_run_logger().info("nothing to do: %s", work.done)
                return None
            outcome = Outcome(stages=dict.fromkeys(stage_names(project), ("cached", 0.0)))
            return _carry_out(project, state, held, work, outcome)
    except ValueError as error:
        return Failed(message=str(error))


retrain = flow(name="retrain", description=deployed.__doc__)(deployed)


class StepFailed(Exception):
    """A task ended in state Failed; the message is its sentence."""


def _step(name: str, work: Callable[[], T]) -> T:
    """Run `work` as a task called `name`. Raises StepFailed where it refuses; crashes and stops pass through."""
    results: list[T] = []

    def body() -> Any:
        try:
            results.append(work())
        except (ValueError, OSError) as error:
            return Failed(message=str(error))
        return None

    state = task(name=name, task_run_name=name, cache_policy=NO_CACHE)(body)(return_state=True)
    if not results:
        raise StepFailed(state.message or f"{name} ended as {state.name}")
    return results[0]


def _carry_out(project: Path, state: Path, held: int, work: Work, outcome: Outcome) -> Any:
    try:
        if work.stale:
            _stages(project, held, outcome)
        candidate = _step("read", lambda: read_candidate(project))
        outcome.candidate = candidate
        outcome.registered = _step("register", lambda: _register(project, state, candidate, outcome))
        version = outcome.registered.version
        outcome.decision = _step("promote", lambda: _promote(project, state, held, candidate, version))
    except (StepFailed, ValueError) as error:
        outcome.error = str(error)
    _artifacts(outcome)
    return Failed(message=outcome.error) if outcome.error else None


def _stages(project: Path, held: int, outcome: Outcome) -> None:
    """One task for each stage that DVC runs, named like it, with its lines as they come."""
    seconds: dict[str, float] = {}
    with reproduce(project, held=held) as running:
        try:
            for name in running.stages():
                began = time.monotonic()
                try:
                    _step(name, lambda: running.follow(get_run_logger().info))
                except StepFailed as error:
                    raise StepFailed(
                        f"stage {error}" if str(error).startswith(f"{name}:") else f"stage {name}: {error}"
                    ) from None
                finally:
                    seconds[name] = time.monotonic() - began
        finally:
            outcome.stages = {name: (how, seconds.get(name, 0.0)) for name, how in running.states.items()}


def _register(project: Path, state: Path, candidate: Candidate, outcome: Outcome) -> Registered:
    seconds = {name: spent for name, (how, spent) in outcome.stages.items() if how == "ran"}
    facts = {**run_facts(project, seconds), "prefect.flow_run_id": str(runtime.flow_run.id)}
    with sentences():
        done = register(candidate, connect(state, candidate.name), facts)
    get_run_logger().info("%s %s", candidate.name, done.note)
    return done


def _promote(project: Path, state: Path, held: int, candidate: Candidate, version: str) -> Decision:
    log = get_run_logger().info
    config = load_section(PromoteConfig, project / "params.yaml", "promote")
    with sentences():
        bench = Bench(project=project, state=state, held=held, config=config, log=log)
        decision = promote(candidate, version, connect(state, candidate.name), bench)
    log("%s: %s", decision.decision, decision.reason)
    return decision


def _artifacts(outcome: Outcome) -> None:
    """The durations and, where there is one, the verdict with the decision, on the run's page in Prefect."""
    create_table_artifact(report.durations(outcome), key="durations", description="Stages of this run")
    if outcome.candidate is not None:
        create_markdown_artifact(report.markdown(outcome), key="verdict", description="Verdict and promotion")
