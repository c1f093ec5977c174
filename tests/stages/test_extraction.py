"""Extraction shared out by real torchrun processes: the same bytes for 1, 2 and 3 of them; one that dies ends all."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from gan.ranks import Ranks, joined
from stages.extraction import blocks, extract, open_entry
from tests.stages.torchrun_extract import COUNTS, images, main

PROJECT = Path(__file__).parents[2]
PROGRAM = PROJECT / "tests" / "stages" / "torchrun_extract.py"


def torchrun(processes: int, *arguments: object, limit: float = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    env = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [*command, *map(str, arguments)], env=env, capture_output=True, text=True, timeout=limit, check=False
    )


def test_results_are_byte_identical_for_every_number_of_processes(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    main(tmp_path, "none")
    torch.set_num_threads(threads)
    for processes in (2, 3):
        ran = torchrun(processes, PROGRAM, tmp_path, "late")
        assert ran.returncode == 0, ran.stderr
    for count in COUNTS:
        whole = np.load(tmp_path / f"1-{count}.npz", allow_pickle=False)
        assert whole["features"].shape == (count, 40) and whole["odds"].shape == (count, 7)
        assert count == 1 or whole["features"].std(axis=0).mean() > 1e-3
        for processes in (2, 3):
            other = np.load(tmp_path / f"{processes}-{count}.npz", allow_pickle=False)
            assert all(other[name].tobytes() == whole[name].tobytes() for name in ("features", "odds"))


def test_a_process_that_dies_ends_the_others_with_its_own_reason(tmp_path: Path) -> None:
    started = time.monotonic()
    ran = torchrun(2, PROGRAM, tmp_path, "dies", limit=120)
    assert ran.returncode != 0 and time.monotonic() - started < 100
    assert "image 48 cannot be drawn" in ran.stderr
    assert not (tmp_path / "2-70.npz").exists()


def test_alone_it_needs_no_torchrun() -> None:
    class Level:
        key = "level"

        def __call__(self, x: np.ndarray) -> tuple[np.ndarray, None]:
            return x.reshape(len(x), -1)[:, :2].astype(np.float32), None

    with joined() as ranks:
        assert ranks == Ranks(0, 1) and ranks.told({"a": 1}) == {"a": 1}
        found = extract(images, 10, Level(), ranks=ranks, batch=4)
        assert found is not None
        assert np.array_equal(found[0], images(0, 10).reshape(10, -1)[:, :2]) and found[1] is None
        starts = [(start, len(part)) for start, part, _ in blocks(images, 10, Level(), ranks=ranks, batch=4)]
        assert starts == [(0, 4), (4, 4), (8, 2)]
        with pytest.raises(ValueError, match="at least one image and a batch of at least 1"):
            extract(images, 0, Level(), ranks=ranks)


def test_an_extractor_without_its_file_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))
    command = "reference.weights vgg16 --resize legacy_tf`.*--from FILE"
    with pytest.raises(ValueError, match=f"weights of vgg16 are not at w.pth.*{command}"):
        open_entry("vgg16", "legacy_tf", "w.pth", "a" * 64)
