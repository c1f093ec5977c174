"""How a benchmark reports: one JSON object per line on stdout."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any


def context(**more: Any) -> dict[str, Any]:
    """What a figure depends on besides the code."""
    return {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()} | more


def report(
    name: str,
    *,
    unit: str,
    ours: float,
    peer: str,
    theirs: float,
    goal: float,
    lower_is_better: bool = True,
    **more: Any,
) -> None:
    """Print one comparison; it meets its goal if the ratio reaches it."""
    ratio = theirs / ours if lower_is_better else ours / theirs
    line = {"name": name, "unit": unit, "ours": round(ours, 6), "peer": peer, "theirs": round(theirs, 6)}
    line |= {"ratio": round(ratio, 3), "goal": goal, "met": ratio >= goal, "context": context(**more)}
    print(json.dumps(line), flush=True)


def paired(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median seconds of each, run in turns after one warm-up, so that a drifting machine hits both."""
    times: tuple[list[float], list[float]] = ([], [])
    ours(), theirs()
    for _ in range(repeats):
        for which, call in enumerate((ours, theirs)):
            start = time.perf_counter()
            call()
            times[which].append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])
