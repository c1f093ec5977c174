"""Comparisons of distances that are exact and fast: a matrix product decides what it can, plain differences the rest.

|x - y|^2 = |x|^2 + |y|^2 - 2 x.y loses all digits where x and y are close to each other and far from the origin. Here
rows are centred first, the rounding of the product is bounded, and each comparison that the bound leaves open is
decided by the plain difference of the two rows. So counts are those of exact distances, near duplicates included, and
do not depend on the block size; memory is bounded by the block, not by N x M.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

BLOCK = 1024  # rows and columns of a distance matrix held at once
_HELD = 1 << 22  # float64 numbers held while open comparisons are decided

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Points:
    """Rows [N, D], the same rows around a common middle, and the norms that bound the rounding, each [N]."""

    rows: Array
    centred: Array
    squares: Array  # |centred|^2
    offsets: Array  # |row| + |middle|: what centring may have rounded away is eps times this

    def part(self, places: slice) -> "Points":
        return Points(self.rows[places], self.centred[places], self.squares[places], self.offsets[places])

    def __len__(self) -> int:
        return len(self.rows)


def around(rows: Array, middle: Array) -> Points:
    """`rows` float64 [N, D] prepared around `middle` [D]; use one middle for all sets that are compared."""
    centred = rows - middle
    offsets = np.sqrt(_row_sums(rows * rows)) + np.sqrt((middle * middle).sum())
    return Points(rows, centred, _row_sums(centred * centred), offsets)


def kth_neighbour(points: Points, k: int, block: int = BLOCK) -> Array:
    """Squared distance of each row to its k-th neighbour, itself excluded: exact, [N]. Needs N > k."""
    radii = np.empty(len(points))
    for start in range(0, len(points), block):
        own = slice(start, min(start + block, len(points)))
        rows = points.part(own)
        best = np.full((len(rows), k), np.inf)  # the k smallest so far, ascending
        for other in range(0, len(points), block):
            columns = points.part(slice(other, other + block))
            rough, bound = _rough(rows, columns)
            itself = np.arange(own.start, own.stop) - other
            inside = (itself >= 0) & (itself < len(columns))
            rough[inside, itself[inside]] = np.inf
            here = np.partition(rough, k - 1, axis=1)[:, k - 1] if rough.shape[1] >= k else np.inf
            limit = np.minimum(best[:, -1] + bound, here + 2 * bound)
            row, column = np.nonzero((rough <= limit[:, None]) & np.isfinite(rough))
            best = _merged(best, row, exact_squares(rows.rows, row, columns.rows, column))
        radii[own] = best[:, -1]
    return radii


def ball_counts(
    centres: Points, radii: Array, points: Points, *, closed: bool, block: int = BLOCK
) -> tuple[Indices, Indices]:
    """(points in each ball [N], balls around each point [M]); `radii` squared, `closed` balls hold their surface."""
    held, around_point = np.zeros(len(centres), np.int64), np.zeros(len(points), np.int64)
    for start in range(0, len(centres), block):
        rows = slice(start, start + block)
        for other in range(0, len(points), block):
            columns = slice(other, other + block)
            rough, bound = _rough(centres.part(rows), points.part(columns))
            margin = rough - radii[rows, None]
            member = margin < 0
            row, column = np.nonzero(np.abs(margin) <= bound[:, None])
            squares = exact_squares(centres.rows[rows], row, points.rows[columns], column)
            member[row, column] = squares <= radii[rows][row] if closed else squares < radii[rows][row]
            held[rows] += member.sum(axis=1)
            around_point[columns] += member.sum(axis=0)
    return held, around_point


def exact_squares(x: Array, rows: Indices, y: Array, columns: Indices) -> Array:
    """|x_row - y_column|^2 by plain differences for each pair of indices, in pieces of bounded memory."""
    found = np.empty(len(rows))
    step = max(1, _HELD // x.shape[1])
    for start in range(0, len(rows), step):
        piece = slice(start, start + step)
        difference = x[rows[piece]] - y[columns[piece]]
        found[piece] = _row_sums(difference * difference)
    return found


def _rough(x: Points, y: Points) -> tuple[Array, Array]:
    """Squared distances [n, m] by a matrix product, and a bound on their error a row, [n]."""
    rough = x.squares[:, None] + y.squares[None, :] - 2 * (x.centred @ y.centred.T)
    eps = np.finfo(np.float64).eps
    # A product of D terms errs by less than D eps |x| |y| for any order of summation; centring adds the second part.
    product = 4 * (x.rows.shape[1] + 4) * eps * (x.squares + y.squares.max())
    centring = 8 * eps * (x.offsets + y.offsets.max()) * np.sqrt(2 * (x.squares + y.squares.max()))
    return rough, product + centring


def _merged(best: Array, row: Indices, squares: Array) -> Array:
    """`best` [n, k] with further squared distances of its rows, the k smallest kept, ascending."""
    order = np.lexsort((squares, row))
    row, squares = row[order], squares[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    kept = rank < best.shape[1]
    found = np.full_like(best, np.inf)
    found[row[kept], rank[kept]] = squares[kept]
    return np.sort(np.concatenate([best, found], axis=1), axis=1)[:, : best.shape[1]]


def _row_sums(x: Array) -> Array:
    """Sums along the last axis; each row is summed alone, so the result does not depend on how many there are."""
    return np.ascontiguousarray(x).sum(axis=-1)
