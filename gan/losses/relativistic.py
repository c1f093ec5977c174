"""Relativistic pairing loss (Jolicoeur-Martineau 2019; Huang et al. 2024, equation 2) with f = softplus.

D minimises mean f(-(D(real_i) - D(fake_i))), G minimises mean f(-(D(fake_i) - D(real_i))); pair i shares its label.
"""

from torch import Tensor
from torch.nn import functional as F


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Scalar from paired logits [N]: low where each real image beats its generated partner."""
    return F.softplus(fake - real).mean()


def generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Scalar from paired logits [N]: low where each generated image beats its real partner."""
    return F.softplus(real - fake).mean()
