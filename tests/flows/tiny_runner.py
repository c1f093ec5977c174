"""Forks a child for each act that arrives as JSON, one act per line: real processes, without paying for imports again.

An act is {"what": NAME, ...}. With "die_at": K the child sends itself SIGKILL just before its K-th write to the
registry, counted over all writing methods of MLflow's client; with "die_after": S after S seconds, wherever it is.
"""

import hashlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import mlflow
import mlflow.artifacts
import mlflow.onnx
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store
from tiny_helpers import back, enter, night

from consumer.registry import fetch
from flows.promotion.moves import PROMOTION, ROLLBACK, Move, move
from flows.state import serialised, settle
from flows.tracking.registry import Registry, connect, sentences
from flows.work.retry import patiently

WRITES = ("set_", "delete_", "create_", "log_", "update_", "restore_")


class Mortal:
    """An MLflow client that counts what it writes, and dies just before write number `die_at`."""

    def __init__(self, client: mlflow.MlflowClient, die_at: int | None) -> None:
        self.client, self.die_at, self.writes = client, die_at, 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith(WRITES):
            self.writes += 1
            if self.writes == self.die_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return getattr(self.client, name)


def act(what: str, project: Path, state: Path, die_at: int | None = None, **more: Any) -> Any:
    """Carry out one act; its answer."""
    if what == "poll":
        return poll(project)
    mortal = Mortal(mlflow.MlflowClient(), die_at)
    registry = Registry(mortal, "tiny", (state / "artifacts").as_uri())  # type: ignore[arg-type]
    if what == "register":
        return enter(project, state, registry)
    if what == "night":
        decision = night(project, state, registry)
        return {"decision": decision.decision, "champion": decision.champion, "writes": mortal.writes}
    if what == "rollback":
        return {"said": back(project, state, registry=registry, **more), "writes": mortal.writes}
    assert what == "moves"
    return moves(state, registry, **more)


def moves(state: Path, registry: Registry, count: int) -> int:
    """`count` moves of champion: a promotion of the next of three versions, then a rollback, and so on."""
    champion, previous = registry.number("champion"), registry.number("previous")
    for index in range(count):
        kind = (PROMOTION, ROLLBACK)[index % 2]
        target = str(int(champion or 0) % 3 + 1) if kind == PROMOTION else previous
        assert target is not None and champion is not None
        wanted = Move(
            kind=kind, version=target, before=champion, previous=champion, previous_before=previous, best=target,
            reason="test",
        )  # fmt: skip
        with serialised(state):
            move(registry, wanted, lambda _line: None)
        champion, previous = target, champion
    (Path.cwd() / "moved").touch()
    return count


def poll(project: Path) -> dict[str, Any]:
    """Fetch the champion until the moves are over: whole, and all its files from one version, each time."""
    seen: set[str] = set()
    polls = 0
    while polls == 0 or not (project / "moved").exists():
        folder = Path(mlflow.artifacts.download_artifacts("models:/tiny@champion", dst_path=str(project / f"p{polls}")))
        digest = hashlib.sha256((folder / "generator.onnx").read_bytes()).hexdigest()
        assert json.loads((folder / "verdict.json").read_text())["onnx_sha256"] == digest
        assert json.loads((folder / "selftest" / "selftest.json").read_text())["onnx_sha256"] == digest
        kept = fetch("models:/tiny@champion")
        assert hashlib.sha256(kept.read_bytes()).hexdigest() == kept.stem
        seen |= {digest, kept.stem}
        polls += 1
        time.sleep(0.1)
    return {"polls": polls, "versions": len(seen)}


def acted(project: Path, state: Path, wanted: dict[str, Any]) -> Any:
    """`act` as flows act: what the registry says is a sentence."""
    with sentences():
        return act(project=project, state=state, **wanted)


def child(project: Path, wanted: dict[str, Any], answer: Path) -> None:
    """Act in `project`, or in a `folder` with a state of its own that shares the `registry` of another."""
    project = Path(wanted.pop("folder", project))
    os.chdir(project)
    if shared := wanted.pop("registry", None):
        os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{shared}", "GANOPS_STATE": str(project / ".ganops")}
    state = settle()
    connect(state, "tiny")
    if (seconds := wanted.pop("die_after", None)) is not None:
        timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    try:
        told, code = patiently(lambda: acted(project, state, wanted), (1.0, 2.0, 4.0), lambda _said: None), 0
    except ValueError as error:
        told, code = str(error), 1
    except (Exception, SystemExit):  # noqa: BLE001
        told, code = traceback.format_exc(), 2
    answer.write_text(json.dumps(told))
    os._exit(code)


def main() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        project, children = Path(job["project"]), []
        for number, wanted in enumerate(job["acts"]):
            answer = project / f"answer-{number}.json"
            answer.unlink(missing_ok=True)
            process = os.fork()
            if process == 0:
                child(project, wanted, answer)
            children.append((process, answer))
        codes = [(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), answer) for process, answer in children]
        told = [(code, json.loads(answer.read_text()) if answer.exists() else None) for code, answer in codes]
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
