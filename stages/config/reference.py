"""Section `reference` of params.yaml."""

import dataclasses
import re
from typing import Annotated, Literal

from stages.config import Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """Train the domain extractor on the split `fit`."""

    name: Literal["fit"]
    width: Annotated[int, Range(ge=1, le=4096)]
    """Features; at most an eighth of the images of a set, or their covariance is mostly noise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """Adopt an extractor that an earlier run wrote, so that numbers of two runs share one feature space."""

    name: Literal["file"]
    path: str
    """Its extractor.safetensors; relative to the folder where the command runs."""
    sha256: str
    """SHA-256 of that file, 64 hexadecimal digits; another file is refused."""

    def __post_init__(self) -> None:
        """Refuse what is not a SHA-256."""
        _check_sha256(self.sha256)


def _check_sha256(sha256: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"sha256 must be 64 hexadecimal digits in lower case; received {sha256!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedExtractor:
    """A network of known weights beside the domain extractor; `python -m stages.reference.weights` writes the entry."""

    name: Literal["inception_tf", "vgg16", "dinov2_vitb14", "dinov2_vitl14"]
    resize: Literal["legacy_tf", "clean", "pil_bicubic"]
    """How images are brought to the network's size (docs/extractors.md); part of every number's protocol."""
    weights: str
    """The file: a path relative to the folder where the command runs, or a name in `$GANOPS_STATE/weights/`."""
    sha256: str
    """SHA-256 of that file, 64 hexadecimal digits; another file is refused."""

    def __post_init__(self) -> None:
        """Refuse what is not a SHA-256."""
        _check_sha256(self.sha256)

    @property
    def key(self) -> str:
        """Its name in files and protocols."""
        return f"{self.name}-{self.resize}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How a classifier is trained: the extractor, and those of the classification accuracy score."""

    steps: Annotated[int, Range(ge=1, le=10_000_000)]
    """Optimizer steps."""
    batch: Annotated[int, Range(ge=4, le=65536)]
    """Images per step."""
    learning_rate: Annotated[float, Range(gt=0, le=1)]
    """AdamW's peak; a tenth of the steps warm up to it, then it falls to 0 by a cosine."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """What the real images are measured with, and how many draws the floors are made of."""

    threads: Annotated[int, Range(ge=1, le=64)]
    """CPU threads; part of the result's identity, since they change the last bits."""
    seed: Annotated[int, Range(ge=0, lt=2**63)]
    """Seed of weights, order and augmentation, and of the draws behind the floors."""
    extractor: Fit | File
    """The feature network: `{name: fit, width: 32}` or `{name: file, path: ..., sha256: ...}`."""
    training: Training
    """Recipe of every classifier."""
    largest_set: Annotated[int, Range(ge=8, le=1_000_000)]
    """Most images in a set, real or generated; if more are held out, that many, evenly spread, are scored against."""
    floor_draws: Annotated[int, Range(ge=2, le=1000)]
    """Number of sets drawn from the training images, each scored against the held-out ones."""
    picture_pool: Annotated[int, Range(ge=1, le=100_000)]
    """Training images kept for pictures and nearest neighbours, evenly spread over the store."""
    published: tuple[PublishedExtractor, ...] = ()
    """Further extractors, whose features of the splits train and heldout are kept; `[]` for none."""

    def __post_init__(self) -> None:
        """Refuse two entries of one key: their files would be the same."""
        keys = [entry.key for entry in self.published]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"published must have one entry per network and resize; {twice[0]} is named twice")
