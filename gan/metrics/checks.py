"""What every metric asks of its arrays, so that none returns a number that means nothing."""

import numpy as np
from numpy.typing import NDArray


def feature_array(features: NDArray[np.floating], name: str, *, at_least: int) -> NDArray[np.float64]:
    """`features` as float64 [N, D]. Raises ValueError unless it is finite, has two axes and `at_least` rows."""
    array = np.asarray(features)
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be numbers [N, D] with D >= 1; received {array.dtype} {list(array.shape)}")
    if len(array) < at_least:
        raise ValueError(f"{name} must hold at least {at_least} rows for this metric; received {len(array)}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        rows = np.flatnonzero(~np.isfinite(array).all(axis=1))
        raise ValueError(f"{name} must be finite; {len(rows)} rows are not, the first is row {rows[0]}")
    return array


def feature_pair(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, at_least: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both operands as float64 of one width. Raises ValueError also where all real rows are the same one.

    Identical fakes are a collapsed generator, which has a distance; identical real rows are a mistake.
    """
    real, fake = (feature_array(array, name, at_least=at_least) for array, name in ((real, "real"), (fake, "fake")))
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"real and fake must have the same width; received {real.shape[1]} and {fake.shape[1]}")
    if (real == real[0]).all():
        raise ValueError("real must vary; received features that are the same in every row")
    return real, fake
