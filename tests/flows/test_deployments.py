"""prefect.yaml and the automations on a real server with a real worker: an event and a schedule start retrains."""

import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from tiny_world import commit, sh

from flows import automations, lost
from flows.tracking.registry import connect

ROOT = Path(__file__).parents[2]
PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]


def test_every_deployment_names_a_flow_a_pool_and_words() -> None:
    from prefect.flows import Flow

    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    names = ["retrain-nightly", "retrain-on-data-change", "train-gpu", "watch-data", "promote", "rollback"]
    assert [item["name"] for item in deployments][: len(names)] == names
    pools = dict.fromkeys(names, "process") | {"train-gpu": "gpu"}
    for item in deployments:
        path, _, name = item["entrypoint"].partition(":")
        found = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)
        assert isinstance(found, Flow) and item["description"]
        assert item["work_pool"]["name"] == pools.get(item["name"], "process")
        assert all("parameters" not in trigger for trigger in item.get("triggers", ()))  # an event passes no parameters
        assert not any(schedule["active"] for schedule in item.get("schedules", ()))  # until somebody switches it on
    queues = {(item["work_pool"]["name"], item["work_pool"]["work_queue_name"]) for item in deployments[:3]}
    limited = yaml.safe_load(automations.FILE.read_text())["queues"]
    assert queues == {(item["pool"], item["name"]) for item in limited} == {("process", "retrain"), ("gpu", "train")}
    assert {item["limit"] for item in limited} == {1}


def test_automations_are_what_the_server_takes() -> None:
    from prefect.events.schemas.automations import AutomationCore

    for item in yaml.safe_load(automations.FILE.read_text())["automations"]:
        AutomationCore.model_validate({**item, "actions": item["actions"] or [{"type": "do-nothing"}]})


def test_automations_without_a_server_are_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert automations.main([]) == 1
    assert capsys.readouterr().err.startswith("automations: PREFECT_API_URL is not set")


def test_a_run_that_a_worker_took_and_lost_is_ended(prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.states import Pending, Scheduled

    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    said: list[str] = []
    with get_client(sync_client=True) as client:
        taken, due = (client.create_flow_run(flow(lambda: None, name="n"), state=s) for s in (Pending(), Scheduled()))
        assert taken.name not in lost.lost(said.append)  # it may yet begin
        monkeypatch.setattr(lost, "_patience", lambda: 0.0)
        assert taken.name in lost.lost(said.append)
        states = [client.read_flow_run(run.id).state for run in (taken, due)]
    assert [state.name for state in states if state] == ["Crashed", "Scheduled"]
    assert f"run {taken.name}: not begun in 0 minutes: its worker is gone" in said


class Started:
    """Processes that a test started, each with its lines in a file, stopped at the end."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, cwd: Path, *command: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"said-{len(self.running)}").open("wb") as said:
            process = subprocess.Popen(command, cwd=cwd, env=self.environment, stdout=said, stderr=said)
        self.running.append(process)
        return process

    def call(self, cwd: Path, *command: str) -> str:
        done = subprocess.run(command, cwd=cwd, env=self.environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def said(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-4000:] for path in sorted(self.folder.glob("said-*")))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Started]:
    """A Prefect server of its own, as an operator starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DVC_NO_ANALYTICS": "1"}
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_", "GANOPS_"))}
    api = f"http://127.0.0.1:{port}/api"
    home = tmp_path / "prefect"
    home.mkdir()
    started = Started(home, {**kept, **quiet, "PREFECT_HOME": str(home), "PREFECT_API_URL": api})
    try:
        launch = [sys.executable, "-m", "prefect", "--no-prompt", "server", "start"]
        process = started.start(ROOT, *launch, "--host", "127.0.0.1", "--port", str(port))

        def healthy() -> bool:
            assert process.poll() is None, started.said()
            try:
                with urllib.request.urlopen(f"{api}/health", timeout=2) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        wait_for(healthy, started, 240)
        yield started
    finally:
        for process in reversed(started.running):
            process.send_signal(signal.SIGTERM)
        for process in reversed(started.running):
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(condition: Callable[[], Any], started: Started, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, started.said()
        time.sleep(0.5)
    return found


def runs(started: Started) -> list[tuple[str, str, str]]:
    """Name of the deployment, how it was created, and state of each flow run."""
    code = (
        "from prefect.client.orchestration import get_client\n"
        "with get_client(sync_client=True) as c:\n"
        "  names = {d.id: d.name for d in c.read_deployments()}\n"
        "  for r in c.read_flow_runs():\n"
        "    print(names.get(r.deployment_id), (r.created_by.type if r.created_by else '-'), r.state_name, sep='|')\n"
    )
    lines = started.call(started.folder, sys.executable, "-c", code).splitlines()
    return [(name, how, state) for name, how, state in (line.split("|") for line in lines)]


class Receiver(BaseHTTPRequestHandler):
    """Keeps what is posted to it, and by whom."""

    told: ClassVar[list[tuple[str, dict[str, Any]]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.told.append((self.headers.get("Authorization", ""), json.loads(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[int]:
    """Port of a web server that people are told by."""
    Receiver.told.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield listening.server_address[1]
        listening.shutdown()
        thread.join()


EVENTS = """
import datetime, sys, time, uuid
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.states import Crashed, Failed, Pending, Running, Scheduled
from prefect import flow

@flow
def night(): pass

with get_client(sync_client=True) as c:
    def run(name, state):
        return c.create_flow_run(night, name=name, state=state).id
    c.set_flow_run_state(run("the-failed", Running()), Failed(message="stage train: the loss is not finite"))
    c.set_flow_run_state(run("the-crashed", Running()), Crashed(message="its process was killed"))
    stuck = {"prefect.resource.id": f"prefect.flow-run.{run('the-stuck', Running())}"}
    emit_event(event="prefect.flow-run.heartbeat", resource=stuck)
    c.set_flow_run_state(run("the-lost", Scheduled()), Pending(name="Submitting"))
    deployment = c.create_deployment(c.create_flow(night), "late")
    c.create_flow_run_from_deployment(deployment, name="the-late")
    gate = {"prefect.resource.id": "ganops.gate", "prefect.resource.name": "digits version 7"}
    emit_event(event="ganops.gate.failed", resource=gate, payload={"reason": "fid is above 2"})
    time.sleep(5)  # events go by another thread
"""


@pytest.mark.slow
def test_people_are_told_of_what_failed_crashed_is_late_or_stuck(
    tmp_path: Path, server: Started, receiver: int
) -> None:
    """A real server's automations, a real receiver; who it is stands in no argument, file or answer in clear."""
    flows = tmp_path / "flows"
    shutil.copytree(ROOT / "flows", flows)
    plan = flows / "automations.yaml"
    plan.write_text(plan.read_text().replace("within: 300", "within: 20").replace("within: 1800", "within: 20"))
    secret = "a-password-of-people"
    server.environment |= {"GANOPS_STATE": str(tmp_path / "state"), "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    server.environment["GANOPS_NOTIFY_URL"] = f"json://somebody:{secret}@127.0.0.1:{receiver}/night"
    said = server.call(tmp_path, sys.executable, "-m", "flows.automations")
    assert "ganops-gate: created" in said and secret not in said
    server.call(tmp_path, sys.executable, "-c", EVENTS)
    wanted = {
        ("ganops-failed", "the-failed, prefect.flow-run.Failed: stage train: the loss is not finite"),
        ("ganops-crashed", "the-crashed, prefect.flow-run.Crashed: its process was killed"),
        ("ganops-crashed", "the-stuck, prefect.flow-run.Crashed: no heartbeat for five minutes: its process is gone"),
        ("ganops-crashed", "the-lost, prefect.flow-run.Crashed: not begun in half an hour: its worker is gone"),
        ("ganops-gate", "digits version 7, ganops.gate.failed: fid is above 2"),
        ("ganops-late", "the-late, prefect.flow-run.Late:"),
    }

    def missing() -> set[tuple[str, str]]:
        texts = [(message["title"], message["message"]) for _, message in Receiver.told]
        return {item for item in wanted if not any(item[0] == title and item[1] in text for title, text in texts)}

    wait_for(lambda: not missing(), server, 240)
    assert len(Receiver.told) == len(wanted), Receiver.told  # nobody is notified twice
    basic = "Basic " + b64encode(f"somebody:{secret}".encode()).decode()
    assert {who for who, _ in Receiver.told} == {basic}
    kept = [path for path in server.folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert kept == []
    api = f"{server.environment['PREFECT_API_URL']}/block_documents/filter"
    request = urllib.request.Request(api, data=b"{}", headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        blocks = answer.read().decode()
    assert automations.BLOCK in blocks and secret not in blocks


@pytest.mark.slow
def test_an_event_and_a_schedule_start_retrains_on_a_worker(clone: Path, server: Started) -> None:
    plan = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    by_name = {item["name"]: item for item in plan["deployments"]}
    by_name["retrain-on-data-change"]["triggers"][0]["schedule_after"] = 1
    arranged = [server.call(clone, sys.executable, "-m", "flows.automations") for _ in range(2)]
    assert "ganops-stuck: created" in arranged[0] and "ganops-stuck: updated" in arranged[1]
    (clone / "prefect.yaml").write_text(yaml.safe_dump(plan))
    server.call(clone, *PREFECT, "deploy", "--all")
    server.start(clone, *PREFECT, "worker", "start", "--pool", "process", "--name", "one")

    look = (*PREFECT, "deployment", "run", "watch-data/watch-data", "--watch", "--watch-interval", "1")
    server.call(clone, *look)
    (clone / "data" / "raw" / "two.txt").write_text("2")
    sh(clone, sys.executable, "-m", "dvc", "add", "-q", "data/raw")
    newest = commit(clone)
    server.call(clone, *look)
    server.call(clone, *look)

    assert (clone / ".ganops" / "watch.json").is_file()  # so the worker ran in this folder

    def trained() -> bool:
        done = [state for name, _, state in runs(server) if name == "retrain-on-data-change"]
        assert "Failed" not in done and "Crashed" not in done, server.said()
        return "Completed" in done

    wait_for(trained, server, 300)
    [version] = connect(clone / ".ganops", "tiny").versions()
    run = connect(clone / ".ganops", "tiny").client.get_run(version.run_id)
    assert sh(clone, "git", "rev-parse", f"{run.data.tags['git.commit']}^") == newest

    by_name["retrain-nightly"]["schedules"] = [{"interval": 30, "slug": "often", "active": True}]
    (clone / "prefect.yaml").write_text(yaml.safe_dump(plan))
    server.call(clone, *PREFECT, "deploy", "--name", "retrain-nightly")
    hostile = '{"commit": "; touch pwned", "path": "../../etc/passwd", "digest": "$(touch pwned)"}'
    emit = "from prefect.events import emit_event; import json, sys, time\n"
    emit += "emit_event(event='ganops.data.changed', resource={'prefect.resource.id': 'ganops.data'},"
    emit += " payload=json.loads(sys.argv[1])); time.sleep(3)"
    server.call(clone, sys.executable, "-c", emit, hostile)

    def both() -> bool:
        done = [(name, how) for name, how, state in runs(server) if state == "Completed"]
        nightly = any(name == "retrain-nightly" and how == "SCHEDULE" for name, how in done)
        return nightly and sum(name == "retrain-on-data-change" for name, _ in done) == 2

    wait_for(both, server, 300)
    assert all(state != "Crashed" for _, _, state in runs(server))  # no run that has ended is taken for stuck
    assert len(connect(clone / ".ganops", "tiny").versions()) == 1  # nothing was left to do, whatever started the run
    assert not list(clone.parent.rglob("pwned"))
