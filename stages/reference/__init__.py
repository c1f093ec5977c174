"""Room 3: all that depends on the real images alone, computed once."""

from pathlib import Path

from stages.common.summary import Summary
from stages.config.reference import ReferenceConfig

__all__ = ["run"]


def run(config: ReferenceConfig, *, images: Path, passed: Path, out: Path) -> Summary:
    """Prepare what generated images are measured against: extractor, features, floors and baselines.

    The extractor is trained on the split `fit` alone (on the classes, or on rotations where there are none), or
    adopted from a file of a stated SHA-256. Floors say what real images reach: draws of training images scored against
    held-out ones, in sets of one size, `reference.largest_set` at most. Baselines say what the classifier reaches on
    all held-out real images.
    Raises ValueError where `passed` speaks of other images, where splits are too small, or the file is another one.
    """
    from stages.reference._work import reference

    return reference(config, images=images, passed=passed, out=out)
