"""Section `audit` of params.yaml."""

import dataclasses
from typing import Annotated

from stages.config import Range

MOST_SAMPLES = 10_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """How many images are drawn, and how large a group must be before anything is said about it."""

    threads: Annotated[int, Range(ge=1, le=64)]
    """CPU threads; part of the result's identity."""
    seed: Annotated[int, Range(ge=0, lt=2**63)]
    """Seed of the latents and labels of the audited images; different from evaluate's, so that both see new images."""
    samples: Annotated[int, Range(ge=20, le=MOST_SAMPLES)]
    """Images drawn from the serving prior."""
    min_group: Annotated[int, Range(ge=6)]
    """Images, both real and generated, that a group must have before its share or quality is reported; coverage looks
    at five neighbours."""
    quality_images: Annotated[int, Range(ge=6, le=20_000)]
    """Most images per group in the comparison of quality; all groups use the same number."""
    controls: Annotated[int, Range(ge=20, le=1_000_000)]
    """Most real images, unseen by the generator, that the memorization test compares with."""
    alpha: Annotated[float, Range(gt=0, le=0.2)]
    """Level of the corrected tests of shares, and of the memorization test's statement of power."""
    planted_share: Annotated[float, Range(gt=0, le=0.5)]
    """Share of planted training copies that the memorization test must detect; otherwise it is not assessed."""
    resamples: Annotated[int, Range(ge=100, le=100_000)]
    """Draws of the parametric bootstrap behind intervals and floors of total variation."""
    pairs: Annotated[int, Range(ge=1, le=100)]
    """Closest pairs of generated and training images that are listed and shown."""
