"""Room 3: everything that depends on the real images alone, computed once."""

from pathlib import Path

from stages.common.summary import Summary
from stages.config.reference import ReferenceConfig

__all__ = ["run"]


def run(config: ReferenceConfig, *, images: Path, passed: Path, out: Path) -> Summary:
    """Prepare what generated images are measured against: extractor, features, floors and baselines.

    The extractor is trained on the split `fit` alone (on the classes, or on rotations if there are none), or adopted
    from a file with a stated SHA-256. Floors say what real images reach: draws of training images scored against
    held-out ones, in sets of equal size, at most `reference.largest_set`. Baselines say what classifiers reach on all
    held-out real images.
    Raises ValueError if `passed` is about other images, if splits are too small, or if the extractor's file is not the
    stated one.
    """
    from stages.reference._work import reference

    return reference(config, images=images, passed=passed, out=out)
