"""The train room: exact resume after every kind of stop, sound fallbacks, honest refusals."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.numpy import load_file

from stages.common.command import WorkSaved
from stages.common.files import digest
from stages.common.interrupt import Interrupted
from stages.config import build, load_section
from stages.config.train import TrainConfig
from stages.store import open_store
from stages.train import _work, run
from stages.train._launch import _explain
from stages.train._loop import Run
from stages.train._processes import Processes
from stages.train._samples import columns_for, samples
from stages.train._trajectory import key, trajectory
from tests.stages.small_training import SMALL, bars, small

PROJECT = Path(__file__).parents[2]
ALONE = Processes()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return bars(tmp_path)


def command(tmp_path: Path, out: str, state: str, **changes: Any) -> tuple[list[str], dict[str, str]]:
    params = tmp_path / f"{out}.yaml"
    params.write_text(yaml.safe_dump({"train": small(**changes)}))
    arguments = ["--images", str(tmp_path / "ingest"), "--passed", str(tmp_path / "passed.json")]
    arguments += ["--params", str(params), "--out", str(tmp_path / out)]
    return [sys.executable, "-m", "stages.train", *arguments], os.environ | {"GANOPS_STATE": str(tmp_path / state)}


def train(tmp_path: Path, out: str, state: str, **changes: Any) -> subprocess.CompletedProcess[str]:
    arguments, env = command(tmp_path, out, state, **changes)
    return subprocess.run(arguments, env=env, cwd=PROJECT, capture_output=True, text=True, check=False)


def checkpoints(state: Path) -> list[Path]:
    return sorted(state.glob("train/*/checkpoint-*.safetensors"))


def stop_after(tmp_path: Path, out: str, state: str, number: int, **changes: Any) -> int:
    """Start a run, send it a signal after its first checkpoint, and return its exit code: 0 where it was quicker.

    What it says is in `OUT.said`.
    """
    arguments, env = command(tmp_path, out, state, **changes)
    with (
        (tmp_path / f"{out}.said").open("w") as said,
        subprocess.Popen(arguments, env=env, cwd=PROJECT, stderr=said) as process,
    ):
        deadline = time.monotonic() + 300  # on a loaded machine the start alone takes a minute
        while not checkpoints(tmp_path / state) and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(number)
        return process.wait(timeout=300)


@pytest.mark.parametrize("changes", [{}, {"discriminator_steps": 3, "generator_batch": "shared", "total_kimg": 2.88}])
def test_killed_stopped_damaged_or_never_stopped_the_bytes_are_the_same(
    store: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert train(tmp_path, "whole", "state-0", **changes).returncode == 0
    expected = digest(tmp_path / "whole")

    # SIGKILL leaves a checkpoint; the next run goes on from it.
    killed = stop_after(tmp_path, "killed", "state-1", signal.SIGKILL, **changes)
    assert killed in (-signal.SIGKILL, 0)
    finished = train(tmp_path, "killed", "state-1", **changes)
    assert finished.returncode == 0 and digest(tmp_path / "killed") == expected

    # SIGTERM saves the present step and says: resume me.
    code = stop_after(tmp_path, "preempted", "state-2", signal.SIGTERM, **changes)
    assert code in (75, 0)
    left = checkpoints(tmp_path / "state-2")
    if code == 75:
        # The newest checkpoint is damaged as by a full disk: the one before it serves.
        left[-1].write_bytes(left[-1].read_bytes()[:-100])
    finished = train(tmp_path, "preempted", "state-2", **changes)
    assert finished.returncode == 0 and digest(tmp_path / "preempted") == expected
    assert code == 0 or "is damaged; falling back" in finished.stderr
    assert len(checkpoints(tmp_path / "state-2")) == 1  # a larger budget can go on from it

    # Ctrl-C is SIGINT: 130, one sentence, and the work is kept.
    interrupted = stop_after(tmp_path, "interrupted", "state-3", signal.SIGINT, **changes)
    assert interrupted in (130, 0) and any((killed, code, interrupted))  # one at least was stopped half-way
    if interrupted:
        said = (tmp_path / "interrupted.said").read_text().splitlines()[-1]
        assert re.fullmatch("train: interrupted; the work .*is saved, run it again to go on", said)
    assert train(tmp_path, "interrupted", "state-3", **changes).returncode == 0
    assert digest(tmp_path / "interrupted") == expected


def test_what_a_run_leaves(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))
    config = build(TrainConfig, SMALL, "train")
    summary = run(config, images=store, passed=tmp_path / "passed.json", out=tmp_path / "train")
    assert summary.results["steps"] == 60 and summary.results["images"] == 60
    generator = json.loads((tmp_path / "train" / "generator" / "generator.json").read_text())
    assert generator["classes"] == ["left", "right"] and generator["step"] == 60 and generator["licence"] == "CC0-1.0"
    assert sum(generator["prior"]) == pytest.approx(1)
    weights = load_file(tmp_path / "train" / "generator" / "generator.safetensors")
    assert sum(w.size for w in weights.values()) == summary.results["parameters"]["generator"]
    curves = (tmp_path / "train" / "curves.csv").read_text().splitlines()
    assert curves[0].startswith("step,kimg,loss_d")
    assert [line.split(",")[0] for line in curves[1:]] == ["20.0", "40.0", "60.0"]
    assert {"samples-000000.480.png", "samples-000000.960.png", "samples.png"} <= set(summary.outputs)
    with (
        Image.open(tmp_path / "train" / "samples.png") as grid,
        Image.open(tmp_path / "train" / "progress.png") as sheet,
    ):
        assert grid.size == (10 * 58 + 2, 8 * 58 + 2) and sheet.width > grid.width  # five columns of each class
    (log,) = (tmp_path / "state").glob("train/*/log.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 40, 60]
    assert all(line["images_per_second"] > 0 and 0 <= line["waiting_for_data"] <= 1 for line in lines)
    assert all(10 < line["memory_mib"] < 100_000 for line in lines)


@pytest.mark.parametrize(
    ("classes", "columns"), [(0, 10), (1, 10), (2, 10), (3, 9), (4, 8), (6, 12), (7, 7), (10, 10), (20, 20), (21, 10)]
)
def test_a_grid_has_about_ten_columns_and_as_many_of_each_class(classes: int, columns: int) -> None:
    assert columns_for(classes) == columns


def test_a_run_learns_which_side_is_bright(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))
    longer = {"total_kimg": 6.4, "checkpoint_kimg": 6.4, "snapshot_kimg": 6.4}
    config = build(TrainConfig, SMALL | longer, "train")
    (tmp_path / "state").mkdir()
    training = Run(config, open_store(store), tmp_path / "state", ALONE)
    training.to_the_end()
    images = samples(training, 64).astype(float)[..., 0]
    brighter_left = images[:, :, :4].mean(axis=(1, 2)) > images[:, :, 4:].mean(axis=(1, 2))
    assert (brighter_left == (np.arange(64) % 2 == 0)).mean() > 0.95


def test_seeds_and_settings_name_other_work(store: Path) -> None:
    opened = open_store(store)
    changes: list[dict[str, Any]] = [{}, {"seed": 4}, {"lr": 0.003}, {"threads": 2}, {"snapshot_kimg": 0.16}]
    keys = [key(trajectory(build(TrainConfig, SMALL | change, "train"), opened)) for change in changes]
    assert len(set(keys)) == len(changes)
    other = dataclasses.replace(opened, info=opened.info | {"data_hash": "of one image more"})
    assert key(trajectory(build(TrainConfig, SMALL, "train"), other)) not in keys
    budget = build(TrainConfig, SMALL | {"total_kimg": 1.2, "checkpoint_kimg": 0.32}, "train")
    assert key(trajectory(budget, opened)) == keys[0]


def test_a_larger_budget_goes_on_and_a_smaller_one_leaves_the_work_alone(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def trained(out: str, state: str, kimg: float) -> str:
        caplog.clear()
        monkeypatch.setenv("GANOPS_STATE", str(tmp_path / state))
        config = build(TrainConfig, SMALL | {"total_kimg": kimg}, "train")
        run(config, images=store, passed=tmp_path / "passed.json", out=tmp_path / out)
        return digest(tmp_path / out)

    larger, shorter = 1.2, 0.4  # 75 and 25 steps; neither ends on a step of the log
    expected = trained("larger", "state-1", larger), trained("shorter", "state-2", shorter)
    trained("first", "state", 0.96)
    assert trained("second", "state", larger) == expected[0] and "going on from step 60 of 75" in caplog.text
    assert trained("third", "state", shorter) == expected[1]
    assert trained("fourth", "state", larger) == expected[0] and "this work is finished already" in caplog.text


def test_other_settings_start_afresh_and_say_what_differs(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))
    caplog.set_level("INFO")
    for change in ({}, {"lr": 0.004, "seed": 5}):
        config = build(TrainConfig, SMALL | {"total_kimg": 0.32} | change, "train")
        run(config, images=store, passed=tmp_path / "passed.json", out=tmp_path / "out")
    name = key(trajectory(build(TrainConfig, SMALL, "train"), open_store(store)))
    assert f"starting afresh, since this is other work than {name}: seed 3 -> 5; lr 0.002 -> 0.004" in caplog.text


def test_images_that_were_not_validated_are_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "passed.json").write_text(json.dumps({"format": 1, "data_hash": "other", "passed": True}))
    refused = train(tmp_path, "out", "state")
    assert refused.returncode == 1 and not (tmp_path / "out").exists()
    assert refused.stderr == (
        f"train: {tmp_path}/passed.json does not say that the images in {tmp_path}/ingest passed; "
        "run `python -m stages.validate`\n"
    )


def test_a_verdict_that_is_not_passed_is_refused(store: Path, tmp_path: Path) -> None:
    config, passed = build(TrainConfig, SMALL, "train"), tmp_path / "passed.json"
    for content in ({"data_hash": "h", "passed": False}, {"data_hash": "h"}, {"passed": True}):
        passed.write_text(json.dumps({"format": 1} | content))
        with pytest.raises(ValueError, match="does not say that the images in"):
            run(config, images=store, passed=passed, out=tmp_path / "out")


def test_killed_while_it_prunes_checkpoints_a_run_still_ends_with_the_same_bytes(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))
    short = {"total_kimg": 0.48}  # 30 steps: three checkpoints, of which two are kept while it trains and one after
    config, passed = build(TrainConfig, SMALL | short, "train"), tmp_path / "passed.json"
    unlink, left = Path.unlink, [0]

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("checkpoint"):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
        unlink(path, missing_ok=missing_ok)

    expected = run(config, images=store, passed=passed, out=tmp_path / "whole").outputs
    for done in range(2):
        shutil.rmtree(tmp_path / "state")
        left[0] = done
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Path, "unlink", killed)
            run(config, images=store, passed=passed, out=tmp_path / "killed")
        assert run(config, images=store, passed=passed, out=tmp_path / "again").outputs == expected


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Interrupted(signal.SIGINT)])
def test_interrupted_while_it_publishes_a_run_says_that_its_work_is_saved(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))

    def interrupted(*_: Any, **__: Any) -> None:
        raise stop

    config, passed = build(TrainConfig, SMALL | {"total_kimg": 0.32}, "train"), tmp_path / "passed.json"
    with monkeypatch.context() as patched, pytest.raises(WorkSaved) as ended:
        patched.setattr(_work, "write_networks", interrupted)
        run(config, images=store, passed=passed, out=tmp_path / "out")
    assert ended.value.said == "interrupted; the work up to the last checkpoint is saved, run it again to go on"
    with pytest.raises(WorkSaved) as told:  # by a launched process
        _explain({130, -signal.SIGTERM})
    assert told.value.said == ended.value.said


def test_divergence_stops_the_run_in_words(store: Path, tmp_path: Path) -> None:
    config = build(TrainConfig, SMALL, "train")
    training = Run(config, open_store(store), tmp_path, ALONE)
    with torch.no_grad():
        training.players.generator.image.bias.fill_(float("nan"))
    with pytest.raises(
        FloatingPointError, match="training diverged at step 1: weights are not finite; raise the gamma of r1"
    ):
        training.to_the_end()


def test_two_runs_of_the_same_work_do_not_mix(store: Path, tmp_path: Path) -> None:
    arguments, env = command(tmp_path, "out", "state", total_kimg=160, checkpoint_kimg=0.16)
    with subprocess.Popen(arguments, env=env, cwd=PROJECT, stderr=subprocess.DEVNULL) as process:
        while not checkpoints(tmp_path / "state"):
            time.sleep(0.01)
        second = subprocess.run(arguments, env=env, cwd=PROJECT, capture_output=True, text=True, check=False)
        process.kill()
    assert second.returncode == 1 and f"is in use by process {process.pid}" in second.stderr


@pytest.mark.fast
@pytest.mark.parametrize(
    ("kimg", "batch", "steps"),
    [(516.8, 64, 8075), (1025.6, 64, 16025), (1033.6, 64, 16150), (1.001, 1001, 1), (0.1, 16, 6), (128, 64, 2000)],
)
def test_no_step_of_the_budget_is_lost_to_floating_point(kimg: float, batch: int, steps: int) -> None:
    assert build(TrainConfig, SMALL | {"total_kimg": kimg, "batch": batch}, "train").steps == steps


@pytest.mark.fast
def test_the_default_section_is_sound() -> None:
    config = load_section(TrainConfig, PROJECT / "params.yaml", "train")
    assert [penalty.name for penalty in config.penalties] == ["r1", "r2"]
    with pytest.raises(ValueError, match="penalties must name each penalty once; received r1, r1"):
        build(TrainConfig, SMALL | {"penalties": [SMALL["penalties"][0]] * 2}, "train")
