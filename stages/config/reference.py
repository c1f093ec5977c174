"""Section `reference` of params.yaml."""

import dataclasses
import re
from typing import Annotated, Literal

from stages.config import Range, RuleBroken


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """Train the domain extractor on the split `fit`."""

    name: Literal["fit"]
    width: Annotated[int, Range(ge=1, le=4096)]
    """Features; at most an eighth of the held-out images, or their covariance is mostly noise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """Adopt an extractor that an earlier run wrote, so that numbers of two runs share one feature space."""

    name: Literal["file"]
    path: str
    """Its extractor.safetensors; relative to the folder where the command runs."""
    sha256: str
    """SHA-256 of that file, 64 hexadecimal digits; another file is refused."""

    def __post_init__(self) -> None:
        """Refuse what is no SHA-256."""
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise RuleBroken(f"sha256 must be 64 hexadecimal digits in lower case; received {self.sha256!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How a classifier is trained: the extractor, and those of the classification accuracy score."""

    steps: Annotated[int, Range(ge=1, le=10_000_000)]
    """Optimizer steps."""
    batch: Annotated[int, Range(ge=4, le=65536)]
    """Images a step."""
    learning_rate: Annotated[float, Range(gt=0, le=1)]
    """AdamW's peak; a tenth of the steps warm up to it, then it falls to 0 by a cosine."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """What the real images are measured with, and how often chance is asked for the floors."""

    threads: Annotated[int, Range(ge=1, le=64)]
    """CPU threads; part of the result's identity, they change the last bits."""
    seed: Annotated[int, Range(ge=0, lt=2**63)]
    """Seed of weights, order, augmentation and of the draws behind the floors."""
    extractor: Fit | File
    """The feature network: `{name: fit, width: 32}` or `{name: file, path: ..., sha256: ...}`."""
    training: Training
    """Recipe of every classifier."""
    floor_draws: Annotated[int, Range(ge=2, le=1000)]
    """Draws of as many training images as there are held-out ones, each scored against the held-out ones."""
    picture_pool: Annotated[int, Range(ge=1, le=100_000)]
    """Training images kept for pictures and nearest neighbours, evenly spread over the store."""
