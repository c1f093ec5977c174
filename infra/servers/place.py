"""Where the servers keep everything: one folder in the state folder, with its secrets and ports."""

import hashlib
import os
import pwd
import secrets
import socket
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.common.files import read_json, write_json
from stages.state import state_folder

PROJECT = Path(__file__).resolve().parents[2]
PORTS = ("store", "mlflow", "prefect")
SECRETS = ("mlflow_admin", "mlflow_user", "mlflow_pages", "prefect", "store_mlflow", "store_dvc", "store_names")


@dataclass(frozen=True, kw_only=True)
class Place:
    """The folders of one set of servers."""

    folder: Path
    """`servers/` of the state folder: data, logs, secrets; mode 0700."""
    sockets: Path
    """A private folder with a short name: the path of a Unix socket has at most 107 bytes."""
    database: Path
    """PostgreSQL's data and socket: below `folder` or, if root runs the servers, where the user postgres has access."""
    user: str
    """Name of the user who runs the servers."""

    @property
    def status(self) -> Path:
        """What the supervisor says about itself."""
        return self.folder / "status.json"

    @property
    def environment(self) -> Path:
        """The file that users source to use the servers."""
        return self.folder / "env"


def place() -> Place:
    """The servers' place, created if missing. Raises ValueError if it cannot be used."""
    folder = private(state_folder() / "servers")
    for line in ("\n", "'", "\\", "%", "$"):
        if line in str(folder):
            raise ValueError(
                f"the servers' folder {str(folder)!r} must not have {line!r} in its name; set GANOPS_STATE to another"
            )
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise ValueError(
            f"user {os.geteuid()} has no name on this machine; the servers need one (/etc/passwd)"
        ) from None
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:10]
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    if not os.access(runtime, os.W_OK) or len(str(runtime)) > 50:
        runtime = Path("/tmp")
    root = os.geteuid() == 0
    return Place(
        folder=folder,
        sockets=private(runtime / f"ganops-{os.geteuid()}-{digest}"),
        database=Path(f"/var/lib/postgresql/ganops-{digest}") if root else private(folder / "postgres"),
        user=user,
    )


def private(folder: Path) -> Path:
    """`folder`, created with mode 0700. Raises ValueError if it belongs to somebody else or is a link."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise ValueError(f"{folder} must be a folder of user {os.geteuid()}; move it away, then run this again")
    folder.chmod(0o700)
    return folder


def own_secrets(where: Place) -> dict[str, str]:
    """The secrets, generated at the first call and kept in `secrets.json` (mode 0600)."""
    path = where.folder / "secrets.json"
    kept: dict[str, Any] = read_json(path) if path.is_file() else {"format": 1}
    missing = {name: secrets.token_hex(24) for name in SECRETS if name not in kept}
    if missing:
        write_private(path, kept | missing)
    return {name: str(value) for name, value in (kept | missing).items()}


def write_private(path: Path, content: str | dict[str, Any]) -> Path:
    """Write a file that only its owner may read from the moment it exists."""
    before = os.umask(0o077)
    try:
        if isinstance(content, dict):
            write_json(path, content)
        else:
            path.unlink(missing_ok=True)
            path.write_text(content, encoding="utf-8")
    finally:
        os.umask(before)
    return path


def ports(where: Place) -> tuple[dict[str, int], list[str]]:
    """The ports, chosen free at the first call and kept from then on; and one sentence per port that had to move."""
    path = where.folder / "ports.json"
    kept = read_json(path) if path.is_file() else {"format": 1}
    chosen, notes = dict(kept), []
    for name in PORTS:
        if name not in kept:
            chosen[name] = _free(set(chosen.values()))
        elif not _bindable(kept[name]):
            chosen[name] = _free(set(chosen.values()))
            notes.append(
                f"port {kept[name]} of {name} is taken by another program: {name} moves to {chosen[name]}; "
                f"source {where.environment} again"
            )
    if chosen != kept:
        write_json(path, chosen)
    return {name: int(chosen[name]) for name in PORTS}, notes


def _free(taken: set[Any]) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
