"""Have stage `train` done by a deployment on another machine (`retrain.elsewhere`), and wait for it.

If a run of that deployment is already training the same commit, because an earlier coordinator died, this waits for it
instead of starting a second one. However the wait ends, that run is over afterwards, with one exception: if Prefect's
server is away, it goes on training, and the next attempt waits for it again.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelling

from flows.work.retry import Unavailable
from stages.config.retrain import Elsewhere

_AWAY = (httpx.TransportError, PrefectHTTPStatusError)
RESUMABLE = "Resumable"  # name of the state of a training that stopped with its work saved
POLL_SECONDS = 2.0


def train(commit: str, config: Elsewhere, log: Callable[[str], None]) -> str:
    """Train `commit` by `config.deployment`; returns what was done, in words.

    Raises ValueError if there is no such deployment, no worker begins in time or the training fails; Unavailable if
    Prefect's server or the training's machine is lost, or the training saved its work and asks to be resumed.
    """
    began = time.monotonic()
    with get_client(sync_client=True) as client:
        try:
            run = _started(client, commit, config, log)
            state = _watched(client, run, config)
        except httpx.TransportError as error:  # the training goes on, and the next attempt finds it
            raise Unavailable(f"Prefect's server does not answer ({type(error).__name__})") from None
        except PrefectHTTPStatusError as error:
            status = error.response.status_code
            raise (Unavailable if status >= 500 else ValueError)(
                f"Prefect's server answers with HTTP status {status}"
            ) from None
    if state.is_completed():
        return f"trained by {config.deployment} (run {run.name}), {time.monotonic() - began:.0f} s from start to end"
    raise _why(state, f"{config.deployment} (run {run.name})")


def _watched(client: SyncPrefectClient, run: FlowRun, config: Elsewhere) -> State:
    """The state in which the run ended; if the wait is broken off, the run is cancelled."""
    try:
        return _end(client, run, config)
    except _AWAY:
        raise
    except BaseException:
        with contextlib.suppress(*_AWAY):
            _stop(client, run)
        raise


def _started(client: SyncPrefectClient, commit: str, config: Elsewhere, log: Callable[[str], None]) -> FlowRun:
    """The run that trains the commit: one that is under way, or a new one."""
    try:
        deployment = client.read_deployment_by_name(config.deployment)
    except ObjectNotFound:
        raise ValueError(
            f"retrain.elsewhere: Prefect's server knows no deployment {config.deployment}; make it with"
            " `prefect deploy`, or set retrain.elsewhere to null to train here"
        ) from None
    tag = f"ganops-{commit[:12]}"
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[tag])),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
    )
    for run in found:
        if run.state is not None and not run.state.is_final():
            log(f"run {run.name} of {config.deployment} is already training this commit")
            return run
    new: Any = run_deployment(config.deployment, parameters={"commit": commit}, tags=[tag], timeout=0, as_subflow=False)
    log(f"started run {new.name} of {config.deployment} to train this commit")
    return new


def _end(client: SyncPrefectClient, run: FlowRun, config: Elsewhere) -> State:
    """The state in which the run ended. Raises ValueError if no worker began it in time."""
    deadline = time.monotonic() + config.minutes * 60
    while True:
        state = client.read_flow_run(run.id).state
        if state is not None and state.is_final():
            return state
        waits = state is None or state.type in (StateType.SCHEDULED, StateType.PENDING)
        if waits and time.monotonic() > deadline:
            raise ValueError(
                f"retrain.elsewhere: no worker began run {run.name} of {config.deployment} within {config.minutes:g}"
                " minutes; start one for its work pool, or raise retrain.elsewhere.minutes"
            )
        time.sleep(POLL_SECONDS)


def _stop(client: SyncPrefectClient, run: FlowRun) -> None:
    """Cancel the run unless it is over."""
    with contextlib.suppress(ObjectNotFound):
        state = client.read_flow_run(run.id).state
        if state is None or not state.is_final():
            client.set_flow_run_state(run.id, Cancelling())


def _why(state: State, who: str) -> ValueError:
    told = " ".join((state.message or "it said nothing").split())
    if state.name == RESUMABLE:
        return Unavailable(f"{who}: {told}")
    if state.is_crashed():
        return Unavailable(f"{who} crashed, or its machine is gone: {told}")
    return ValueError(f"{who} was cancelled" if state.is_cancelled() else f"{who}: {told}")
