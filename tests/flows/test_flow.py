"""`make retrain` on real DVC, Prefect and MLflow: what runs, what is said, what is left when it is stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_helpers import alive, gone, set_params

from flows.decide import decide
from flows.flow import run
from flows.registry import connect
from flows.report import Outcome, lines
from flows.state import hold, settle
from flows.status import main as status_main

RETRAIN = [sys.executable, "-m", "flows.retrain"]


def clean_environment(**extra: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "GANOPS_"))
    }
    return {**kept, **extra}


def retrain(project: Path) -> Outcome:
    """One flow run in this process, on the session's Prefect server."""
    state = settle()
    with hold(state) as held:
        return run(project, state, held, decide(project, state))


def how(outcome: Outcome) -> dict[str, str]:
    return {name: state for name, (state, _seconds) in outcome.stages.items()}


@pytest.fixture(scope="session")
def retrained(bare: Path, prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project after its first `python -m flows.retrain`, and what that said."""
    project = tmp_path_factory.mktemp("retrained") / "project"
    shutil.copytree(bare, project, symlinks=True)
    environment = clean_environment(PREFECT_API_URL=prefect_api)
    answer = subprocess.run(RETRAIN, cwd=project, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return project, answer.stdout + answer.stderr


def test_the_first_retrain_says_what_it_did(retrained: tuple[Path, str]) -> None:
    project, said = retrained
    assert "Task run 'train' - train: 1 kimg, 10 images/s" in said
    for line in (
        "model      tiny registered as version 1",
        "champion   version 1 is champion",
        "because    first champion",
    ):
        assert line in said
    assert "Traceback" not in said
    assert not any(path.name == "mlruns" for path in project.iterdir())


def test_nothing_to_do_ends_quickly_and_before_the_heavy_imports(retrained: tuple[Path, str]) -> None:
    project, _ = retrained
    code = "import sys; from flows.retrain import main; c = main([]); print({'mlflow', 'prefect'} & {*sys.modules}, c)"
    seconds = []
    for _attempt in range(2):  # the machine may be busy: the better of two
        began = time.monotonic()
        answer = subprocess.run(
            [sys.executable, "-c", code], cwd=project, env=clean_environment(), capture_output=True, text=True
        )
        seconds.append(time.monotonic() - began)
        assert answer.stdout.startswith("nothing to do: no stage is stale, tiny version 1 holds this result (promoted:")
        assert answer.stdout.endswith("set() 0\n")
    assert min(seconds) < 8


def test_status_as_json(
    retrained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(retrained[0])
    assert status_main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["champion"], found["versions"][0]["decision"]) == ("1", "promoted")


def test_a_prefect_server_that_does_not_answer_is_named(project: Path) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(
            ValueError, match=r"Prefect: Failed to reach API at http://127\.0\.0\.1:9/api/; start that server"
        ),
    ):
        retrain(project)
    assert not (project / "data" / "train").exists()


def test_only_stale_stages_run_and_a_lost_decision_is_made_good(project: Path, state: Path, prefect_api: str) -> None:
    first = retrain(project)
    assert set(how(first).values()) == {"ran"}
    check_page(first)
    set_params(project, card__quality=0.4)  # the verdict's limit: nothing is trained again
    second = retrain(project)
    assert how(second) == {**dict.fromkeys(how(first), "cached"), "card": "ran"}
    assert second.registered is not None
    assert (second.registered.version, second.registered.new) == ("1", False)
    registry = connect(state, "tiny")
    assert decide(project, state).done is not None
    registry.client.delete_model_version_tag("tiny", "1", "decision")
    assert decide(project, state).done is None
    third = retrain(project)
    assert set(how(third).values()) == {"cached"}
    assert third.decision is not None
    assert third.decision.decision == "promoted"
    assert len(registry.versions()) == 1
    set_params(project, train__quality=0.8)
    worse = retrain(project)
    told = "\n".join(lines(worse, 61.0, "registry here"))
    assert "champion   not moved: version 2 is not promoted, version 1 stays champion" in told
    assert "because    compared with version 1: quality differs by -0.2" in told
    assert "took       1 min 1 s" in told


def check_page(outcome: Outcome) -> None:
    """Prefect's page of the run: the verdict as a table, text from files escaped, and the durations."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    with get_client(sync_client=True) as client:
        chosen = ArtifactFilter(key=ArtifactFilterKey(any_=["verdict", "durations"]))
        found = {item.key: str(item.data) for item in client.read_artifacts(artifact_filter=chosen)}
    assert "| fid\\|&lt;b&gt; | passed | 1 | 1 to 1 | yes |" in found["verdict"]
    assert "version 1 is champion" in found["verdict"]
    assert {row["stage"] for row in json.loads(found["durations"])} == set(how(outcome))


def test_a_failed_stage_fails_the_flow_with_its_own_sentence(project: Path, state: Path, prefect_api: str) -> None:
    from prefect.client.orchestration import get_client

    set_params(project, train__act="fail")
    outcome = retrain(project)
    assert outcome.error == "stage train: the loss is not finite at step 7; lower train.rate"
    after = {name: how(outcome)[name] for name in ("ingest", "train", "export", "card")}
    assert after == {"ingest": "ran", "train": "failed", "export": "not reached", "card": "not reached"}
    assert not connect(state, "tiny").exists()
    with get_client(sync_client=True) as client:
        states = {(str(item.state_name), item.state.message) for item in client.read_flow_runs() if item.state}
    assert ("Failed", outcome.error) in states


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_retrain_leaves_no_trainer(project: Path, prefect_api: str, number: signal.Signals) -> None:
    set_params(project, train__act="sleep")
    environment = clean_environment(PREFECT_API_URL=prefect_api)
    with (project / "said").open("w") as said:
        flow = subprocess.Popen(RETRAIN, cwd=project, env=environment, stdout=said, stderr=said, start_new_session=True)
        try:
            trainer = wait_for_trainer(project, flow)
            again = subprocess.run(RETRAIN, cwd=project, env=environment, capture_output=True, text=True)
            assert again.returncode == 1
            assert f"process {flow.pid}" in again.stderr
            flow.send_signal(number)
            code = flow.wait(60)
        finally:
            flow.kill()
    assert code == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    assert gone(trainer) if number == signal.SIGKILL else not alive(trainer)
    assert (project / "saved").read_text() == "checkpoint"  # it was asked before it was killed
    wait_for_lock(project)


def wait_for_trainer(project: Path, flow: "subprocess.Popen[bytes]") -> int:
    deadline = time.monotonic() + 90
    while not (project / "trainer.pid").exists() or not (project / "trainer.pid").read_text():
        assert flow.poll() is None, (project / "said").read_text()
        assert time.monotonic() < deadline, (project / "said").read_text()
        time.sleep(0.1)
    return int((project / "trainer.pid").read_text())


def wait_for_lock(project: Path) -> None:
    """After a SIGKILL the leash may need a moment; then the lock is free."""
    for _attempt in range(100):
        try:
            with hold(project / ".ganops"):
                return
        except ValueError:
            time.sleep(0.1)
    raise AssertionError("the lock was never released")
