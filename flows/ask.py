"""The flows that turn to people: `approve` asks about the version that waits, `recheck` checks the champion.

`approve` suspends itself, so that nothing runs while the form waits; Prefect starts it again when somebody answers. It
then works out again what is to be shown: if that is unchanged, the answer counts; if not, it asks about the new state.
Without an answer within `promote.approval.hours` the run fails and the version goes on waiting.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger, suspend_flow_run
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.input import RunInput
from prefect.states import Failed
from pydantic import Field

from flows.approval import Answer, carry_out, request
from flows.recheck import raise_alarm, run
from flows.state import alone, serialised, settle
from flows.tracking.registry import connect, model_name, sentences
from flows.work.repository import head, params_of
from flows.work.retry import FIRST_PAUSES, patiently
from flows.work.testbench import rules_sha256
from flows.work.workspace import fill, workspace
from stages.config import load_section
from stages.config.promote import PromoteConfig

RECHECKS = "rechecks"


class Form(RunInput):
    """What a person is asked. All three answers are recorded with the decision."""

    decision: Literal["refuse", "approve"]
    approver: Annotated[str, Field(min_length=2, max_length=200, description="your name")]
    comment: Annotated[str, Field(min_length=3, max_length=1000, description="why, in words")]


@flow(name="approve")
def approve() -> Any:
    """Ask about the version that waits, and promote or refuse it, under params.yaml of the branch's newest commit."""
    try:
        return _approve()
    except ValueError as error:
        return Failed(message=str(error))


def _approve() -> Any:
    log, state, project = get_run_logger().info, settle(), Path.cwd()
    commit = patiently(lambda: head(project), FIRST_PAUSES, log)
    with params_of(project, commit) as params:
        hours = load_section(PromoteConfig, params, "promote").approval.hours
        rules, name = rules_sha256(params), model_name(params)
    with sentences():
        registry = connect(state, name)
        asked = request(registry, rules)
        text = asked.text() if asked and not asked.stale else ""
    if asked is None:
        log("no version of %s waits for an approval", registry.name)
        return None
    if asked.stale:
        return Failed(message=f"version {asked.version} waits, but {asked.stale}")
    form = Form.with_initial_data(description=text)
    said = suspend_flow_run(wait_for_input=form, timeout=int(hours * 3600), key=asked.seen)
    answer = Answer(approved=said.decision == "approve", approver=said.approver, comment=said.comment)
    with sentences(), serialised(state):
        log(carry_out(registry, asked, answer, log))
    return None


@flow(name="recheck")
def recheck() -> Any:
    """Score the champion on the data of the branch's newest commit, in a workspace of its own, and verify its bytes; an
    alarm appears as a failed run and an event."""
    project, state, log = Path.cwd(), settle(), get_run_logger().info
    try:
        with alone(state, RECHECKS), workspace(project, state, head(project), RECHECKS) as place:
            fill(place, lambda pull: patiently(pull, FIRST_PAUSES, log))
            report = run(place.path, state, log)
    except ValueError as error:
        return Failed(message=str(error))
    if report.failed:
        raise_alarm(report)
        return Failed(message=report.told())
    get_run_logger().info(report.told())
    return None


def start(version: str, log: Callable[[str], None]) -> None:
    """Start the deployed flow that asks; if there is none, say which command answers."""
    try:
        asked: Any = run_deployment("approve/promote", timeout=0, as_subflow=False)
        log(f"version {version} waits for an approval: answer on the page of Prefect's run {asked.name}")
    except ObjectNotFound:
        told = f"run `python -m flows.approval --approve {version} --by NAME --comment WHY`"
        log(f"version {version} waits for an approval: {told}, or deploy approve/promote to be asked in Prefect")
