"""Least squares (Mao et al.: "Least squares generative adversarial networks", ICCV 2017, equation 9 at its defaults).

D minimises (D(real) - real_target)^2 / 2 + (D(fake) - fake_target)^2 / 2, G minimises (D(fake) - 1)^2 / 2. Other
targets than 1 and 0 are label smoothing.
"""

import dataclasses
from typing import Literal

from torch import Tensor

from gan.losses import Targets


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Targets):
    """What the discriminator is asked to answer for real and for generated images."""

    name: Literal["least_squares"] = "least_squares"

    @property
    def boundary(self) -> float:  # type: ignore[override]
        """Halfway between both targets."""
        return (self.real_target + self.fake_target) / 2

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Scalar from outputs [N] each."""
        return ((real - self.real_target).square().mean() + (fake - self.fake_target).square().mean()) / 2

    def generator_loss(self, real: Tensor | None, fake: Tensor) -> Tensor:
        """Scalar from outputs [N] for generated images."""
        return (fake - 1).square().mean() / 2
