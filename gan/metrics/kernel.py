"""Kernel (Inception) distance: unbiased squared maximum mean discrepancy with a cubic kernel (Bińkowski, Sutherland,
Arbel, Gretton: "Demystifying MMD GANs", ICLR 2018).

    k(x, y) = (x . y / D + 1)^3
    MMD^2 = mean of k over pairs i != j of real + the same of fake - 2 mean of k over all pairs of real and fake

It is unbiased at every size and can be negative; it is never clipped. The deviation over subsets is a convention of the
literature, not an error bar. Products in float64: the three terms nearly cancel, and float32 leaves three digits.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from gan.draws import SUBSETS, permutation
from gan.metrics.checks import rows_pair

_BLOCK = 2048  # rows of a kernel matrix held at once

Array = NDArray[np.float64]
Features = NDArray[np.floating]
Indices = NDArray[np.int64]


def kernel_distance(
    real: Features, fake: Features, *, subsets: int, subset_size: int, seed: int, first: int = 0
) -> tuple[float, float]:
    """(mean, deviation with ddof 0) over `subsets` draws of `subset_size` rows per side, without replacement in a draw.

    Features [N, D] and [M, D]; dimensionless. `first` is the number of the first draw of `seed`: values of several
    generated sets are independent given `real` only if each has draws of its own. Raises ValueError for bad features,
    or a subset_size that is below 2 or above N or M: it is never made smaller silently.
    """
    real, fake = rows_pair(real, fake, at_least=2)
    if subsets < 1 or not 2 <= subset_size <= min(len(real), len(fake)):
        raise ValueError(
            f"kernel_distance needs subsets >= 1 and 2 <= subset_size <= {min(len(real), len(fake))}, the smaller set; "
            f"received {subsets} subsets of {subset_size}"
        )
    draws = [
        tuple(
            permutation(seed, SUBSETS, 2 * index + side, len(rows))[:subset_size]
            for side, rows in enumerate((real, fake))
        )
        for index in range(first, first + subsets)
    ]
    values = kernel_distances(real, fake, [draw[0] for draw in draws], [draw[1] for draw in draws])
    return float(values.mean()), float(values.std())


def kernel_distances(real: Features, fake: Features, rows_r: list[Indices], rows_f: list[Indices]) -> Array:
    """The unbiased distance of each pair of subsets, [S]: places in real and in fake, without repeats in a subset.

    If subsets overlap so much that all pairs of rows are fewer than the pairs of all subsets, each kernel value is
    computed once and added to every subset that holds both rows.
    """
    pairs = sum((len(a) + len(b)) ** 2 for a, b in zip(rows_r, rows_f, strict=True))
    if (len(real) + len(fake)) ** 2 <= pairs:
        return _shared(real, fake, rows_r, rows_f)
    return np.array(
        [_unbiased(real[a].astype(np.float64), fake[b].astype(np.float64)) for a, b in zip(rows_r, rows_f, strict=True)]
    )


def kernel_distance_full(real: Features, fake: Features) -> float:
    """The same estimate from all rows at once: the U-statistic of least variance. Any N and M from 2 up."""
    return _unbiased(*rows_pair(real, fake, at_least=2))


def _unbiased(real: Features, fake: Features) -> float:
    n, m = len(real), len(fake)
    within_r, within_f = (_kernel_sum(x, x) - _kernel_of_rows(x).sum() for x in (real, fake))
    return float(within_r / (n * (n - 1)) + within_f / (m * (m - 1)) - 2 * _kernel_sum(real, fake) / (n * m))


def _shared(real: Features, fake: Features, rows_r: list[Indices], rows_f: list[Indices]) -> Array:
    held_r, held_f = _held(len(real), rows_r), _held(len(fake), rows_f)
    n, m = held_r.sum(axis=0), held_f.sum(axis=0)
    within_r, within_f = (
        _shared_sums(x, held, x, held) - _kernel_of_rows(x) @ held for x, held in ((real, held_r), (fake, held_f))
    )
    between = _shared_sums(real, held_r, fake, held_f)
    return within_r / (n * (n - 1)) + within_f / (m * (m - 1)) - 2 * between / (n * m)


def _held(count: int, rows: list[Indices]) -> Array:
    """1 where subset s holds row i, else 0: [N, S]."""
    held = np.zeros((count, len(rows)))
    for subset, places in enumerate(rows):
        held[places, subset] = 1
    return held


def _shared_sums(x: Features, held_x: Array, y: Features, held_y: Array) -> Array:
    """Sum of k over the pairs of each subset, [S]: the diagonal of H_x^T K H_y, in blocks."""
    total = np.zeros(held_x.shape[1])
    for i, j, weight in _blocks(len(x), len(y), symmetric=held_x is held_y):
        total += weight * np.einsum("is,is->s", held_x[i], _kernel(x[i], y[j]) @ held_y[j])
    return total


def _kernel_sum(x: Features, y: Features) -> float:
    """Sum of k over all pairs, in blocks."""
    blocks = _blocks(len(x), len(y), symmetric=x is y)
    return sum(weight * float(_kernel(x[i], y[j]).sum()) for i, j, weight in blocks)


def _blocks(n: int, m: int, *, symmetric: bool) -> list[tuple[slice, slice, int]]:
    """(rows, columns, weight) of the blocks to sum; if they are symmetric, the upper triangle stands for both."""
    rows, columns = ([slice(start, start + _BLOCK) for start in range(0, count, _BLOCK)] for count in (n, m))
    if not symmetric:
        return [(i, j, 1) for i, j in itertools.product(rows, columns)]
    return [(i, j, 1 if i == j else 2) for i, j in itertools.combinations_with_replacement(rows, 2)]


def _kernel(x: Features, y: Features) -> Array:
    """k of every row of x with every row of y, [n, m]."""
    a = x.astype(np.float64, copy=False)
    b = a if x is y or (x.ctypes.data == y.ctypes.data and x.shape == y.shape) else y.astype(np.float64, copy=False)
    inner = a @ b.T  # for one array with itself BLAS computes only half
    inner /= x.shape[1]
    inner += 1
    cubes = inner * inner
    cubes *= inner
    return cubes


def _kernel_of_rows(x: Features) -> Array:
    """k(x_i, x_i), [N]: the diagonal."""
    squares = [
        np.einsum("nd,nd->n", part, part)
        for part in (x[s : s + _BLOCK].astype(np.float64) for s in range(0, len(x), _BLOCK))
    ]
    return (np.concatenate(squares) / x.shape[1] + 1) ** 3
