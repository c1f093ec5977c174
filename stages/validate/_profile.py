"""The data as histograms: small enough for git, comparable with those of other data, and without any image.

Bins are fixed beforehand and do not follow the data, so that a test on pooled counts stays honest. Numbers whose range
nobody knows beforehand are the exception: their bins are quantiles, which the profile holds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.validate._frames import ASPECT, MEASURED, Frames

FORMAT = 2
WITHOUT_QUANTILES = 1  # the format of older profiles, which leave such columns out and are still read
MOST = 1000  # distinct values of a column of texts; with more, they are not categories
_QUANTILES = 64  # bins for numbers with more distinct values than that
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
            columns[name] = binned({"grid": list(grid)}, numbers(images[name]))
    for name in _words(frames):
        if name in images and name not in columns:
            found = images[name].value_counts(sort=False)
            if len(found) <= MOST:
                columns[name] = {"counts": {str(value): int(found[value]) for value in sorted(found.index)}}
            elif name != "class" and (values := finite_numbers(images[name])) is not None:
                columns[name] = binned({"edges": quantiles(values)}, values)
    return {
        "format": FORMAT,
        "data_hash": info["data_hash"],
        "images": len(images),
        "resolution": info["resolution"],
        "channels": info["channels"],
        "columns": columns,
    }


def uncounted(frames: Frames, profiled: dict[str, Any]) -> list[str]:
    """Columns of texts that the profile leaves out because they have too many distinct values."""
    return [name for name in _words(frames) if name in frames.images and name not in profiled["columns"]]


def _words(frames: Frames) -> list[str]:
    info = frames.store.info
    return [*(["class"] if info["classes"] else []), *info["attributes"], *info.get("declared", ())]


def numbers(column: pd.Series) -> NDArray[np.float64]:
    """The column as float64; NaN where it holds no number."""
    return np.asarray(pd.to_numeric(column, errors="coerce"), np.float64)


def finite_numbers(column: pd.Series) -> NDArray[np.float64] | None:
    """The non-empty values of a column of texts as numbers; None if there are none, or not all are finite numbers."""
    values = numbers(column[column.notna() & (column != "")])
    return values if len(values) and np.isfinite(values).all() else None


def quantiles(values: NDArray[np.float64]) -> list[float]:
    """Those of the values that divide them all into _QUANTILES parts; fewer if one value makes up more than a part."""
    shares = np.arange(1, _QUANTILES) / _QUANTILES
    return [float(edge) for edge in np.unique(np.quantile(values, shares, method="higher"))]


def edges(grid: Grid | Sequence[Any]) -> NDArray[np.float64]:
    """The bins + 1 edges of a grid."""
    low, high, bins, scale = grid
    return np.geomspace(low, high, bins + 1) if scale == "log" else np.linspace(low, high, bins + 1)


def edges_of(column: dict[str, Any]) -> NDArray[np.float64]:
    """The bins + 1 edges of a column of numbers; with quantiles, the first and the last are infinite."""
    return edges(column["grid"]) if "grid" in column else np.array([-np.inf, *column["edges"], np.inf])


def binned(bins: dict[str, Any], values: NDArray[np.float64]) -> dict[str, Any]:
    """A column of a profile with these bins (`grid` or `edges`): how many values lie in each; NaN lies in none."""
    ends = edges_of(bins)
    found = np.bincount(bins_of(ends, values[~np.isnan(values)]), minlength=len(ends) - 1)
    return {**bins, "counts": found.tolist()}


def bins_of(ends: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of every value; those outside all bins count in the first or the last."""
    return np.searchsorted(ends[1:-1], values, side="right")


def _grids(frames: Frames) -> dict[str, Grid]:
    """The grids of all columns of numbers, including those whose range the datasheet declares."""
    found = dict(_GRIDS)
    found |= {str(name): _PATTERN for name in frames.images if str(name).startswith(MEASURED + "pattern_")}
    for name, rule in (frames.declares.get("attributes") or {}).items():
        if "min" in rule and "max" in rule:
            found[name] = (float(rule["min"]), float(rule["max"]), _DECLARED_BINS, "linear")
    return found
