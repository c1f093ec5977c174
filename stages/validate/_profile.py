"""The data as histograms: small enough for git, comparable with those of other data, and without any image.

Bins are fixed beforehand and never follow the data, so that a test on pooled counts stays honest.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.validate._frames import ASPECT, MEASURED, Frames

FORMAT = 1
MOST = 1000  # different values of a column of texts; more are no categories
# low, high, bins, scale; what lies outside counts in the first or the last bin
Grid = tuple[float, float, int, str]
_GRIDS: dict[str, Grid] = {
    "width": (1, 65536, 128, "log"),
    "height": (1, 65536, 128, "log"),
    ASPECT: (1 / 32, 32, 80, "log"),
    MEASURED + "brightness": (0, 256, 64, "linear"),
    MEASURED + "contrast": (0, 128, 64, "linear"),
    MEASURED + "level_range": (0, 256, 64, "linear"),
    MEASURED + "sharpness": (1, 1024, 80, "log"),
    MEASURED + "saturation": (0, 1, 50, "linear"),
}
_PATTERN: Grid = (-64, 64, 64, "linear")
_DECLARED_BINS = 32


def profile(frames: Frames) -> dict[str, Any]:
    """Counts of every column that can drift; a function of the image store alone."""
    info, images = frames.store.info, frames.images
    columns: dict[str, Any] = {}
    for name, grid in _grids(frames).items():
        if name in images:
            columns[name] = {"grid": list(grid), "counts": counts_in(grid, numbers(images[name])).tolist()}
    for name in _words(frames):
        if name in images and name not in columns:
            found = images[name].value_counts(sort=False)
            if len(found) <= MOST:
                columns[name] = {"counts": {str(value): int(found[value]) for value in sorted(found.index)}}
    return {
        "format": FORMAT,
        "data_hash": info["data_hash"],
        "images": len(images),
        "resolution": info["resolution"],
        "channels": info["channels"],
        "columns": columns,
    }


def uncounted(frames: Frames, profiled: dict[str, Any]) -> list[str]:
    """Columns of texts that the profile leaves out, because they have too many different values."""
    return [name for name in _words(frames) if name in frames.images and name not in profiled["columns"]]


def _words(frames: Frames) -> list[str]:
    info = frames.store.info
    return [*(["class"] if info["classes"] else []), *info["attributes"], *info.get("declared", ())]


def numbers(column: pd.Series) -> NDArray[np.float64]:
    """The column as float64; NaN where it holds no number."""
    return np.asarray(pd.to_numeric(column, errors="coerce"), np.float64)


def edges(grid: Grid) -> NDArray[np.float64]:
    """The bins + 1 edges of a grid."""
    low, high, bins, scale = grid
    return np.geomspace(low, high, bins + 1) if scale == "log" else np.linspace(low, high, bins + 1)


def counts_in(grid: Grid, values: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many values lie in each bin; NaN in none."""
    return np.bincount(bins_of(grid, values[~np.isnan(values)]), minlength=grid[2])


def bins_of(grid: Grid, values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of every value."""
    return np.searchsorted(edges(grid)[1:-1], values, side="right")


def _grids(frames: Frames) -> dict[str, Grid]:
    """The grids of all columns of numbers, those among them whose range the datasheet declares."""
    found = dict(_GRIDS)
    found |= {str(name): _PATTERN for name in frames.images if str(name).startswith(MEASURED + "pattern_")}
    for name, rule in (frames.declares.get("attributes") or {}).items():
        if "min" in rule and "max" in rule:
            found[name] = (float(rule["min"]), float(rule["max"]), _DECLARED_BINS, "linear")
    return found
