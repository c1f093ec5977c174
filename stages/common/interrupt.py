"""Signals that end a command as an exception does, so that every `finally` runs and the exit code is the command's."""

import signal
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """The command is to end because of signal `number`.

    CPython 3.11 to 3.13 ends a `python -m` by SIGINT itself if a bare KeyboardInterrupt has passed through `exec` of
    source text (an import that makes a dataclass is enough), caught afterwards or not. It checks for that exact class,
    hence this subclass.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def code(self) -> int:
        """The exit code that says which signal it was: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


def interruptible(*numbers: signal.Signals) -> None:
    """Raise Interrupted in the main thread for these signals; one that is ignored (as under `nohup`) stays so."""
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise)


def _raise(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(number)
