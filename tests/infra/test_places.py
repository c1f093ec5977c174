"""Secrets, ports and folders of the servers, without a server."""

import configparser
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from infra import secrets
from infra.servers import __main__ as command
from infra.servers import launch
from infra.servers.place import PORTS, own_secrets, place, ports, private
from infra.servers.postgres import find_programs

pytestmark = pytest.mark.fast


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder; sockets go below it too."""
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp")
    return tmp_path / "state"


def test_secrets_are_made_once_and_for_their_owner(state: Path) -> None:
    where = place()
    first = own_secrets(where)
    assert len(set(first.values())) == len(first)
    assert own_secrets(where) == first
    assert stat.S_IMODE((where.folder / "secrets.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(where.folder.stat().st_mode) == 0o700
    where.sockets.rmdir()


def test_a_taken_port_moves_and_says_so(state: Path) -> None:
    where = place()
    first, notes = ports(where)
    assert sorted(first) == sorted(PORTS)
    assert not notes
    assert ports(where) == (first, [])
    with socket.socket() as other:
        other.bind(("127.0.0.1", first["mlflow"]))
        other.listen()
        second, notes = ports(where)
    assert {name: second[name] for name in ("store", "prefect")} == {name: first[name] for name in ("store", "prefect")}
    assert notes == [
        f"port {first['mlflow']} of mlflow is taken by another program: mlflow moves to {second['mlflow']}; "
        f"source {where.environment} again"
    ]
    where.sockets.rmdir()


@pytest.mark.parametrize("name", ["it's", "100%", "a\\b", "$HOME"])
def test_a_name_that_configurations_cannot_hold_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / name))
    assert command.main(["up"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "in its name; set GANOPS_STATE to another" in said.err


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target").chmod(0o755)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(ValueError, match="must be a folder of user"):
        private(tmp_path / "link")
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o755


def test_postgres_that_is_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"PostgreSQL is not on this machine; install it \(Debian: apt-get"):
        find_programs(tmp_path)


def test_down_where_nothing_runs(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["down"]) == 0
    assert capsys.readouterr().out == "the servers are not running\n"
    place().sockets.rmdir()


def test_what_launch_sets_cannot_be_seen_from_outside(tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text("# a comment\nexport WORD='a secret'\nOTHER=two\n")
    assert launch.read(file) == {"WORD": "a secret", "OTHER": "two"}
    (tmp_path / "shows.py").write_text(
        "import os, pathlib, sys\n"
        "seen = pathlib.Path('/proc/self/environ').read_text() + pathlib.Path('/proc/self/cmdline').read_text()\n"
        "print(os.environ['WORD'], sys.argv[1:], 'a secret' in seen)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-m", "infra.servers.launch", str(file), "shows", "--yes"],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == "a secret ['--yes'] False\n"


def test_secrets_of_containers(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert secrets.main([]) == 0
    folder = state / "containers"
    assert capsys.readouterr().out == f"{folder}\n"
    content = {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
    assert all(stat.S_IMODE((folder / name).stat().st_mode) == 0o600 for name in content)
    users = configparser.ConfigParser()
    users.read_string(content["mlflow-users.ini"])
    assert users["mlflow"]["admin_username"] == "admin"
    for line in content["pgpass"].splitlines():
        role, password = line.split(":")[3:]
        assert f"CREATE ROLE {role} LOGIN PASSWORD '{password}';" in content["databases.sql"]
    assert launch.read(folder / "worker.env")["PREFECT_API_AUTH_STRING"] in content["prefect.env"]

    assert secrets.main([]) == 0
    assert {path.name: path.read_text() for path in folder.iterdir() if path.is_file()} == content
    (folder / "pgpass").unlink()
    assert secrets.main([]) == 1
    assert "lacks pgpass; restore them" in capsys.readouterr().err
