"""Validate: the image store in, a report and permission to go on out."""

from pathlib import Path

from stages.common.summary import Summary
from stages.config.validate import ValidateConfig

__all__ = ["run"]


def run(config: ValidateConfig, *, images: Path, baseline: Path | None = None, out: Path) -> Summary:
    """Check the image store against its expectations, and write report.html and the data's profile.

    passed.json is written if all critical expectations hold. `baseline` is the profile of the data of the last
    promoted run. Raises ValueError if a critical expectation fails, naming it; the report is written all the same.
    """
    from stages.validate._work import validate

    return validate(config, images, baseline, out)
