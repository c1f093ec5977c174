"""`make up` and `make down`: start this machine's servers and say where they are; stop them and keep their data.

    python -m infra.servers up | down

Exit codes: 0 they are up (or down), 1 they are not (with the reason), 2 wrong usage, 130 interrupted.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from infra.servers.place import PROJECT, Place, place
from infra.servers.supervisor import clean_environment, lock
from stages.common.files import read_json

UP_SECONDS, DOWN_SECONDS = 600.0, 180.0


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out `up` or `down`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.servers", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["up", "down"])
    what = parser.parse_args(argv).what
    os.umask(0o077)
    try:
        where = place()
        return up(where) if what == "up" else down(where)
    except KeyboardInterrupt:
        return _complain("interrupted; what was started keeps running until `make down`", 130)
    except (ValueError, OSError) as error:
        return _complain(" ".join(str(error).split()), 1)


def up(where: Place) -> int:
    """Start the supervisor if none runs, wait until every server is healthy, and print their addresses."""
    running = _held(where)
    began, process = time.monotonic(), None
    if not running:
        where.status.unlink(missing_ok=True)
        process = _start(where)
    seen: dict[str, str] = {}
    while time.monotonic() - began < UP_SECONDS:
        state = _status(where)
        for name, service in state.get("services", {}).items():
            if not running and seen.get(name) != service["state"] and service["state"] in ("starting", "up"):
                _note(f"{time.monotonic() - began:5.0f} s  {name} {service['state']}")
            seen[name] = service["state"]
        if state.get("phase") == "up":
            for note in state["notes"]:
                _note(note)
            _say(where, state)
            return 0
        if process is not None and process.poll() is not None and not _held(where):
            log = where.folder / "logs" / "supervisor.log"
            return _complain(_status(where).get("error") or f"the supervisor ended; see {log}", 1)
        if process is None and not _held(where):
            return _complain("the servers were stopped meanwhile; run `make up` again", 1)
        time.sleep(0.2)
    late = ", ".join(name for name, found in seen.items() if found != "up")
    return _complain(
        f"not up after {UP_SECONDS:.0f} s: {late}; see {where.folder / 'logs'}; `make down` stops the rest", 1
    )


def down(where: Place) -> int:
    """Stop the supervisor and with it all servers; their data stay."""
    if _held(where):
        process = int(_status(where).get("supervisor") or 0)
        if process:
            os.kill(process, signal.SIGTERM)
    elif not _held(where, "servers"):
        sys.stdout.write("the servers are not running\n")
        return 0
    deadline = time.monotonic() + DOWN_SECONDS
    while _held(where) or _held(where, "servers"):
        if time.monotonic() > deadline:
            raise ValueError(f"some servers still run after {DOWN_SECONDS:.0f} s; find them with `ps` and kill them")
        time.sleep(0.1)
    sys.stdout.write(f"the servers are stopped; their data stay in {where.folder}\n")
    return 0


def _start(where: Place) -> subprocess.Popen[bytes]:
    logs = where.folder / "logs"
    logs.mkdir(mode=0o700, exist_ok=True)
    environment = clean_environment() | {"GANOPS_STATE": str(where.folder.parent)}
    with (logs / "supervisor.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "infra.servers.supervisor"],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _held(where: Place, name: str = "supervisor") -> bool:
    with lock(where, name) as free:
        return free is None


def _status(where: Place) -> dict[str, Any]:
    return read_json(where.status) if where.status.is_file() else {}


def _say(where: Place, state: dict[str, Any]) -> None:
    lines = [
        f"  {name:<10}{service['address']}"
        for name, service in state["services"].items()
        if service["address"]
    ]  # fmt: skip
    text = "\n".join(lines).replace("store-proxy", "store     ")
    sys.stdout.write(
        f"{text}\n\nUse them:           . '{where.environment}'\n"
        f"Web passwords:      {where.folder / 'secrets.json'}"
        " (mlflow_admin for MLflow's user admin; for Prefect, ganops: followed by prefect)\n"
        f"Logs:               {where.folder / 'logs'}\n"
    )


def _note(text: str) -> None:
    sys.stderr.write(f"up: {text}\n")


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"servers: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
