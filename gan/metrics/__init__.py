"""Metrics as pure arithmetic on arrays: numpy, float64, operands in the order (real, fake).

Features come from `gan.features`; intervals from `gan.intervals`. Conventions, with their sources: `docs/metrics.md`.
"""

from gan.metrics.frechet import frechet_distance, frechet_distance_of_moments, moments
from gan.metrics.inception import inception_score
from gan.metrics.kernel import kernel_distance, kernel_distance_full
from gan.metrics.neighbours import density_coverage, expected_coverage, precision_recall

__all__ = [
    "density_coverage",
    "expected_coverage",
    "frechet_distance",
    "frechet_distance_of_moments",
    "inception_score",
    "kernel_distance",
    "kernel_distance_full",
    "moments",
    "precision_recall",
]
