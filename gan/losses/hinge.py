"""The hinge loss (Lim and Ye 2017; Tran, Ranganath, Blei 2017): D minimises max(0, 1 - D(real)) + max(0, 1 + D(fake)),
G minimises -D(fake), all as means."""

import dataclasses
from typing import Literal

from torch import Tensor
from torch.nn import functional as F


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """It has no settings."""

    name: Literal["hinge"] = "hinge"
    paired = False
    boundary = 0.0

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Scalar from logits [N] each: logits beyond the margin do not count."""
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def generator_loss(self, real: Tensor | None, fake: Tensor) -> Tensor:
        """Scalar from logits [N] of generated images."""
        return -fake.mean()
