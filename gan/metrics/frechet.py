"""Fréchet distance of two Gaussians fitted to features (Heusel et al.: "GANs Trained by a Two Time-Scale Update
Rule Converge to a Local Nash Equilibrium", NeurIPS 2017; Dowson and Landau, 1982).

    d2 = |m_r - m_f|^2 + tr(S_r) + tr(S_f) - 2 tr((S_r S_f)^(1/2))

Covariances with ddof 1, all in float64. With S_r = L L^T the trace of the root is the sum of the roots of the
eigenvalues of L^T S_f L, which is symmetric: no general matrix root, no complex numbers, no jitter on the diagonal.
The value is biased upwards by about 1/N; it can be compared only with a value at the same N.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gan.metrics.checks import blocks, feature_rows, rows_pair

Moments = tuple[NDArray[np.float64], NDArray[np.float64]]


def frechet_distance(real: NDArray[np.floating], fake: NDArray[np.floating]) -> float:
    """Squared Fréchet distance between features [N, D] and [M, D], in squared feature units; 0 for identical sets.

    Any N and M from 2 up, below D too (singular covariances). Symmetric. Raises ValueError for other shapes, widths
    that differ, rows that are not finite, or real rows that are all the same.
    """
    real, fake = rows_pair(real, fake, at_least=2)
    return frechet_distance_of_moments(_moments(real), _moments(fake))


def moments(features: NDArray[np.floating]) -> Moments:
    """Mean float64 [D] and covariance float64 [D, D] (ddof 1) of features [N, D], N >= 2.

    Two passes in blocks of rows: float32 features are never copied to float64 whole, and no offset costs digits.
    """
    return _moments(feature_rows(features, "features", at_least=2))


def _moments(features: NDArray[np.floating]) -> Moments:
    start = features[0].astype(np.float64)  # sums of differences from it keep their digits
    mean = start + sum(np.subtract(part, start, dtype=np.float64).sum(axis=0) for part in blocks(features)) / len(
        features
    )
    scatter = np.zeros((len(mean), len(mean)))
    for part in blocks(features):
        centred = np.subtract(part, mean, dtype=np.float64)
        scatter += centred.T @ centred
    return mean, scatter / (len(features) - 1)


def merge_moments(parts: Sequence[tuple[int, Moments]]) -> tuple[int, Moments]:
    """Rows, mean and covariance of all parts together, from (rows, (mean, covariance)) of each: exact, not an average.

    Chan, Golub, LeVeque: "Updating formulae and a pairwise algorithm for computing sample variances" (1979), with all
    parts at once. A part of one row has a covariance of zeros; parts without rows are left out. Raises ValueError for
    fewer than 2 rows in all, or parts that do not fit each other.
    """
    filled = [(count, mean, cov) for count, (mean, cov) in parts if count > 0]
    total = sum(count for count, _, _ in filled)
    if total < 2 or any(count < 0 for count, _ in parts):
        raise ValueError(f"moments need at least 2 rows in all; received parts of {[count for count, _ in parts]} rows")
    width = filled[0][1].shape
    if any(mean.shape != width or cov.shape != 2 * width for _, mean, cov in filled):
        raise ValueError(
            f"all parts must have the same width; received means of {[mean.shape for _, mean, _ in filled]}"
        )
    start = filled[0][1]
    mean = start + sum(count / total * (mean - start) for count, mean, _ in filled)
    scatter = np.zeros(2 * width)
    for count, mean_of_part, cov in filled:
        if count > 1:
            scatter += (count - 1) * cov
        scatter += count * np.outer(mean_of_part - mean, mean_of_part - mean)
    return total, (mean, scatter / (total - 1))


def frechet_distance_of_moments(real: Moments, fake: Moments) -> float:
    """The distance from means and covariances. Raises ValueError if they are not finite or do not fit."""
    (mean_r, cov_r), (mean_f, cov_f) = real, fake
    if not mean_r.shape == mean_f.shape or not cov_r.shape == cov_f.shape == 2 * mean_r.shape:
        raise ValueError(
            f"moments must be [D] and [D, D] on both sides; received {mean_r.shape}, {cov_r.shape} (real) and "
            f"{mean_f.shape}, {cov_f.shape} (fake)"
        )
    if not all(np.isfinite(part).all() for part in (*real, *fake)):
        raise ValueError("moments must be finite")
    difference = mean_r - mean_f
    value = difference @ difference + np.trace(cov_r) + np.trace(cov_f) - 2 * _trace_of_root(cov_r, cov_f)
    return max(0.0, float(value))  # rounding leaves about -1e-14 tr(S) for identical sets


def _trace_of_root(cov_r: NDArray[np.float64], cov_f: NDArray[np.float64]) -> float:
    """tr((S_r S_f)^(1/2)) of two positive semi-definite matrices."""
    try:
        inner = _congruent(np.linalg.cholesky(cov_r).astype(np.float64, copy=False), cov_f)
    except np.linalg.LinAlgError:  # singular, as for N <= D or a feature that is always zero
        eigenvalues, vectors = np.linalg.eigh(cov_r)
        factor = vectors * np.sqrt(np.maximum(eigenvalues, 0))
        inner = factor.T @ cov_f @ factor
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(inner, UPLO="L"), 0)).sum())


def _congruent(factor: NDArray[np.float64], cov: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lower triangle of L^T S L for a lower triangular L [D, D]; what is above it has no meaning.

    In blocks of columns that leave out the zeros of L: less than half of the work of two full products.
    """
    width = len(cov)
    blocks = [slice(start, start + 256) for start in range(0, width, 256)]
    right, inner = np.empty_like(cov), np.zeros_like(cov)
    for part in blocks:
        right[:, part] = cov[:, part.start :] @ factor[part.start :, part]
    for part in blocks:
        inner[part, : part.stop] = factor[part.start :, part].T @ right[part.start :, : part.stop]
    return inner
