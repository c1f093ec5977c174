"""docs/intervals.md from the lines of `benchmarks.coverage`."""

from collections.abc import Iterable
from typing import Any

from benchmarks.coverage import GOAL, METRICS, SETS
from benchmarks.laws import ABOUT, WIDTH
from benchmarks.report import context

Row = dict[str, Any]

NAMES = {0.0: "same", 0.2: "near", 0.8: "far"}


def page(rows: list[Row]) -> str:
    """The whole page."""
    outside = [row for row in rows if not row["met"]]
    parts = [
        _head(len(rows), len(outside)),
        _population("kernel_population", "Kernel distance of the populations", rows),
        _population("frechet_population", "Fréchet distance of the populations", rows),
        _sets("set_mean", "Expected value at N given the real set: Student t over independent generated sets", rows),
        _sets("paired_difference", "Difference of two generators on the same latents: Student t over sets", rows),
        _errors(rows),
        _proportions(rows),
        _shares(rows),
        _outside(outside),
    ]
    return "\n".join(parts)


def _head(cells: int, outside: int) -> str:
    laws = "\n".join(f"- **{name}**: {about}" for name, about in ABOUT.items())
    where, least, most = context(), 100 * GOAL[0], 100 * GOAL[1]
    return f"""# Intervals: how often they hold the truth

Written by `python -m benchmarks.coverage` (Python {where["python"]}, {where["machine"]}). Nominal 95 %; asked for:
{least:.0f} to {most:.0f} %. {cells} cells, {outside} of them outside, all listed at the end. In brackets: the Wilson
interval of the coverage itself. *above*: the interval lay wholly above the truth, *below*: wholly below it. What each
interval is for: `docs/metrics.md`. **No interval holds the variance over training seeds.**

Features are {WIDTH} wide, as the default extractor's:

{laws}

The generator's law is the *same*, *near* (about what a good generator reaches at N = 263) or *far*. Truths are closed
forms: means, covariances and third moments of these laws are known (`benchmarks/laws.py`).
"""


def _population(name: str, title: str, rows: list[Row]) -> str:
    lines = [
        f"## {title}\n",
        f"`gan.population.{name}`; {_of(rows, name)[0]['simulations']:,} simulations a cell, fresh real and generated "
        "features in each.\n",
        "| law | generator | N real | N fake | truth | mean error | its sd | coverage % | above % | below % | width |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in _of(rows, name):
        cells = [row["law"], NAMES[row["change"]], row["n_real"], row["n_fake"], f"{row['truth']:.4f}"]
        cells += [f"{row['bias']:+.4f}", f"{row['deviation']:.4f}", *_shares_of(row), f"{row['width']:.4f}"]
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _sets(name: str, title: str, rows: list[Row]) -> str:
    found = _of(rows, name)
    lines = [
        f"## {title}\n",
        f"`gan.intervals.mean_interval`{', `share_interval` for shares' if name == 'set_mean' else ''}; "
        f"{found[0]['simulations']:,} simulations a cell, drawn from the scores of "
        f"{found[0]['pool']:,} sets (half as many at N = 1000) against one real set. *collapsed* and *sharp* "
        "are clipped with little spread in a class: recall next to 0, precision next to 1.\n",
        f"| law | N | metric | {' | '.join(f'{count} sets, %' for count in SETS)} | width at {SETS[-1]} |",
        "|---|---|---|" + "---|" * (len(SETS) + 1),
    ]
    for law, n in dict.fromkeys((row["law"], row["n_real"]) for row in found):
        for metric in METRICS:
            cells = [row for row in found if (row["law"], row["n_real"], row["metric"]) == (law, n, metric)]
            if not cells:
                continue
            cells.sort(key=lambda row: row["sets"])
            lines.append(_line([law, n, metric, *(_coverage(row) for row in cells), f"{cells[-1]['width']:.4g}"]))
    return "\n".join(lines) + "\n"


def _errors(rows: list[Row]) -> str:
    """How often equal generators are told apart, over all laws and metrics, by number of sets."""
    lines = [
        "### Equal generators held apart\n",
        "Share of comparisons of two equal generators whose whole interval lies above 0 (*better* or *worse*, "
        "whichever way the metric points) or below it; nominal 2.5 % each. The second number is the largest over laws "
        "and metrics. With a margin, the same numbers are the chance that a candidate passes whose true loss is the "
        "margin.\n",
        "| sets | above 0: mean, largest % | below 0: mean, largest % |",
        "|---|---|---|",
    ]
    for count in SETS:
        cells = [str(count)]
        for side in ("above", "below"):
            shares = [100 * row[side] for row in _of(rows, "paired_difference") if row["sets"] == count]
            cells.append(f"{sum(shares) / len(shares):.1f}, {max(shares):.1f}")
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _proportions(rows: list[Row]) -> str:
    found = _of(rows, "proportion")
    shares = list(dict.fromkeys(row["truth"] for row in found))
    lines = [
        "## Proportions: Wilson\n",
        "`gan.intervals.wilson`, for label agreement, accuracies and group shares; in %, exact: the binomial summed. "
        "Where fewer than about one miss is expected, one miss more or less jumps over the truth.\n",
        f"| N | {' | '.join(f'p = {share:g}' for share in shares)} |",
        "|---|" + "---|" * len(shares),
    ]
    for count in dict.fromkeys(row["n_fake"] for row in found):
        lines.append(_line([count, *(f"{100 * row['coverage']:.1f}" for row in found if row["n_fake"] == count)]))
    return "\n".join(lines) + "\n"


def _shares(rows: list[Row]) -> str:
    lines = [
        "## Shares of groups\n",
        "`gan.shares`, for the audit. Chance adds to a total variation: its lower end is less that bias.\n",
        "| interval | estimand | method | N real | N fake | truth | coverage % | above % | below % | width |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in ("share_difference", "corrected_share", "share_tv", "share_tv_class"):
        for row in _of(rows, name):
            cells = [name, row["estimand"], row["method"], row["n_real"], row["n_fake"], f"{row['truth']:.3g}"]
            lines.append(_line([*cells, *_shares_of(row), f"{row['width']:.4f}"]))
    return "\n".join(lines) + "\n"


def _outside(rows: list[Row]) -> str:
    lines = [
        f"## Outside {100 * GOAL[0]:.0f} to {100 * GOAL[1]:.0f} %\n",
        "| interval | law | N real | N fake | sets | metric | truth | coverage % | above % | below % |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        about = [row.get(key, "") for key in ("law", "n_real", "n_fake", "sets", "metric")]
        lines.append(_line([row["name"], *about, f"{row['truth']:.4g}", *_shares_of(row)]))
    return "\n".join(lines) + "\n"


def _of(rows: list[Row], name: str) -> list[Row]:
    return [row for row in rows if row["name"] == name]


def _shares_of(row: Row) -> list[str]:
    return [_coverage(row), f"{100 * row['above']:.1f}", f"{100 * row['below']:.1f}"]


def _coverage(row: Row) -> str:
    own = f" ({100 * row['coverage_low']:.1f} to {100 * row['coverage_high']:.1f})" if row["simulations"] else ""
    return f"{100 * row['coverage']:.1f}{own}"


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"
