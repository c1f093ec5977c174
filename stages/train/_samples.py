"""Sample grids of a run: the same latents at every snapshot."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from gan import latents, pixels
from stages.pictures import write_grid
from stages.train._measure import drawn

if TYPE_CHECKING:
    from stages.train._loop import Run

ROWS = 8  # of a grid
_GRID = 10  # columns of a grid without classes, and about as many where classes are fewer


def samples(run: "Run", count: int) -> NDArray[np.uint8]:
    """Images 0 ... count - 1 of the run's seed from the moving average; classes in turn."""
    z = latents.latents(run.config.seed, 0, count, run.config.z_dim)
    label = np.arange(count) % len(run.store.classes) if run.store.classes else None
    with torch.no_grad():
        return drawn(run.players.average, z, label, run.processes.device, pixels.at_once(run.store.info["resolution"]))


def grid(run: "Run", path: Path) -> None:
    """Write `ROWS` rows of samples."""
    columns = columns_for(len(run.store.classes))
    write_grid(path, samples(run, ROWS * columns), columns=columns)


def columns_for(classes: int) -> int:
    """Columns of a grid: as many for each class, about ten together; ten without classes and where they are many."""
    return classes * max(1, round(_GRID / classes)) if 2 <= classes <= 20 else _GRID


def snapshot(run: "Run") -> bool:
    """A grid of the samples of this moment, in the state folder until the run is published; False where the samples
    are not finite."""
    sound = True
    if run.processes.first:
        path = run.state / f"grid-{run.step:09d}.png"
        try:
            grid(run, path)
            run.board.snapshot(run, path)
        except pixels.NotFinite:
            sound = False
    return run.processes.told({"sound": sound})["sound"]


def snapshot_due(run: "Run", step: int) -> bool:
    """True every `snapshot_kimg`, at the halvings of the first such interval, when most happens, and at the end."""
    interval = run.interval("snapshot_kimg")
    halvings = {interval >> times for times in range(1, 7)} - {0}
    return step % interval == 0 or step in halvings or step == run.steps


def grids(run: "Run") -> dict[int, Path]:
    """The grids that a run of this budget draws, by step, in order."""
    found = {int(path.stem.removeprefix("grid-")): path for path in sorted(run.state.glob("grid-*.png"))}
    return {step: path for step, path in found.items() if step <= run.step and snapshot_due(run, step)}
