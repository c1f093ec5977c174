"""Kernel (Inception) distance: unbiased squared maximum mean discrepancy with a cubic kernel (Bińkowski, Sutherland,
Arbel, Gretton: "Demystifying MMD GANs", ICLR 2018).

    k(x, y) = (x . y / D + 1)^3
    MMD^2 = mean of k over pairs i != j of real + the same of fake - 2 mean of k over all pairs of real and fake

It is unbiased at every size and can be negative; it is never clipped. The deviation over subsets is a convention of the
literature, not an error bar.
"""

import numpy as np
from numpy.typing import NDArray

from gan.draws import SUBSETS, permutation
from gan.metrics.checks import feature_pair

_BLOCK = 4096  # rows of a kernel matrix held at once


def kernel_distance(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, subsets: int, subset_size: int, seed: int
) -> tuple[float, float]:
    """(mean, deviation with ddof 0) over `subsets` draws of `subset_size` rows a side, without replacement in a draw.

    Features [N, D] and [M, D]; dimensionless. Raises ValueError for bad features, or a subset_size that is below 2 or
    above N or M: it is never made smaller silently.
    """
    real, fake = feature_pair(real, fake, at_least=2)
    if subsets < 1 or not 2 <= subset_size <= min(len(real), len(fake)):
        raise ValueError(
            f"kernel_distance needs subsets >= 1 and 2 <= subset_size <= {min(len(real), len(fake))}, the smaller set; "
            f"received {subsets} subsets of {subset_size}"
        )
    values = np.empty(subsets)
    for index in range(subsets):
        rows_r = permutation(seed, SUBSETS, 2 * index, len(real))[:subset_size]
        rows_f = permutation(seed, SUBSETS, 2 * index + 1, len(fake))[:subset_size]
        values[index] = _unbiased(real[rows_r], fake[rows_f])
    return float(values.mean()), float(values.std())


def kernel_distance_full(real: NDArray[np.floating], fake: NDArray[np.floating]) -> float:
    """The same estimate from all rows at once: the U-statistic of least variance. Any N and M from 2 up."""
    return _unbiased(*feature_pair(real, fake, at_least=2))


def _unbiased(real: NDArray[np.float64], fake: NDArray[np.float64]) -> float:
    n, m = len(real), len(fake)
    within_r = _kernel_sum(real, real) - _kernel(real, real).sum()
    within_f = _kernel_sum(fake, fake) - _kernel(fake, fake).sum()
    return float(within_r / (n * (n - 1)) + within_f / (m * (m - 1)) - 2 * _kernel_sum(real, fake) / (n * m))


def _kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """k(x_i, y_i) row by row: the diagonal."""
    return (np.einsum("nd,nd->n", x, y) / x.shape[1] + 1) ** 3


def _kernel_sum(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Sum of k over all pairs, in blocks."""
    total = 0.0
    for start in range(0, len(x), _BLOCK):
        for other in range(0, len(y), _BLOCK):
            inner = x[start : start + _BLOCK] @ y[other : other + _BLOCK].T / x.shape[1] + 1
            total += float((inner * inner * inner).sum())
    return total
