"""Section `ingest` of params.yaml."""

from dataclasses import dataclass
from typing import Annotated, Literal

from stages.config import Range, RuleBroken


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Expected shares of the three sides; they sum to 1."""

    train: Annotated[float, Range(gt=0, lt=1)]
    """The generator learns from these."""
    fit: Annotated[float, Range(gt=0, lt=1)]
    """The feature extractor and the attribute classifiers learn from these."""
    heldout: Annotated[float, Range(gt=0, lt=1)]
    """Scoring only."""

    def __post_init__(self) -> None:
        total = self.train + self.fit + self.heldout
        if abs(total - 1) > 1e-9:
            raise RuleBroken(f"train, fit and heldout must sum to 1; received {total:g}")


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """How raw images become the image store."""

    source: Literal["folder"]
    """Kind of raw data: a folder of PNG and JPEG files."""
    labels: Literal["folders", "none"]
    """`folders`: each subfolder is a class, two or more; `none`: images carry no labels."""
    resolution: Literal[8, 16, 32, 64]
    """Pixels a side; larger images are cropped to a square and scaled down, smaller ones refused."""
    channels: Literal[1, 3]
    """1 grey, 3 RGB."""
    splits: Splits
    """Expected shares of train, fit and heldout; each image's side follows from its own SHA-256."""
    max_refused_share: Annotated[float, Range(ge=0, lt=1)]
    """Share of the files read that may be refused; above it ingest fails."""
    max_pixels: Annotated[int, Range(ge=64, le=89_000_000)]
    """Width times height by the header; larger images are refused before they are decoded."""
    shard_images: Annotated[int, Range(ge=8, le=1_000_000)]
    """Images a shard, about: cuts follow content, so that new images leave old shards alone."""
