"""The process that owns the servers: starts them in order, restarts what crashes, and stops them when it ends.

python -m infra.servers.supervisor          (started by `make up`, which reads what this writes to status.json)
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from infra.servers import leash, orchestration, tracking
from infra.servers.place import PROJECT, Place, own_secrets, place, ports, write_private
from infra.servers.postgres import postgres
from infra.servers.service import Service
from infra.servers.store import check, store
from stages.common.files import write_json

STOP_SECONDS = 25.0  # for a server, or a flow of the worker, to end by itself
START_SECONDS = 300.0
PAUSES = (1.0, 60.0)  # seconds before a restart: doubles per crash up to the second; reset after a quiet minute
LONGEST_LOG = 20_000_000  # bytes; a longer log is moved to .1 at the next start


@dataclass
class Running:
    """A service and its process."""

    service: Service
    state: str = "waiting"
    process: subprocess.Popen[bytes] | None = None
    since: float = 0.0
    restarts: int = 0
    pause: float = PAUSES[0]
    due: float = 0.0
    completed: bool = False


class Supervisor:
    """All services of one place."""

    def __init__(self, where: Place, held: int) -> None:
        self.held = held  # the lock, which the leashes keep too: it is free only when the last server has ended
        self.where, self.stopping, self.error, self.notes = where, False, "", list[str]()
        self.running: list[Running] = []
        private = where.folder / "logs"
        private.mkdir(mode=0o700, exist_ok=True)

    def run(self) -> int:
        """Run until told to stop; returns the exit code."""
        try:
            self.running = [Running(service) for service in self._services()]
            while not self.stopping:
                for each in self.running:
                    self._step(each)
                up = all(each.state == "up" for each in self.running)
                self._tell("up" if up else "starting")
                time.sleep(1.0 if up else 0.2)
        except (ValueError, OSError) as error:
            self.error = " ".join(str(error).split())
        self._tell("stopping")
        self._stop()
        self._tell("failed" if self.error else "down")
        return 1 if self.error else 0

    def _services(self) -> list[Service]:
        check()
        first = postgres(self.where)
        kept = own_secrets(self.where)
        chosen, self.notes = ports(self.where)
        settings = (
            {"GANOPS_STATE": str(self.where.folder.parent)}
            | {
                name: value
                for name, value in tracking.SETTINGS.items()
                if name.startswith(("DO_", "MLFLOW_DISABLE", "MLFLOW_ALLOW"))
            }
            | {name: value for name, value in orchestration.SETTINGS.items() if name.startswith("PREFECT_")}
            | tracking.client(chosen["mlflow"], kept)
            | orchestration.client(self.where, chosen["prefect"], kept)
        )
        text = "".join(f"export {name}='{value}'\n" for name, value in sorted(settings.items()))
        write_private(self.where.environment, "# Written by `make up`: source it to use its servers.\n" + text)
        keys = {"mlflow": kept["store_mlflow"], "dvc": kept["store_dvc"]}
        return [
            first,
            *store(self.where, chosen["store"], keys, kept["store_names"]),
            tracking.mlflow(self.where, chosen["mlflow"], kept),
            orchestration.server(self.where, chosen["prefect"], kept),
            orchestration.worker(self.where, chosen["prefect"], self.where.environment),
        ]

    def _step(self, each: Running) -> None:
        now = time.monotonic()
        if each.state == "waiting":
            up = {other.service.name for other in self.running if other.completed}
            if set(each.service.after) <= up:
                each.service.prepare()
                self._start(each)
        elif each.state == "restarting":
            if now >= each.due:
                self._start(each)
        elif each.process is not None and each.process.poll() is not None:
            self._crashed(each)
        elif each.state == "starting" and each.service.healthy():
            if not each.completed:
                each.service.complete()
                each.completed = True
            each.state = "up"
        elif each.state == "starting" and now - each.since > START_SECONDS and not each.completed:
            raise ValueError(f"{each.service.name} was not healthy after {START_SECONDS:.0f} s; see {self._log(each)}")
        elif each.state == "up" and now - each.since > 60:
            each.pause = PAUSES[0]

    def _start(self, each: Running) -> None:
        service, log = each.service, self._log(each)
        if log.is_file() and log.stat().st_size > LONGEST_LOG:
            log.replace(log.with_suffix(".log.1"))
        environment = clean_environment() | service.environment
        leashed = [sys.executable, "-I", "-S", str(Path(leash.__file__)), service.stop, str(STOP_SECONDS)]
        leashed.append(service.user or "-")
        with log.open("ab") as file:
            log.chmod(0o600)
            each.process = subprocess.Popen(
                [*leashed, *service.command],
                cwd=PROJECT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
                pass_fds=[self.held],
            )
        each.state, each.since = "starting", time.monotonic()

    def _crashed(self, each: Running) -> None:
        code = each.process.returncode if each.process else 0
        if not each.completed:
            said = last_line(self._log(each))
            raise ValueError(
                f"{each.service.name} ended with code {code} while starting: {said}; see {self._log(each)}"
            )
        for stray in leash.children() - {other.process.pid for other in self.running if other.process}:
            with contextlib.suppress(ProcessLookupError):  # strays whose leash was killed, so they became ours
                os.kill(stray, signal.SIGKILL)
        each.state, each.restarts, each.due = "restarting", each.restarts + 1, time.monotonic() + each.pause
        each.pause = min(2 * each.pause, PAUSES[1])

    def _stop(self) -> None:
        """Stop in reverse order: the worker before the servers that it needs, PostgreSQL last."""
        groups = [
            [each for each in self.running if each.service.name == "worker"],
            [each for each in self.running if each.service.name in ("mlflow", "prefect")],
            [each for each in self.running if each.service.name.startswith(("store", "postgres"))],
        ]
        for group in groups:
            alive = [each.process for each in group if each.process is not None]
            for process in alive:
                with contextlib.suppress(OSError):
                    assert process.stdin is not None
                    process.stdin.close()
            for process in alive:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(3 * STOP_SECONDS + 5)
            for each in group:
                each.state = "down"
        leash.end_children(1)

    def _log(self, each: Running) -> Path:
        return self.where.folder / "logs" / f"{each.service.name}.log"

    def _tell(self, phase: str) -> None:
        services = {
            each.service.name: {
                "state": each.state,
                "process": each.process.pid if each.process else None,
                "restarts": each.restarts,
                "address": each.service.address,
            }
            for each in self.running
        }
        said = {"format": 1, "supervisor": os.getpid(), "phase": phase, "error": self.error, "notes": self.notes}
        if (state := said | {"services": services}) != getattr(self, "_told", None):
            self._told = state
            write_json(self.where.status, state)


def clean_environment() -> dict[str, str]:
    """This process's environment without the tools' settings, which are meant for the user's own runs."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "PREFECT_", "AWS_", "PG", "DVC_", "GANOPS_"))
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    return kept | {"PATH": path, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    said = [" ".join(line.split()) for line in lines if line.strip()]
    return said[-1][:300] if said else "it said nothing"


@contextlib.contextmanager
def lock(where: Place, name: str, seconds: float = 0) -> Iterator[IO[str] | None]:
    """Hold a lock of the servers' folder: `supervisor`, or `servers`, which the leashes hold too.

    Yields its file, or None if another process still holds the lock after `seconds` of waiting.
    """
    deadline = time.monotonic() + seconds
    with (where.folder / f"{name}.lock").open("a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    yield None
                    return
                time.sleep(0.1)
        yield file


def main() -> int:
    """Lock the folder and run; exit code 0 if another supervisor does so already."""
    os.umask(0o077)
    where = place()
    with lock(where, "supervisor", 2) as alone:  # another process may be testing whether it is free
        if alone is None:
            return 0
        with lock(where, "servers", 4 * STOP_SECONDS) as held:  # after a kill -9 the old servers end first
            return _supervise(where, held)


def _supervise(where: Place, held: IO[str] | None) -> int:
    if held is None:
        raise SystemExit("servers of an earlier supervisor still run; find them with `ps` and kill them")
    ctypes.CDLL(None).prctl(leash.PR_SET_CHILD_SUBREAPER, 1)  # servers whose leash was killed become ours
    supervisor = Supervisor(where, held.fileno())

    def stop(*_: object) -> None:
        supervisor.stopping = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
