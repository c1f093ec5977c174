"""Curves over training as small SVG pictures: one for each quantity, with its real and generated sides together."""

import csv
import itertools
import math
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 300, 110  # of a picture, in its own units
_POINTS = 300  # per line at most: with more, the means of equal stretches are drawn
_MOST = 24  # pictures
_AXIS = ("kimg", "step")  # columns for the horizontal axis; the first that is there is taken
_SIDES = {"_real": "real", "_fake": "fake"}  # endings of columns that share a picture


def read_curves(path: Path) -> list[dict[str, Any]]:
    """Pictures of the columns of a CSV file that train wrote: title, lines with their points, ends of the axes.

    Raises ValueError if it is not such a file, or holds anything but finite numbers.
    """
    names, rows = _read(path)
    axis = next((name for name in _AXIS if name in names), None)
    if axis is None:
        raise ValueError(f"{path} must have a column {' or '.join(_AXIS)}; it has {', '.join(names[:20])}")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    grouped: dict[str, list[tuple[str, str]]] = {}
    for name in names:
        if name not in _AXIS:
            ending = next((each for each in _SIDES if name.endswith(each)), "")
            grouped.setdefault(name.removesuffix(ending), []).append((_SIDES.get(ending, "one"), name))
    return [_picture(title, lines, columns, axis) for title, lines in list(grouped.items())[:_MOST]]


def _read(path: Path) -> tuple[list[str], list[list[float]]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV file of train: {error}") from None
    names, body = (lines[0], lines[1:]) if lines else ([], [])
    if not names or not body or len(set(names)) != len(names):
        raise ValueError(f"{path} must hold a line of distinct column names and at least one line of numbers")
    rows = []
    for number, line in enumerate(body, start=2):
        try:
            row = [float(cell) for cell in line]
        except ValueError:
            row = []
        if len(row) != len(names) or not all(map(math.isfinite, row)):
            raise ValueError(f"{path} must hold {len(names)} finite numbers per line; line {number} does not")
        rows.append(row)
    return names, rows


def _picture(
    title: str, lines: list[tuple[str, str]], columns: dict[str, tuple[float, ...]], axis: str
) -> dict[str, Any]:
    xs = columns[axis]
    values = [value for _, name in lines for value in columns[name]]
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    bottom, top = low - margin, high + margin
    left, right = min(xs), max(xs)

    def point(x: float, y: float) -> str:
        across = (x - left) / (right - left) * WIDTH if right > left else WIDTH / 2
        return f"{across:.1f} {HEIGHT - (y - bottom) / (top - bottom) * HEIGHT:.1f}"

    return {
        "title": title.replace("_", " "), "axis": axis, "start": f"{left:g}", "end": f"{right:g}",
        "low": f"{low:.3g}", "high": f"{high:.3g}",
        "lines": [
            {
                "side": side, "name": name, "last": f"{columns[name][-1]:.3g}",
                "path": "M" + "L".join(point(x, y) for x, y in _thinned(xs, columns[name])),
            }
            for side, name in lines
        ],
    }  # fmt: skip


def _thinned(xs: tuple[float, ...], ys: tuple[float, ...]) -> list[tuple[float, float]]:
    """At most _POINTS points: the mean of each stretch of the line; a single point is drawn as a short line."""
    if len(xs) == 1:
        return [(xs[0], ys[0]), (xs[0], ys[0])]
    count = min(len(xs), _POINTS)
    ends = [index * len(xs) // count for index in range(count + 1)]
    return [(math.fsum(xs[a:b]) / (b - a), math.fsum(ys[a:b]) / (b - a)) for a, b in itertools.pairwise(ends)]
