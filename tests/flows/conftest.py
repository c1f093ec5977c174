"""A tiny project with real DVC, real MLflow on sqlite and one real Prefect server for the whole session."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # for the tiny_*.py beside this file
from tiny_helpers import Runner, set_params
from tiny_world import ME, enter, sh

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
STAGES = ("ingest", "reference", "train", "export", "evaluate", "audit", "card")
CHECK = {"name": "distance", "source": "evaluate", "measure": "fid_domain", "op": "<=", "threshold": 2.0}
CHECK |= {"relative_to": "none", "required": True}
PARAMS: dict[str, Any] = {
    "train": {"quality": 1.0, "act": "work", "seed": 0},
    "export": {"name": "tiny", "arithmetic": "float16"},
    "card": {"quality": 0.5, "registrable": True, "checks": [CHECK]},
    "compare": {"margin": 0.15},
    "promote": {
        "compare_minutes": 10,
        "serving": {
            "python": None,
            "minutes": 10,
            "load_seconds": 120,
            "latency_ms": 10_000,
            "size_mb": 1,
            "levels": 1,
        },
        "approval": {"required": False, "hours": 1},
        "waivers": [],
    },
    "retrain": {
        "rounds": 3,
        "wait_minutes": 0.0,
        "retries": 2,
        "retry_seconds": 0.1,
        "elsewhere": None,
        "free_gb": 0.0,
        "budgets": [],
    },
}
DEPS = {
    "ingest": ["data/raw"],
    "reference": ["data/ingest"],
    "train": ["data/ingest"],
    "export": ["data/train"],
    "evaluate": ["data/export", "data/reference"],
    "audit": ["data/export"],
    "card": ["data/ingest", "data/export", "data/evaluate", "data/audit"],
}
TOOL_SETTINGS = ("GANOPS_", "MLFLOW_", "PREFECT_", "DVC_")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test starts without settings of the tools, and leaves none behind."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(TOOL_SETTINGS) and not name.startswith(("PREFECT_", "MLFLOW_DISABLE")):
            monkeypatch.delenv(name)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project with nothing run yet: our packages, tiny stages, a raw file, git and DVC."""
    project = tmp_path_factory.mktemp("with a space") / "project"
    project.mkdir()
    for package in ("flows", "stages", "gan", "consumer"):
        shutil.copytree(ROOT / package, project / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(project / "stages" / "compare", ignore_errors=True)
    shutil.copy(HERE / "tiny_compare.py", project / "stages" / "compare.py")
    (project / "stages" / "config" / "__main__.py").unlink()  # the settings of tiny stages are others
    shutil.rmtree(project / "stages" / "evaluate")
    shutil.copy(HERE / "tiny_evaluate.py", project / "stages" / "evaluate.py")
    shutil.copy(HERE / "tiny_stages.py", project)
    (project / "data" / "raw").mkdir(parents=True)
    (project / "data" / "raw" / "one.txt").write_text("1")
    (project / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    section = {name: [name] for name in ("train", "export", "card")}
    stages = {
        name: {
            "cmd": f"python tiny_stages.py {name}",
            "deps": DEPS[name],
            "outs": [f"data/{name}"],
            **({"params": section[name]} if name in section else {}),
        }
        for name in STAGES
    }
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (project / ".gitignore").write_text("__pycache__/\n/data/\n")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (
        ["git", "init", "-q"],
        [sys.executable, "-m", "dvc", "init", "-q"],
        ["git", "add", "."],
        [*git, "commit", "-qm", "start"],
    ):
        subprocess.run(command, cwd=project, check=True, env={**os.environ, "DVC_NO_ANALYTICS": "1"})
    return project


@pytest.fixture
def project(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bare project, which is the current folder; its state folder is its own."""
    copy = tmp_path / "project"
    shutil.copytree(bare, copy, symlinks=True)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def built(project: Path) -> Callable[..., Path]:
    """Write the data folders of the project without DVC, after changing params; returns the project."""
    from tiny_stages import build

    def make(raw: str = "1", **changes: Any) -> Path:
        (project / "data" / "raw" / "one.txt").write_text(raw)
        set_params(project, **changes)
        for stage in STAGES:
            build(stage, project)
        return project

    return make


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: making one takes seconds, copying it does not."""
    path = tmp_path_factory.mktemp("schema") / "mlflow.db"
    code = f"import mlflow; mlflow.MlflowClient('sqlite:///{path}').search_experiments()"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"})
    return path


@pytest.fixture
def state(project: Path, schema: Path) -> Path:
    """The settled state folder of the project, with an empty registry."""
    from flows.state import settle

    folder = settle()
    shutil.copy(schema, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    """Starts processes that have imported the flows already, for tests in which they are killed or run at once."""
    with Runner() as started:
        yield started


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """Address of a real Prefect server on a temporary database."""
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    os.environ["DO_NOT_TRACK"] = "1"
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=400):
        yield str(PREFECT_API_URL.value())


@pytest.fixture(scope="session")
def published(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project with its raw file in DVC, a git remote and a DVC remote, both named by relative paths."""
    world = tmp_path_factory.mktemp("a world")
    project = world / "project"
    shutil.copytree(bare, project, symlinks=True)
    shutil.copy(ROOT / ".gitignore", project)
    dvc = [sys.executable, "-m", "dvc"]
    (world / "store").mkdir()
    sh(project, *dvc, "add", "-q", "data/raw")
    sh(project, *dvc, "remote", "add", "-q", "-d", "store", "../store")
    sh(project, "git", "add", ".")
    sh(project, "git", *ME, "commit", "-qm", "data")
    sh(project, "git", "branch", "-M", "main")
    sh(world, "git", "init", "-q", "--bare", "origin.git")
    sh(project, "git", "remote", "add", "origin", "../origin.git")
    sh(project, "git", "push", "-q", "-u", "origin", "main")
    return world


@pytest.fixture
def clone(published: Path, tmp_path: Path, schema: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that world; its project is the current folder and has an empty registry."""
    return enter(published, tmp_path, schema, monkeypatch)
