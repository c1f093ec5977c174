"""Several processes train together: the same curve, one voice, and an end in bounded time when one of them dies."""

import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from stages.common.command import ResumeLater
from stages.config import build, load_section
from stages.config.train import TrainConfig
from stages.train._launch import _explain, causes, launched
from stages.train._processes import joined
from tests.stages.small_training import small

PROJECT = Path(__file__).parents[2]
SHORT = {"total_kimg": 0.64, "snapshot_kimg": 0.32}  # 40 steps, a checkpoint every 10
ENDLESS = {"total_kimg": 1600, "snapshot_kimg": 1600}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a store of 60 train images without labels in `ingest/`, and its verdict."""
    folder = tmp_path / "ingest"
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8, 1)).astype(np.uint8)
    np.save(folder / "images-00000.npy", images)
    np.save(folder / "labels-00000.npy", np.full(60, -1))
    np.save(folder / "split-00000.npy", np.zeros(60, np.uint8))
    info = {
        "format": 1, "resolution": 8, "channels": 1, "classes": [], "attributes": {}, "counts": {"kept": 60},
        "data_hash": "h", "datasheet": {"name": "noise", "licence": "CC0-1.0"},
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(info))
    (tmp_path / "passed.json").write_text(json.dumps({"format": 1, "data_hash": "h", "passed": True}))
    return tmp_path


def room(home: Path, out: str, **changes: Any) -> list[str]:
    """The command of the room after the interpreter; settings and state are named after `out`."""
    params = home / f"{out}.yaml"
    params.write_text(yaml.safe_dump({"train": small(**SHORT | changes)}))
    options = {"images": home / "ingest", "passed": home / "passed.json", "params": params, "out": home / out}
    return ["-m", "stages.train", *(part for name, path in options.items() for part in (f"--{name}", str(path)))]


def environment(home: Path, out: str) -> dict[str, str]:
    return os.environ | {"GANOPS_STATE": str(home / f"state-{out}"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}


def start(home: Path, out: str, *command: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command], env=environment(home, out) | more, cwd=PROJECT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def until_checkpoint(home: Path, out: str, after: str = "") -> None:
    """Wait for a checkpoint that sorts behind the name `after`."""
    deadline = time.monotonic() + 300
    while newest(home, out) <= after:
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.05)


def newest(home: Path, out: str) -> str:
    return max((path.name for path in (home / f"state-{out}").glob("train/*/checkpoint-*")), default="")


def curve(home: Path, out: str) -> np.ndarray:
    """Rows of loss_d, gradients and loss_g; logits are left out, which a constant may shift without any consequence."""
    rows = np.genfromtxt(home / out / "curves.csv", delimiter=",", names=True)
    return np.stack([rows[name] for name in ("step", "loss_d", "gradient_real", "gradient_fake", "loss_g")])


def workers(parent: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


@pytest.mark.parametrize(
    "changes",
    [{"total_kimg": 0.32}, {"total_kimg": 0.96, "discriminator_steps": 3, "generator_batch": "shared"}],
)
def test_two_processes_follow_one(home: Path, changes: dict[str, Any]) -> None:
    alone = start(home, "alone", *room(home, "alone", **changes))
    alone.communicate(timeout=300)
    assert alone.returncode == 0
    pair = start(home, "pair", *room(home, "pair", processes=2, **changes))
    said, complained = pair.communicate(timeout=300)
    assert pair.returncode == 0 and said.count('"summary"') == 1, complained
    assert curve(home, "alone")[0] == 20
    # 60 updates are enough for a rounding to move a pre-activation across the bend of its ReLU on some processors.
    tolerance = 2e-2 if "discriminator_steps" in changes else 1e-3
    np.testing.assert_allclose(curve(home, "pair"), curve(home, "alone"), rtol=tolerance)


def test_a_killed_one_of_two_is_resumed_by_another_number(home: Path) -> None:
    # One of them is killed: the run ends soon, says so, and asks to be resumed.
    cut = start(home, "cut", *room(home, "cut", processes=2, **ENDLESS))
    until_checkpoint(home, "cut")
    os.kill(workers(cut.pid)[1], signal.SIGKILL)
    killed = time.monotonic()
    _, complained = cut.communicate(timeout=300)
    assert cut.returncode == 75 and time.monotonic() - killed < 30
    assert "a process of the run was killed (SIGKILL); run it again" in complained
    assert "Traceback" not in complained
    assert not (home / "cut").exists()

    # One process takes the work of two over; what it adds is where it would have gone alone.
    step = int(newest(home, "cut").split("-")[2])
    budget = {"total_kimg": (step + 40.5) * 16 / 1000, "snapshot_kimg": ENDLESS["snapshot_kimg"]}
    resumed = start(home, "cut", *room(home, "cut", **budget))
    _, said = resumed.communicate(timeout=300)
    assert resumed.returncode == 0 and f"going on from step {step} of {step + 40}" in said, said
    throughout = start(home, "throughout", *room(home, "throughout", **budget))
    throughout.communicate(timeout=300)
    assert throughout.returncode == 0
    assert curve(home, "cut")[0, -1] > step
    # Rounding grows with the steps, and their number with the machine's speed; lost moments would show by more.
    np.testing.assert_allclose(curve(home, "cut"), curve(home, "throughout"), rtol=1e-2)


def test_a_preempted_node_saves_in_all_processes(home: Path) -> None:
    run = start(home, "out", *room(home, "out", processes=2, **ENDLESS))
    until_checkpoint(home, "out")
    run.send_signal(signal.SIGTERM)
    _, complained = run.communicate(timeout=300)
    assert run.returncode == 75 and "Traceback" not in complained
    assert "stopped by SIGTERM; the work is saved" in complained
    assert workers(run.pid) == []


@pytest.mark.slow
def test_two_hosts_meet_under_torchruns_rendezvous(home: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    torchrun = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"]
    torchrun += [f"--rdzv-endpoint=localhost:{port}", "--rdzv-id=test", "--local-addr=localhost"]
    hosts = [start(home, "out", *torchrun, *room(home, "out", total_kimg=0.32)) for _ in range(2)]
    ends = [host.communicate(timeout=300) for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], ends
    assert sum(said.count('"summary"') for said, _ in ends) == 1
    alone = start(home, "alone", *room(home, "alone", total_kimg=0.32))
    alone.communicate(timeout=300)
    assert alone.returncode == 0
    np.testing.assert_allclose(curve(home, "out"), curve(home, "alone"), rtol=1e-3)


@pytest.mark.parametrize("apart", ["1", "0"])
def test_torchrun_restarts_from_the_checkpoint_with_a_store_of_its_own(home: Path, apart: str) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    settings = room(home, "out", total_kimg=9.6, snapshot_kimg=9.6)  # 600 steps, which last longer than a kill
    run = start(home, "out", *torchrun, *settings, TORCH_DISABLE_SHARE_RDZV_TCP_STORE=apart)
    until_checkpoint(home, "out")
    os.kill(workers(run.pid)[1], signal.SIGKILL)
    said, complained = run.communicate(timeout=300)
    if apart == "0":
        assert run.returncode == 1 and not (home / "out").exists(), complained
        assert "start torchrun with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in complained
    else:
        assert run.returncode == 0 and said.count('"summary"') == 1, complained
        assert "train: going on from step" in complained and curve(home, "out")[0, -1] == 600


def test_one_restarted_process_needs_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined() as processes:
        assert processes.world == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 and --rdzv-backend c10d"), joined():
        pass


def test_a_batch_that_cannot_be_shared_is_refused(home: Path) -> None:
    for name, changes in (("odd", {"processes": 3}), ("parts", {"parts": 5})):
        run = start(home, name, *room(home, name, **changes))
        _, complained = run.communicate(timeout=300)
        assert run.returncode == 1 and "Traceback" not in complained
        assert "train.batch must be a multiple of the number of processes times train.parts" in complained
        assert "SIGTERM" not in complained  # those that the launcher stopped before they said the same


def test_the_process_that_ended_first_is_named_and_not_those_that_the_launcher_stopped() -> None:
    for codes, named in (({-9, -15, 75}, "SIGKILL"), ({-11, -9, -15, 1}, "SIGKILL, SIGSEGV")):
        with pytest.raises(ResumeLater, match=rf"was killed \({named}\); run it again"):
            _explain(codes)
    for codes in ({-15}, {75}, {75, -15}):
        with pytest.raises(ResumeLater, match="stopped by SIGTERM; run it again"):
            _explain(codes)
    for codes in ({1, -15}, {1, 75}):
        with pytest.raises(ValueError, match="its own message stands above"):
            _explain(codes)
    with pytest.raises(KeyboardInterrupt):
        _explain({130, -15})


def test_processes_that_the_launcher_killed_half_a_minute_later_explain_nothing(tmp_path: Path) -> None:
    def failures(*ends: tuple[int, int]) -> list[ProcessFailure]:
        found = [ProcessFailure(rank, 1, code, str(tmp_path / "no file")) for rank, (code, _) in enumerate(ends)]
        for one, (_, second) in zip(found, ends, strict=True):
            one.timestamp = second
        return found

    assert causes(failures((-9, 130), (1, 100))) == {1}  # refused; the other waited in a kernel of NCCL for it
    assert causes(failures((-6, 131), (75, 131), (1, 100))) == {1, 75}
    assert causes(failures((1, 101), (-9, 100))) == {1, -9}  # killed; the other noticed


def test_a_batch_is_shared_by_as_many_gpus_as_it_can_be(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    started: list[int] = []

    def launch(settings: Any, _: str) -> Any:
        started.append(settings.nproc_per_node)
        return lambda *_: None

    monkeypatch.setattr("stages.train._launch.elastic_launch", launch)
    monkeypatch.setattr("stages.train._launch.read_summary", lambda _: None)
    for there, batch, expected in ((8, 64, [8]), (6, 64, [4]), (3, 64, [2]), (7, 63, [7]), (3, 25, [])):
        monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", lambda there=there: there)
        started.clear()
        launched(build(TrainConfig, small(processes=0, batch=batch), "train"), {}, out=home / "out")
        assert started == expected
    assert "train.batch 64 is shared out evenly by 4 of 6 GPUs; the others idle" in caplog.text


def test_launched_processes_read_the_very_settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(0)
    numbers = [5e-5, 1e-5, 1e16, 5e-324, sys.float_info.max, 0.1 + 0.2, 1.0]
    numbers += [math.ldexp(dice.random(), dice.randint(-1000, 1000)) for _ in range(100)]
    read: list[TrainConfig] = []

    def launch(*_: Any) -> Any:
        return lambda *call: read.append(load_section(TrainConfig, Path(call[call.index("--params") + 1]), "train"))

    monkeypatch.setattr("stages.train._launch.elastic_launch", launch)
    monkeypatch.setattr("stages.train._launch.read_summary", lambda _: None)
    names = {"init_from": "no", "selection_inputs": "1e-5: ä"}
    for number in numbers:
        small_one = min(number, 0.5)
        settings = small(processes=2, lr=small_one, lr_final=small_one, lr_kimg=number, gradient_clip=number, **names)
        config = build(TrainConfig, settings, "train")
        launched(config, {}, out=home / "out")
        assert read.pop() == config, number


def test_a_refusal_of_one_process_ends_all_at_once_and_is_no_resumption(home: Path) -> None:
    run = start(home, "full", *room(home, "full", processes=2, **ENDLESS))
    until_checkpoint(home, "full")
    state = next((home / "state-full").glob("train/*"))
    state.rename(state.with_name("away"))  # the first process cannot save any more, the second waits for it
    state.write_text("no folder")
    failed = time.monotonic()
    _, complained = run.communicate(timeout=300)
    assert run.returncode == 1 and time.monotonic() - failed < 30, complained
    assert "Not a directory" in complained and "Traceback" not in complained
    assert "a process of the run failed and the others were stopped; its own message stands above" in complained


def test_one_bit_of_one_weight_is_noticed_by_every_process(tmp_path: Path) -> None:
    script = Path(__file__).with_name("torchrun_equal.py")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), str(tmp_path)]
    run = start(tmp_path, "out", *command)
    _, complained = run.communicate(timeout=300)
    assert run.returncode == 0, complained
    for rank in range(2):
        assert "hold different weights, so one of them computes wrongly" in (tmp_path / f"{rank}.txt").read_text()
