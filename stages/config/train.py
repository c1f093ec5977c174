"""Section `train` of params.yaml."""

import dataclasses
from typing import Annotated, Literal

from stages.config import Range, RuleBroken


@dataclasses.dataclass(frozen=True, kw_only=True)
class R3GAN:
    """gan/networks/r3gan.py: widths and residual blocks per stage from 4x4 up, sizes of the label vectors."""

    name: Literal["r3gan"]
    widths: tuple[Annotated[int, Range(ge=1, le=8192)], ...]
    blocks: tuple[Annotated[int, Range(ge=0, le=64)], ...]
    embedding: Annotated[int, Range(ge=1, le=8192)]
    projection: Annotated[int, Range(ge=1, le=8192)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relativistic:
    """gan/losses/relativistic.py; it has no settings."""

    name: Literal["relativistic"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class R1:
    """Gradient penalty on real images; its weight falls by a cosine over the burn-in."""

    name: Literal["r1"]
    gamma: Annotated[float, Range(gt=0)]
    gamma_final: Annotated[float, Range(gt=0)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class R2:
    """Gradient penalty on generated images; its weight falls by a cosine over the burn-in."""

    name: Literal["r2"]
    gamma: Annotated[float, Range(gt=0)]
    gamma_final: Annotated[float, Range(gt=0)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. Budgets and intervals count thousands of real images shown to the discriminator (kimg)."""

    seed: Annotated[int, Range(ge=0, lt=2**63)]
    threads: Annotated[int, Range(ge=1, le=64)]
    network: R3GAN
    z_dim: Annotated[int, Range(ge=1, le=1024)]
    loss: Relativistic
    penalties: tuple[R1 | R2, ...]
    batch: Annotated[int, Range(ge=2, le=65536)]
    total_kimg: Annotated[float, Range(gt=0)]
    burn_in_kimg: Annotated[float, Range(gt=0)]
    lr: Annotated[float, Range(gt=0, lt=1)]
    lr_final: Annotated[float, Range(gt=0, lt=1)]
    beta1: Annotated[float, Range(ge=0, lt=1)]
    beta2: Annotated[float, Range(ge=0, lt=1)]
    ema_halflife_kimg: Annotated[float, Range(gt=0)]
    ema_ramp: Annotated[float, Range(gt=0, le=1)]
    snapshot_kimg: Annotated[float, Range(gt=0)]
    checkpoint_kimg: Annotated[float, Range(gt=0)]

    def __post_init__(self) -> None:
        names = [penalty.name for penalty in self.penalties]
        if len(set(names)) < len(names):
            raise RuleBroken(f"penalties must name each penalty once; received {', '.join(names)}")
        if self.total_kimg * 1000 < self.batch:
            raise RuleBroken(f"total_kimg must hold at least one batch; received {self.total_kimg:g} for {self.batch}")
