"""Registries that are slow, full, closed to us, or on machines whose clocks are wrong."""

import json
import os
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError
from tiny_helpers import aliases, back, crown, enter

from flows.promotion.moves import history
from flows.state import settle
from flows.tracking.registry import connect, sentences
from flows.work.retry import Unavailable


def test_a_registry_that_accepts_and_never_answers_is_given_up(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        with pytest.raises(ValueError, match=r"the registry at http://127\.0\.0\.1:\d+ does not answer"), sentences():
            connect(settle(), "tiny").exists()


class Closed(BaseHTTPRequestHandler):
    """Stands in for MLflow's basic-auth app: its answer to a wrong password, word for word."""

    def do_GET(self) -> None:
        body = b"You are not authenticated. Please see https://www.mlflow.org/docs/latest/auth/index.html for details."
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="mlflow"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_wrong_credentials_are_named_and_never_printed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Closed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{server.server_port}")
        with pytest.raises(ValueError) as refusal, sentences():
            connect(settle(), "tiny").exists()
        server.shutdown()
    assert "does not accept these credentials; set MLFLOW_TRACKING_USERNAME" in str(refusal.value)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("address", ["http://me:secret@127.0.0.1:99999", "htp://me:secret@127.0.0.1:9"])
def test_addresses_that_are_none_are_told_without_their_password(
    project: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(ValueError, match="the registry at ") as refusal, sentences():
        connect(settle(), "tiny").exists()
    assert "secret" not in str(refusal.value)


def test_a_damaged_registry_is_one_sentence(state: Path) -> None:
    (state / "mlflow.db").write_bytes(b"no database " * 1000)
    with (
        pytest.raises(ValueError, match=r"the registry at sqlite://.* cannot be read or written: ") as refusal,
        sentences(),
    ):
        connect(state, "tiny").exists()
    assert "\n" not in str(refusal.value)


def test_a_registry_that_another_process_writes_to_is_asked_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sqlite's words, as they come through SQLAlchemy and as MLflow hands them on."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////somewhere/mlflow.db")
    words = OperationalError("UPDATE model_versions", {}, sqlite3.OperationalError("database is locked"))
    for error in (words, MlflowException(str(words))):
        with pytest.raises(Unavailable, match="is being written to by another process; run this again"), sentences():
            raise error


@pytest.fixture
def full(state: Path) -> Iterator[Path]:
    """The artifact store on a real file system of one megabyte that is full."""
    place = state / "artifacts"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a file system can only be mounted by root")
    try:
        with pytest.raises(OSError), (place / "ballast").open("wb", buffering=0) as file:
            while file.write(b"0" * 4096):
                pass
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_artifact_store_leaves_no_version_and_is_healed(
    built: Callable[..., Path], state: Path, full: Path
) -> None:
    project = built()
    with pytest.raises((ValueError, OSError), match="No space left on device"), sentences():
        enter(project, state)
    registry = connect(state, "tiny")
    assert not registry.exists()
    os.truncate(full / "ballast", 0)
    assert enter(project, state) == "1"
    assert registry.intact(registry.versions()[0])
    assert len(registry.client.search_runs([registry.experiment()])) == 1


def test_clocks_that_are_wrong_neither_block_nor_reorder(built: Callable[..., Path], state: Path) -> None:
    crown(built(), state)
    project = built(train__quality=2.0)
    crown(project, state)
    registry = connect(state, "tiny")
    key = max(key for key in registry.notes() if key.startswith("move."))
    ahead = {**json.loads(registry.notes()[key]), "time": "2999-01-01T00:00:00.000000Z", "host": "elsewhere"}
    registry.note(key, None)
    registry.note("move.2999-01-01T00:00:00.000000Z", json.dumps(ahead))  # made on a machine whose clock is ahead
    registry.note("intent", json.dumps(ahead))  # and its process has died
    assert back(project, state).startswith("version 1 of tiny is champion")
    moves = history(registry.notes())
    assert [move.kind for move in moves] == ["promotion", "promotion", "rollback"]
    assert moves[-1].time == "2999-01-01T00:00:00.000001Z"
    assert aliases(registry)["champion"] == "1"
    assert back(project, state).endswith("nothing was done; use --to VERSION to go further back")
