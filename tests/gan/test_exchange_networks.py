"""Batch statistics, dropout, groups and augmentation of a batch that processes share: those of the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROJECT = Path(__file__).parents[2]
RUN = (
    "import sys, types, runpy; tests = types.ModuleType('tests'); tests.__path__ = ['tests']; "
    "sys.modules['tests'] = tests; "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)  # other packages in the environment may be called tests too


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, np.ndarray]]:
    """The same trainings by 1 and by 2 processes."""
    folder = tmp_path_factory.mktemp("networks")
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    found = {}
    for processes in (1, 2):
        out = folder / f"{processes}.npz"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command += ["--no-python", sys.executable, "-c", RUN, "tests/gan/shared_networks.py", str(out)]
        done = subprocess.run(command, env=env, cwd=PROJECT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with np.load(out) as content:
            found[processes] = dict(content)
    return found


@pytest.mark.parametrize("name", ["transposed", "resnet", "compared"])
def test_two_processes_follow_the_curve_of_one(runs: dict[int, dict[str, np.ndarray]], name: str) -> None:
    whole, shared = runs[1], runs[2]
    np.testing.assert_allclose(shared[f"{name}-curve"], whole[f"{name}-curve"], rtol=1e-9)
    scale = np.abs(whole[f"{name}-weights"]).max()
    np.testing.assert_allclose(shared[f"{name}-weights"], whole[f"{name}-weights"], rtol=0, atol=1e-9 * scale)
    assert whole[f"{name}-curve"][-1, 2] > 0  # the strength moved


def test_half_precision_is_shared_too(runs: dict[int, dict[str, np.ndarray]]) -> None:
    """Batch statistics are sums of many numbers, which bfloat16 has not the digits for.

    Roundings, others on each kind of processor, grow from step to step: in ten as far as bfloat16 is from float32.
    """
    whole, shared, wide = runs[1]["narrow-curve"], runs[2]["narrow-curve"], runs[1]["transposed-curve"]
    np.testing.assert_allclose(shared[:4, :2], whole[:4, :2], rtol=0.02)
    np.testing.assert_allclose(shared[:, :2], whole[:, :2], rtol=0.1)
    np.testing.assert_allclose(shared[:, :2], wide[:, :2], rtol=0.1)
