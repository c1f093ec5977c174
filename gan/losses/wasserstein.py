"""The Wasserstein loss (Arjovsky, Chintala, Bottou 2017): D maximises mean D(real) - mean D(fake), G mean D(fake).

It has no lower bound unless something bounds the slope of D: a gradient penalty (Gulrajani et al. 2017) or spectral
norms.
"""

import dataclasses
from typing import Literal

from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """It has no settings."""

    name: Literal["wasserstein"] = "wasserstein"
    paired = False
    boundary = None

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Scalar from outputs [N] each: minus the estimated distance."""
        return fake.mean() - real.mean()

    def generator_loss(self, real: Tensor | None, fake: Tensor) -> Tensor:
        """Scalar from outputs [N] for generated images."""
        return -fake.mean()
