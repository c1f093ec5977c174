"""Section `validate` of params.yaml."""

from dataclasses import dataclass
from typing import Annotated, Literal

from stages.config import Range

Measured = Literal["width", "height", "aspect", "brightness", "contrast", "sharpness", "saturation"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one measure of every image must be; docs/data.md says how each is measured."""

    measure: Measured
    """`width`, `height` (px) and `aspect` (width / height) are those of the source file, all others of the stored
    pixels; `saturation` applies to RGB images."""
    min: float | None
    """Smallest value allowed; null for none."""
    max: float | None
    """Largest value allowed; null for none."""
    mostly: Annotated[float, Range(gt=0, le=1)]
    """Share of the images that must lie within these limits."""

    def __post_init__(self) -> None:
        if self.min is None and self.max is None:
            raise ValueError(f"min or max of {self.measure} must be a number, or the limit does nothing")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min of {self.measure} must be at most max; received {self.min:g} and {self.max:g}")


@dataclass(frozen=True, kw_only=True)
class Drift:
    """When the data count as different from those of the last promoted run."""

    false_alarms: Annotated[float, Range(gt=0, lt=0.5)]
    """Probability that any column alarms although nothing changed (Holm-corrected over all columns)."""
    min_moved: Annotated[float, Range(ge=0, lt=1)]
    """Share of the images that must have moved (total variation) for an alarm."""


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    """What the image store must be like before anything is trained on it."""

    min_images: Annotated[int, Range(ge=1)]
    """Least number of images kept, all splits together."""
    min_images_per_class: Annotated[int, Range(ge=1)]
    """Least number of images of each class in each split; without labels, of images in each split."""
    min_class_balance: Annotated[float, Range(ge=0, le=1)]
    """Least ratio of the images of the smallest class to those of the largest; without labels it does not apply."""
    max_split_deviation: Annotated[float, Range(gt=0)]
    """Largest distance of a split's share from the configured one, in standard deviations of a binomial share; copies
    and near duplicates that ingest removed count as assigned."""
    min_level_range: Annotated[int, Range(ge=1, le=255)]
    """Levels of 0..255: least difference of brightest and darkest pixel in every single image; 0 is a constant image.
    """
    min_mean_level: Annotated[float, Range(ge=0, le=255)]
    """Levels of 0..255: least mean over all images."""
    max_mean_level: Annotated[float, Range(ge=0, le=255)]
    """Levels of 0..255: largest mean over all images."""
    limits: tuple[Limits, ...]
    """Limits on every single image, with a share of exceptions."""
    max_near_duplicates: Annotated[float, Range(ge=0, le=1)]
    """Largest share of images that are near duplicates of another kept one."""
    drift: Drift
    """The comparison with the baseline that the last promotion wrote."""
    warn: tuple[str, ...]
    """Names of expectations, or of groups of them, that only warn; all others stop the pipeline."""

    def __post_init__(self) -> None:
        if self.min_mean_level >= self.max_mean_level:
            raise ValueError(
                f"min_mean_level must lie below max_mean_level; received {self.min_mean_level:g} "
                f"and {self.max_mean_level:g}"
            )
        measures = [limit.measure for limit in self.limits]
        for name in measures:
            if measures.count(name) > 1:
                raise ValueError(f"limits must name each measure once; {name} is named twice")
