"""Are these data others than those of the last promoted run? Column by column, on the histograms of two profiles.

Two-sample chi-squared test of homogeneity (Pearson). Neighbouring bins are joined, and rare categories thrown together,
until every joined bin holds enough images of both data sets together for the chi-squared law; joining looks at the
pooled counts alone, which under the hypothesis say nothing of the difference. Images that have no value in a column
are a bin of their own. P-values are corrected after Holm, so
that the chance that any column alarms is at most `false_alarms` while images are drawn independently from one source.
A column alarms where that is so and the total variation distance is at least `min_moved`: with a million images a
difference that is real need not be large.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from gan.shares import holm
from stages.config.validate import Drift
from stages.validate._frames import of_pixels
from stages.validate._profile import edges

_LEAST = 10.0  # expected images in a joined bin, in the smaller data set
_BINS = 16  # joined bins of a histogram at most
_REST, _NO_VALUE = "(rare ones together)", "(no value)"


@dataclass(frozen=True)
class Moved:
    """One column: corrected p-value, total variation, and shares before and now in each joined bin.

    `groups` holds for each joined bin its bins (histogram) or categories, None for images without a value; `grown` is
    the one that grew most.
    """

    name: str
    p: float
    moved: float
    alarm: bool
    labels: list[str]
    groups: list[list[Any]]
    before: list[float]
    now: list[float]

    @property
    def grown(self) -> int:
        """Place of the joined bin whose share grew most."""
        return int(np.argmax(np.subtract(self.now, self.before)))


def compare(baseline: dict[str, Any], present: dict[str, Any], config: Drift) -> tuple[list[Moved], list[str]]:
    """All columns that both profiles have in the same form, in order; and what only one has,
    or has in another form."""
    old, new = baseline["columns"], present["columns"]
    form = [key for key in ("resolution", "channels") if baseline[key] != present[key]]
    both = [name for name in new if name in old and old[name].get("grid") == new[name].get("grid")]
    both = [name for name in both if not form or not of_pixels(name)]  # now of others
    other = [*form, *sorted((set(old) | set(new)) - set(both))]
    images = np.array([baseline["images"], present["images"]], np.int64)
    tables = [_table(old[name], new[name], images) for name in both]
    p_values = holm([homogeneity(counts) for _, _, counts in tables])
    found = []
    for name, p, (labels, groups, counts) in zip(both, p_values, tables, strict=True):
        before, now = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        moved = float(np.abs(before - now).sum() / 2)
        alarm = p <= config.false_alarms and moved >= config.min_moved
        found.append(Moved(name, p, moved, alarm, labels, groups, before.tolist(), now.tolist()))
    return found, other


def homogeneity(counts: NDArray[np.int64]) -> float:
    """P-value of Pearson's chi-squared test that both rows [2, k] come from one distribution; 1 where k < 2."""
    if counts.shape[1] < 2 or not counts.any(axis=1).all():
        return 1.0
    return float(chi2_contingency(counts, correction=False).pvalue)


def _table(
    old: dict[str, Any], new: dict[str, Any], images: NDArray[np.int64]
) -> tuple[list[str], list[list[Any]], NDArray[np.int64]]:
    """Labels, members and counts [2, k] of the joined bins; `images` [2] on both sides, with a value or without."""
    if "grid" in new:
        counts = np.array([old["counts"], new["counts"]], np.int64)
        places = join(counts) if counts.any() else []
        ends = edges(tuple(new["grid"]))
        labels = [f"{ends[group[0]]:.4g} to {ends[group[-1] + 1]:.4g}" for group in places]
        groups: list[list[Any]] = [*places]
    else:
        names = sorted(set(old["counts"]) | set(new["counts"]))
        counts = np.array([[side["counts"].get(name, 0) for name in names] for side in (old, new)], np.int64)
        places = _common(counts) if counts.any() else []
        labels = [names[group[0]] if len(group) == 1 else _REST for group in places]
        groups = [[names[place] for place in group] for group in places]
    joined = [counts[:, group].sum(axis=1) for group in places]
    without = np.maximum(images - counts.sum(axis=1), 0)
    if not joined or without.sum() >= _least(images[:, None]):  # fewer of them cannot be tested
        labels, groups, joined = [*labels, _NO_VALUE], [*groups, [None]], [*joined, without]
    return labels, groups, np.stack(joined, axis=1)


def _common(counts: NDArray[np.int64]) -> list[list[int]]:
    """Categories of counts [2, n], the rare ones in one group; where even that is rare, with the next rarest one."""
    pooled = counts.sum(axis=0)
    order = np.argsort(pooled, kind="stable")
    rare = int(np.searchsorted(pooled[order], _least(counts)))
    while 0 < rare < len(order) and pooled[order[:rare]].sum() < _least(counts):
        rare += 1
    groups = [[int(place)] for place in sorted(order[rare:])]
    return [*groups, sorted(order[:rare].tolist())] if rare else groups


def join(counts: NDArray[np.int64]) -> list[list[int]]:
    """Neighbouring bins of counts [2, n] joined from the left: each holds a sixteenth of all, and enough to test."""
    pooled = counts.sum(axis=0)
    least = max(pooled.sum() / _BINS, _least(counts))
    groups: list[list[int]] = [[]]
    held = 0
    for place, count in enumerate(pooled.tolist()):
        groups[-1].append(place)
        held += count
        if held >= least:
            groups.append([])
            held = 0
    if held < least and len(groups) > 1:  # what is left over goes to its neighbour
        groups[-2:] = [groups[-2] + groups[-1]]
    return groups


def _least(counts: NDArray[np.int64]) -> float:
    """Pooled images from which on the smaller data set expects _LEAST."""
    sizes = counts.sum(axis=1)
    return _LEAST * float(sizes.sum() / max(1, sizes.min()))
