"""Killed at random moments, again and again, a training ends with the bytes of one that was left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_killed_at_random_moments_the_bytes_are_the_same(tmp_path: Path, kills: int) -> None:
    script = Path(__file__).with_name("killed_trainings.py")
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(kills), "1"],
        env=env, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=600 + 60 * kills,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == kills and found["rollbacks"] == 1
    assert len(found["digests"]) > 1 and set(found["digests"]) == {found["digests"][0]}
