"""How the commands of the flows end: with an exit code, and one sentence where they could not do what was asked."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable


def command(name: str, act: Callable[[], int]) -> int:
    """What `act` returns; 1 where it refuses, and 130 after Ctrl-C, with one sentence on stderr.

    SIGTERM ends it as an exception does, with exit code 143, so that every `finally` runs.
    """
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        return act()
    except KeyboardInterrupt:
        return _complain(name, "stopped; run it again to go on", 130)
    except (ValueError, OSError, subprocess.SubprocessError, sqlite3.Error) as error:
        return _complain(name, str(error), 1)


def _complain(name: str, sentence: str, code: int) -> int:
    sys.stderr.write(f"{name}: {sentence}\n")
    return code
