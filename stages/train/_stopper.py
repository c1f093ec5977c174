"""Signals, answered between two steps by all processes of a run."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from stages.common.command import ResumeLater, WorkSaved

if TYPE_CHECKING:
    from stages.train._processes import Processes

INTERRUPTED = "interrupted; the work up to the last checkpoint is saved, run it again to go on"


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """SIGTERM in the block, where nobody else listens to it, raises ResumeLater: what is saved stays.

    Under a launcher it is silent: the SIGTERM then usually follows another process's failure, which has been reported.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ResumeLater
        raise ResumeLater("stopped by SIGTERM; run it again to go on from the last checkpoint")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def saved_so_far() -> Iterator[None]:
    """Ctrl-C in the block, where the loop does not answer it, raises WorkSaved: checkpoints stay."""
    try:
        yield
    except WorkSaved:
        raise
    except KeyboardInterrupt:
        raise WorkSaved(INTERRUPTED) from None


class Stopper:
    """Turns SIGINT and SIGTERM into a request that the loop answers between two steps."""

    def __init__(self) -> None:
        self.received: int | None = None

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen while the block runs; further signals change nothing, since the answer is at most one step away."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self._remember) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def check(self, processes: "Processes", save: Callable[[], None]) -> None:
        """Save and leave the loop, all processes at the same step, where one of them has received a signal."""
        received = processes.largest(self.received or 0)
        if received:
            save()
            # Nobody ends before the first process has saved: the launcher stops it when others end.
            processes.largest(0)
            if received == signal.SIGINT:
                raise WorkSaved("interrupted; the work is saved, run it again to go on")
            raise ResumeLater("stopped by SIGTERM; the work is saved, run it again to go on")
