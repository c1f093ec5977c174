"""What may be tried again: only what lies outside the work itself, after pauses that grow."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from stages.config.retrain import RetrainConfig

FIRST_PAUSES = (5.0, 20.0)  # seconds, as long as the commit that holds the settings is not known yet
T = TypeVar("T")


class Unavailable(ValueError):
    """A network, a store or a server does not answer, or work was saved and asks to be resumed: try again later."""


def pauses(config: RetrainConfig) -> list[float]:
    """Seconds to wait before each new attempt; each pause is twice the one before."""
    return [config.retry_seconds * 2**attempt for attempt in range(config.retries)]


def patiently(work: Callable[[], T], waits: Sequence[float], log: Callable[[str], None]) -> T:
    """The result of `work`, tried again after each of `waits` seconds if it raises Unavailable, and only then."""
    for seconds in waits:
        try:
            return work()
        except Unavailable as error:
            log(f"{error}; trying again in {seconds:g} s")
            time.sleep(seconds)
    return work()
