"""Metrics as pure arithmetic on arrays: float64 numbers from features [N, D], operands in the order (real, fake).

numpy alone on the CPU; `device` names a torch device if distances are to be taken elsewhere. float32 features are used
as they are and never copied to float64 as a whole. Features come from `gan.features`, intervals from `gan.intervals`.
Conventions, with their sources: `docs/metrics.md`.
"""

from gan.metrics.energy import energy_distance
from gan.metrics.frechet import frechet_distance, frechet_distance_of_moments, merge_moments, moments
from gan.metrics.inception import inception_score
from gan.metrics.kernel import kernel_distance, kernel_distance_full, kernel_distances
from gan.metrics.neighbours import (
    Neighbourhoods,
    density_coverage,
    expected_coverage,
    neighbourhoods,
    precision_recall,
    realism,
)
from gan.metrics.protocols import PROTOCOLS, Protocol, named

__all__ = [
    "PROTOCOLS",
    "Neighbourhoods",
    "Protocol",
    "density_coverage",
    "energy_distance",
    "expected_coverage",
    "frechet_distance",
    "frechet_distance_of_moments",
    "inception_score",
    "kernel_distance",
    "kernel_distance_full",
    "kernel_distances",
    "merge_moments",
    "moments",
    "named",
    "neighbourhoods",
    "precision_recall",
    "realism",
]
