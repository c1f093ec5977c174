"""Commands that the flows start: on a leash, with their lines as they come."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

STOP_SECONDS = 20.0  # for a stage to save its work, between SIGTERM and SIGKILL
_LEASH = Path(__file__).with_name("leash.py")


@contextlib.contextmanager
def leashed(
    command: Sequence[str],
    *,
    cwd: Path,
    held: int,
    timeout: float | None = None,
    extra: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Start `command`; its stdout and stderr are one stream of text lines at `.stdout`.

    However the block ends, the command and all that it started have ended then. `held` is the descriptor of the flow's
    lock, which the leash keeps as long as the command lives; after `timeout` seconds the command is stopped. `extra` is
    added to its environment.
    """
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "120", **(extra or {})}
    environment["PATH"] = search_path()
    environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(int(STOP_SECONDS * 3 / 4))  # after it torch kills its own
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_LEASH), str(STOP_SECONDS), *command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        pass_fds=[held],
    )
    assert process.stdin is not None and process.stdout is not None
    timer = threading.Timer(timeout or 0, process.stdin.close)
    if timeout is not None:
        timer.daemon = True
        timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        with contextlib.suppress(OSError):
            process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            _wait_or_kill(process)
        process.stdout.close()


def search_path() -> str:
    """PATH of the commands that the flows start: programs of the flow's own environment come first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _wait_or_kill(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(STOP_SECONDS + 10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    except BaseException:  # a second Ctrl-C: wait no longer, but leave no orphan
        os.killpg(process.pid, signal.SIGKILL)
        raise


def without_passwords(text: str) -> str:
    """The text without user and password of the addresses in it."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", text)


def last_sentence(lines: Sequence[str]) -> str:
    """The last line in which a failed command says why, skipping DVC's own echo of commands and files."""
    echo = re.compile(
        r"ERROR: failed to reproduce .* failed to run: |> |Updating lock file|To track the changes|\s*git add"
        r"|Having any troubles\?|\s*\d+ │"
    )
    said = [line.strip() for line in lines if line.strip() and not echo.match(line)]
    return said[-1].removeprefix("ERROR: ") if said else "it said nothing"


def dvc_sentence(stderr: str) -> str:
    """Why a `dvc` command failed: the line that it marks as its error (advice may follow), else its last sentence."""
    lines = stderr.splitlines()
    return next((line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")), last_sentence(lines))
