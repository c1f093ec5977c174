"""Runs that a worker took but never began, because it died just then: they would keep their slots for ever.

The automation `ganops-lost` ends them by the events that reached the server. An event that was lost because the server
itself died never triggers it, so this looks at what the server has stored: the state of each run, and since when.
"""

import datetime
from collections.abc import Callable

import yaml

from flows.automations import FILE

_GRACE = 1.5  # times the automation's patience, so that the automation acts first


def lost(log: Callable[[str], None]) -> list[str]:
    """End the runs that have been pending for too long; returns their names."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    pending = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING])))
    now, seconds, found = datetime.datetime.now(datetime.UTC), _GRACE * _patience(), []
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=pending, limit=200):
            if run.state is None or (now - run.state.timestamp).total_seconds() < seconds:
                continue
            said = f"not begun in {seconds / 60:.0f} minutes: its worker is gone"
            client.set_flow_run_state(run.id, Crashed(message=said), force=True)
            log(f"run {run.name}: {said}")
            found.append(run.name)
    return found


def _patience() -> float:
    plan = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return float(next(item["trigger"]["within"] for item in plan["automations"] if item["name"] == "ganops-lost"))
