"""A world of one project with a git remote and a DVC remote, both in folders beside it."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flows.state import settle
from flows.tracking.registry import connect

ENV = {"DVC_NO_ANALYTICS": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
ME = ["-c", "user.name=t", "-c", "user.email=t@example.org"]


def sh(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, **ENV})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(project: Path, text: str = "change") -> str:
    sh(project, "git", "add", "--update")
    sh(project, "git", *ME, "commit", "-qm", text)
    return sh(project, "git", "rev-parse", "HEAD")


def enter(published: Path, tmp_path: Path, schema: Path | None, monkeypatch: pytest.MonkeyPatch) -> Path:
    world = tmp_path / "a world"
    shutil.copytree(published, world, symlinks=True)
    monkeypatch.chdir(world / "project")
    monkeypatch.setenv("GANOPS_STATE", str(world / "project" / ".ganops"))  # other tests' processes have their own
    state = settle()
    if schema is not None:
        shutil.copy(schema, state / "mlflow.db")
    return world / "project"


def versions(project: Path) -> list[Any]:
    """What is registered by a project that keeps its state beside its data."""
    return connect(project / ".ganops", "tiny").versions()
