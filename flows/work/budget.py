"""What a run may cost, checked before it starts: free space, GPU hours of the last 30 days, wall time of a stage.

Each run of a stage leaves one file in the state folder: its name says when the run began, its modification time when
the run was last seen alive. So the hours of a run that was killed count too.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from stages.common.files import read_json, write_json
from stages.config.retrain import Budget, RetrainConfig

WINDOW = 30 * 24 * 3600.0
_SPENT = "spent"


def check(config: RetrainConfig, stages: Sequence[str], folders: Sequence[Path], state: Path) -> None:
    """Raises ValueError if a budget names no stage or is used up, or if one of `folders` has too little space."""
    for budget in config.budgets:
        if budget.stage not in stages:
            raise ValueError(f"retrain.budgets: there is no stage {budget.stage!r}; stages are {', '.join(stages)}")
        limit(budget, state)
    for folder in folders:
        free = shutil.disk_usage(folder).free / 1e9
        if free < config.free_gb:
            raise ValueError(
                f"{folder} has {free:.2f} GB of free space, retrain.free_gb asks for {config.free_gb:g};"
                " free some (`make clean-state` removes what is not needed), or lower the setting"
            )


def limit(budget: Budget, state: Path) -> float:
    """Seconds that the stage may run now. Raises ValueError if its GPU hours are used up, or as `spent` does."""
    seconds, gpus = budget.minutes * 60, gpu_count()
    if budget.gpu_hours is None or gpus == 0:
        return seconds
    left = budget.gpu_hours - spent(state, budget.stage)
    if left <= 0:
        raise ValueError(
            f"stage {budget.stage} has used its {budget.gpu_hours:g} GPU hours of the last 30 days"
            " (retrain.budgets); raise the budget, or wait"
        )
    return min(seconds, left * 3600 / gpus)


def spent(state: Path, stage: str) -> float:
    """GPU hours of the stage's runs in the last 30 days; older entries are removed.

    Raises ValueError for an entry that cannot be read.
    """
    hours, now = 0.0, time.time()
    for path in (state / _SPENT).glob(f"*-{stage}.json"):
        if now - path.stat().st_mtime > WINDOW:
            path.unlink()
            continue
        began = max(float(path.name.partition("-")[0]), now - WINDOW)
        hours += max(0.0, path.stat().st_mtime - began) / 3600 * _gpus(path)
    return hours


def _gpus(entry: Path) -> int:
    gpus = read_json(entry, needs=("gpus",))["gpus"]
    if not isinstance(gpus, int):
        raise ValueError(f"{entry} must hold the number of GPUs of a run; found {gpus!r}")
    return gpus


@contextlib.contextmanager
def metered(
    config: RetrainConfig, state: Path, stage: str, log: Callable[[str], None]
) -> Iterator[tuple[Callable[[str], None], float | None]]:
    """Count the time of one run of `stage`, as long as the block runs.

    Yields `log`, each call of which shows that the stage is alive, and the seconds that the stage may run (None without
    a budget). Raises ValueError as `limit` does.
    """
    budget = {budget.stage: budget for budget in config.budgets}.get(stage)
    seconds = limit(budget, state) if budget is not None else None
    meter = Meter(state, stage)

    def tell(line: str) -> None:
        meter.tick()
        log(line)

    try:
        yield tell, seconds
    finally:
        meter.end()


class Meter:
    """Counts the time of one run of a stage, as long as `tick` is called."""

    def __init__(self, state: Path, stage: str) -> None:
        folder = state / _SPENT
        folder.mkdir(mode=0o700, exist_ok=True)
        self._path, self._next = folder / f"{time.time():.3f}-{stage}.json", 0.0
        write_json(self._path, {"format": 1, "gpus": gpu_count()})

    def tick(self) -> None:
        """Record that the stage is alive."""
        if time.monotonic() >= self._next:
            os.utime(self._path)
            self._next = time.monotonic() + 1

    def end(self) -> None:
        """Record that the stage has ended."""
        os.utime(self._path)


def gpu_count() -> int:
    """GPUs that a stage would see: CUDA_VISIBLE_DEVICES, else what NVIDIA's driver lists; 0 without a driver.

    If GPUs are divided into MIG slices, CUDA gives a process one slice and no other GPU.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() and name.strip() != "-1"])
    try:
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    listed = [line.split()[0] for line in answer.stdout.splitlines() if line.strip()] if answer.returncode == 0 else []
    return 1 if "MIG" in listed else listed.count("GPU")
