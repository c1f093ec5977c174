"""Raw data and remotes through DVC: a real OpenSSH server on a loopback port, with its own keys; `dvc import-url`."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_images import VICTIM, made, sh

from flows.erase import erase
from stages.common.files import sha256_file, tree_digests

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile {folder}/pid
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Port of a running server, and the folder with its keys."""
    assert SSHD is not None
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # needed for privilege separation if root runs sshd
    for name in ("host", "user", "stranger"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    (folder / "config").write_text(_CONFIG.format(port=port, folder=folder))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "config")], stderr=log)
    try:
        _wait(port, process, folder / "log")
        yield port, folder
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as answer:
                assert answer.recv(4) == b"SSH-"
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(log.read_text())


@pytest.mark.skipif(SSHD is None, reason="no OpenSSH server; apt-get install openssh-server")
def test_an_ssh_remote_takes_gives_back_and_forgets(
    server: tuple[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, keys = server
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    stored = tmp_path / "remote"
    url = f"ssh://{user}@127.0.0.1:{port}{stored}"
    project = made(tmp_path, monkeypatch, url, keyfile=str(keys / "user"))
    assert sum(path.is_file() for path in stored.rglob("*")) > 30

    before = tree_digests(project / "data")
    shutil.rmtree(project / ".dvc" / "cache")
    for name in ("raw", "ingest", "validate"):
        shutil.rmtree(project / "data" / name)
    sh(project, "dvc", "pull", "--run-cache")
    assert tree_digests(project / "data") == before

    content = (project / "data" / "raw" / VICTIM).read_bytes()
    sha256 = sha256_file(project / "data" / "raw" / VICTIM)
    done = erase(project, tmp_path / "state", sha256, "asked for", remove=True)
    assert {place["kind"] for place in done["places"]} >= {"cache", "run cache", "remote"}
    assert not [path for path in stored.rglob("*") if path.is_file() and content in path.read_bytes()]
    assert not list(stored.glob("runs/*/*/*")), "a run on it would bring it back"

    # With a key that the server does not know, the place is reported, not skipped.
    sh(project, "dvc", "remote", "modify", "--local", "store", "keyfile", str(keys / "stranger"))
    monkeypatch.setenv("SSH_AUTH_SOCK", "")
    again = erase(project, tmp_path / "state", sha256, None, remove=False)
    assert [place["where"] for place in again["places"] if "could not be searched" in place["what"]] == ["store"]
    refused = subprocess.run([sys.executable, "-m", "dvc", "push"], cwd=project, capture_output=True, text=True)
    assert refused.returncode != 0


def test_raw_data_may_come_by_import_url_and_follow_their_source(tmp_path: Path) -> None:
    project, source = tmp_path / "project", tmp_path / "source"
    project.mkdir()
    (source / "0").mkdir(parents=True)
    (source / "0" / "a.png").write_bytes(b"one")
    sh(project, "git", "init", "-q")
    sh(project, "dvc", "init", "-q")
    (project / "data").mkdir()
    sh(project, "dvc", "import-url", str(source), "data/raw")
    assert (project / "data" / "raw" / "0" / "a.png").read_bytes() == b"one"
    before = (project / "data" / "raw.dvc").read_text()
    (source / "0" / "b.png").write_bytes(b"two")
    sh(project, "dvc", "update", "--no-download", "data/raw.dvc")
    assert (project / "data" / "raw.dvc").read_text() != before, "what git sees, without fetching"
    sh(project, "dvc", "update", "data/raw.dvc")
    assert (project / "data" / "raw" / "0" / "b.png").read_bytes() == b"two"
