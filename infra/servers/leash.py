"""Run one server so that nothing of it outlives its supervisor, however that ends (`kill -9` included).

    python -I -S leash.py STOP_SIGNAL SECONDS USER COMMAND...

The command runs as USER ("-": the current user). The supervisor keeps the other end of standard input open. When that
closes, the command gets STOP_SIGNAL and SECONDS to end; whatever it has started, in whatever session, then gets
SIGTERM, SECONDS, and SIGKILL. Standard library and Linux only. (`flows/work/leash.py` is a smaller version for one
process group; servers start sessions of their own.)
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
_LIBC = ctypes.CDLL(None, use_errno=True)


def main(stop: signal.Signals, seconds: float, user: str, command: list[str]) -> int:
    """The command's exit code (negative for a signal); 143 if it was stopped."""
    _LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans of the command become ours, so that they can be ended
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # a handler, unlike SIG_IGN, is not inherited by the command
    whom: dict[str, Any] = {} if user == "-" else {"user": user, "group": user, "extra_groups": [], "cwd": "/"}
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, preexec_fn=lambda: _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), **whom
    )
    while child.poll() is None and not select.select([sys.stdin], [], [], 0.1)[0]:
        pass
    code = 143
    if child.poll() is None:
        child.send_signal(stop)
        _wait(lambda: child.poll() is not None, seconds)
    else:
        code = child.returncode
    end_children(seconds)
    return code


def end_children(seconds: float) -> None:
    """End all children of this process, and those that it inherits meanwhile: SIGTERM, `seconds`, SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        told: set[int] = set()

        def ended(number: signal.Signals = number, told: set[int] = told) -> bool:
            left = children()
            for process in left - told if number is signal.SIGTERM else left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
            told |= left
            return not left

        if _wait(ended, seconds):
            return


def children() -> set[int]:
    """Children of this process that still run; those that have ended are reaped first."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                found.add(int(status.parent.name))
    return found


def _wait(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


if __name__ == "__main__":
    sys.exit(main(signal.Signals[sys.argv[1]], float(sys.argv[2]), sys.argv[3], sys.argv[4:]))
