"""Training on another machine: a second clone with its own worker, on a real Prefect server, connected only by
remotes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_helpers import gone, set_params
from tiny_world import commit, sh, versions

from flows import deployments
from flows.tracking.registry import connect
from flows.work import errand
from stages.config.retrain import Elsewhere

ROOT = Path(__file__).parents[2]
PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]
FAILS = "the loss is not finite at step 7; lower train.rate"


class Node:
    """Another machine: a clone, a state folder and a worker of pool `gpu`."""

    def __init__(self, folder: Path, api: str) -> None:
        self.folder, self.state = folder, folder / ".ganops"
        self.state.mkdir()
        kept = {
            key: value for key, value in os.environ.items() if key not in ("MLFLOW_TRACKING_URI", "TINY_NO_TRAINING")
        }
        mine = {"GANOPS_STATE": str(self.state), "DVC_SITE_CACHE_DIR": str(self.state / "dvc"), "PREFECT_API_URL": api}
        self._environment = {**kept, **mine, "GANOPS_CLONE": str(folder)}
        self._worker: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder.parent / "said").open("wb") as said:
            command = [*PREFECT, "worker", "start", "--pool", "gpu", "--work-queue", "train"]
            self._worker = subprocess.Popen(
                command, cwd=self.folder.parent, env=self._environment, stdout=said, stderr=said
            )

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.send_signal(signal.SIGTERM)
            try:
                self._worker.wait(30)
            except subprocess.TimeoutExpired:
                self._worker.kill()
                self._worker.wait()
            self._worker = None

    def said(self) -> str:
        return (self.folder.parent / "said").read_text(errors="replace")[-6000:]


@pytest.fixture
def node(clone: Path, prefect_api: str) -> Iterator[Node]:
    """Another machine whose worker does not run yet; here nothing can be trained."""
    set_params(clone, retrain__elsewhere={"deployment": "train/train-gpu", "minutes": 5.0}, retrain__retries=2)
    commit(clone)
    sh(clone, "git", "push", "-q")
    sh(clone.parent, "git", "clone", "-q", "-b", "main", "origin.git", "gpu node")
    (clone / "prefect.yaml").write_text((ROOT / "prefect.yaml").read_text())
    environment = {**os.environ, "PREFECT_API_URL": prefect_api}
    for command in (
        [*PREFECT, "work-pool", "create", "gpu", "--type", "process", "--overwrite"],
        [*PREFECT, "deploy", "--name", "train-gpu"],
    ):
        done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
    os.environ["TINY_NO_TRAINING"] = "1"  # the fixture `environment` removes it again
    made = Node(clone.parent / "gpu node", prefect_api)
    try:
        yield made
    finally:
        made.stop()


def retrain() -> tuple[str, str]:
    """One run of the deployed retrain in this process: its state's name and message."""
    state = deployments.retrain(return_state=True)
    return state.name, state.message or ""


def trainings() -> list[tuple[str, str]]:
    """State and commit of all runs of the deployment, oldest first."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("train/train-gpu")
        runs = [run for run in client.read_flow_runs() if run.deployment_id == deployment.id]
        return [(str(run.state_name), run.parameters["commit"]) for run in sorted(runs, key=lambda run: run.created)]


def wait_for(what: Callable[[], Any], node: Node, seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, node.said()
        time.sleep(0.2)
    return found


def offers(project: Path) -> str:
    return sh(project.parent / "origin.git", "git", "for-each-ref", "refs/heads/ganops/train-*")


@pytest.mark.slow
def test_another_machine_trains_and_what_is_known_needs_none(clone: Path, node: Node) -> None:
    node.start()
    before = len(trainings())
    assert retrain()[0] == "Completed", node.said()
    assert [state for state, _ in trainings()[before:]] == ["Completed"]
    [version] = versions(clone)
    assert version.tags["decision"] == "promoted"
    assert offers(clone) == ""
    assert list((node.state / "trainings").iterdir()) == [] and not (node.folder / "data" / "train").exists()
    curve = connect(clone / ".ganops", "tiny").client.get_metric_history(version.run_id, "train/loss_g")
    assert len(curve) == 5  # trained elsewhere, yet its curve is here

    node.stop()
    set_params(clone, card__quality=0.6)
    commit(clone)
    assert retrain()[0] == "Completed"
    assert len(trainings()) == before + 1
    assert len(versions(clone)) == 1


@pytest.mark.slow
def test_what_fails_there_is_said_here_and_what_was_saved_there_is_resumed(clone: Path, node: Node) -> None:
    node.start()
    before = len(trainings())
    set_params(clone, train__act="fail")
    commit(clone)
    name, message = retrain()
    assert name == "Failed", node.said()
    assert message.startswith("train/train-gpu (run ") and message.endswith(f"): train: {FAILS}")
    set_params(clone, train__act="preempted")
    commit(clone)
    assert retrain()[0] == "Completed", node.said()
    assert [state for state, _ in trainings()[before:]] == ["Failed", "Resumable", "Completed"]
    assert offers(clone) == "" and len(versions(clone)) == 1


@pytest.mark.slow
def test_nobody_there_is_a_sentence(clone: Path, node: Node) -> None:
    set_params(clone, retrain__elsewhere={"deployment": "train/train-gpu", "minutes": 0.02})
    commit(clone)
    name, message = retrain()
    assert name == "Failed"
    assert message.startswith("retrain.elsewhere: no worker began run ")
    assert message.endswith("start one for its work pool, or raise retrain.elsewhere.minutes")
    assert trainings()[-1][0] in ("Cancelled", "Cancelling")
    set_params(clone, retrain__elsewhere={"deployment": "train/cluster", "minutes": 1.0})
    commit(clone)
    told = "retrain.elsewhere: Prefect's server knows no deployment train/cluster; make it with `prefect deploy`,"
    assert retrain() == ("Failed", f"{told} or set retrain.elsewhere to null to train here")
    sh(clone, sys.executable, "-m", "dvc", "remote", "remove", "-q", "store")
    commit(clone)
    told = "retrain.elsewhere hands work over through a DVC and a git remote, and there is no DVC remote"
    assert retrain() == ("Failed", f"{told}; add it, or set retrain.elsewhere to null to train here")
    assert offers(clone) == ""


def coordinator(clone: Path, api: str) -> "subprocess.Popen[bytes]":
    code = "from flows.deployments import retrain; retrain()"
    environment = {**os.environ, "PREFECT_API_URL": api, "PYTHONPATH": str(clone)}
    with (clone.parent / "coordinator").open("wb") as said:
        return subprocess.Popen([sys.executable, "-c", code], cwd=clone, env=environment, stdout=said, stderr=said)


def at_work(node: Node) -> Callable[[], int]:
    path = node.state / "trainer.pid"
    return lambda: int(path.read_text() or 0) if path.is_file() else 0


@pytest.mark.slow
def test_a_coordinator_that_stops_takes_the_training_along_and_one_that_dies_finds_it(
    clone: Path, node: Node, prefect_api: str
) -> None:
    node.start()
    set_params(clone, train__act="waits")
    commit(clone)
    before = len(trainings())
    flow = coordinator(clone, prefect_api)
    trainer = wait_for(at_work(node), node)
    flow.send_signal(signal.SIGTERM)
    flow.wait(120)
    assert gone(trainer, 90), node.said()
    wait_for(lambda: trainings()[before][0] == "Cancelled", node)
    (node.state / "trainer.pid").unlink()

    flow = coordinator(clone, prefect_api)
    trainer = wait_for(at_work(node), node)
    flow.kill()
    flow.wait(60)
    set_params(clone, retrain__wait_minutes=1.0)
    again = coordinator(clone, prefect_api)
    try:
        wait_for(lambda: "is already training this commit" in (clone.parent / "coordinator").read_text(), node)
        (node.state / "go").write_text("on")
        assert again.wait(240) == 0
    finally:
        again.kill()
    assert gone(trainer)
    assert [state for state, _ in trainings()[before:]] == ["Cancelled", "Completed"]
    assert len(versions(clone)) == 1


@pytest.mark.parametrize("name", ["train-gpu", "/train-gpu", "train/"])
def test_a_deployment_has_a_flow_and_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="deployment must be FLOW/NAME, as in train/train-gpu; received"):
        Elsewhere(deployment=name, minutes=1.0)


@pytest.mark.parametrize("commit", ["main", "--upload-pack=touch x", "../../etc", "f" * 39, "f" * 40])
def test_only_a_commit_that_was_offered_is_trained(clone: Path, commit: str) -> None:
    with pytest.raises(ValueError, match=r"a commit's full hash; received|couldn't find remote ref"):
        errand.carry_out(clone, clone / ".ganops", commit, lambda _line: None)


def test_a_server_that_is_away_is_tried_again() -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    from flows.elsewhere import train
    from flows.work.retry import Unavailable

    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}),
        pytest.raises(Unavailable, match="Prefect's server does not answer"),
    ):
        train("a" * 40, Elsewhere(deployment="train/train-gpu", minutes=1.0), print)
