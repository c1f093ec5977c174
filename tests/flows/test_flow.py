"""`make retrain` on real DVC, Prefect and MLflow: what runs, what it says, what is left when it is stopped."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from tiny_helpers import alive, gone, set_params

from flows.flow import run
from flows.promotion.judge import Decision
from flows.promotion.promote import promote
from flows.state import Busy, hold, settle
from flows.status import main as status_main
from flows.tracking import pages
from flows.tracking.registry import connect
from flows.tracking.report import Outcome, lines
from flows.work.decide import decide
from flows.work.pipeline import reproduce
from flows.work.server import temporary_server

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
    for _attempt in range(2):  # the machine may be busy: take the better of two
        began = time.monotonic()
        answer = subprocess.run(
            [sys.executable, "-c", code], cwd=project, env=clean_environment(), capture_output=True, text=True
        )
        seconds.append(time.monotonic() - began)
        assert answer.stdout.startswith("nothing to do: no stage is stale, tiny version 1 holds this result (promoted:")
        assert answer.stdout.endswith("set() 0\n")
    assert min(seconds) < 15


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


def test_stages_that_ran_before_anybody_followed_them_are_told_as_they_were(
    project: Path, state: Path, prefect_api: str
) -> None:
    set_params(project, train__act="nap")
    began = time.monotonic()
    with hold(state) as held:
        work = decide(project, state)
        with reproduce(project, held=held) as begun:
            while not (project / "data" / "card" / "summary.json").is_file():
                time.sleep(0.1)
            whole = time.monotonic() - began
            outcome = run(project, state, held, work, [begun])
    assert outcome.error is None and outcome.registered is not None
    assert set(how(outcome).values()) == {"ran"}
    assert 8 <= outcome.stages["train"][1] <= whole  # the nap


def test_no_stage_begins_where_a_budget_forbids_it(project: Path, prefect_api: str) -> None:
    set_params(project, retrain__free_gb=1e6)
    environment = clean_environment(PREFECT_API_URL=prefect_api)
    answer = subprocess.run(RETRAIN, cwd=project, env=environment, capture_output=True, text=True)
    assert answer.returncode == 1
    assert "of free space, retrain.free_gb asks for 1e+06" in answer.stdout
    assert not (project / "data" / "ingest").exists()


def test_what_no_step_expects_fails_the_retrain_in_a_sentence(project: Path, prefect_api: str) -> None:
    """A file in the place of a folder of the state folder: found while the first stage is already at work."""
    (project / ".ganops").mkdir()
    (project / ".ganops" / "spent").write_text("mine")
    environment = clean_environment(PREFECT_API_URL=prefect_api)
    answer = subprocess.run(RETRAIN, cwd=project, env=environment, capture_output=True, text=True)
    assert answer.returncode == 1
    assert "spent" in next(line for line in answer.stdout.splitlines() if line.startswith("FAILED"))


def test_a_promotion_that_another_move_holds_up_is_tried_again(
    project: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = [Busy("another promotion or rollback holds promote.lock")]

    def busy_once(*arguments: Any) -> Decision:
        if waits:
            raise waits.pop()
        return promote(*arguments)

    monkeypatch.setattr("flows.flow.promote", busy_once)
    outcome = retrain(project)
    assert outcome.error is None and outcome.decision is not None and outcome.decision.decision == "promoted"


def test_only_stale_stages_run_and_a_lost_decision_is_made_good(project: Path, state: Path, prefect_api: str) -> None:
    first = retrain(project)
    assert set(how(first).values()) == {"ran"}
    check_page(first)
    set_params(project, card__quality=0.6)  # changes the verdict's limit only: nothing is trained again
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
    against = pages.differences(state, "2", "1")
    assert worse.candidate is not None and worse.met == "1"
    page = pages.measures(worse.candidate, against, "1")
    assert "- to -" not in page  # a measure without an interval shows none, not two empty ends
    assert "against version 1, both scored anew" in page
    assert "| quality\\|&lt;b&gt; | - | - | -0.2 | -0.21 to -0.19 |" in page


def check_page(outcome: Outcome) -> None:
    """Prefect's page of the run: the verdict as a table, text from files escaped, and the durations."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    with get_client(sync_client=True) as client:
        keys = ["verdict", "durations", "measures", "papers", "samples"]
        chosen = ArtifactFilter(key=ArtifactFilterKey(any_=keys))
        found = {item.key: str(item.data) for item in client.read_artifacts(artifact_filter=chosen)}
    assert "| fid\\|&lt;b&gt; | passed | 1 | 1 to 1 | yes |" in found["verdict"]
    assert "version 1 is champion" in found["verdict"]
    assert {row["stage"] for row in json.loads(found["durations"])} == set(how(outcome))
    assert "| cas | 0.96 | 0.96 to 0.96 | - | - |" in found["measures"]
    assert "models:/tiny/1" in found["papers"] and "- MODEL_CARD.md" in found["papers"]
    assert found["samples"].startswith("data:image/png;base64,")


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


def test_a_wrong_setting_is_told_before_the_first_stage_runs(project: Path, state: Path, prefect_api: str) -> None:
    real = Path(__file__).parents[2] / "stages" / "config" / "__main__.py"  # which rejects the tiny settings
    shutil.copy(real, project / "stages" / "config")
    outcome = retrain(project)
    assert outcome.error == "config: params.yaml must hold a section `audit`"
    assert "ran" not in how(outcome).values() and not (project / "data" / "ingest").exists()


def test_a_trainer_is_resumed_and_data_that_come_meanwhile_are_trained_too(
    project: Path, state: Path, prefect_api: str
) -> None:
    set_params(project, train__act="resume")
    outcome = retrain(project)
    assert outcome.error is None and outcome.notes == []
    assert {name: how(outcome)[name] for name in ("ingest", "train", "card")} == dict.fromkeys(
        ("ingest", "train", "card"), "ran"
    )
    assert len(connect(state, "tiny").versions()) == 2
    assert decide(project, state).done is not None


@pytest.mark.parametrize(
    ("act", "who", "shell"),
    [
        ("trainer dies", "its process", "/bin/bash"),  # which is replaced by the command
        ("trainer dies", "its process", "/bin/sh"),  # which, if it is dash, waits for the command and exits with 137
        ("dvc dies", "dvc", "/bin/sh"),
    ],
)
def test_what_was_killed_from_outside_is_told_and_tried_again(
    project: Path, state: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch, act: str, who: str, shell: str
) -> None:
    monkeypatch.setenv("SHELL", shell)
    set_params(project, train__act=act, retrain__retries=0)
    told = f"stage train: {who} was killed (signal 9), by a person or by the kernel because memory ran out"
    assert retrain(project).error == told
    (project / "saved").unlink()
    set_params(project, retrain__retries=1)
    assert retrain(project).error is None
    assert len(connect(state, "tiny").versions()) == 1


def test_a_stage_beyond_its_budget_is_stopped_and_may_save(project: Path, state: Path, prefect_api: str) -> None:
    budget = {"stage": "train", "minutes": 0.02, "gpu_hours": None}
    set_params(project, train__act="sleep", retrain__budgets=[budget])
    outcome = retrain(project)
    assert str(outcome.error).startswith("stage train: it was stopped after 0.0 minutes, its budget (retrain.budgets)")
    assert not connect(state, "tiny").exists()


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
            code = flow.wait(300)
        finally:
            flow.kill()
    assert code == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    assert gone(trainer, 60) if number == signal.SIGKILL else not alive(trainer)
    assert (project / "saved").read_text() == "checkpoint"  # it got SIGTERM before SIGKILL
    wait_for_lock(project)


@pytest.mark.slow
def test_a_temporary_server_ends_with_a_run_that_is_killed(project: Path) -> None:
    set_params(project, train__act="sleep")
    environment = clean_environment()
    with (project / "said").open("w") as said:
        flow = subprocess.Popen(RETRAIN, cwd=project, env=environment, stdout=said, stderr=said, start_new_session=True)
        try:
            trainer = wait_for_trainer(project, flow)
            [server] = servers(project)
            flow.kill()
            flow.wait(60)
        finally:
            flow.kill()
    assert gone(trainer, 30) and gone(server, 30)
    wait_for_lock(project)


def servers(project: Path) -> list[int]:
    """Prefect servers that were started in this folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(project) and process.cmdline()[1:3] == ["-m", "uvicorn"]:
                found.append(process.pid)
    return found


@pytest.mark.slow
def test_a_temporary_server_that_cannot_start_is_one_sentence(project: Path) -> None:
    nowhere = f"sqlite+aiosqlite:///{project}/nowhere/prefect.db"
    environment = clean_environment(PREFECT_API_DATABASE_CONNECTION_URL=nowhere)
    answer = subprocess.run(RETRAIN, cwd=project, env=environment, capture_output=True, text=True)
    assert answer.returncode == 1
    assert answer.stderr.startswith("retrain: Prefect's temporary server did not start: ")
    assert answer.stderr.count("\n") == 1
    assert servers(project) == []
    wait_for_lock(project)


NAMED = {
    ".ganops/home/profiles.toml": '[profiles.x]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n',
    ".env": "export PREFECT_API_URL=http://127.0.0.1:9/api\n",
    "prefect.toml": '[api]\nurl = "http://127.0.0.1:9/api"\n',
    "pyproject.toml": '[tool.prefect.api]\nurl = "http://127.0.0.1:9/api"\n',
}


@pytest.mark.parametrize("place", ["environment", *NAMED])
def test_a_server_that_somebody_named_is_taken(
    project: Path, state: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(state / "home"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    (state / "home").mkdir()
    if place in NAMED:
        (project / place).write_text(NAMED[place])
    else:
        monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    before = os.environ.get("PREFECT_API_URL")
    with hold(state) as held, temporary_server(held) as ready:
        ready()
        assert os.environ.get("PREFECT_API_URL") == before
        assert servers(project) == []


def wait_for_trainer(project: Path, flow: "subprocess.Popen[bytes]") -> int:
    deadline = time.monotonic() + 400
    while not (project / "trainer.pid").exists() or not (project / "trainer.pid").read_text():
        assert flow.poll() is None, (project / "said").read_text()
        assert time.monotonic() < deadline, (project / "said").read_text()
        time.sleep(0.1)
    return int((project / "trainer.pid").read_text())


def wait_for_lock(project: Path) -> None:
    """After a SIGKILL the leash may need a moment; then the lock is free."""
    for _attempt in range(600):
        try:
            with hold(project / ".ganops"):
                return
        except ValueError:
            time.sleep(0.1)
    raise AssertionError("the lock was never released")
