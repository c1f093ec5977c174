"""Backup and restore: saved, destroyed, restored, compared. Real DVC remote, real MLflow, real PostgreSQL."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_helpers import night, repro, set_params

from flows.state import hold
from flows.tracking.registry import connect
from infra.servers.postgres import find_programs


def run(project: Path, *arguments: str) -> tuple[int, str]:
    """A process of its own: MLflow keeps its database open."""
    command = [sys.executable, "-W", "ignore", "-m", "flows.backup", *arguments]
    answer = subprocess.run(command, cwd=project, capture_output=True, text=True)
    return answer.returncode, answer.stdout + answer.stderr


def dvc(project: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout


pytestmark = pytest.mark.slow  # a dozen processes that import MLflow or DVC

HERE = Path(__file__).parent
NIGHT = """
from pathlib import Path
from tiny_helpers import night
from flows.state import settle
assert night(Path.cwd(), settle()).decision == "promoted"
"""
TELL = """
from flows.tracking.registry import connect
from flows.state import settle
registry = connect(settle(), "tiny")
print([(v.version, v.aliases, registry.intact(v), v.tags["decision"]) for v in registry.versions()])
"""


def told(project: Path) -> str:
    """What a new process finds in the registry: versions, aliases, whole bytes, decisions."""
    command = [sys.executable, "-W", "ignore", "-c", TELL]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def promoted(project: Path, state: Path) -> Path:
    """Two champions, one after the other; only the second one's data are in the working copy."""
    for quality in (1.0, 2.0):
        set_params(project, train__quality=quality)
        repro(project)
        assert night(project, state).decision == "promoted"
    return project


def test_what_was_destroyed_is_restored(promoted: Path, state: Path, tmp_path: Path) -> None:
    remote, folder = tmp_path / "remote", tmp_path / "backup"
    remote.mkdir()
    dvc(promoted, "remote", "add", "--local", "-d", "store", str(remote))
    dvc(promoted, "push", "--run-cache")
    first = Path(connect(state, "tiny").versions()[0].source.removeprefix("file://")) / "pipeline" / "dvc.lock"
    before, onnx = told(promoted), (promoted / "data" / "export" / "generator.onnx").read_bytes()
    with hold(state):
        code, said = run(promoted, "save", str(folder))
    assert (code, "another retrain holds" in said) == (1, True)
    code, said = run(promoted, "save", str(folder))
    assert code == 0, said
    assert run(promoted, "save", str(folder)) == (1, f"backup: {folder} exists; a backup goes into a new folder\n")

    for lost in (state / "artifacts", promoted / ".dvc" / "cache", remote, promoted / "data"):
        shutil.rmtree(lost)
    (state / "mlflow.db").write_bytes(b"no database any more")
    remote.mkdir()
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "registry.sqlite").write_bytes(b"half")
    code, said = run(promoted, "restore", str(damaged))
    assert code == 1 and "registry.sqlite is missing or damaged; nothing was restored" in said
    code, said = run(promoted, "restore", str(folder))
    assert code == 0, said
    assert "moved aside: mlflow.db.before-" in said
    assert told(promoted) == before
    dvc(promoted, "checkout")
    assert (promoted / "data" / "export" / "generator.onnx").read_bytes() == onnx
    assert dvc(promoted, "status", "--cloud", "--json").strip() == "{}"
    shutil.copy(first, promoted / "dvc.lock")  # the former champion, whose data only the registry names
    dvc(promoted, "checkout", "data/train")
    assert '"quality": 1.0' in (promoted / "data" / "train" / "weights.txt").read_text()


def test_a_project_without_a_remote_is_saved_into_any_folder(project: Path, state: Path, tmp_path: Path) -> None:
    repro(project)
    assert night(project, state).decision == "promoted"
    before, folder = told(project), tmp_path / "Sicherung für Montag"
    code, said = run(project, "save", str(folder))
    assert code == 0, said
    (state / "mlflow.db").unlink()
    for lost in (state / "artifacts", project / ".dvc" / "cache", project / "data" / "export"):
        shutil.rmtree(lost)
    code, said = run(project, "restore", str(folder))
    assert code == 0, said
    assert told(project) == before
    dvc(project, "checkout", "data/export")
    assert (project / "data" / "export" / "generator.onnx").is_file()
    assert not (project / ".dvc" / "config.local").exists()


@contextlib.contextmanager
def cluster() -> Iterator[Path]:
    """A real PostgreSQL on a socket in a new folder; root's belongs to the user postgres, as PostgreSQL insists."""
    programs, folder = find_programs(), Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    user = {"user": "postgres"} if os.geteuid() == 0 else {}
    if user:
        shutil.chown(folder, "postgres")
    made = [programs / "initdb", "-D", folder / "data", "-U", "postgres", "--auth=trust", "--no-sync"]
    subprocess.run(made, check=True, cwd="/", stdout=subprocess.DEVNULL, **user)  # type: ignore[call-overload]
    command = [programs / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses="]
    with subprocess.Popen(command, cwd="/", stderr=subprocess.DEVNULL, **user) as process:  # type: ignore[call-overload]
        try:
            deadline = time.monotonic() + 120
            create = [programs / "createdb", "-h", folder, "-U", "postgres", "mlflow"]
            while subprocess.run(create, stderr=subprocess.DEVNULL).returncode:
                assert time.monotonic() < deadline
                time.sleep(0.3)
            yield folder
        finally:
            process.terminate()
            process.wait(60)
            shutil.rmtree(folder)


def test_a_registry_on_postgresql_is_restored(project: Path, state: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    with cluster() as socket:
        os.environ["MLFLOW_TRACKING_URI"] = f"postgresql+psycopg2://postgres@/mlflow?host={socket}"
        os.environ |= {"PGHOST": str(socket), "PGUSER": "postgres", "PGDATABASE": "mlflow"}
        try:
            repro(project)
            command = [sys.executable, "-W", "ignore", "-c", NIGHT]
            subprocess.run(command, cwd=project, check=True, env={**os.environ, "PYTHONPATH": str(HERE)})
            before = told(project)
            assert run(project, "save", str(folder))[1].startswith("backup: MLFLOW_TRACKING_URI names a server")
            code, said = run(project, "save", str(folder), "--postgres")
            assert code == 0, said
            destroy = [find_programs() / "psql", "-qc", "DROP TABLE model_version_tags, registered_model_aliases"]
            subprocess.run([str(part) for part in destroy], check=True)
            shutil.rmtree(project / "mlruns")
            direct, os.environ["MLFLOW_TRACKING_URI"] = os.environ["MLFLOW_TRACKING_URI"], "http://127.0.0.1:9"
            code, said = run(project, "restore", str(folder))
            assert code == 1 and "stop it and run this with --only database, then start it and run this" in said
            code, said = run(project, "restore", str(folder), "--only", "database")
            assert code == 0, said
            os.environ["MLFLOW_TRACKING_URI"] = direct
            code, said = run(project, "restore", str(folder), "--only", "files")
            assert code == 0, said
            assert told(project) == before
            assert "'champion'" in before
        finally:
            for name in ("PGHOST", "PGUSER", "PGDATABASE"):
                del os.environ[name]
