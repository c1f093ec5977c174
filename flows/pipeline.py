"""DVC as a subprocess: which stages are stale, and one `dvc repro` followed stage by stage.

One `dvc repro` for all stages, not one a stage: DVC decides each stage on the files that the stages before it have just
written, so exactly the stages that really run are seen running, and its start-up is paid once.
"""

import contextlib
import json
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from flows.process import last_sentence, leashed

DVC = (sys.executable, "-m", "dvc")
_RUNNING = re.compile(r"Running stage '(?P<name>[^']+)':")
_SKIPPED = re.compile(r"Stage '(?P<name>[^']+)' (?P<why>didn't change, skipping|is cached - skipping run)")


class StageFailed(ValueError):
    """A stage ended with an error; the message is its own last sentence."""


def stage_names(project: Path) -> list[str]:
    """The stages of dvc.yaml in their order. Raises ValueError where the project has none."""
    path = project / "dvc.yaml"
    if not path.is_file():
        raise ValueError(f"{project} holds no dvc.yaml; start `make retrain` in the project's folder")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return list(content["stages"])


def stale(project: Path) -> dict[str, Any]:
    """What `dvc status --json` finds changed, by stage or .dvc file. Raises ValueError where DVC refuses."""
    command = [*DVC, "status", "--json"]
    answer = subprocess.run(command, cwd=project, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if answer.returncode:
        raise ValueError(f"dvc status: {last_sentence(answer.stderr.splitlines())}")
    return dict(json.loads(answer.stdout))


class Reproduction:
    """A running `dvc repro`: iterate over `stages()`, and `follow()` each before taking the next."""

    def __init__(self, process: subprocess.Popen[str], names: list[str]) -> None:
        self.states = dict.fromkeys(names, "not reached")
        self._process = process
        self._last: deque[str] = deque(maxlen=50)
        self._begun: str | None = None

    def stages(self) -> Iterator[str]:
        """Names of the stages that DVC runs, as each begins. Raises StageFailed where DVC fails between stages."""
        while self._begun is not None or self._advance(lambda _line: None):
            assert self._begun is not None
            yield self._begun

    def follow(self, log: Callable[[str], None]) -> None:
        """Pass the running stage's lines to `log` until it ends. Raises StageFailed with its last sentence."""
        name, self._begun = self._begun, None
        assert name is not None
        self.states[name] = "failed"
        self._advance(log)
        self.states[name] = "ran"

    def _advance(self, log: Callable[[str], None]) -> bool:
        """Read on to the next stage that runs: true; to the end of a good `dvc repro`: false."""
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            line = raw.rstrip()
            if (match := _RUNNING.fullmatch(line)) and match["name"] in self.states:
                self._begun = match["name"]
                return True
            if (match := _SKIPPED.match(line)) and match["name"] in self.states:
                self.states[match["name"]] = "restored" if match["why"].startswith("is cached") else "cached"
            elif line:
                self._last.append(line)
                log(line)
        if self._process.wait():
            raise StageFailed(last_sentence(list(self._last)))
        self.states = {name: "cached" if state == "not reached" else state for name, state in self.states.items()}
        return False


@contextlib.contextmanager
def reproduce(project: Path, *, held: int) -> Iterator[Reproduction]:
    """`dvc repro` in `project`; when the block ends, no process of it is alive."""
    with leashed([*DVC, "repro"], cwd=project, held=held) as process:
        yield Reproduction(process, stage_names(project))
