"""The same batch on one process, on several, and in parts: the same training."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT, PROJECT = Path(__file__).with_name("shared_steps.py"), Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings of one global batch of 16 by 1, 2 and 4 processes, whole and in parts."""
    folder = tmp_path_factory.mktemp("shared")
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    for processes, parts in ((1, "1 4"), (2, "1 2"), (4, "1")):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command += [str(SCRIPT), str(folder), *parts.split()]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("shares", ["1x4", "2x1", "2x2", "4x1"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
@pytest.mark.parametrize("discriminator_steps", [1, 3])
def test_processes_and_parts_follow_the_curve_of_one_batch(
    runs: Path, discriminator_steps: int, dtype: str, tolerance: float, shares: str
) -> None:
    """In float32 as long as no rounding has moved a pre-activation across the bend of its ReLU: 20 steps of one update,
    5 of three."""
    kind = f"{dtype}-{discriminator_steps}"
    with np.load(runs / f"{kind}-1x1.npz") as whole, np.load(runs / f"{kind}-{shares}.npz") as shared:
        np.testing.assert_allclose(shared["curve"], whole["curve"], rtol=tolerance)
        scale = np.abs(whole["weights"]).max()
        np.testing.assert_allclose(shared["weights"], whole["weights"], rtol=0, atol=tolerance * scale)
