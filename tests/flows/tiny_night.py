"""The world of the night test: a tiny project under `make up`, who changes its data, and what goes wrong there."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml
from tiny_helpers import alive, set_params
from tiny_world import commit, sh

from flows.isolated import finished
from flows.work.repository import head, inputs
from infra.servers.service import ask
from tests.infra.conftest import Servers

ROOT = Path(__file__).parents[2]
PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]
KINDS = ("flow", "dvc", "trainer", "worker", "server", "database")
RED = 0.5  # what a candidate's quality must reach
OUTAGE_SECONDS = 40.0


class Night:
    """What happens in one night, told line by line. `contents` are the qualities that the data ever had."""

    def __init__(self, project: Path, servers: Servers) -> None:
        self.project, self.state, self.servers = project, servers.state, servers
        self.began, self.contents = time.monotonic(), list[float]()

    def say(self, text: str) -> None:
        """One line of the story; pytest shows it where the test fails."""
        print(f"{time.monotonic() - self.began:6.0f} s  {text}", flush=True)

    def wait(self, what: str, holds: Callable[[], Any], seconds: float) -> Any:
        """What `holds` returns as soon as it is true."""
        deadline = time.monotonic() + seconds
        while not (found := holds()):
            if time.monotonic() > deadline:
                self.tell_runs()
                raise AssertionError(f"not within {seconds:.0f} s: {what}")
            time.sleep(0.5)
        return found

    # Prefect

    def prefect(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Answer of Prefect's server, waited for where it is away."""
        key = {"user": "ganops", "password": self.servers.secrets()["prefect"]}
        url = f"{self.servers.url('prefect')}/api/{path}"

        def answered() -> Any:
            status, text = ask(url, body, method=method, seconds=20, **key)  # type: ignore[arg-type]
            assert status in (0, *range(200, 300), *range(500, 600)), text
            return (text,) if 200 <= status < 300 else None

        text = self.wait(f"an answer to {path}", answered, 180)[0]
        return json.loads(text) if text else None

    def runs(self) -> list[dict[str, Any]]:
        """All flow runs that were ever due, oldest first, each with the name of its deployment."""
        names = {item["id"]: item["name"] for item in self.prefect("deployments/filter", {})}
        found: list[dict[str, Any]] = []
        while page := self.prefect("flow_runs/filter", {"limit": 200, "offset": len(found)}):
            found += page
        due = [
            run | {"deployment": names.get(run["deployment_id"])} for run in found if run["state_name"] != "Scheduled"
        ]
        return sorted(due, key=lambda run: str(run["expected_start_time"]))

    def slots(self) -> int:
        """How many places of limited deployments and queues are taken."""
        return sum(int(item["active_slots"]) for item in self.prefect("v2/concurrency_limits/filter", {}))

    def tell_runs(self) -> None:
        """How all runs ended."""
        for run in self.runs():
            if run["deployment"] != "watch-data" or run["state_type"] not in ("COMPLETED", "CANCELLED"):
                message = (run["state"] or {}).get("message")
                began = (run["start_time"] or "-")[11:19]
                self.say(f"{run['deployment']} {run['name']} from {began}: {run['state_name']} {message or ''}")

    def command(self, *arguments: str) -> str:
        """What a command says in the clone, with the settings of the servers."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_"))}
        environment = kept | self.servers.settings()
        done = subprocess.run(arguments, cwd=self.project, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # the people

    def arrange(self) -> None:
        """The project's own deployments and automations, with shorter days."""
        plan = yaml.safe_load((ROOT / "prefect.yaml").read_text())
        by_name = {item["name"]: item for item in plan["deployments"]}
        for item in plan["deployments"]:
            item["work_pool"]["job_variables"] = {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}}
        by_name["retrain-on-data-change"]["triggers"][0]["schedule_after"] = 1
        by_name["retrain-nightly"]["schedules"] = [{"interval": 120, "slug": "nightly", "active": True}]
        by_name["watch-data"]["schedules"] = [{"interval": 30, "slug": "often", "active": True}]
        (self.project / "prefect.yaml").write_text(yaml.safe_dump(plan))
        automations = self.project / "flows" / "automations.yaml"
        automations.write_text(automations.read_text().replace("within: 300", "within: 75").replace("1800", "120"))
        self.command(sys.executable, "-m", "flows.automations")
        self.command(*PREFECT, "deploy", "--all")

    def change(self, quality: float) -> None:
        """Somebody commits other data, from which a generator of `quality` comes."""
        (self.project / "data" / "raw" / "two.txt").write_text(str(quality))
        sh(self.project, sys.executable, "-m", "dvc", "add", "-q", "data/raw")
        set_params(self.project, train__quality=quality)
        self.contents.append(quality)
        self.say(f"data of quality {quality} are commit {commit(self.project)[:8]}")

    def trained(self) -> bool:
        """Whether the newest commit is trained, registered and decided about."""
        try:
            return finished(self.project, self.state, inputs(self.project, head(self.project))) is not None
        except ValueError as error:
            self.say(f"asking the registry: {error}")
            return False

    def busy(self) -> int | None:
        """The process that trains."""
        for path in (self.state / "worktrees").glob("*/trainer.pid"):
            with suppress(OSError, ValueError):
                if alive(int(path.read_text())):
                    return int(path.read_text())
        return None

    # what goes wrong

    def kill(self, kind: str) -> None:
        """SIGKILL for one process of that kind, as soon as there is one."""
        process = self.wait(f"a {kind} to be killed", lambda: self._victim(kind), 120)
        os.kill(process, signal.SIGKILL)
        self.say(f"SIGKILL for the {kind}, process {process}")

    def _victim(self, kind: str) -> int | None:
        with suppress(OSError, ValueError, KeyError, IndexError, psutil.Error):
            if kind == "trainer":
                return self.busy()
            if kind == "flow":
                holder = int(json.loads((self.state / "retrain.lock").read_text())["process"])
                return holder if alive(holder) else None
            if kind == "dvc":
                return next(process.pid for process in self.own() if process.cmdline()[1:4] == ["-m", "dvc", "repro"])
            if kind == "database":
                return int((self.servers.folder / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
            return self._server({"server": "prefect"}.get(kind, kind))
        return None

    def _server(self, name: str) -> int:
        return int(psutil.Process(self.servers.status()["services"][name]["process"]).children()[0].pid)

    def own(self) -> list[psutil.Process]:
        """Processes that work in the clone or in a worktree of it, this one not counted."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid != os.getpid() and Path(process.cwd()).is_relative_to(self.project):
                    found.append(process)
        return found

    def registry_outage(self) -> None:
        """MLflow's server is away for a while: killed as often as it is started again."""
        self.say("the registry goes")
        deadline = time.monotonic() + OUTAGE_SECONDS
        while time.monotonic() < deadline:
            with suppress(OSError, KeyError, IndexError, psutil.Error):
                os.kill(self._server("mlflow"), signal.SIGKILL)
            time.sleep(0.5)
        self.say("the registry may come back")

    def full_disk(self) -> None:
        """The disk of the worktrees has not a byte left until a run has failed of it."""
        ballast, before = self.state / "worktrees" / "ballast", len(self._out_of_space())
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0" * 65536) or file.write(b"\0")
        self.say(f"the disk is full, {ballast.stat().st_size / 1e6:.0f} MB of it of no use")
        self.wait("a run that fails of it", lambda: len(self._out_of_space()) > before, 240)
        ballast.unlink()
        self.say("the disk has space again")

    def _out_of_space(self) -> list[str]:
        messages = [str((run["state"] or {}).get("message")) for run in self.runs()]
        return [message for message in messages if "No space left on device" in message]


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of 64 MB mounted on `folder`; false, and none, where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=64m,mode=0700", "tmpfs", str(folder)]
    mounted = bool(mount and unmount) and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run([str(unmount), "--lazy", str(folder)], check=True)


def qualities(dice: random.Random, count: int) -> list[float]:
    """A quality for each change of data: all different, one in four too low for the gate, and two that come back.

    Those that come back are last in their hour: they need no training, so nothing could be killed in it.
    """
    found = [round(dice.uniform(0.1, RED) if place % 4 == 3 else dice.uniform(RED, 2.0), 3) for place in range(count)]
    assert len(set(found)) == count
    found[11], found[17] = found[2], found[5]
    return found
