"""What a run may cost, and what is retried."""

import os
import time
from pathlib import Path

import pytest

from flows.work.budget import WINDOW, Meter, check, gpu_count, limit, spent
from flows.work.retry import Unavailable, patiently, pauses
from stages.config.retrain import Budget, RetrainConfig

pytestmark = pytest.mark.fast


def settings(*budgets: Budget, free_gb: float = 0.0) -> RetrainConfig:
    return RetrainConfig(
        rounds=1, wait_minutes=0, retries=3, retry_seconds=0.01, elsewhere=None, free_gb=free_gb, budgets=tuple(budgets)
    )


def budget(gpu_hours: float | None = None, minutes: float = 60) -> Budget:
    return Budget(stage="train", minutes=minutes, gpu_hours=gpu_hours)


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose driver lists two GPUs."""
    command = tmp_path / "bin" / "nvidia-smi"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho 'GPU 1: A (UUID: y)'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def used(state: Path, hours: float, ago: float = 0) -> None:
    """One run of `hours` that ended `ago` seconds ago."""
    Meter(state, "train").end()
    [path] = (path for path in (state / "spent").iterdir() if not path.name.startswith("0"))
    ended = time.time() - ago
    moved = path.rename(path.with_name(f"0{ended - hours * 3600:.3f}-train.json"))
    os.utime(moved, (ended, ended))


def test_of_mig_slices_a_stage_sees_one(tmp_path: Path, gpus: None) -> None:
    slices = "echo '  MIG 1g.10gb     Device  0: (UUID: MIG-a)'\necho '  MIG 1g.10gb     Device  1: (UUID: MIG-b)'\n"
    with (tmp_path / "bin" / "nvidia-smi").open("a") as listing:
        listing.write(slices)
    assert gpu_count() == 1


def test_gpu_hours_of_thirty_days_count_and_bound_the_next_run(tmp_path: Path, gpus: None) -> None:
    assert gpu_count() == 2
    assert (
        limit(budget(gpu_hours=4, minutes=100), tmp_path) == 6000
    )  # two hours on two GPUs, but 100 minutes of wall time
    used(tmp_path, hours=1)
    assert spent(tmp_path, "train") == pytest.approx(2, abs=1e-3)
    assert limit(budget(gpu_hours=4, minutes=600), tmp_path) == pytest.approx(3600, abs=5)
    used(tmp_path, hours=5, ago=WINDOW + 10)
    assert spent(tmp_path, "train") == pytest.approx(2, abs=1e-3)
    used(tmp_path, hours=1.5)
    with pytest.raises(ValueError, match=r"stage train has used its 4 GPU hours of the last 30 days"):
        check(settings(budget(gpu_hours=4)), ["train"], [tmp_path], tmp_path)


@pytest.mark.parametrize("content", ["", '{"format": 1}', '{"format": 1, "gpus": "two"}'])
def test_a_damaged_entry_is_refused_by_name(tmp_path: Path, gpus: None, content: str) -> None:
    used(tmp_path, hours=1)
    [path] = (tmp_path / "spent").iterdir()
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"^{path}"):
        check(settings(budget(gpu_hours=4)), ["train"], [tmp_path], tmp_path)


def test_without_gpu_only_wall_time_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    used(tmp_path, hours=9)
    assert limit(budget(gpu_hours=0.5), tmp_path) == 3600


def test_too_little_space_and_unknown_stages_are_refused_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"GB of free space, retrain.free_gb asks for 1e\+09"):
        check(settings(free_gb=1e9), ["train"], [tmp_path], tmp_path)
    with pytest.raises(ValueError, match=r"there is no stage 'train'; stages are ingest"):
        check(settings(budget()), ["ingest"], [tmp_path], tmp_path)


def test_only_what_is_away_is_tried_again_with_growing_pauses() -> None:
    waits, said, calls = pauses(settings()), list[str](), list[int]()
    assert waits == [0.01, 0.02, 0.04]

    def away() -> int:
        calls.append(1)
        if len(calls) < 4:
            raise Unavailable("the store does not answer")
        return 7

    assert patiently(away, waits, said.append) == 7
    assert said[-1] == "the store does not answer; trying again in 0.04 s"
    calls.clear()
    with pytest.raises(Unavailable):
        patiently(away, waits[:2], said.append)

    def wrong() -> None:
        calls.append(1)
        raise ValueError("the validation failed")

    calls.clear()
    with pytest.raises(ValueError, match="validation failed"):
        patiently(wrong, waits, said.append)
    assert len(calls) == 1
