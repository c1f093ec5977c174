"""Run one command so that nothing of it outlives the flow, however the flow ends (`kill -9` included).

    python -I -S flows/work/leash.py SECONDS COMMAND...

The flow starts this script as the leader of a new session and keeps the other end of its standard input open. When that
end closes, or the command ends, what is left of the process group gets SIGTERM, SECONDS to save its work, then SIGKILL.
DVC alone cannot be trusted with that: a killed `dvc repro` leaves the trainer running. torch's launcher gives its
processes sessions of their own, which a signal to the group does not reach: the launcher passes SIGTERM on, and if it
is gone, this script does. Standard library only.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def main(seconds: float, command: list[str]) -> int:
    """The command's exit code (negative for a signal); 143 if it was stopped."""
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
    asked: set[int] = set()
    while _children_left():
        late = time.monotonic() > deadline
        mine, elsewhere = _descendants()
        for process in elsewhere if late else (elsewhere & mine) - asked:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL if late else signal.SIGTERM)
            asked.add(process)
        if late:
            os.killpg(0, signal.SIGKILL)  # this process too
        time.sleep(0.05)


def _descendants() -> tuple[set[int], set[int]]:
    """(children, all descendants that are in other process groups), from Linux's /proc; both empty elsewhere."""
    parents, groups = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            _, parent, group = path.read_text().rpartition(")")[2].split()[:3]
            parents[int(path.parent.name)], groups[int(path.parent.name)] = int(parent), int(group)
    found = [os.getpid()]
    for ancestor in found:  # grows while it is iterated over
        found += [process for process, parent in parents.items() if parent == ancestor]
    children = {process for process, parent in parents.items() if parent == os.getpid()}
    return children, {process for process in found if groups.get(process, os.getpgrp()) != os.getpgrp()}


def _children_left() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
