"""Adversarial losses by name: each is a file of this folder whose frozen dataclass `Config` is the loss.

discriminator_loss(real, fake) -> scalar    from logits [N] of real and of generated images; pairs share a label
generator_loss(real, fake) -> scalar        the same; `real` is None if `paired` is false
paired: bool                                whether the generator's loss looks at real logits
boundary: float | None                      the logit between "real" and "fake"; None if a logit alone says neither
"""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Targets:
    """What the discriminator is asked to answer for real and for generated images; 1 and 0 without label smoothing."""

    real_target: float = 1.0
    fake_target: float = 0.0
    paired = False
    boundary = 0.0

    def __post_init__(self) -> None:
        for name in ("real_target", "fake_target"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a share >= 0 and <= 1; received {getattr(self, name):g}")
        if self.real_target <= self.fake_target:
            raise ValueError(
                "real_target must be larger than fake_target: if they are equal, nothing is learned, and if swapped, "
                f"training runs backwards; received {self.real_target:g} and {self.fake_target:g}"
            )
