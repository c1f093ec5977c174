"""How far a training is, in a sentence now and then, from the lines that the trainer writes: needs no server."""

import math
import time
from collections.abc import Callable

from flows.tracking.curves import Row, Tail

EVERY = 30.0  # seconds between two sentences


class Progress:
    """Reports to `log`, from the lines of `tail`, on a training that began at `began` (seconds since 1970)."""

    def __init__(self, tail: Tail, began: float, log: Callable[[str], None]) -> None:
        self._tail, self._began, self._log = tail, began, log
        self._told = time.monotonic()

    def look(self) -> None:
        """Read what is new, and report how far the training is, at most every EVERY seconds."""
        rows = [row for row in self._tail.read() if row.get("time", 0.0) >= self._began]  # earlier: older work
        if rows and time.monotonic() - self._told >= EVERY:
            self._told = time.monotonic()
            self._log(sentence(rows[-1], self._tail.most))


def sentence(row: Row, most: float) -> str:
    """How far a training of `most` thousand images is, by its latest row."""
    done, speed = row.get("kimg", 0.0), row.get("images_per_second", 0.0)
    told = f"train: {_kimg(done)} of {_kimg(most)} kimg ({done / most:.0%}), {speed:,.0f} images/s"
    left = 1000 * (most - done)
    return f"{told}, about {in_words(left / speed)} left" if speed > 0 and math.isfinite(left) else told


def _kimg(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def in_words(seconds: float) -> str:
    """A duration: "1 h 5 min", "2 min 3 s" or "4.5 s"; empty for none."""
    if not seconds:
        return ""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:.0f} h {minutes:.0f} min"
    return f"{minutes:.0f} min {rest:.0f} s" if minutes else f"{rest:.1f} s"
