"""Relativistic pairing loss (Jolicoeur-Martineau 2019; Huang et al. 2024, equation 2) with f = softplus.

D minimises mean f(-(D(real_i) - D(fake_i))), G minimises mean f(-(D(fake_i) - D(real_i))); pair i shares its label.
"""

import dataclasses
from typing import Literal

from torch import Tensor
from torch.nn import functional as F


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """It has no settings."""

    name: Literal["relativistic"] = "relativistic"
    paired = True
    boundary = None

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Scalar from paired logits [N]: low where each real image beats its generated partner."""
        return F.softplus(fake - real).mean()

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Scalar from paired logits [N]: low where each generated image beats its real partner."""
        return F.softplus(real - fake).mean()
