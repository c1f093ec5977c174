"""Helpers that several tests of the flows share."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from flows.promotion.judge import Decision
from flows.promotion.promote import carry_out, close, promote
from flows.rollback import rollback, run
from flows.state import alone, hold, serialised
from flows.tracking.evidence import read_candidate
from flows.tracking.register import register, run_facts
from flows.tracking.registry import Registry, connect
from flows.work.testbench import Testbench
from stages.config import load_section
from stages.config.promote import PromoteConfig

ROOT = Path(__file__).parents[2]


def enter(project: Path, state: Path, registry: Registry | None = None) -> str:
    """Register what lies in data/; its version."""
    candidate = read_candidate(project)
    return register(candidate, registry or connect(state, candidate.name), run_facts(project, {})).version


def night(project: Path, state: Path, registry: Registry | None = None) -> Decision:
    """Register what lies in data/ and decide about it."""
    candidate = read_candidate(project)
    registry = registry or connect(state, candidate.name)
    version = enter(project, state, registry)
    with hold(state) as held:
        return promote(candidate, version, registry, bench_of(project, state, held))


def repro(project: Path) -> None:
    """`dvc repro`, quietly."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, "-m", "dvc", "repro", "-q"]
    subprocess.run(command, cwd=project, check=True, env={**os.environ, "PATH": path})


def crown(project: Path, state: Path) -> None:
    """Register what lies in data/ and make it champion unseen: the move alone, without the tests that take seconds."""
    candidate = read_candidate(project)
    registry = connect(state, candidate.name)
    version, champion = enter(project, state, registry), registry.number("champion")
    earned = Decision(decision="promoted", reason="compared with nobody", champion=champion, best=version)
    with serialised(state) as held:
        bench = bench_of(project, state, held)
        carry_out(candidate, version, earned, registry, bench)
        close(version, registry, bench)


def back(
    project: Path, state: Path, reason: str = "users complained", to: str | None = None,
    registry: Registry | None = None,
) -> str:  # fmt: skip
    """Roll back, as the command does; what it said."""
    if registry is None:
        return run(project, state, reason, to, lambda _line: None)
    with alone(state, "rollback") as held:
        return rollback(registry, bench_of(project, state, held), reason, to)


def bench_of(project: Path, state: Path, held: int) -> Testbench:
    """Where candidates of `project` are put to the test, quietly."""
    config = load_section(PromoteConfig, project / "params.yaml", "promote")
    return Testbench(project=project, state=state, held=held, config=config, log=lambda _line: None)


def aliases(registry: Registry) -> dict[str, str]:
    """Where the aliases point."""
    found = {alias: registry.number(alias) for alias in ("champion", "previous", "challenger")}
    return {alias: number for alias, number in found.items() if number is not None}


class Runner:
    """A process that has imported the flows and forks one child for each act, as `tiny_runner.py` describes."""

    def __enter__(self) -> "Runner":
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("GANOPS_", "MLFLOW_"))}
        command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("tiny_runner.py"))]
        environment = {**kept, **quiet, "PYTHONPATH": str(ROOT)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, env=environment, text=True, **pipes)  # type: ignore[call-overload]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)

    def __call__(self, project: Path, *acts: dict[str, Any]) -> list[tuple[int, Any]]:
        """Run `acts` at once in `project`: for each its exit code, negative for a signal, and its answer."""
        self._process.stdin.write(json.dumps({"project": str(project), "acts": acts}) + "\n")
        self._process.stdin.flush()
        return [(code, answer) for code, answer in json.loads(self._process.stdout.readline())]


def set_params(project: Path, **changes: Any) -> None:
    """Change settings of params.yaml: `train__quality=2.0`."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    for name, value in changes.items():
        section, _, key = name.partition("__")
        params[section][key] = value
    (project / "params.yaml").write_text(yaml.safe_dump(params))


def alive(process: int) -> bool:
    """Whether the process runs; one that has ended but was not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(process: int, seconds: float = 10) -> bool:
    """Whether the process ends within `seconds`."""
    deadline = time.monotonic() + seconds
    while alive(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(process)
