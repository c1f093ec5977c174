"""The MLflow run of a pipeline run: begun, restored if somebody deleted it, ended if its process has died."""

import hashlib
import os
import platform
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flows.tracking.registry import Registry
from stages.state import state_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_PROCESS = "ganops.process"
_BATCH = 900  # metrics per call; MLflow takes 1,000


def begin(registry: Registry, facts: Mapping[str, Any], began_ms: int | None = None, **tags: str) -> str:
    """Make a run that began at `began_ms` (milliseconds since 1970, default: now), with the identity of `facts`."""
    began = began_ms or int(time.time() * 1000)
    name = f"{registry.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(began / 1000))}"
    tags = {**_place(), _PROCESS: str(os.getpid()), **identity(facts), **tags}
    run = registry.client.create_run(registry.experiment(), start_time=began, run_name=name, tags=tags)
    return str(run.info.run_id)


def log_metrics(client: "MlflowClient", run_id: str, metrics: "list[Metric]") -> None:
    """Log all of `metrics` and empty the list; what is still in it after a failure was not logged."""
    while metrics:
        client.log_batch(run_id, metrics=metrics[:_BATCH])
        del metrics[:_BATCH]


def revive(registry: Registry, run_id: str) -> None:
    """Restore a run and its experiment if they were deleted by hand."""
    registry.experiment()
    if registry.client.get_run(run_id).info.lifecycle_stage == "deleted":
        registry.client.restore_run(run_id)


def bury(registry: Registry) -> None:
    """End the runs of this machine and state folder whose process has died: nothing else would."""
    mine = " and ".join(f"tags.`{key}` = '{value}'" for key, value in _place().items())
    for run in registry.client.search_runs([registry.experiment()], f"attributes.status = 'RUNNING' and {mine}"):
        if not _lives(run.data.tags.get(_PROCESS, "")):
            registry.client.set_terminated(run.info.run_id, "KILLED")


def _lives(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def identity(facts: Mapping[str, Any]) -> dict[str, str]:
    """Tags: commit, dirty state, DVC's lock and Prefect's run among `facts`, and MLflow's own names for them."""
    tags = {key: str(value) for key, value in facts.items() if key.startswith(("git.", "dvc.", "prefect."))}
    tags |= {"mlflow.source.name": "flows/retrain.py", "mlflow.source.type": "PROJECT"}
    if tags.get("git.commit", "none") != "none":
        tags["mlflow.source.git.commit"] = tags["git.commit"]
    return tags


def _place() -> dict[str, str]:
    """Tags that say which machine and state folder a run belongs to."""
    state = str(state_folder())
    return {"ganops.host": platform.node(), "ganops.state": hashlib.sha256(state.encode()).hexdigest()[:16]}
