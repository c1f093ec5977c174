"""What a training step minimises, and how that changes over a run."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor


class Loss(Protocol):
    """See `gan.losses`."""

    @property
    def paired(self) -> bool: ...
    @property
    def boundary(self) -> float | None: ...
    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor: ...
    def generator_loss(self, real: Any, fake: Tensor) -> Tensor: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptive:
    """Strength of augmentation by feedback: it grows by `change` per step while the mean sign of real logits minus the
    loss's boundary lies above `target`, falls otherwise, and stays in [0, `limit`] (Karras et al. 2020, section 3.2).
    The loss must have a boundary."""

    target: float
    change: float
    limit: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """What a step minimises at this point of the run; schedules are up to the caller."""

    loss: Loss
    gammas: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Weight of the penalty on each side: "real" (R1), "fake" (R2), "between" (WGAN-GP); an absent side has none."""
    transforms: tuple[str, ...] = ()
    """Augmentation of what the discriminator sees."""
    strength: float | Adaptive = 0.0
    """Probability of each of these transforms."""
    instance_noise: float = 0.0
    """Standard deviation of the noise on what the discriminator sees."""
    label_noise: float = 0.0
    """Share of pairs that are swapped: the real image is called generated, the generated one real."""
    gradient_clip: float | None = None
    """Largest norm of each network's gradient."""
    precision: torch.dtype | None = None
    """Type that networks compute in under autocast; None for that of the weights."""


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` at progress 0 to `end` at progress 1, constant outside."""
    return end + (start - end) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2
