"""Fréchet distance of two Gaussians fitted to features (Heusel et al.: "GANs Trained by a Two Time-Scale Update
Rule Converge to a Local Nash Equilibrium", NeurIPS 2017; Dowson and Landau, 1982).

    d2 = |m_r - m_f|^2 + tr(S_r) + tr(S_f) - 2 tr((S_r S_f)^(1/2))

Covariances with ddof 1, all in float64. With S_r = L L^T the trace of the root is the sum of the roots of the
eigenvalues of L^T S_f L, which is symmetric: no general matrix root, no complex numbers, no jitter on the diagonal.
The value is biased upwards by about 1/N; it means something beside another value at the same N only.
"""

import numpy as np
from numpy.typing import NDArray

from gan.metrics.checks import feature_pair

Moments = tuple[NDArray[np.float64], NDArray[np.float64]]


def frechet_distance(real: NDArray[np.floating], fake: NDArray[np.floating]) -> float:
    """Squared Fréchet distance between features [N, D] and [M, D], in squared feature units; 0 for identical sets.

    Any N and M from 2 up, below D too (singular covariances). Symmetric. Raises ValueError for other shapes, widths
    that differ, rows that are not finite, or real rows that are all the same.
    """
    real, fake = feature_pair(real, fake, at_least=2)
    return frechet_distance_of_moments(moments(real), moments(fake))


def moments(features: NDArray[np.floating]) -> Moments:
    """Mean float64 [D] and covariance float64 [D, D] (ddof 1) of features [N, D], N >= 2."""
    features = np.asarray(features, dtype=np.float64)
    mean = features.mean(axis=0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def frechet_distance_of_moments(real: Moments, fake: Moments) -> float:
    """The distance from means and covariances. Raises ValueError where they are not finite or do not fit."""
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
        factor = np.linalg.cholesky(cov_r)
    except np.linalg.LinAlgError:  # singular, as for N <= D or a feature that is always zero
        eigenvalues, vectors = np.linalg.eigh(cov_r)
        factor = vectors * np.sqrt(np.maximum(eigenvalues, 0))
    inner = factor.T @ cov_f @ factor
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh((inner + inner.T) / 2), 0)).sum())
