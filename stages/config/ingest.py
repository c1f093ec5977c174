"""Section `ingest` of params.yaml."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol

from stages.config import MACHINE, FileOf, Range


def same_licence(name: str) -> str:
    """A form in which spellings of one licence name are equal: neither case nor the number of spaces counts."""
    return " ".join(name.split()).casefold()


class Source(Protocol):
    """What every `Config` in stages/ingest/sources/ has; the rest is in the file of that name."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Expected shares of the three sides; they sum to 1."""

    train: Annotated[float, Range(gt=0, lt=1)]
    """The generator learns from these."""
    fit: Annotated[float, Range(gt=0, lt=1)]
    """The feature extractor learns from these."""
    heldout: Annotated[float, Range(gt=0, lt=1)]
    """Scoring only."""

    def __post_init__(self) -> None:
        total = self.train + self.fit + self.heldout
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train, fit and heldout must sum to 1; received {total:g}")


@dataclass(frozen=True, kw_only=True)
class NearDuplicates:
    """When two stored images look like the same picture: if they are within both limits."""

    distance: Annotated[int, Range(ge=0, le=11)]
    """Bits of 64 in which their perceptual hashes may differ."""
    levels: Annotated[float, Range(ge=0, le=255)]
    """Largest mean difference of their pixels, in 8-bit levels."""


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """How raw images become the image store."""

    source: Annotated[Source, FileOf("stages.ingest.sources")]
    """Kind of raw data: a file in stages/ingest/sources/."""
    use: tuple[Literal["internal", "research", "commercial", "publication"], ...]
    """What the data, and what is made from them, are used for; the datasheet and its licence must allow all of it."""
    licences: tuple[str, ...]
    """Licences that are accepted for `use`, worded as in the datasheet's `licence`; any other is refused."""
    resolution: Literal[8, 16, 32, 64, 128, 256]
    """Pixels a side."""
    channels: Literal[1, 3]
    """1 grey, 3 RGB."""
    fit: Literal["crop", "pad", "stretch"]
    """How other shapes become square. crop: the central square; pad: the whole image on `background`; stretch: scaled
    unevenly."""
    upscale: bool
    """Whether images smaller than `resolution` are enlarged; otherwise they are refused."""
    background: tuple[Annotated[int, Range(ge=0, le=255)], ...]
    """RGB levels behind transparent pixels and beside padded images."""
    splits: Splits
    """Expected shares of train, fit and heldout; each image's side follows from its own SHA-256, or its group's."""
    near_duplicates: NearDuplicates | None
    """Of such a pair in two different splits, the one nearer to training is refused; null: they are not looked for."""
    max_refused_share: Annotated[float, Range(ge=0, lt=1)]
    """Largest share of the files read that may be refused, and of all bytes that damaged archives may hold; above it
    ingest fails."""
    max_pixels: Annotated[int, Range(ge=64, le=89_000_000)]
    """Largest width times height as given by the header; larger images are refused before they are decoded."""
    shard_images: Annotated[int, Range(ge=8, le=1_000_000)]
    """Images per shard, roughly: cuts follow content, so that new images leave old shards alone."""
    processes: Annotated[int, Range(ge=0, le=256)] = field(metadata=MACHINE)
    """Decoding processes, each under a memory limit; 0 decodes in the main process. No byte depends on it."""

    def __post_init__(self) -> None:
        if not self.use:
            raise ValueError("use must name at least one use to check the licence against; received none")
        if not self.licences:
            raise ValueError("licences must name at least one licence, or no images could be accepted; received none")
        if len(self.background) != 3:
            raise ValueError(f"background must be three levels (red, green, blue); received {list(self.background)}")
