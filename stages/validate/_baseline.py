"""The profile of the last promoted data: read, checked, and brought into the same bins as that of the present data.

Bins that are quantiles follow the data, so both data sets are counted in those of the baseline. The counts of its n
images are then all but fixed, and those of the m present images scatter by m p (1 - p) (1 + m / n): as much as the
difference of two samples that both scatter in bins fixed beforehand, so that the chi-squared law holds.
`benchmarks/validation.py` counts the false alarms.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages.common.files import read_json
from stages.validate._frames import Frames
from stages.validate._profile import FORMAT, WITHOUT_QUANTILES, binned, finite_numbers, numbers, quantiles


def read_baseline(path: Path | None) -> dict[str, Any] | None:
    """The profile of the last promoted data; None before the first promotion. Raises ValueError for any other file."""
    if path is None:
        return None
    written = _format(path)
    found = read_json(path, format=written, needs=("data_hash",))
    if found["data_hash"] is None:
        return None
    found = read_json(path, format=written, needs=("images", "resolution", "channels", "columns"))
    columns = found["columns"]
    if not isinstance(found["images"], int) or not isinstance(columns, dict) or not all(map(_sound, columns.values())):
        raise ValueError(f"{path} is not a profile of data; take data/validate/profile.json of the promoted run")
    return found


def _format(path: Path) -> int:
    """The format that the file states, if it is one that is read; else the present one, which it is then held to."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return FORMAT
    return WITHOUT_QUANTILES if isinstance(found, dict) and found.get("format") == WITHOUT_QUANTILES else FORMAT


def _sound(column: Any) -> bool:
    """Whether it has the form of a column in a profile."""
    match column:
        case {"grid": [_, _, int(bins), _], "counts": list(counts)}:
            return len(counts) == bins and all(isinstance(count, int) for count in counts)
        case {"edges": list(ends), "counts": list(counts)}:
            finite = all(isinstance(end, int | float) and math.isfinite(end) for end in ends)
            whole = len(counts) == len(ends) + 1 and all(isinstance(count, int) for count in counts)
            return finite and whole and ends == sorted(set(ends))
        case {"counts": dict(counts)}:
            return not {"grid", "edges"} & column.keys() and all(isinstance(count, int) for count in counts.values())
    return False


def in_same_bins(
    baseline: dict[str, Any], present: dict[str, Any], frames: Frames
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Both profiles, with every column that has quantiles in either in the baseline's bins, and the columns that the
    baseline is too old to have.

    If the baseline counts such a column number by number, the bins are the quantiles of both data sets together.
    """
    old, new = dict(baseline["columns"]), dict(present["columns"])
    for name in sorted(old.keys() & set(frames.images)):
        if "edges" not in old[name] and "edges" not in new.get(name, {}):
            continue
        values = numbers(frames.images[name])
        if isinstance(old[name]["counts"], dict):
            words, times = list(old[name]["counts"]), list(old[name]["counts"].values())
            before = finite_numbers(pd.Series(np.repeat(np.array(words, object), np.array(times, np.int64))))
            if before is None:
                continue  # words then, numbers now
            old[name] = binned({"edges": quantiles(np.concatenate([before, values[~np.isnan(values)]]))}, before)
        new[name] = binned({key: value for key, value in old[name].items() if key != "counts"}, values)
    unknown = []
    if baseline["format"] == WITHOUT_QUANTILES:
        unknown = [name for name in new if "edges" in new[name] and name not in old]
    compared = {name: column for name, column in new.items() if name not in unknown}
    return baseline | {"columns": old}, present | {"columns": compared}, unknown
