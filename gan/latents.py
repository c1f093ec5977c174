"""Randomness that numpy computes on the host, counter-based: sample `index` of `seed` never depends on anything else.

Philox4x64-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011) with key
(seed, stream) and counter (index, block). Image i of seed s therefore has the same latent and the same label, bit for
bit, for every batch size, device count and runtime. Normals come from the raw words by an inverse CDF (Wichura,
algorithm AS 241, PPND16, Applied Statistics 37, 1988) written in basic float64 arithmetic alone: a library's `log`
may change its last bit between machines, but additions and multiplications may not. Numbers that torch computes per
image are in `gan.chance`.

Agrees with `numpy.random.Philox(key=..., counter=...)`; numpy only.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LATENTS, LABELS, TRAINING, SPLITS, KEYS = range(5)  # streams; a number, once released, keeps its meaning

_MULTIPLIERS = (np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157))
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def _multiply(a: np.uint64, b: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """High and low 64-bit words of the 128-bit product a * b."""
    a_high, a_low, b_high, b_low = a >> _HALF, a & _LOW, b >> _HALF, b & _LOW
    low = a_low * b_low
    middle = a_high * b_low + (low >> _HALF)
    other = a_low * b_high + (middle & _LOW)
    return a_high * b_high + (middle >> _HALF) + (other >> _HALF), (other << _HALF) | (low & _LOW)


def words(seed: int, stream: int, indices: NDArray[np.integer], count: int) -> NDArray[np.uint64]:
    """The first `count` raw words of every index: uint64 [len(indices), count], uniform over all 64-bit values.

    Raises ValueError if seed or stream lies outside [0, 2**64) or an index is negative.
    """
    if not (0 <= seed < 2**64 and 0 <= stream < 2**64):
        raise ValueError(f"seed and stream must lie in [0, 2**64); received seed {seed}, stream {stream}")
    indices = np.asarray(indices)
    if indices.size and indices.min() < 0:
        raise ValueError(f"a sample index must not be negative; received {indices.min()}")
    blocks = -(-count // 4)
    shape = (len(indices), blocks)
    c0 = np.broadcast_to(np.arange(1, blocks + 1, dtype=np.uint64), shape)  # numpy's Philox counts before it draws
    c1 = np.broadcast_to(indices.astype(np.uint64)[:, None], shape)
    c2 = c3 = np.zeros(shape, np.uint64)
    key = [seed, stream]
    for _ in range(10):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ np.uint64(key[0]), low1, high0 ^ c3 ^ np.uint64(key[1]), low0
        key = [(k + w) % 2**64 for k, w in zip(key, _WEYL, strict=True)]
    return np.stack([c0, c1, c2, c3], axis=-1).reshape(len(indices), 4 * blocks)[:, :count]


def uniforms(seed: int, stream: int, indices: NDArray[np.integer], count: int) -> NDArray[np.float64]:
    """Uniform numbers strictly inside (0, 1): float64 [len(indices), count], multiples of 2**-54."""
    drawn = ((words(seed, stream, indices, count) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return np.minimum(drawn, 1 - 2.0**-53)  # one word in 2**53 would round to 1, whose normal number is infinite


def normals(seed: int, stream: int, indices: NDArray[np.integer], count: int) -> NDArray[np.float32]:
    """Standard normal numbers: float32 [len(indices), count], within 1e-15 of the exact inverse CDF before rounding."""
    return inverse_normal_cdf(uniforms(seed, stream, indices, count)).astype(np.float32)


def latents(seed: int, start: int, count: int, z_dim: int) -> NDArray[np.float32]:
    """Latents of images start ... start + count - 1 of `seed`: float32 [count, z_dim], standard normal."""
    return normals(seed, LATENTS, np.arange(start, start + count), z_dim)


def labels(seed: int, start: int, count: int, prior: Sequence[float]) -> NDArray[np.int64]:
    """Class labels of the same images, drawn from `prior` (one weight >= 0 per class, sum 1): int64 [count].

    Raises ValueError for any other prior.
    """
    weights = np.asarray(prior, dtype=np.float64)
    if weights.ndim != 1 or not len(weights) or (weights < 0).any() or abs(weights.sum() - 1) > 1e-6:
        raise ValueError(f"prior must hold one weight >= 0 per class, with sum 1; received {list(prior)}")
    bounds = np.cumsum(weights)[:-1]
    return np.searchsorted(bounds, uniforms(seed, LABELS, np.arange(start, start + count), 1)[:, 0], side="right")


def _log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithm by the series of atanh: additions, multiplications and divisions only, so the same bits
    everywhere."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < 0.7071067811865476
    mantissa, exponent = np.where(small, mantissa * 2, mantissa), exponent - small
    s = (mantissa - 1) / (mantissa + 1)
    square, total = s * s, np.zeros_like(s)
    for odd in range(23, 0, -2):
        total = total * square + 1.0 / odd
    return exponent * 0.6931471805599453 + 2 * s * total


_CENTRAL = (
    (3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125,
     45921.953931549871457, 67265.770927008700853, 33430.575583588128105, 2509.0809287301226727),
    (1.0, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077,
     21213.794301586595867, 39307.895800092710610, 28729.085735721942674, 5226.4952788528545610),
)  # fmt: skip
_MIDDLE = (
    (1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504,
     1.27045825245236838258, 0.241780725177450611770, 0.0227238449892691845833, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187, 1.67638483018380384940, 0.689767334985100004550,
     0.148103976427480074590, 0.0151986665636164571966, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
_FAR = (
    (6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580, 0.296560571828504891230,
     0.0265321895265761230930, 0.00124266094738807843860, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 0.599832206555887937690, 0.136929880922735805310, 0.0148753612908506148525,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip


def _ratio(tables: tuple[tuple[float, ...], tuple[float, ...]], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quotient of two polynomials, coefficients from low order to high, by Horner's rule."""
    top, bottom = (np.full_like(x, table[-1]) for table in tables)
    for a, b in zip(tables[0][-2::-1], tables[1][-2::-1], strict=True):
        top, bottom = top * x + a, bottom * x + b
    return top / bottom


def inverse_normal_cdf(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantiles of the standard normal at probabilities `p` strictly inside (0, 1), any shape, float64 (AS 241)."""
    q = p - 0.5
    central = q * _ratio(_CENTRAL, 0.180625 - q * q)
    r = np.sqrt(-_log(np.minimum(p, 1 - p)))
    tail = np.where(r <= 5, _ratio(_MIDDLE, r - 1.6), _ratio(_FAR, r - 5))
    return np.where(np.abs(q) <= 0.425, central, np.where(q < 0, -tail, tail))
