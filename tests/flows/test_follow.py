"""One MLflow run per pipeline run: live curves that lose nothing and repeat nothing, whatever the server does."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_stages import STEPS

from flows.tracking import curves
from flows.tracking.evidence import read_candidate
from flows.tracking.follow import follow
from flows.tracking.register import register, run_facts
from flows.tracking.registry import Registry, connect

ALL = list(STEPS)
NAMES = ("kimg", "loss_d", "loss_g", "images_per_second")


def log_of(state: Path) -> Path:
    (path,) = state.glob("train/*/log.jsonl")
    return path


def line(step: int, **more: float) -> str:
    row = {"time": time.time(), "step": float(step), "kimg": step / 1000, "loss_d": 1 / step, "loss_g": 2 / step}
    return json.dumps({**row, "images_per_second": 10.0, **more}) + "\n"


def steps(registry: Registry, run: str, name: str = "loss_d") -> list[int]:
    """Steps that the run has of the curve, each as often as it has it."""
    return sorted(metric.step for metric in registry.client.get_metric_history(run, f"train/{name}"))


def until(true: Callable[[], bool], seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.2)


def of_tracking(said: list[str]) -> int:
    """How many of these lines speak of the server; on a slow machine others say how far the training is."""
    return sum(line.startswith("tracking: ") for line in said)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, give up soon."""
    monkeypatch.setattr("flows.tracking.follow.EVERY", 0.1)
    monkeypatch.setattr("flows.tracking.follow.PATIENCE", 20.0)


@pytest.mark.usefixtures("quick")
def test_the_curve_arrives_while_the_training_runs_and_the_run_goes_to_the_version(
    built: Callable[..., Path], state: Path
) -> None:
    project = built()
    log = log_of(state)
    registry = connect(state, "tiny")
    with follow(project, state, run_facts(project, {}), print) as following:
        until(lambda: following.run_id is not None)
        run = str(following.run_id)
        log.write_text(line(20))
        time.sleep(1)
        assert steps(registry, run) == []  # until the training begins, the log may be from older work
        following.training()
        until(lambda: steps(registry, run) == [20])
        sixty = line(60)
        with log.open("a") as file:
            file.write(line(40) + "torn by a cra\n" + line(20) + line(40) + sixty[:30])  # resumed at 0
            file.flush()
            until(lambda: steps(registry, run) == [20, 40])
            file.write(sixty[30:] + line(80) + line(100))
        assert following.run() == run
        assert steps(registry, run) == ALL
        done = register(read_candidate(project), registry, run_facts(project, {}), run)
    assert [steps(registry, run, name) for name in NAMES] == [ALL] * len(NAMES)
    found = registry.client.get_run(run)
    assert found.info.status == "FINISHED"
    assert registry.versions()[0].run_id == run
    assert found.data.tags["registered_as"] == done.version
    assert found.data.metrics["system/cpu_utilization_percentage"] >= 0
    assert found.data.tags["mlflow.source.git.commit"] == found.data.tags["git.commit"]
    measure = registry.client.get_metric_history(run, "fid_domain")[0]
    assert measure.step == 100  # the generator's step, beside the curve that led to it
    assert len(registry.client.search_runs([registry.experiment()])) == 1


@pytest.mark.usefixtures("quick")
def test_the_log_of_older_code_is_not_taken_for_the_one_that_begins(built: Callable[..., Path], state: Path) -> None:
    """Same images, same settings, other code: the trainer has another folder, and writes there when it has started."""
    project = built()
    older = log_of(state).parent
    older.joinpath("log.jsonl").write_text(line(20, loss_d=7.0))
    registry = connect(state, "tiny")
    with follow(project, state, {}, print) as following:
        following.training()
        time.sleep(1)
        newer = older.with_name("newer")
        newer.mkdir()
        newer.joinpath("log.jsonl").write_text(line(20))
        shutil.copyfile(older / "trajectory.json", newer / "trajectory.json")
        run = str(following.run())
    assert [metric.value for metric in registry.client.get_metric_history(run, "train/loss_d")] == [1 / 20]


@pytest.mark.usefixtures("quick")
def test_how_far_the_training_is_is_said_while_it_runs(
    built: Callable[..., Path], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no registry at all; and of a training that is resumed nothing is said of what came before."""
    monkeypatch.setattr("flows.tracking.progress.EVERY", 0.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    project, said = built(train__total_kimg=2.0), list[str]()
    with follow(project, state, {}, said.append) as following:
        log_of(state).write_text(line(500, time=time.time() - 60))
        following.training()
        until(lambda: any("does not answer" in words for words in said))
        with log_of(state).open("a") as file:
            file.write(line(1500))
        until(lambda: len(said) == 2)
        following.run(patience=0.5)
    assert said[1] == "train: 1.5 of 2 kimg (75%), 10 images/s, about 50.0 s left"


@pytest.mark.usefixtures("quick")
def test_a_server_that_is_away_stops_nothing_and_the_curve_is_whole_later(
    built: Callable[..., Path], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, said = built(), list[str]()
    here = os.environ["MLFLOW_TRACKING_URI"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with follow(project, state, {}, said.append) as following:
        following.training()
        until(lambda: of_tracking(said) == 1)
        assert "does not answer" in next(line for line in said if line.startswith("tracking: "))
        assert following.run(patience=1) is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", here)
    registry = connect(state, "tiny")
    with follow(project, state, {}, said.append) as following:  # the rerun: the training is cached
        run = following.run()
        register(read_candidate(project), registry, run_facts(project, {}), run)
    assert run is not None
    assert [steps(registry, run, name) for name in NAMES] == [ALL] * len(NAMES)


@pytest.mark.usefixtures("quick")
def test_a_server_that_comes_back_gets_what_it_missed(
    built: Callable[..., Path], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's calls fail for a while; the slow test below stops a real server instead."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    project, said, away = built(), list[str](), [False]
    whole = MlflowClient.log_batch

    def log_batch(client: MlflowClient, *arguments: Any, **options: Any) -> Any:
        if away[0]:
            raise MlflowException("Max retries exceeded")
        return whole(client, *arguments, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    log = log_of(state)
    registry = connect(state, "tiny")
    with follow(project, state, {}, said.append) as following:
        log.write_text(line(20))
        following.training()
        until(lambda: following.run_id is not None and steps(registry, str(following.run_id)) == [20])
        away[0] = True
        with log.open("a") as file:
            file.write(line(40) + line(60))
        until(lambda: of_tracking(said) == 1)
        away[0] = False
        until(lambda: len(said) == 2)
        with log.open("a") as file:
            file.write(line(80) + line(100))
        run = str(following.run())
    assert steps(registry, run) == ALL
    assert "answers again" in said[1]


@pytest.mark.usefixtures("quick")
def test_a_run_whose_process_was_killed_is_ended_and_the_rerun_has_the_whole_curve(
    built: Callable[..., Path], state: Path
) -> None:
    project = built()
    log = log_of(state)
    content = log.read_text()
    code = (
        "import time; from pathlib import Path; import flows.tracking.follow as f; f.EVERY = 0.1\n"
        "from flows.state import settle\n"
        "with f.follow(Path.cwd(), settle(), {}, print) as following: following.training(); time.sleep(600)"
    )
    registry = connect(state, "tiny")
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], cwd=project) as process:
        try:
            until(lambda: len(runs(registry)) == 1, 120)
            log.write_text(line(20) + line(40))
            until(lambda: any(steps(registry, str(run.info.run_id)) == [20, 40] for run in runs(registry)), 120)
        finally:
            process.kill()
    (died,) = (str(run.info.run_id) for run in runs(registry))
    with follow(project, state, {}, print) as following:
        log.write_text(content + content)  # the trainer restarted from the beginning
        following.training()
        run = str(following.run())
        register(read_candidate(project), registry, run_facts(project, {}), run)
    assert registry.client.get_run(died).info.status == "KILLED"
    assert [steps(registry, run, name) for name in NAMES] == [ALL] * len(NAMES)


@contextlib.contextmanager
def server(folder: Path, port: int) -> Iterator[None]:
    """A real MLflow server on its own database and artifact folder, killed at the end."""
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "served")]
    quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    del quiet["MLFLOW_TRACKING_URI"]
    sink = subprocess.DEVNULL
    with subprocess.Popen(command, env=quiet, start_new_session=True, stdout=sink, stderr=sink) as process:
        try:
            until(lambda: healthy(port), 300)
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_real_server_that_dies_and_returns_has_the_whole_curve_and_the_version(
    built: Callable[..., Path], state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, said = built(), list[str]()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    log = log_of(state)
    content = log.read_text().splitlines(keepends=True)
    registry = connect(state, "tiny")
    with follow(project, state, run_facts(project, {}), said.append) as following:
        log.write_text(content[0])
        following.training()
        until(lambda: of_tracking(said) == 1)  # the server is not there yet
        with server(tmp_path, port):
            until(lambda: following.run_id is not None and steps(registry, str(following.run_id)) == [20])
        with log.open("a") as file:
            file.writelines(content[1:3])
        until(lambda: of_tracking(said) == 3)  # it came back, and went away again
        with server(tmp_path, port):
            until(lambda: steps(registry, str(following.run_id)) == [20, 40, 60])
            with log.open("a") as file:
                file.writelines(content[3:])
            run = following.run()
            done = register(read_candidate(project), registry, run_facts(project, {}), run)
            assert [steps(registry, str(run), name) for name in NAMES] == [ALL] * len(NAMES)
            assert registry.intact(registry.client.get_model_version("tiny", done.version))


def runs(registry: Registry) -> list[Any]:
    return list(registry.client.search_runs([registry.experiment()]))


@pytest.mark.usefixtures("quick")
def test_a_cached_result_has_a_run_too_that_names_its_version(built: Callable[..., Path], state: Path) -> None:
    project = built()
    registry = connect(state, "tiny")
    numbers = []
    for _night in range(2):
        with follow(project, state, {}, print) as following:
            run = str(following.run())
            numbers.append(register(read_candidate(project), registry, run_facts(project, {}), run).version)
        found = registry.client.get_run(run)
        assert (found.info.status, found.data.tags["registered_as"]) == ("FINISHED", "1")
        assert steps(registry, run) == ALL
        assert found.data.metrics["cas"] == 0.96
    assert numbers == ["1", "1"]
    assert len(runs(registry)) == 2
    assert len(registry.versions()) == 1


@pytest.mark.usefixtures("quick")
def test_a_pipeline_that_fails_leaves_a_run_that_says_so(built: Callable[..., Path], state: Path) -> None:
    project = built()
    with pytest.raises(ValueError, match="validation"), follow(project, state, {}, print) as following:
        raise ValueError("stage validation: too many black images")
    assert connect(state, "tiny").client.get_run(str(following.run_id)).info.status == "FAILED"


@pytest.mark.usefixtures("quick")
def test_losses_and_measures_of_one_step_arrive_and_after_going_back_the_later_ones_show(
    built: Callable[..., Path], state: Path
) -> None:
    project, registry = built(), connect(state, "tiny")
    log = log_of(state)

    def measured(step: int, value: float, later: float = 0.0) -> str:
        return (
            json.dumps({"time": time.time() + later, "step": float(step), "kimg": step / 1000, "fid_train": value})
            + "\n"
        )

    def values(name: str) -> dict[int, list[float]]:
        found: dict[int, list[float]] = {}
        for metric in registry.client.get_metric_history(str(following.run_id), f"train/{name}"):
            found.setdefault(metric.step, []).append(metric.value)
        return {step: sorted(both, reverse=True) for step, both in found.items()}

    with follow(project, state, {}, print) as following:
        log.write_text(line(20) + measured(20, 9.0) + line(40))
        following.training()
        until(lambda: following.run_id is not None and 40 in values("loss_d"))
        with log.open("a") as file:
            file.write(measured(40, 99.0))
            file.write(line(40, loss_d=0.5, time=time.time() + 1) + measured(40, 7.0, 1.0))  # back to 20, then anew
        until(lambda: len(values("fid_train").get(40, [])) == 2)
        assert values("loss_d") == {20: [1 / 20], 40: [0.5, 1 / 40]}
        assert values("fid_train") == {20: [9.0], 40: [99.0, 7.0]}
        assert registry.client.get_run(str(following.run_id)).data.metrics["train/fid_train"] == 7.0


def test_measures_of_a_training_done_elsewhere_are_part_of_its_curve(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "curves.csv").write_text("step,kimg,loss_d\n20,0.32,1.5\n60,0.96,1.0\n")
    (folder / "measures.csv").write_text("step,kimg,fid_train\n20,0.32,9\n50,0.8,7\n")
    assert curves.whole(tmp_path, tmp_path) == [
        {"step": 20, "kimg": 0.32, "loss_d": 1.5, "fid_train": 9},
        {"step": 50, "kimg": 0.8, "fid_train": 7},
        {"step": 60, "kimg": 0.96, "loss_d": 1.0},
    ]


@pytest.mark.usefixtures("quick")
def test_an_experiment_deleted_in_mlflow_comes_back(built: Callable[..., Path], state: Path) -> None:
    project = built()
    registry = connect(state, "tiny")
    with follow(project, state, {}, print) as following:
        log_of(state).write_text(line(20))
        following.training()
        until(lambda: following.run_id is not None and steps(registry, str(following.run_id)) == [20])
        registry.client.delete_experiment(registry.experiment())
        with log_of(state).open("a") as file:
            file.write(line(40))
        run = str(following.run())
        register(read_candidate(project), registry, run_facts(project, {}), run)
    assert steps(registry, run) == ALL
    assert registry.client.get_experiment_by_name("tiny").lifecycle_stage == "active"


def test_the_real_trainer_s_log_is_found_by_its_own_record(tmp_path: Path) -> None:
    import dataclasses
    from types import SimpleNamespace

    import yaml

    from stages.config import load_section
    from stages.config.train import TrainConfig
    from stages.train._trajectory import key, remember, trajectory

    params = Path(__file__).parents[2] / "params.yaml"
    config = load_section(TrainConfig, params, "train")
    (tmp_path / "params.yaml").write_text(params.read_text())
    (tmp_path / "data" / "ingest").mkdir(parents=True)
    (tmp_path / "data" / "ingest" / "dataset.json").write_text(json.dumps({"data_hash": "d"}))
    for rate, data_hash in ((config.lr, "d"), (config.lr, "other"), (config.lr * 2, "d")):
        store: Any = SimpleNamespace(info={"data_hash": data_hash})
        found = trajectory(dataclasses.replace(config, lr=rate), store)
        folder = tmp_path / "train" / key(found)
        folder.mkdir(parents=True)
        remember(folder, found)
        (folder / "log.jsonl").write_text(
            line(20) + line(40, kimg=yaml.safe_load(params.read_text())["train"]["total_kimg"] + 1)
        )
    wanted: Any = SimpleNamespace(info={"data_hash": "d"})
    tail = curves.live_log(tmp_path / "data", tmp_path)
    assert tail is not None
    assert tail.path.parent.name == key(trajectory(config, wanted))
    assert [row["step"] for row in tail.read()] == [20.0]  # rows beyond belong to a longer run
