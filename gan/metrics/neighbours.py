"""Nearest-neighbour metrics: improved precision and recall (Kynkäänniemi et al.: "Improved Precision and Recall Metric
for Assessing Generative Models", NeurIPS 2019), density and coverage (Naeem et al.: "Reliable Fidelity and Diversity
Metrics for Generative Models", ICML 2020).

The radius of a row is the distance to its k-th neighbour in its own set, itself excluded. Precision and recall count a
point on the surface of a ball as inside (`<=`), density and coverage do not (`<`), as their authors define them; it
matters with duplicates. Counts are those of plain float64 differences for every block size and device:
`gan.metrics.distances`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gan.metrics.checks import rows_pair
from gan.metrics.distances import BLOCK, Array, points
from gan.metrics.nearest import Balls, largest_ratios, members, nearest

Features = NDArray[np.floating]


class Neighbourhoods(NamedTuple):
    """All four numbers of one pass."""

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhoods(
    real: Features, fake: Features, *, k_precision: int, k_density: int, block: int = BLOCK, device: str = "cpu"
) -> Neighbourhoods:
    """Precision and recall at `k_precision`, density and coverage at `k_density`, of features [N, D] and [M, D].

    The numbers of `precision_recall` and `density_coverage` from one pass over the distances, in about half the time.
    float32 and float64 features are used as they are; further memory: a float32 copy of each set, and blocks.
    Raises ValueError for bad features or fewer than k + 1 rows on a side.
    """
    real, fake = _checked(real, fake, max(k_precision, k_density), min(k_precision, k_density), block)
    x, y = points(real, fake, device=device)
    radii_r, radii_f = nearest(x, max(k_precision, k_density), block), nearest(y, k_precision, block)[:, -1]
    balls = [
        Balls(radii_r[:, k_precision - 1], axis=0, closed=True),
        Balls(radii_f, axis=1, closed=True),
        Balls(radii_r[:, k_density - 1], axis=0, closed=False),
    ]
    (_, fakes_held), (reals_held, _), (around_real, around_fake) = members(x, y, balls, block)
    return Neighbourhoods(
        precision=float((fakes_held > 0).mean()),
        recall=float((reals_held > 0).mean()),
        density=float(around_fake.sum() / (k_density * len(y))),
        coverage=float((around_real > 0).mean()),
    )


def precision_recall(
    real: Features, fake: Features, *, k: int, block: int = BLOCK, device: str = "cpu"
) -> tuple[float, float]:
    """(precision, recall), shares in [0, 1], of features [N, D] and [M, D].

    Precision: fake rows that lie in the ball of some real row. Recall: real rows that lie in the ball of some fake row.
    Raises ValueError for bad features or fewer than k + 1 rows on a side.
    """
    real, fake = _checked(real, fake, k, k, block)
    x, y = points(real, fake, device=device)
    radii_r, radii_f = (nearest(rows, k, block)[:, -1] for rows in (x, y))
    balls = [Balls(radii_r, axis=0, closed=True), Balls(radii_f, axis=1, closed=True)]
    (_, fakes_held), (reals_held, _) = members(x, y, balls, block)
    return float((fakes_held > 0).mean()), float((reals_held > 0).mean())


def density_coverage(
    real: Features, fake: Features, *, k: int, block: int = BLOCK, device: str = "cpu"
) -> tuple[float, float]:
    """(density, coverage) of features [N, D] and [M, D].

    Density: mean number of real balls that a fake row lies in, divided by k; about 1 for equal distributions, may
    exceed 1. Coverage: share of real rows whose ball holds a fake row. Raises ValueError as `precision_recall` does.
    """
    real, fake = _checked(real, fake, k, k, block)
    x, y = points(real, fake, device=device)
    radii = nearest(x, k, block)[:, -1]
    ((around_real, around_fake),) = members(x, y, [Balls(radii, axis=0, closed=False)], block)
    return float(around_fake.sum() / (k * len(y))), float((around_real > 0).mean())


def expected_coverage(n_real: int, n_fake: int, k: int) -> float:
    """Expected coverage if both sets come from one distribution: 1 - prod of (N - i) / (N + M - i), i = 1 ... k."""
    n = n_real - np.arange(1, k + 1)
    return float(1 - np.prod(n / (n + n_fake)))


def realism(real: Features, fake: Features, *, k: int, block: int = BLOCK, device: str = "cpu") -> Array:
    """Realism score of each fake row, float64 [M]: the largest radius / distance over real balls; no unit.

    Above 1: inside a ball. Of the real balls only the smaller half is used, those with a radius up to the median, so
    that outliers with large balls lend no realism (section 5 of Kynkäänniemi et al.). A copy of such a real row scores
    inf. Raises ValueError as `precision_recall` does.
    """
    real, fake = _checked(real, fake, k, k, block)
    (x,) = points(real, device=device)
    radii = nearest(x, k, block)[:, -1]
    kept = radii <= np.median(radii)
    x, y = points(real[kept], fake, device=device)
    return np.sqrt(largest_ratios(x, radii[kept], y, block))


def _checked(real: Features, fake: Features, k: int, least: int, block: int) -> tuple[Features, Features]:
    if least < 1 or block < 1:
        raise ValueError(f"k and block must be at least 1; received k {least}, block {block}")
    return rows_pair(real, fake, at_least=k + 1)
