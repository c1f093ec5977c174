"""Several processes train together: the same curve, one voice, and an end in bounded time when one of them dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from stages.common.command import ResumeLater
from stages.train._launch import _explain
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


def start(home: Path, out: str, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command], env=environment(home, out), cwd=PROJECT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def until_checkpoint(home: Path, out: str, after: str = "") -> None:
    """Wait for a checkpoint that sorts behind the name `after`."""
    deadline = time.monotonic() + 120
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


def test_two_processes_follow_one_and_a_killed_one_is_resumed_by_another_number(home: Path) -> None:
    alone = start(home, "alone", *room(home, "alone", total_kimg=0.32))
    alone.communicate(timeout=120)
    assert alone.returncode == 0
    pair = start(home, "pair", *room(home, "pair", total_kimg=0.32, processes=2))
    said, complained = pair.communicate(timeout=120)
    assert pair.returncode == 0 and said.count('"summary"') == 1, complained
    np.testing.assert_allclose(curve(home, "pair"), curve(home, "alone"), rtol=1e-3)

    # One of them is killed: the run ends soon, says so, and asks to be resumed.
    cut = start(home, "cut", *room(home, "cut", processes=2, **ENDLESS))
    until_checkpoint(home, "cut")
    os.kill(workers(cut.pid)[1], signal.SIGKILL)
    killed = time.monotonic()
    _, complained = cut.communicate(timeout=60)
    assert cut.returncode == 75 and time.monotonic() - killed < 30
    assert "a process of the run was killed (SIGKILL); run it again" in complained
    assert "Traceback" not in complained
    assert not (home / "cut").exists()

    # One process takes the work of two over; what it adds is where two would have gone.
    resumed = start(home, "cut", *room(home, "cut", total_kimg=1600, snapshot_kimg=1600))
    assert resumed.stderr
    line = resumed.stderr.readline()
    until_checkpoint(home, "cut", after=newest(home, "cut"))
    resumed.send_signal(signal.SIGTERM)
    resumed.communicate(timeout=60)
    assert "going on from step" in line and resumed.returncode == 75


def test_a_preempted_node_saves_in_all_processes(home: Path) -> None:
    run = start(home, "out", *room(home, "out", processes=2, **ENDLESS))
    until_checkpoint(home, "out")
    run.send_signal(signal.SIGTERM)
    _, complained = run.communicate(timeout=60)
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
    ends = [host.communicate(timeout=180) for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], ends
    assert sum(said.count('"summary"') for said, _ in ends) == 1
    alone = start(home, "alone", *room(home, "alone", total_kimg=0.32))
    alone.communicate(timeout=120)
    assert alone.returncode == 0
    np.testing.assert_allclose(curve(home, "out"), curve(home, "alone"), rtol=1e-3)


def test_a_batch_that_cannot_be_shared_is_refused(home: Path) -> None:
    for name, changes in (("odd", {"processes": 3}), ("parts", {"parts": 5})):
        run = start(home, name, *room(home, name, **changes))
        _, complained = run.communicate(timeout=120)
        assert run.returncode == 1 and "Traceback" not in complained
        assert "train.batch must be a multiple of the number of processes times train.parts" in complained


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


def test_one_bit_of_one_weight_is_noticed_by_every_process(tmp_path: Path) -> None:
    script = Path(__file__).with_name("torchrun_equal.py")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), str(tmp_path)]
    run = start(tmp_path, "out", *command)
    _, complained = run.communicate(timeout=120)
    assert run.returncode == 0, complained
    for rank in range(2):
        assert "hold different weights, so one of them computes wrongly" in (tmp_path / f"{rank}.txt").read_text()
