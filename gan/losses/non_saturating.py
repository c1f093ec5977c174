"""The non-saturating loss (Goodfellow et al. 2014, section 3), with logits l and sigma their probability of "real".

D minimises the cross entropy with targets `real_target` and `fake_target`; G minimises -log sigma(D(fake)). Targets of
1 and 0 are the original; 0.9 and 0 are one-sided label smoothing (Salimans et al. 2016), 0.9 and 0.1 two-sided.
"""

import dataclasses
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from gan.losses import Targets


def cross_entropy(logits: Tensor, target: float) -> Tensor:
    """-target log sigma(l) - (1 - target) log(1 - sigma(l)), mean over logits [N]: a scalar."""
    return F.softplus(logits).mean() - target * logits.mean()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Targets):
    """What the discriminator is asked to say of real and of generated images, as probabilities of "real"."""

    name: Literal["non_saturating"] = "non_saturating"

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Scalar from logits [N] each."""
        return cross_entropy(real, self.real_target) + cross_entropy(fake, self.fake_target)

    def generator_loss(self, real: Tensor | None, fake: Tensor) -> Tensor:
        """Scalar from logits [N] of generated images."""
        return F.softplus(-fake).mean()
