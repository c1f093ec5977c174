"""Section `audit` of params.yaml."""

import dataclasses
from typing import Annotated

from stages.config import Range

MOST_SAMPLES = 10_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """How many images are drawn, and when a group is large enough to say something about it."""

    threads: Annotated[int, Range(ge=1, le=64)]
    """CPU threads; part of the result's identity."""
    seed: Annotated[int, Range(ge=0, lt=2**63)]
    """Seed of the latents and labels of the audited images; another one than evaluate's, so that both look afresh."""
    samples: Annotated[int, Range(ge=20, le=MOST_SAMPLES)]
    """Images drawn from the serving prior."""
    min_group: Annotated[int, Range(ge=6)]
    """Images that a group must have, real and generated, before a share or a quality is said of it; coverage looks at
    five neighbours."""
    quality_images: Annotated[int, Range(ge=6, le=20_000)]
    """Images per group, at most, in the comparison of quality; all groups use the same number."""
    controls: Annotated[int, Range(ge=20, le=1_000_000)]
    """Real images that the generator never saw, at most, that the memorization test compares with."""
    alpha: Annotated[float, Range(gt=0, le=0.2)]
    """Level of the corrected tests of shares, and of the memorization test's statement of power."""
    planted_share: Annotated[float, Range(gt=0, le=0.5)]
    """Share of training copies that the memorization test must find when they are planted; else it is not assessed."""
    resamples: Annotated[int, Range(ge=100, le=100_000)]
    """Draws of the parametric bootstrap behind intervals and floors of total variation."""
    pairs: Annotated[int, Range(ge=1, le=100)]
    """Closest pairs of generated and training images that are listed and shown."""
