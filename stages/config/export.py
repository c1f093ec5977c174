"""Section `export` of params.yaml."""

import dataclasses
import re
from typing import Annotated, Literal

from stages.config import Range

MODEL_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"  # names of models become parts of file names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uniform:
    """Every class has the same share."""

    name: Literal["uniform"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """Every class has the share that it has among the training images."""

    name: Literal["training"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What the exported file is called and serves, and how far it may differ from the network that was trained.

    name: the model's name, inside the file and in the registry.
    prior: shares of the labels that are drawn if a caller names none.
    opset: version of the ONNX operator set.
    parity_images: latents on which the file is compared with the float32 network.
    parity_seed: seed of those latents.
    parity_stretch: factor on the latents in the overflow probe's second half.
    parity_max_levels: largest allowed difference of one value, in 8-bit levels.
    parity_mean_levels: largest allowed mean difference, in 8-bit levels.
    parity_share_changed: largest allowed share of values that differ at all.
    batch: images per call while parity is measured.
    threads: CPU threads of torch and onnxruntime.
    """

    name: str
    prior: Uniform | Training
    opset: Annotated[int, Range(ge=18, le=24)]
    parity_images: Annotated[int, Range(ge=1, le=1_000_000)]
    parity_seed: Annotated[int, Range(ge=0, lt=2**63)]
    parity_stretch: Annotated[float, Range(ge=1)]
    parity_max_levels: Annotated[int, Range(ge=0, le=255)]
    parity_mean_levels: Annotated[float, Range(ge=0, le=255)]
    parity_share_changed: Annotated[float, Range(ge=0, le=1)]
    batch: Annotated[int, Range(ge=1, le=65536)]
    threads: Annotated[int, Range(ge=1, le=64)]

    def __post_init__(self) -> None:
        if not re.fullmatch(MODEL_NAME, self.name):
            raise ValueError(
                f"name must be 1 to 63 letters, digits, dots, underscores or hyphens and begin with a letter or digit; "
                f"received {self.name!r}"
            )
