"""A small project of real images under DVC, ingested by the real stage, with a page that shows them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from flows.state import settle
from infra.digits import encode_png

ROOT = Path(__file__).parents[2]
SHEET = (ROOT / "data" / "datasheet.yaml").read_text().split("# These images")[0]
PAGE = """
import json, pathlib, shutil
out = pathlib.Path("data/validate"); out.mkdir()
shutil.copy("data/ingest/images-00000.npy", out / "shown.npy")
info = json.loads(pathlib.Path("data/ingest/dataset.json").read_text())
results = {"data_hash": info["data_hash"]}
body = {"format": 1, "stage": "validate", "inputs": {}, "outputs": {}, "config": {}, "results": results}
(out / "summary.json").write_text(json.dumps(body))
"""
VICTIM = "0/8.png"


def sh(folder: Path, *command: str) -> None:
    env = {**os.environ, "DVC_NO_ANALYTICS": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "PYTHONPATH": str(ROOT)}
    program = (sys.executable, "-m", *command) if command[0] == "dvc" else command
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr


def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: str, **settings: str) -> Path:
    """A project whose raw data are under DVC, ingested, shown by a page, and pushed with its run cache to `remote`."""
    project = tmp_path / "a project"
    project.mkdir()
    dice = np.random.default_rng(3)
    for place in range(30):
        path = project / "data" / "raw" / str(place % 2) / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(dice.integers(0, 256, 64).astype(np.uint8).tobytes(), 8, 8))
    shutil.copy(project / "data" / "raw" / VICTIM, project / "data" / "raw" / "0" / "under another name.png")
    (project / "data" / "datasheet.yaml").write_text(SHEET)
    shutil.copy(ROOT / "data" / "erased.json", project / "data" / "erased.json")
    shutil.copy(ROOT / "params.yaml", project / "params.yaml")
    (project / "page.py").write_text(PAGE)
    ingest = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["ingest"]
    deps = [dep for dep in ingest["deps"] if dep.startswith("data/")]
    page = {"cmd": "python page.py", "deps": ["data/ingest"], "outs": ["data/validate"]}
    stages = {"ingest": {**ingest, "deps": deps}, "validate": page}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))
    settle()
    sh(project, "git", "init", "-q")
    sh(project, "dvc", "init", "-q")
    sh(project, "dvc", "remote", "add", "-d", "store", remote)
    for name, value in settings.items():
        sh(project, "dvc", "remote", "modify", "--local", "store", name, value)
    sh(project, "dvc", "add", "data/raw")
    sh(project, "dvc", "repro")
    sh(project, "dvc", "push", "--run-cache")
    return project


def holding(folders: list[Path], *needles: bytes) -> list[Path]:
    """Files below these folders that contain any of these bytes."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(needle in path.read_bytes() for needle in needles)]
