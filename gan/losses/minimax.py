"""The minimax loss as first written down (Goodfellow et al. 2014, equation 1): G minimises log(1 - sigma(D(fake))).

Its gradient fades where the discriminator is sure, which is why the same paper trains with `non_saturating`; D's loss
is the same as there, label smoothing included.
"""

import dataclasses
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from gan.losses import Targets


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Targets):
    """What the discriminator is asked to say of real and of generated images, as probabilities of "real"."""

    name: Literal["minimax"] = "minimax"

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Scalar from logits [N] each: the cross entropy with both targets."""
        entropy = F.softplus(real).mean() + F.softplus(fake).mean()
        return entropy - self.real_target * real.mean() - self.fake_target * fake.mean()

    def generator_loss(self, real: Tensor | None, fake: Tensor) -> Tensor:
        """Scalar from logits [N] of generated images."""
        return -F.softplus(fake).mean()
