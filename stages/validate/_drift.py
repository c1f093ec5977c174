"""Do these data differ from those of the last promoted run? Column by column, on the histograms of two profiles.

Two-sample chi-squared test of homogeneity (Pearson). Neighbouring bins are joined until every joined bin holds enough
images of both data sets together for the chi-squared law; joining looks only at the pooled counts, which under the
hypothesis say nothing about the difference. Categories too rare for a bin of their own are joined in the same way:
numbers with the next larger ones, and words in the order of their SHA-256, because a single bin of all rare words would
hold as many images after all of them were replaced. Even then, words that only one or two images have are spread
evenly, so a second test counts how many of them lie on one side alone. Images without a value in a column are a bin of
their own. P-values are corrected after Holm, so that the chance that any column alarms is at most `false_alarms` while
images are drawn independently from one source. A column alarms if its corrected p-value is at most `false_alarms` and
the total variation distance at least `min_moved`: with a million images a real difference need not be large.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr
from scipy.stats import chi2_contingency

from gan.shares import holm
from stages.config.validate import Drift
from stages.validate._frames import of_pixels
from stages.validate._profile import edges_of

_LEAST = 10.0  # expected images in a joined bin, in the smaller data set
_BINS = 16  # joined bins of a histogram at most
_SECOND = 0.1  # share of the false alarms left to the second test of rare words, which makes far fewer
_NO_VALUE = "(no value)"


@dataclass(frozen=True)
class Moved:
    """One column: corrected p-value, total variation, and shares before and now in each joined bin.

    `blind` means that a single joined bin holds everything although the bins in it differ by more than is allowed:
    there are too few images to test it. `groups` lists for each joined bin its bins (histogram) or categories, None
    for images without a value; `grown` is the joined bin that grew most.
    """

    name: str
    p: float
    moved: float
    alarm: bool
    blind: bool
    labels: list[str]
    groups: list[list[Any]]
    before: list[float]
    now: list[float]

    @property
    def grown(self) -> int:
        """Index of the joined bin whose share grew most."""
        return int(np.argmax(np.subtract(self.now, self.before)))


def compare(baseline: dict[str, Any], present: dict[str, Any], config: Drift) -> tuple[list[Moved], list[str]]:
    """All columns that both profiles have in the same form, in order; and the names of those that only one has or that
    differ in form."""
    old, new = baseline["columns"], present["columns"]
    form = [key for key in ("resolution", "channels") if baseline[key] != present[key]]
    both = [name for name in new if name in old and _form(old[name]) == _form(new[name])]
    both = [name for name in both if not form or not of_pixels(name)]  # of other pixels now
    other = [*form, *sorted((set(old) | set(new)) - set(both))]
    images = np.array([baseline["images"], present["images"]], np.int64)
    tables = [_table(old[name], new[name], images) for name in both]
    p_values = holm([p for _, _, _, p, _ in tables])
    found = []
    for name, p, (labels, groups, counts, _, apart) in zip(both, p_values, tables, strict=True):
        before, now = _shares(counts)
        moved = _variation(counts)
        alarm = p <= config.false_alarms and moved >= config.min_moved
        blind = len(groups) == 1 and apart >= config.min_moved
        found.append(Moved(name, p, moved, alarm, blind, labels, groups, before.tolist(), now.tolist()))
    return found, other


def _form(column: dict[str, Any]) -> dict[str, Any]:
    """What must agree before counts are comparable."""
    return {**column, "counts": type(column["counts"])}


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Counts [2, n] as shares of each side; 0 if a side has none."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _variation(counts: NDArray[np.int64]) -> float:
    """Total variation distance between both sides of counts [2, n]."""
    return float(np.abs(np.subtract(*_shares(counts))).sum() / 2)


def homogeneity(counts: NDArray[np.int64]) -> float:
    """P-value of Pearson's chi-squared test that both rows [2, k] come from one distribution; 1 if k < 2."""
    if counts.shape[1] < 2 or not counts.any(axis=1).all():
        return 1.0
    return float(chi2_contingency(counts, correction=False).pvalue)


def strangers(counts: NDArray[np.int64]) -> float:
    """P-value for so many of the rare categories of counts [2, n] lying on one side alone: Chernoff's bound, which is
    never too small (Hoeffding, "Probability inequalities for sums of bounded random variables", 1963)."""
    pooled, sizes = counts.sum(axis=0), counts.sum(axis=1)
    several = (pooled > 1) & (pooled < _least(counts))
    if not several.any() or not sizes.all():
        return 1.0
    share = sizes[0] / sizes.sum()
    expected = float((share ** pooled[several] + (1 - share) ** pooled[several]).mean())
    seen = float((counts[:, several] == 0).any(axis=0).mean())
    distance = rel_entr(seen, expected) + rel_entr(1 - seen, 1 - expected)
    return math.exp(-int(several.sum()) * distance) if seen > expected else 1.0


def _table(
    old: dict[str, Any], new: dict[str, Any], images: NDArray[np.int64]
) -> tuple[list[str], list[list[Any]], NDArray[np.int64], float, float]:
    """Labels, members and counts [2, k] of the joined bins, the p-value, and the total variation before joining.
    `images` [2] are the images of both sides, with a value or without."""
    second = None
    if isinstance(new["counts"], list):
        counts = np.array([old["counts"], new["counts"]], np.int64)
        places = join(counts) if counts.any() else []
        ends = edges_of(new)
        labels = [_range(float(ends[group[0]]), float(ends[group[-1] + 1])) for group in places]
        groups: list[list[Any]] = [*places]
    else:
        names = sorted(set(old["counts"]) | set(new["counts"]))
        counts = np.array([[side["counts"].get(name, 0) for name in names] for side in (old, new)], np.int64)
        places = _common(counts, names) if counts.any() else []
        groups = [[names[place] for place in group] for group in places]
        growth = np.diff(_shares(counts), axis=0)[0]
        grown = [names[max(group, key=growth.__getitem__)] for group in places]
        labels = [_label(*one) for one in zip(groups, grown, strict=True)]
        second = strangers(counts) if any(len(group) > 1 for group in groups) else None
    joined = [counts[:, group].sum(axis=1) for group in places]
    without = np.maximum(images - counts.sum(axis=1), 0)
    if not joined or without.sum() >= _least(images[:, None]):  # fewer of them cannot be tested
        labels, groups, joined = [*labels, _NO_VALUE], [*groups, [None]], [*joined, without]
    table = np.stack(joined, axis=1)
    p = homogeneity(table)
    p = p if second is None else min(1.0, p / (1 - _SECOND), second / _SECOND)
    return labels, groups, table, p, _variation(counts)


def _range(low: float, high: float) -> str:
    """Both ends of a bin, with as many digits as it takes to tell them apart."""
    if math.isinf(low) or math.isinf(high):
        return "any number" if low == -high else f"below {high:.4g}" if math.isinf(low) else f"{low:.4g} or more"
    digits = next(digits for digits in range(4, 18) if f"{low:.{digits}g}" != f"{high:.{digits}g}")
    return f"{low:.{digits}g} to {high:.{digits}g}"


def _order(name: str) -> tuple[float, str]:
    """Numbers by size, then words by SHA-256: neighbours are either alike or have nothing to do with each other."""
    number = _number(name)
    return (math.inf, hashlib.sha256(name.encode()).hexdigest()) if number is None else (number, name)


def _number(name: str) -> float | None:
    try:
        number = float(name)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _label(group: list[str], grown: str) -> str:
    """A category, or a summary of the rare ones joined, which come in `_order`: numbers by their ends, words by the one
    that grew most."""
    if len(group) == 1:
        return group[0]
    numbers = all(_number(name) is not None for name in group)
    return f"{len(group)} rare values, " + (f"{group[0]} to {group[-1]}" if numbers else f"such as {grown}")


def _common(counts: NDArray[np.int64], names: list[str]) -> list[list[int]]:
    """Categories of counts [2, n] one by one, and the rare ones joined with their neighbours in `_order`; if all rare
    ones together are still too rare, the next rarest are joined with them."""
    pooled, least = counts.sum(axis=0), _least(counts)
    order = np.argsort(pooled, kind="stable")
    rare = int(np.searchsorted(pooled[order], least))
    while 0 < rare < len(order) and pooled[order[:rare]].sum() < least:
        rare += 1
    groups = [[place] for place in sorted(order[rare:].tolist())]
    few = sorted(order[:rare].tolist(), key=lambda place: _order(names[place]))
    return groups + [[few[at] for at in group] for group in (_joined(pooled[few], least) if few else [])]


def join(counts: NDArray[np.int64]) -> list[list[int]]:
    """Neighbouring bins of counts [2, n], joined from the left until each holds a sixteenth and enough to test."""
    return _joined(counts.sum(axis=0), _least(counts))


def _joined(pooled: NDArray[np.int64], least: float) -> list[list[int]]:
    """Neighbours among pooled counts [n] joined from the left until each holds a sixteenth of all, and `least`."""
    least = max(pooled.sum() / _BINS, least)
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
    """The number of pooled images of which _LEAST are expected in the smaller data set."""
    sizes = counts.sum(axis=1)
    return _LEAST * float(sizes.sum() / max(1, sizes.min()))
