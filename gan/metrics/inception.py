"""Inception score: exp of the mean KL divergence of p(y|x) from p(y) (Salimans et al.: "Improved Techniques for
Training GANs", NeurIPS 2016).

With a classifier other than the Inception network the score is on another scale; it is then named after that network
(`is_domain`) and compared with nothing else.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from gan.metrics.checks import blocks, feature_rows


def inception_score(probabilities: NDArray[np.floating], *, splits: int) -> tuple[float, float]:
    """(mean, deviation with ddof 0) over `splits` consecutive parts of class probabilities [N, K]; in 1 ... K.

    The rows are used in the order given: shuffle first if neighbours are related. Part i is rows i N // splits to
    (i + 1) N // splits. Raises ValueError for fewer rows than splits, or rows that are not probabilities.
    """
    if splits < 1:
        raise ValueError(f"splits must be at least 1; received {splits}")
    p = feature_rows(probabilities, "probabilities", at_least=splits)
    if any((part < 0).any() or np.abs(part.sum(axis=1, dtype=np.float64) - 1).max() > 1e-4 for part in blocks(p)):
        raise ValueError("probabilities must not be negative and must sum to 1 in every row")
    bounds = [index * len(p) // splits for index in range(splits + 1)]
    scores = [_score(p[start:end]) for start, end in itertools.pairwise(bounds)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(p: NDArray[np.floating]) -> float:
    marginal = p.mean(axis=0, dtype=np.float64)
    divergence = 0.0
    for part in (rows.astype(np.float64) for rows in blocks(p)):
        # 0 log 0 counts as 0; a class that no row has is such a term too.
        ratio = np.divide(part, marginal, out=np.ones_like(part), where=part > 0)
        divergence += float((part * np.log(ratio)).sum())
    return float(np.exp(divergence / len(p)))
