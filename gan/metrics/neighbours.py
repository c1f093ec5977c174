"""Nearest-neighbour metrics: improved precision and recall (Kynkäänniemi et al.: "Improved Precision and Recall Metric
for Assessing Generative Models", NeurIPS 2019), density and coverage (Naeem et al.: "Reliable Fidelity and Diversity
Metrics for Generative Models", ICML 2020).

The radius of a row is the distance to its k-th neighbour in its own set, itself excluded. Precision and recall count a
point on the surface of a ball as inside (`<=`), density and coverage do not (`<`), as their authors have it; it matters
with duplicates.
"""

import numpy as np
from numpy.typing import NDArray

from gan.metrics.checks import feature_pair
from gan.metrics.distances import BLOCK, Points, around, ball_counts, kth_neighbour


def precision_recall(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, k: int, block: int = BLOCK
) -> tuple[float, float]:
    """(precision, recall), shares in [0, 1], of features [N, D] and [M, D].

    Precision: fake rows that lie in the ball of some real row. Recall: real rows that lie in the ball of some fake row.
    Raises ValueError for bad features or fewer than k + 1 rows on a side.
    """
    points_r, points_f = _points(real, fake, k, block)
    _, around_f = ball_counts(points_r, kth_neighbour(points_r, k, block), points_f, closed=True, block=block)
    _, around_r = ball_counts(points_f, kth_neighbour(points_f, k, block), points_r, closed=True, block=block)
    return float((around_f > 0).mean()), float((around_r > 0).mean())


def density_coverage(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, k: int, block: int = BLOCK
) -> tuple[float, float]:
    """(density, coverage) of features [N, D] and [M, D].

    Density: real balls that a fake row lies in, on average, over k; about 1 for equal distributions, may exceed 1.
    Coverage: share of real rows whose ball holds a fake row. Raises ValueError as `precision_recall`.
    """
    points_r, points_f = _points(real, fake, k, block)
    held, around_f = ball_counts(points_r, kth_neighbour(points_r, k, block), points_f, closed=False, block=block)
    return float(around_f.sum() / (k * len(points_f))), float((held > 0).mean())


def expected_coverage(n_real: int, n_fake: int, k: int) -> float:
    """Expected coverage where both sets come from one distribution: 1 - prod of (N - i) / (N + M - i), i = 1 ... k."""
    n = n_real - np.arange(1, k + 1)
    return float(1 - np.prod(n / (n + n_fake)))


def _points(real: NDArray[np.floating], fake: NDArray[np.floating], k: int, block: int) -> tuple[Points, Points]:
    if k < 1 or block < 1:
        raise ValueError(f"k and block must be at least 1; received k {k}, block {block}")
    real, fake = feature_pair(real, fake, at_least=k + 1)
    middle = real.mean(axis=0)
    return around(real, middle), around(fake, middle)
