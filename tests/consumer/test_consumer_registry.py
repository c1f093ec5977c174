"""Generators by name, from a real embedded MLflow registry."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from consumer.registry import state_folder

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).with_name("fixtures") / "generator-format-1.onnx"
SHA256 = hashlib.sha256(FILE.read_bytes()).hexdigest()

# What flows/ does, in short: a version whose source is a folder of artifacts that holds generator.onnx.
REGISTER = """
import sys
from pathlib import Path
import mlflow
state, file, sha256 = sys.argv[1:]
mlflow.set_tracking_uri(f"sqlite:///{state}/mlflow.db")
client = mlflow.MlflowClient()
run = client.create_run(client.create_experiment("digits", artifact_location=Path(state, "artifacts").as_uri()))
client.log_artifact(run.info.run_id, file, "model")
client.create_registered_model("digits")
for tags in ({"onnx_sha256": sha256}, {}, {"onnx_sha256": "0" * 64}):
    client.create_model_version("digits", f"{run.info.artifact_uri}/model", run.info.run_id, tags=tags)
client.set_registered_model_alias("digits", "champion", "1")
"""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with three versions: whole, without its tag, and with the tag of another file."""
    folder = tmp_path_factory.mktemp("state")
    file = folder / "generator.onnx"
    shutil.copyfile(FILE, file)
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run([sys.executable, "-c", REGISTER, folder, file, SHA256], check=True, capture_output=True, env=quiet)
    return folder


def environment(state: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return kept | {"GANOPS_STATE": str(state)}


def consume(state: Path, model: str, out: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "consumer", "--model", model, "--count", "2", "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(state))


def fetched(state: Path, steps: str) -> list[str]:
    """Lines that `steps` print, with `fetch` and `state` at hand; one process, since importing mlflow takes seconds."""
    program = (
        "import sys; from pathlib import Path; from consumer.registry import fetch; state = Path(sys.argv[1])\n" + steps
    )
    command = [sys.executable, "-c", program, str(state)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(state))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_champion_draws(state: Path, tmp_path: Path) -> None:
    done = consume(state, "models:/digits@champion", tmp_path / "images.npy")
    assert done.returncode == 0, done.stderr
    assert "Downloading" not in done.stderr  # no bar where nobody looks on
    assert json.loads(done.stdout)["sha256"] == SHA256 and (tmp_path / "images.npy").is_file()


def test_a_file_is_fetched_once_and_verified_each_time(state: Path) -> None:
    kept = state / "consumer" / f"{SHA256}.onnx"
    steps = """
artifacts, aside = state / "artifacts", state / "aside"
kept = fetch("models:/digits@champion")
print(kept)
artifacts.rename(aside)  # the file that was kept still serves
print(fetch("models:/digits/1"))
aside.rename(artifacts)
kept.write_bytes(kept.read_bytes()[:-1])  # damaged, it is fetched again
print(fetch("models:/digits/1"))
"""
    assert fetched(state, steps) == [str(kept)] * 3
    assert kept.read_bytes() == FILE.read_bytes() and list(kept.parent.iterdir()) == [kept]


def test_what_cannot_be_trusted_is_refused(state: Path) -> None:
    expected = {
        "models:/digits@challenger": "models:/digits@challenger cannot be fetched: ",
        "models:/faces@champion": "models:/faces@champion cannot be fetched: ",
        "models:/digits/9": "models:/digits/9 cannot be fetched: ",
        "models:/digits/2": "models:/digits/2 is version 2, which carries no tag onnx_sha256; register it again",
        "models:/digits/3": f"was changed after registration: its SHA-256 is {SHA256}, but {'0' * 64} was registered",
    }
    steps = f"""
for model in {list(expected)!r}:
    try:
        print(fetch(model))
    except ValueError as error:
        print(error)
"""
    for line, sentence in zip(fetched(state, steps), expected.values(), strict=True):
        assert sentence in line
    assert not (state / "consumer" / f"{'0' * 64}.onnx").exists()


def test_a_state_folder_below_a_symbolic_link_serves(state: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(state, target_is_directory=True)
    steps = """
for kept in (state / "consumer").glob("*.onnx"):
    kept.unlink()
print(fetch("models:/digits@champion"))
"""
    assert fetched(link, steps) == [str(link / "consumer" / f"{SHA256}.onnx")]


def test_trouble_of_any_store_is_one_sentence_without_a_password(state: Path, tmp_path: Path) -> None:
    """A damaged database, a driver that is absent, a server that refuses, a file that is too large for ONNX."""
    (tmp_path / "mlflow.db").write_bytes(b"SQLite format 3\0" + b"damaged" * 999)
    steps = f"""
import os
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
def tell(tracking):
    os.environ["MLFLOW_TRACKING_URI"] = tracking
    try:
        print(fetch("models:/digits/1"))
    except ValueError as error:
        print(error)
tell("sqlite:///{tmp_path}/mlflow.db")
sys.modules["psycopg2"] = None
tell("postgresql://me:p@ss@127.0.0.1:9/mlflow")
tell("http://me:p@ss@127.0.0.1:9")
import consumer.registry
consumer.registry._LARGEST = 10
(state / "consumer" / "{SHA256}.onnx").unlink(missing_ok=True)
tell(f"sqlite:///{state}/mlflow.db")
"""
    damaged, driver, server, large = fetched(state, steps)
    assert damaged.startswith("models:/digits/1 cannot be fetched: ") and "file is not a database" in damaged
    assert driver == "models:/digits/1 lies in a store that needs psycopg2, which is not installed here"
    assert server.startswith("models:/digits/1 cannot be fetched: ") and "p@ss" not in server and "me:" not in server
    assert large == "generator.onnx of digits version 1 is larger than the 2 GiB of an ONNX file"


def test_no_registry_is_made_where_there_is_none(tmp_path: Path) -> None:
    done = consume(tmp_path, "models:/digits@champion", tmp_path / "images.npy")
    assert done.returncode == 1 and f"there is no registry at {tmp_path}/mlflow.db; run `make retrain`" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_state_folder_is_shared_by_worktrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GANOPS_STATE", raising=False)
    monkeypatch.chdir(tmp_path)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    project = tmp_path / "project"
    subprocess.run([*git, "init", "-q", project], check=True)
    subprocess.run([*git, "-C", project, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    subprocess.run([*git, "-C", project, "worktree", "add", "-q", tmp_path / "other"], check=True, capture_output=True)
    assert state_folder() == Path(".ganops")  # no git here
    for folder in (project, tmp_path / "other"):
        monkeypatch.chdir(folder)
        assert state_folder() == project / ".ganops"
    monkeypatch.setenv("GANOPS_STATE", "/elsewhere")
    assert state_folder() == Path("/elsewhere")
