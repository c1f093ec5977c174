"""Section `validate` of params.yaml."""

from dataclasses import dataclass
from typing import Annotated

from stages.config import Range, RuleBroken


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    """What the image store must be like before anything is trained on it."""

    min_images: Annotated[int, Range(ge=1)]
    """Images kept, all splits together."""
    min_images_per_class: Annotated[int, Range(ge=1)]
    """Images of each class in each split; without labels, images in each split."""
    min_class_balance: Annotated[float, Range(ge=0, le=1)]
    """Images of the smallest class / images of the largest; without labels it applies to nothing."""
    max_split_deviation: Annotated[float, Range(gt=0)]
    """Distance of a split's share from the configured one, in standard deviations of a binomial share."""
    min_level_range: Annotated[int, Range(ge=1, le=255)]
    """Levels of 0..255: brightest less darkest pixel of every single image; 0 is a constant image."""
    min_mean_level: Annotated[float, Range(ge=0, le=255)]
    """Levels of 0..255: mean over all images at least."""
    max_mean_level: Annotated[float, Range(ge=0, le=255)]
    """Levels of 0..255: mean over all images at most."""

    def __post_init__(self) -> None:
        if self.min_mean_level >= self.max_mean_level:
            raise RuleBroken(
                f"min_mean_level must lie below max_mean_level; received {self.min_mean_level:g} "
                f"and {self.max_mean_level:g}"
            )
