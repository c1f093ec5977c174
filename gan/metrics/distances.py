"""Fast bounds on squared distances, and the exact distances themselves: what decides the neighbour metrics.

|x - y|^2 = |x|^2 + |y|^2 - 2 x.y loses all digits if x and y are close to each other and far from the origin. Here
rows are centred first, so that the rounding of the product is bounded by a known number c (|x|^2 + |y|^2), and each
comparison that the bound leaves open is decided by the plain difference of the two rows in float64. The product is
taken in float32 (twice as fast), and again in float64 if float32 leaves much open. So counts are those of plain
float64 differences for every block size and device, near duplicates included, and memory is bounded by the block.

Why c = (D + 32) eps: with u = eps / 2, a product of D terms errs by at most D u |x| |y| for any order of summation,
each of the six roundings beside it by u (|x|^2 + |y|^2), the plain difference (pairwise sums) by about 25 u |x - y|^2;
and 2 |x| |y| <= |x|^2 + |y|^2. Centring errs relative to its result, so it is one of the six. Together at most
(D + 64) u.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan.metrics.checks import blocks, row_sums

BLOCK = 2048  # rows and columns of a distance matrix held at once
FAST, SHARP = np.dtype(np.float32), np.dtype(np.float64)
_HELD = 1 << 17  # numbers of a piece of plain differences: they stay in the processor's cache

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Points:
    """Rows [N, D] as given (float32 or float64), and what the bounds need. `unit` turns squares into scaled squares."""

    rows: NDArray[np.floating]
    middle: Array  # [D], the same for all sets that are compared
    scale: float  # a power of two that brings the largest centred norm below 1: no overflow in float32
    squares: Array  # [N], |scaled centred row|^2
    twins: Indices  # [N], place of the first row that equals this one
    fast: Any  # scaled centred rows, float32 [N, D], numpy or a torch tensor on `device`
    device: str

    @property
    def unit(self) -> float:
        return self.scale * self.scale

    def __len__(self) -> int:
        return len(self.rows)


@dataclasses.dataclass(frozen=True)
class Lower:
    """`values` [n, m] <= scaled squared distance <= values + 2 c (squares of both) + 2 tiny; rows i, columns j."""

    values: Any
    x: Points
    y: Points
    i: slice
    j: slice
    c: float
    tiny: float

    def pick(self, limits: Array, axis: int) -> tuple[Indices, Indices, Array, Array]:
        """(row, column, lower, upper bound), all [P], of the pairs whose lower bound is at most their limit.

        `limits` is per row [n] for axis 0, per column [m] for axis 1, in scaled squares. Rows and columns count from
        the start of the block.
        """
        rounded = limits if self.values.dtype == SHARP else np.nextafter(limits.astype(FAST), FAST.type(np.inf))
        bound = _beside(rounded, self.values)
        row, column, low = _where(self.values, self.values <= (bound[:, None] if axis == 0 else bound[None, :]))
        upper = low + 2 * self.c * (self.x.squares[self.i][row] + self.y.squares[self.j][column]) + 2 * self.tiny
        return row, column, low, upper

    def kth(self, k: int, axis: int) -> Array:
        """Upper bound on the k-th smallest scaled square of each row (axis 0) or column; infinite if fewer than k."""
        own, other = (self.x.squares[self.i], self.y.squares[self.j])[:: 1 - 2 * axis]
        if len(other) < k:
            return np.full(len(own), np.inf)
        return _at_least_kth(self.values, k, 1 - axis) + 2 * self.c * (own + other.max()) + 2 * self.tiny


def points(*sets: NDArray[np.floating], device: str = "cpu") -> tuple[Points, ...]:
    """Sets of rows [N, D], prepared around the mean of the first. `device`: "cpu" for numpy, else a torch device."""
    middle = sum((part.sum(axis=0, dtype=np.float64) for part in blocks(sets[0])), np.zeros(1)) / len(sets[0])
    squares = [np.concatenate([row_sums(_centred(part, middle) ** 2) for part in blocks(rows)]) for rows in sets]
    largest = max(float(part.max()) for part in squares)
    scale = float(2.0 ** -np.ceil(np.log2(largest) / 2)) if largest > 0 else 1.0
    return tuple(
        Points(rows, middle, scale, norms * scale * scale, _twins(rows), _fast(rows, middle, scale, device), device)
        for rows, norms in zip(sets, squares, strict=True)
    )


def lower(x: Points, i: slice, y: Points, j: slice, dtype: np.dtype[Any] = FAST) -> Lower:
    """Lower bounds on the scaled squared distances of x[i] and y[j], from one matrix product in `dtype`."""
    width = x.rows.shape[1]
    c = (width + 32) * float(np.finfo(dtype).eps)
    tiny = 8 * (width + 32) * float(np.finfo(dtype).tiny)  # what underflow may take away
    a, b = (
        p.fast[part] if dtype == FAST else _beside(_centred(p.rows[part], p.middle) * p.scale, p.fast)
        for p, part in ((x, i), (y, j))
    )
    values = _product(a, b)
    values *= -2
    values += _beside(((1 - c) * y.squares[j] - tiny).astype(dtype), values)
    values += _beside(((1 - c) * x.squares[i]).astype(dtype), values)[:, None]
    return Lower(values, x, y, i, j, c, tiny)


def exact_squares(x: Points, rows: Indices, y: Points, columns: Indices) -> Array:
    """|x_row - y_column|^2 by plain differences in float64 for each pair of places, [P], not scaled.

    Each is summed alone and in one order, so it never depends on the others; of many pairs, equal ones are taken once.
    """
    if len(rows) > 4096:
        pairs = x.twins[rows] * len(y) + y.twins[columns]
        pairs, back = np.unique(pairs, return_inverse=True)
        return _plain(x.rows, pairs // len(y), y.rows, pairs % len(y))[back]
    return _plain(x.rows, rows, y.rows, columns)


def parts(count: int, block: int) -> list[slice]:
    """0 ... count in slices of `block`."""
    return [slice(start, min(start + block, count)) for start in range(0, count, block)]


def _plain(x: NDArray[np.floating], rows: Indices, y: NDArray[np.floating], columns: Indices) -> Array:
    found = np.empty(len(rows))
    for piece in parts(len(rows), max(1, _HELD // x.shape[1])):
        difference = np.subtract(x[rows[piece]], y[columns[piece]], dtype=np.float64)
        difference *= difference
        found[piece] = row_sums(difference)
    return found


def _centred(rows: NDArray[np.floating], middle: Array) -> Array:
    return np.subtract(rows, middle, dtype=np.float64)


def _twins(rows: NDArray[np.floating]) -> Indices:
    """Place of the first equal row, [N]. Found by a weighted sum of each row, then compared number by number."""
    weights = np.cos(np.arange(rows.shape[1]) + 1.0)
    keys = np.concatenate([row_sums(np.multiply(part, weights, dtype=np.float64)) for part in blocks(rows)])
    _, first, back = np.unique(keys, return_index=True, return_inverse=True)
    twins = first[back].astype(np.int64)
    doubted = np.flatnonzero(twins != np.arange(len(rows)))
    for piece in parts(len(doubted), BLOCK):
        places = doubted[piece]
        differs = (rows[places] != rows[twins[places]]).any(axis=1)
        twins[places[differs]] = places[differs]
    return twins


def _fast(rows: NDArray[np.floating], middle: Array, scale: float, device: str) -> Any:
    found = np.empty(rows.shape, FAST)
    for part in parts(len(rows), BLOCK):
        found[part] = _centred(rows[part], middle) * scale
    if device == "cpu":
        return found
    import torch

    return torch.from_numpy(found).to(device)


# numpy works on the CPU (its products are the faster ones there), torch on every other device.


def _beside(array: NDArray[Any], like: Any) -> Any:
    """`array` on the device of `like`: unchanged for numpy, else a tensor."""
    if isinstance(like, np.ndarray):
        return array
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device)


def _product(a: Any, b: Any) -> Any:
    """a b^T [n, m] at the full precision of its type: never TF32, whatever the process asked torch for."""
    if isinstance(a, np.ndarray):
        return a @ b.T
    import torch

    asked = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        return a @ b.T
    finally:
        torch.set_float32_matmul_precision(asked)


def on_host(values: Any) -> NDArray[Any]:
    """`values` as a numpy array."""
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()


def _where(values: Any, mask: Any) -> tuple[Indices, Indices, Array]:
    """(row, column, value) of the true places of a mask [n, m], as numpy arrays."""
    if isinstance(values, np.ndarray):
        flat = np.flatnonzero(mask)
        return flat // mask.shape[1], flat % mask.shape[1], values.ravel()[flat].astype(np.float64)
    row, column = mask.nonzero(as_tuple=True)
    return row.cpu().numpy(), column.cpu().numpy(), values[row, column].double().cpu().numpy()


def _at_least_kth(values: Any, k: int, axis: int) -> Array:
    """An upper bound on the k-th smallest along an axis, close if it is long: the k-th smallest of groups' minima."""
    count, groups = values.shape[axis], 16 * k
    if count >= 4 * groups:
        size = count // groups
        if axis == 0:
            values = values[: size * groups].reshape(size, groups, -1)
        else:
            values = values[:, : size * groups].reshape(len(values), size, groups)
        values = values.min(axis) if isinstance(values, np.ndarray) else values.amin(axis)
    return np.partition(on_host(values), k - 1, axis=axis).take(k - 1, axis=axis).astype(np.float64)
