"""How the commands of the flows end: with an exit code, and one sentence if they could not do what was asked."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable

from stages.common.interrupt import Interrupted, interruptible


def command(name: str, act: Callable[[], int]) -> int:
    """What `act` returns; 1 if it refuses, 130 after Ctrl-C and 143 after SIGTERM, each with one sentence on stderr."""
    interruptible(signal.SIGINT, signal.SIGTERM)
    try:
        return act()
    except Interrupted as stop:
        return _complain(name, "stopped; run it again to go on", stop.code)
    except (ValueError, OSError, subprocess.SubprocessError, sqlite3.Error) as error:
        return _complain(name, str(error), 1)


def _complain(name: str, sentence: str, code: int) -> int:
    sys.stderr.write(f"{name}: {sentence}\n")
    return code
