"""The flows of prefect.yaml. All that reaches them from outside is a commit's hash, a version's number or a reason in
words, each checked; the payload of an event is not passed on."""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.events import emit_event
from prefect.states import Failed

from flows.elsewhere import RESUMABLE
from flows.isolated import isolated
from flows.lost import lost
from flows.rollback import run as go_back
from flows.state import Busy, settle
from flows.work import errand, watch
from flows.work.retry import Unavailable


@flow(name="retrain")
def retrain(commit: str | None = None) -> Any:
    """Train the branch's newest commit (or `commit`, a hash of it) in a workspace of its own; register, promote."""
    try:
        return isolated(Path.cwd(), settle(), commit, get_run_logger().info)
    except ValueError as error:
        return Failed(message=str(error))


@flow(name="train")
def train(commit: str) -> Any:
    """Train `commit`, which a retrain on another machine has offered, and push the result for it."""
    try:
        get_run_logger().info(errand.carry_out(Path.cwd(), settle(), commit, get_run_logger().info))
    except Unavailable as error:
        return Failed(name=RESUMABLE, message=str(error))
    except ValueError as error:
        return Failed(message=str(error))
    return None


@flow(name="watch-data")
def watch_data() -> Any:
    """Look whether commits or sources hold new data; once new data have stopped changing, emit an event.

    It also ends runs that a worker took and lost, see `flows.lost`.
    """

    def tell(digest: str) -> None:
        resource = {"prefect.resource.id": watch.RESOURCE, "prefect.resource.name": "raw data"}
        if emit_event(event=watch.EVENT, resource=resource, payload={"digest": digest}) is None:
            raise ValueError("Prefect did not accept the event; the next look reports it again")

    try:
        lost(get_run_logger().warning)
    except Exception as error:  # noqa: BLE001 - whatever the server answers, the data are looked at all the same
        get_run_logger().warning("could not look for lost runs: %s", error)
    try:
        get_run_logger().info(watch.look(Path.cwd(), settle(), tell).told)
    except Busy as error:
        get_run_logger().info("%s; this look is skipped, and the next one sees what changed", error)
    except ValueError as error:
        return Failed(message=str(error))
    return None


@flow(name="rollback")
def rollback(reason: str, to: str | None = None) -> Any:
    """Make the previous champion, or version `to`, champion again; `reason` is recorded with the move."""
    try:
        get_run_logger().info(go_back(Path.cwd(), settle(), reason, to, get_run_logger().info))
    except ValueError as error:
        return Failed(message=str(error))
    return None
