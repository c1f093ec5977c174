"""The state folder, its lock, and the environment that the tools get."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.state import Busy, alone, hold, settle

pytestmark = pytest.mark.fast


def test_state_lies_beside_the_git_folder_and_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    folder = settle()
    assert folder == tmp_path / ".ganops"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert Path(os.environ["DVC_SITE_CACHE_DIR"]).stat().st_mode & 0o777 == 0o700
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{folder}/mlflow.db"
    status = subprocess.run(["git", "status", "--porcelain"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ".ganops" not in status.stdout


def test_what_the_user_set_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "mine"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    assert settle() == tmp_path / "mine"
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "home")
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_second_retrain_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from flows.state import hold\nwith hold(Path(sys.argv[1])): pass"
    again = [sys.executable, "-c", code, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with hold(tmp_path):
        refused = subprocess.run(again, capture_output=True, text=True, env=environment)
        assert refused.returncode == 1
        assert f"another retrain holds {tmp_path}/retrain.lock: process {os.getpid()}" in refused.stderr
    assert subprocess.run(again, env=environment).returncode == 0


def test_who_comes_second_is_told_that_somebody_is_busy(tmp_path: Path) -> None:
    with alone(tmp_path, "watch"), pytest.raises(Busy, match="another watch holds"), alone(tmp_path, "watch", 0):
        raise AssertionError("two at once")
    with alone(tmp_path, "watch", 0):
        pass
