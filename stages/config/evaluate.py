"""Section `evaluate` of params.yaml."""

import dataclasses
from typing import Annotated

from stages.config import Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedNumbers:
    """Named protocols on published networks, beside the domain extractor's; `reference.published` must hold those."""

    protocols: tuple[str, ...]
    """Names from gan/metrics/protocols.py, such as fid50k_inception_tf_train; docs/metrics.md says how they are built.
    """
    sets: Annotated[int, Range(ge=1, le=1000)]
    """Independent generated sets, each as large as the protocol says; with fewer than three there is no interval."""

    def __post_init__(self) -> None:
        """Refuse a name that is given twice."""
        for name in self.protocols:
            if self.protocols.count(name) > 1:
                raise ValueError(f"protocols must name each protocol once; {name} is named twice")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How many sets are drawn, and what is too small to say anything about."""

    threads: Annotated[int, Range(ge=1, le=64)]
    """CPU threads; part of the result's identity, since they change the last bits."""
    seed: Annotated[int, Range(ge=0, lt=2**63)]
    """Seed of the latents and labels; different from audit's, so that both see new images."""
    sets: Annotated[int, Range(ge=3, le=1000)]
    """Independent generated sets, each as large as the reference says; intervals are over sets."""
    smallest_set: Annotated[int, Range(ge=8)]
    """Images; with fewer held-out ones, the distances and neighbour metrics are not assessed."""
    columns: Annotated[int, Range(ge=1, le=100)]
    """Images per row in the picture grids."""
    published: PublishedNumbers = PublishedNumbers(protocols=(), sets=1)
    """Further numbers, by name."""
