"""DVC as a subprocess: which stages are stale, and one `dvc repro` followed stage by stage.

There is one `dvc repro` for all stages, not one per stage: DVC decides about each stage from the files that the stages
before it have just written, so exactly the stages that really run are seen running, and its start-up is paid once.
"""

import contextlib
import json
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from flows.work.process import dvc_sentence, last_sentence, leashed
from flows.work.retry import Unavailable

DVC = (sys.executable, "-m", "dvc")
_RUNNING = re.compile(r"Running stage '(?P<name>[^']+)':$")  # a warning without a line end may precede it
_SKIPPED = re.compile(r"Stage '(?P<name>[^']+)' (?P<why>didn't change, skipping|is cached - skipping run)")


_NO_LOCK = "dvc.lock is not what DVC wrote (edited by hand, or cut off); run `git checkout dvc.lock`, then this again"
_EXIT = re.compile(r"exited with (?P<code>-?\d+)$")
_RESUME_ME = "75"
_KILLED = 256 - signal.SIGKILL  # the exit code of a leash that was killed
_SHELL_KILLED = 128 + signal.SIGKILL  # reported by a shell that waits for its command (dash)


class StageFailed(ValueError):
    """A stage ended with an error; the message is its own last sentence."""


class Resumable(Unavailable):
    """A stage saved its work and asks to be started again (exit code 75)."""


def stage_names(project: Path) -> list[str]:
    """The stages of dvc.yaml in their order. Raises ValueError if the project has no dvc.yaml."""
    path = project / "dvc.yaml"
    if not path.is_file():
        raise ValueError(f"{project} holds no dvc.yaml; run this in the project's folder")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return list(content["stages"])


def check_settings(project: Path) -> None:
    """Raises ValueError if a setting is wrong: before the first stage runs, not after the last."""
    if not (project / "stages" / "config" / "__main__.py").is_file():  # this commit has no such check
        return
    command = [sys.executable, "-m", "stages.config"]
    answer = subprocess.run(command, cwd=project, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if answer.returncode:
        raise ValueError(last_sentence(answer.stderr.splitlines()))


def check_lock(project: Path) -> None:
    """Raises ValueError if dvc.lock is not what DVC writes; DVC itself would accept a truncated one."""
    path = project / "dvc.lock"
    if not path.is_file():
        return
    try:
        stages = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
        whole = all(isinstance(stage["cmd"], str | list) and _digests(stage) for stage in stages.values())
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(_NO_LOCK)


def _digests(stage: dict[str, Any]) -> bool:
    """Whether everything that a stage read and wrote has a digest; an output without one was never finished."""
    items = [*stage.get("deps", ()), *stage["outs"]]
    return all(item.keys() & {"md5", "etag", "checksum"} for item in items)


def stale(project: Path) -> dict[str, Any]:
    """What `dvc status --json` finds changed, by stage or .dvc file. Raises ValueError if DVC refuses."""
    command = [*DVC, "status", "--json"]
    answer = subprocess.run(command, cwd=project, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if answer.returncode:
        if "dvc.lock' validation failed" in answer.stderr:
            raise ValueError(_NO_LOCK)
        raise ValueError(f"dvc status: {dvc_sentence(answer.stderr)}")
    return dict(json.loads(answer.stdout))


class Reproduction(contextlib.AbstractContextManager["Reproduction"]):
    """A running `dvc repro`: iterate over `stages()`, and `follow()` each before taking the next.

    It runs from the start, whether or not anybody follows it yet; when the block ends, none of its processes is alive.
    """

    def __init__(self, command: list[str], project: Path, held: int) -> None:
        self.states = dict.fromkeys(stage_names(project), "not reached")
        self.seconds = 0.0  # that the most recently followed stage took
        self._leash = contextlib.ExitStack()
        self._process = self._leash.enter_context(leashed(command, cwd=project, held=held))
        self._lines: queue.SimpleQueue[tuple[float, str | None]] = queue.SimpleQueue()
        self._last: deque[str] = deque(maxlen=50)
        self._begun: str | None = None
        self._now = time.monotonic()  # when the line read most recently was written
        self._stopped = False
        threading.Thread(target=self._read, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._leash.close()

    def _read(self) -> None:
        """Stamp the lines as they come: a stage may be done before anybody follows it."""
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError, OSError):  # the pipe was closed meanwhile
            for line in self._process.stdout:
                self._lines.put((time.monotonic(), line.rstrip()))
        self._lines.put((time.monotonic(), None))

    def stages(self) -> Iterator[str]:
        """Names of the stages that DVC runs, as each begins. Raises StageFailed if DVC fails between stages."""
        while self._begun is not None or self._advance(lambda _line: None):
            assert self._begun is not None
            yield self._begun

    def follow(self, log: Callable[[str], None], seconds: float | None = None) -> None:
        """Pass the running stage's lines to `log` until it ends; after `seconds` it is stopped.

        Raises StageFailed with its last sentence, Resumable if it saved its work and asks to be started again,
        Unavailable if it, or dvc, was killed from outside.
        """
        name, began, self._begun = self._begun, self._now, None
        assert name is not None
        self.states[name] = "failed"
        timer = threading.Timer(max(0.0, (seconds or 0) - (time.monotonic() - began)), self._stop)
        timer.daemon = True
        if seconds is not None:
            timer.start()
        try:
            self._advance(log)
        except ValueError:
            if self._stopped:
                raise StageFailed(
                    f"it was stopped after {(seconds or 0) / 60:.1f} minutes, its budget (retrain.budgets)"
                    "; what it saved is kept: raise the budget, and the next run goes on from there"
                ) from None
            raise
        finally:
            timer.cancel()
            self.seconds = self._now - began
        self.states[name] = "ran"

    def _stop(self) -> None:
        self._stopped = True
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _advance(self, log: Callable[[str], None]) -> bool:
        """Read on to the next stage that runs (true) or to the end of a successful `dvc repro` (false)."""
        while True:
            self._now, line = self._lines.get()
            if line is None:
                self._lines.put((self._now, None))  # further calls find the end again
                break
            if (match := _RUNNING.search(line)) and match["name"] in self.states:
                self._begun = match["name"]
                return True
            if (match := _SKIPPED.match(line)) and match["name"] in self.states:
                self.states[match["name"]] = "restored" if match["why"].startswith("is cached") else "cached"
            elif line:
                self._last.append(line)
                log(line)
        if code := self._process.wait():
            raise self._failure(code)
        self.states = {name: "cached" if state == "not reached" else state for name, state in self.states.items()}
        return False

    def _failure(self, code: int) -> ValueError:
        """Why `dvc repro` ended with `code`."""
        lines = list(self._last)
        codes = [match["code"] for line in lines if (match := _EXIT.search(line))]
        if codes[-1:] in ([str(-signal.SIGKILL)], [str(_SHELL_KILLED)]) or (
            not codes and code in (_KILLED, -signal.SIGKILL)
        ):
            who = "its process" if code > 0 and code != _KILLED else "dvc"
            return Unavailable(f"{who} was killed (signal 9), by a person or by the kernel because memory ran out")
        return (Resumable if codes[-1:] == [_RESUME_ME] else StageFailed)(last_sentence(lines))


def reproduce(project: Path, *, held: int, pull: bool = False, only: str | None = None) -> Reproduction:
    """`dvc repro` in `project`, on a leash.

    With `pull`, results that another machine pushed to the DVC remote are fetched instead of made again. With `only`,
    just that stage and those that lead to it are run, and files that `dvc.lock` names already need not be present.
    """
    options = [*(["--pull"] if pull else []), *(["--allow-missing", only] if only else [])]
    return Reproduction([*DVC, "repro", *options], project, held)
