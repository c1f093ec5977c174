"""The servers of `make up`, started once for all tests of a module, and the tiny project of the flows' tests."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.servers import launch
from infra.servers.postgres import find_programs
from infra.servers.store import check
from stages.common.files import read_json
from tests.flows.conftest import bare, built, environment, project  # noqa: F401

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Servers:
    """One set of servers, and how to command it."""

    state: Path

    def command(self, what: str, seconds: float = 700) -> subprocess.CompletedProcess[str]:
        """`make up` or `make down`, as the Makefile runs it."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PREFECT_"))}
        return subprocess.run(
            [sys.executable, "-m", "infra.servers", what],
            cwd=ROOT,
            env=kept | {"GANOPS_STATE": str(self.state)},
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    @property
    def folder(self) -> Path:
        return self.state / "servers"

    def status(self) -> dict[str, Any]:
        return read_json(self.folder / "status.json")

    def secrets(self) -> dict[str, str]:
        return {name: value for name, value in read_json(self.folder / "secrets.json").items() if name != "format"}

    def settings(self) -> dict[str, str]:
        """What a user has who sourced the file `env`."""
        return launch.read(self.folder / "env")

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{read_json(self.folder / 'ports.json')[name]}"

    def remove(self) -> None:
        """Stop all, and take away what lies outside the test's folder."""
        with suppress(subprocess.TimeoutExpired):
            self.command("down", 120)
        with suppress(OSError, ValueError, KeyError):
            os.kill(self.status()["supervisor"], signal.SIGKILL)
        outside = self.folder / "postgres", self.folder / "store" / "sockets"
        for link in outside:
            if link.is_symlink():
                shutil.rmtree(link.resolve(), ignore_errors=True)


def need_packages() -> None:
    """Skip where the Debian packages are missing."""
    try:
        find_programs()
        check()
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """All servers, up and healthy, in a folder with a space in its name."""
    need_packages()
    made = Servers(tmp_path_factory.mktemp("state of servers"))
    try:
        answer = made.command("up")
        if answer.returncode:
            logs = "\n".join(f"{log}\n{log.read_text()[-2000:]}" for log in (made.folder / "logs").glob("*.log"))
            pytest.fail(f"{answer.stderr}\n{logs}")
        yield made
    finally:
        made.remove()
