"""Nearest neighbours within a set, and points in balls: exact searches over the bounds of `gan.metrics.distances`."""

import dataclasses
import itertools

import numpy as np

from gan.metrics.distances import (
    BLOCK,
    FAST,
    SHARP,
    Array,
    Indices,
    Lower,
    Points,
    exact_squares,
    lower,
    on_host,
    parts,
)

_PENDING = 1 << 20  # candidate pairs kept before their distances are taken
_OPEN = 1 / 32  # share of a block that float32 may leave open before float64 looks at it


@dataclasses.dataclass(frozen=True)
class Balls:
    """Balls around the rows (axis 0) or the columns (axis 1): squared radii; closed ones include their surface."""

    squares: Array
    axis: int
    closed: bool


class _Search:
    """The k smallest distances of each row so far: candidates are kept with bounds, and settled once they are many."""

    def __init__(self, points: Points, k: int) -> None:
        self.points, self.k = points, k
        self.best = np.full((len(points), k), np.inf)  # exact and scaled, ascending
        self.upper = self.best.copy()  # upper bounds on the k smallest, ascending
        self.pending: list[tuple[Indices, Indices, Array]] = []

    def look(self, i: slice, j: slice) -> None:
        """Take the distances between rows i and rows j into account, in both directions."""
        for dtype in (FAST, SHARP):
            block = lower(self.points, i, self.points, j, dtype)
            if i == j:
                itself = np.arange(i.stop - i.start)
                block.values[itself, itself] = np.inf
            found = [self._candidates(block, axis) for axis in ((0,) if i == j else (0, 1))]
            if sum(len(pairs[0]) for pairs in found) <= _OPEN * (i.stop - i.start) * (j.stop - j.start):
                break
        for (row, column, low, high), (own, other) in zip(found, ((i, j), (j, i)), strict=False):
            self.upper[own] = _merged(self.upper[own], row, high)
            self.pending.append((row + own.start, column + other.start, low))
        if sum(len(pairs[0]) for pairs in self.pending) > _PENDING:
            self.settle()

    def settle(self) -> None:
        """Compute the distances of the candidates that are still possible."""
        row, column, low = (np.concatenate(part) for part in zip(*self.pending, strict=True))
        possible = low <= self.upper[row, -1]
        row, column = row[possible], column[possible]
        squares = exact_squares(self.points, row, self.points, column) * self.points.unit
        self.best = _merged(self.best, row, squares)
        self.upper = self.best.copy()
        self.upper[self.best[:, -1] == 0] = -np.inf  # nothing is nearer than k copies
        self.pending = []

    def _candidates(self, block: Lower, axis: int) -> tuple[Indices, Indices, Array, Array]:
        """(row, column, bounds) of pairs that may be among the k nearest of `row`, which runs along `axis`."""
        limits = self.upper[block.i if axis == 0 else block.j, -1]
        if not np.isfinite(limits).all():
            limits = np.minimum(limits, block.kth(self.k, axis))
        pairs = block.pick(limits, axis)
        if len(pairs[0]) > 16 * self.k * len(limits):  # rows in an unlucky order: each block is nearer than the last
            pairs = block.pick(np.minimum(limits, block.kth(self.k, axis)), axis)
        return pairs if axis == 0 else (pairs[1], pairs[0], *pairs[2:])


def nearest(points: Points, k: int, block: int = BLOCK) -> Array:
    """Squared distances of each row to its k nearest others, ascending [N, k]: exact. Needs N > k.

    Distances within a set are symmetric: only half of the blocks are computed.
    """
    search = _Search(points, k)
    for i, j in itertools.combinations_with_replacement(parts(len(points), block), 2):
        search.look(i, j)
    search.settle()
    return search.best / points.unit


def members(x: Points, y: Points, balls: list[Balls], block: int = BLOCK) -> list[tuple[Indices, Indices]]:
    """For each kind of balls: how many pairs (x_i, y_j) lie within one, per row of x [N] and per row of y [M].

    One pass over the distances serves all kinds.
    """
    counts = [(np.zeros(len(x), np.int64), np.zeros(len(y), np.int64)) for _ in balls]
    for i, j in itertools.product(parts(len(x), block), parts(len(y), block)):
        rough = lower(x, i, y, j)
        for kind, (of_rows, of_columns) in zip(balls, counts, strict=True):
            row, column, surely = _inside(rough, kind)
            if not surely:
                row, column, _ = _inside(lower(x, i, y, j, SHARP), kind, last=True)
            of_rows[i] += np.bincount(row, minlength=i.stop - i.start)
            of_columns[j] += np.bincount(column, minlength=j.stop - j.start)
    return counts


def _inside(block: Lower, kind: Balls, last: bool = False) -> tuple[Indices, Indices, bool]:
    """(rows, columns) of the pairs within a ball of this kind, and False if the bounds leave too much open."""
    squares = kind.squares[block.i if kind.axis == 0 else block.j]
    row, column, _, high = block.pick(squares * block.x.unit, kind.axis)
    radius = squares[row if kind.axis == 0 else column]
    member = high < radius * block.x.unit
    unsure = np.flatnonzero(~member)
    if not last and len(unsure) > _OPEN * block.values.shape[0] * block.values.shape[1]:
        return row, column, False
    found = exact_squares(block.x, row[unsure] + block.i.start, block.y, column[unsure] + block.j.start)
    member[unsure] = found <= radius[unsure] if kind.closed else found < radius[unsure]
    return row[member], column[member], True


def _merged(best: Array, row: Indices, squares: Array) -> Array:
    """`best` [n, k] with further squared distances of its rows, the k smallest kept, ascending."""
    order = np.lexsort((squares, row))
    row, squares = row[order], squares[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    kept = rank < best.shape[1]
    found = np.full_like(best, np.inf)
    found[row[kept], rank[kept]] = squares[kept]
    return np.sort(np.concatenate([best, found], axis=1), axis=1)[:, : best.shape[1]]


def largest_ratios(x: Points, radii: Array, y: Points, block: int = BLOCK) -> Array:
    """max over rows of x of radii / squared distance, per row of y [M]: exact. `radii` [N] squared; 0 / 0 is 1."""
    found = np.full(len(y), -np.inf)
    for i, j in itertools.product(parts(len(x), block), parts(len(y), block)):
        for dtype in (FAST, SHARP):
            rough = lower(x, i, y, j, dtype)
            row, column = _leading(rough, radii[i] * x.unit, found[j])
            if len(row) <= _OPEN * rough.values.shape[0] * rough.values.shape[1]:
                break
        squares = exact_squares(x, row + i.start, y, column + j.start)
        own = radii[i][row]
        ratios = np.divide(own, squares, out=np.where(own > 0, np.inf, 1.0), where=squares > 0)
        np.maximum.at(found[j], column, ratios)
    return found


def _leading(block: Lower, radii: Array, best: Array) -> tuple[Indices, Indices]:
    """Pairs whose ratio may exceed `best` [m] and that of every other row in the block; `radii` [n] scaled squares."""
    low = np.maximum(on_host(block.values), 0)
    slack = 2 * block.c * (block.x.squares[block.i][:, None] + block.y.squares[block.j].max()) + 2 * block.tiny
    least = np.maximum(best, (radii[:, None] / (low + slack)).max(axis=0))
    # As low * least <= radii, not as a ratio: low may be 0. The factor covers the rounding of these three lines.
    row, column = np.nonzero(low * (least * (1 - 1e-12)) <= radii[:, None])
    return row, column
