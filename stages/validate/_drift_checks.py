"""Drift as expectations: one per column, on a table of one row, with the pictures that became more frequent."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from stages.config.validate import Drift
from stages.validate._drift import Moved
from stages.validate._expectations import ExpectNoDrift
from stages.validate._frames import ASPECT, MEASURED, Frames, of_pixels
from stages.validate._profile import MOST, WITHOUT_QUANTILES, bins_of, edges_of, numbers
from stages.validate._suite import Check, Rows, differences

PREFIX = "drift_"
COLUMNS, CLASSES = "same_columns", "same_classes"  # checks that both data sets have the same ones
_OLDER = (
    f"not compared: the baseline is of format {WITHOUT_QUANTILES}, which leaves out numbers of more than {MOST:,} "
    "different values; the next promotion writes it anew"
)


def not_compared(uncounted: list[str], unknown: list[str], moved: list[Moved]) -> dict[str, str]:
    """The drift checks that are left out, with the reason: the profile lacks the column, the baseline is too old to
    have it, or there are too few images."""
    found = {f"{PREFIX}{name}": f"not compared: more than {MOST:,} different texts" for name in uncounted}
    found |= {f"{PREFIX}{name}": _OLDER for name in unknown}
    return found | {f"{PREFIX}{one.name}": "not compared: too few images to tell" for one in moved if one.blind}


def drift_checks(
    moved: list[Moved], other: list[str], baseline: dict[str, Any], present: dict[str, Any], config: Drift
) -> tuple[list[Check], pd.DataFrame]:
    """A check for every column, and the table that the checks look at: 1 for a column that alarms, else 0."""
    least = f"{100 * config.min_moved:g} %"
    checks = [
        Check("drift", f"{PREFIX}{one.name}", "drift",
              f"{title(one.name)} is as in the baseline: fewer than {least} of the images moved, or no more than "
              "chance moves (validate.drift)",
              ExpectNoDrift(column=f"{PREFIX}{one.name}"), pick=_picker(one, present["columns"][one.name]),
              found=told(one))
        for one in moved
    ]  # fmt: skip
    found = f"differ: {', '.join(map(title, other))}" if other else "all agree"
    rule = "the data have the same columns, resolution and channels as the baseline"
    checks.append(Check("drift", COLUMNS, "drift", rule, ExpectNoDrift(column=COLUMNS), found=found))
    table = {f"{PREFIX}{one.name}": [int(one.alarm)] for one in moved} | {COLUMNS: [len(other)]}
    if "class" in baseline["columns"] and "class" in present["columns"]:
        old, new = (set(side["columns"]["class"]["counts"]) for side in (baseline, present))
        checks.append(Check("drift", CLASSES, "drift", "the classes are those of the baseline",
                            ExpectNoDrift(column=CLASSES), pick=_of_classes(new - old),
                            found=differences({"gone": old - new, "new": new - old})))  # fmt: skip
        table[CLASSES] = [len(old ^ new)]
    return checks, pd.DataFrame(table)


def _of_classes(names: set[str]) -> Callable[[Frames], Rows]:
    return lambda frames: np.flatnonzero(frames.images["class"].isin(names))


def title(name: str) -> str:
    """The name of a column for people."""
    of = " of the pixels" if of_pixels(name) else " of the files" if name in ("width", "height", ASPECT) else ""
    return name.removeprefix(MEASURED).replace("_", " ") + of


def told(one: Moved) -> str:
    """What moved, in words."""
    before, now = one.before[one.grown], one.now[one.grown]
    words = f"{100 * one.moved:.1f} % of the images moved (p {probability(one.p)})"
    return f"{words}; {one.labels[one.grown]} went from {100 * before:.1f} to {100 * now:.1f} %" if one.alarm else words


def probability(p: float) -> str:
    """A p-value with its sign; one too small for a float is not shown as zero."""
    return f"= {p:.2g}" if p > 1e-300 else "< 1e-300"


def _picker(one: Moved, column: dict[str, Any]) -> Callable[[Frames], Rows]:
    """The images that lie in the bin or category that grew most, or have no value."""
    members = one.groups[one.grown]

    def pick(frames: Frames) -> Rows:
        values = frames.images[one.name]
        if isinstance(column["counts"], list):
            found = numbers(values)
            without = np.isnan(found)
            inside = np.isin(bins_of(edges_of(column), found), members) & ~without
        else:
            without, inside = values.isna().to_numpy(), values.isin(members).to_numpy()
        return np.flatnonzero(without if members == [None] else inside)

    return pick
