"""Validate: the image store in, a report and permission to go on out."""

from pathlib import Path

from stages.common.summary import Summary
from stages.config.validate import ValidateConfig

__all__ = ["run"]


def run(config: ValidateConfig, *, images: Path, out: Path) -> Summary:
    """Check the image store against its expectations and write report.html, and passed.json where all of them hold.

    Raises ValueError where an expectation fails, naming it; the report is written all the same, passed.json and
    summary.json are not.
    """
    from stages.validate._work import validate

    return validate(config, images, out)
