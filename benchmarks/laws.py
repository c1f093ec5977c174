"""Known distributions of features, with the exact distances between them.

Each law is a mixture over classes of independent coordinates, times a random radius for heavy tails. Then x . y is a
sum of independent products, whose first three cumulants add up: the kernel distance has a closed form, and so have mean
and covariance. Neither distance changes under rotation, so independent coordinates are no loss of generality.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gan.metrics.frechet import Moments, frechet_distance_of_moments

WIDTH, CLASSES, FREEDOM = 32, 10, 8  # features of the default extractor; classes; degrees of the heavy tails

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Law:
    """Rows are radius * f(middle[class] + spread * normal), where f is the identity or max(0, .)."""

    weights: Array  # [C], sum 1
    middle: Array  # [C, D]
    spread: Array  # [D]
    clipped: bool = False  # at 0, as features behind a ReLU are
    freedom: int | None = None  # radius sqrt((f - 2) / chi2(f)): Student's t with as much variance as the normal

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        """[count, D], independent rows."""
        return self.render(rng.normal(size=(count, self.spread.size)), rng.random(count), rng.random(count))

    def render(self, z: Array, u: Array, v: Array) -> Array:
        """Rows from latents z [N, D] normal, u [N] (class) and v [N] (radius) uniform: two laws can share them."""
        which = np.minimum(np.searchsorted(np.cumsum(self.weights), u), len(self.weights) - 1)
        rows = self.middle[which] + self.spread * z
        rows = np.maximum(rows, 0.0) if self.clipped else rows
        return rows if self.freedom is None else rows * self._radius(v)[:, None]

    def _radius(self, v: Array) -> Array:
        """sqrt((f - 2) / chi2), f degrees, from one uniform number each: chi2's cdf is a finite series, inverted on a
        grid."""
        assert self.freedom is not None and self.freedom % 2 == 0
        x = np.linspace(1e-3, 60.0, 60_001)
        terms = sum(((x / 2) ** k / math.factorial(k) for k in range(self.freedom // 2)), np.zeros_like(x))
        return np.sqrt((self.freedom - 2) / np.interp(v, 1 - np.exp(-x / 2) * terms, x))

    def raw(self) -> Array:
        """E x^k of each coordinate by class, without the radius, k = 1, 2, 3: [3, C, D]."""
        m, s = self.middle, np.broadcast_to(self.spread, self.middle.shape)
        if not self.clipped:
            return np.array([m, m**2 + s**2, m**3 + 3 * m * s**2])
        erf = np.vectorize(math.erf)
        inside, height = (1 + erf(m / s / math.sqrt(2))) / 2, np.exp(-((m / s) ** 2) / 2) / math.sqrt(2 * math.pi)
        return np.array(
            [
                m * inside + s * height,
                (m**2 + s**2) * inside + m * s * height,
                (m**3 + 3 * m * s**2) * inside + (m**2 + 2 * s**2) * s * height,
            ]
        )

    def radial(self) -> Array:
        """E radius^k, k = 1, 2, 3."""
        if self.freedom is None:
            return np.ones(3)
        f = self.freedom
        return np.array([((f - 2) / 2) ** (k / 2) * math.gamma((f - k) / 2) / math.gamma(f / 2) for k in (1, 2, 3)])

    def moments(self) -> Moments:
        """Mean [D] and covariance [D, D]."""
        (first, second, _), radial = self.raw(), self.radial()
        mean = radial[0] * (self.weights @ first)
        square = np.einsum("c,ci,cj->ij", self.weights, first, first)
        square[np.diag_indices_from(square)] = self.weights @ second
        return mean, radial[1] * square - np.outer(mean, mean)


def frechet_truth(real: Law, fake: Law) -> float:
    """Squared Fréchet distance of the two laws."""
    return frechet_distance_of_moments(real.moments(), fake.moments())


def kernel_truth(real: Law, fake: Law) -> float:
    """Squared MMD of the two laws with the kernel (x . y / D + 1)^3."""
    return _kernel_mean(real, real) + _kernel_mean(fake, fake) - 2 * _kernel_mean(real, fake)


def _kernel_mean(a: Law, b: Law) -> float:
    """E (x . y / D + 1)^3 of independent x and y."""
    width, total = a.spread.size, 0.0
    radial = a.radial() * b.radial()
    for p, x in zip(a.weights, np.moveaxis(a.raw(), 1, 0), strict=True):
        for q, y in zip(b.weights, np.moveaxis(b.raw(), 1, 0), strict=True):
            m1, m2, m3 = x * y  # raw moments of each product x_j y_j, [D] each
            mean, variance = m1.sum(), (m2 - m1**2).sum()
            third = (m3 - 3 * m1 * m2 + 2 * m1**3).sum()
            raw = np.array([mean, variance + mean**2, third + 3 * mean * variance + mean**3]) * radial
            total += p * q * (1 + 3 * raw[0] / width + 3 * raw[1] / width**2 + raw[2] / width**3)
    return float(total)


def _laws() -> dict[str, Callable[[float], Law]]:
    rng = np.random.default_rng(20)
    spread = np.sqrt(np.exp(-np.arange(WIDTH) / 6) + 0.02)  # most of the variance in a few directions
    relu = rng.normal(-0.3, 1.2, (CLASSES, WIDTH))
    tight = 0.7 * rng.normal(size=(CLASSES, WIDTH))
    tilt = np.linspace(-1, 1, CLASSES)

    def weights(change: float) -> Array:
        return (1 + change * tilt) / CLASSES

    return {
        "gaussian": lambda c: Law(np.ones(1), np.full((1, WIDTH), 0.3 * c), spread * (1 + 0.5 * c)),
        "clipped": lambda c: Law(weights(c), relu - 0.25 * c, np.full(WIDTH, 0.8 + 0.4 * c), clipped=True),
        "heavy": lambda c: Law(np.ones(1), np.full((1, WIDTH), 0.3 * c), spread * (1 + 0.5 * c), freedom=FREEDOM),
        "clusters": lambda c: Law(weights(2 * c if c < 0.5 else 1.0), tight, spread * (0.3 + 0.2 * c)),
    }


LAWS = _laws()
"""name -> law(change): `change` 0 is the real law, larger is a worse generator."""

ABOUT = {
    "gaussian": "normal, a steep spectrum",
    "clipped": "ten classes of normals clipped at 0, as the features of the domain extractor are: skewed, correlated",
    "heavy": f"Student's t with {FREEDOM} degrees",
    "clusters": "ten tight clusters whose shares differ",
}
