"""Run one command so that nothing of it outlives the flow, however the flow ends (`kill -9` included).

    python -I -S flows/work/leash.py SECONDS COMMAND...

The flow starts this script as the leader of a new session and keeps the other end of its standard input open. When
that end closes, or the command ends, what is left of the process group gets SIGTERM, SECONDS to save its work, then
SIGKILL. DVC alone cannot be trusted with that: a killed `dvc repro` leaves the trainer running. Standard library only.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

_PR_SET_CHILD_SUBREAPER = 36


def main(seconds: float, command: list[str]) -> int:
    """The command's exit code (negative for a signal); 143 where it was stopped."""
    with contextlib.suppress(OSError, AttributeError):  # Linux: orphans become ours, so that we can wait for them
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # a handler, unlike SIG_IGN, is not inherited by the command
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while child.poll() is None and not select.select([sys.stdin], [], [], 0.1)[0]:
        pass
    code = child.poll()
    _end_group(seconds)
    return 143 if code is None else code


def _end_group(seconds: float) -> None:
    if not _children_left():
        return
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while _children_left():
        if time.monotonic() > deadline:
            os.killpg(0, signal.SIGKILL)  # this process too
        time.sleep(0.05)


def _children_left() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
