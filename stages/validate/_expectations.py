"""Expectations about images, named so that results read well; and Great Expectations itself, loaded without noise.

Each looks at a column that `_frames` measured: Great Expectations knows tables, not images.
"""

import os
import warnings
from typing import Any

from stages.validate._frames import MEASURED, NEAR, NEAR_ELSEWHERE, PIXELS

os.environ["GX_ANALYTICS_ENABLED"] = "false"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports use deprecated parts of the standard library
    import great_expectations as gx

__all__ = ["gx", "gxe"]

gxe: Any = gx.expectations  # it exports its classes in a way that type checkers do not see


class ExpectImagesToLieWithinLimits(gxe.ExpectColumnValuesToBeBetween):
    """A measure of every image lies within its limits, for at least the share `mostly` of the images."""


class ExpectImagesNotToBeConstant(gxe.ExpectColumnValuesToBeBetween):
    """The brightest and the darkest pixel of every image differ."""

    column: str = MEASURED + "level_range"


class ExpectPicturesToBeDistinct(gxe.ExpectColumnValuesToBeUnique):
    """No two images have the same pixels."""

    column: str = PIXELS


class ExpectToStayInOneSplit(gxe.ExpectColumnValuesToBeBetween):
    """What must not be divided (a picture, a group) lies in one split."""

    max_value: float = 1


class ExpectNearDuplicatesToShareTheirSplit(gxe.ExpectColumnValuesToBeBetween):
    """No near duplicate lies in another split than its partner."""

    column: str = NEAR_ELSEWHERE
    max_value: float = 0


class ExpectFewNearDuplicates(gxe.ExpectColumnMeanToBeBetween):
    """The share of near duplicates is small."""

    column: str = NEAR


class ExpectNothingUndeclared(gxe.ExpectColumnValuesToBeBetween):
    """Every value is one that the datasheet declares."""

    max_value: float = 0


class ExpectNoDrift(gxe.ExpectColumnValuesToBeBetween):
    """The column does not differ from the baseline's, beyond chance and by more than the allowed share of images."""

    max_value: float = 0
