"""What every metric requires of its arrays, so that none returns a meaningless number."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

LARGEST = 1e50  # in magnitude: beyond it cubes and squares of sums overflow float64
SMALLEST = 1e-50  # least difference from the first row: far below it products of covariances become 0 in float64
_ROWS = 4096  # checked at once, so that a check never doubles the memory

Features = NDArray[np.floating]


def feature_rows(features: Features, name: str, *, at_least: int) -> Features:
    """`features` [N, D] as they are if float32 or float64, else as float64: what may be large is not copied.

    Raises ValueError unless it has two axes, `at_least` rows, and finite numbers below 1e50 in magnitude.
    """
    array = np.asarray(features)
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be numbers [N, D] with D >= 1; received {array.dtype} {list(array.shape)}")
    if len(array) < at_least:
        raise ValueError(f"{name} must hold at least {at_least} rows for this metric; received {len(array)}")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    bad = np.concatenate([~np.isfinite(part).all(axis=1) for part in blocks(array)])
    if bad.any():
        rows = np.flatnonzero(bad)
        raise ValueError(f"{name} must be finite; {len(rows)} rows are not, the first is row {rows[0]}")
    if array.dtype == np.float64 and max(float(np.abs(part).max()) for part in blocks(array)) > LARGEST:
        raise ValueError(f"{name} must stay below {LARGEST:g} in magnitude, or float64 overflows; scale the features")
    return array


def rows_pair(real: Features, fake: Features, *, at_least: int) -> tuple[Features, Features]:
    """Both operands, checked, of one width. Raises ValueError also if all real rows are the same, within 1e-50.

    Identical fakes are a collapsed generator, which has a distance; identical real rows are a mistake.
    """
    real, fake = (feature_rows(array, name, at_least=at_least) for array, name in ((real, "real"), (fake, "fake")))
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"real and fake must have the same width; received {real.shape[1]} and {fake.shape[1]}")
    if all(np.abs(np.subtract(part, real[0], dtype=np.float64)).max() < SMALLEST for part in blocks(real)):
        raise ValueError(
            f"real must vary; received features that are the same in every row, within {SMALLEST:g}; scale the features"
        )
    return real, fake


def feature_pair(real: Features, fake: Features, *, at_least: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`rows_pair` as float64."""
    real, fake = rows_pair(real, fake, at_least=at_least)
    return real.astype(np.float64), fake.astype(np.float64)


def blocks(array: Features) -> Iterator[Features]:
    """Consecutive parts of bounded size of an array [N, D]."""
    return (array[start : start + _ROWS] for start in range(0, len(array), _ROWS))


def row_sums(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums along the last axis; each row is summed alone, so the result does not depend on how many there are."""
    return np.ascontiguousarray(x).sum(axis=-1)
