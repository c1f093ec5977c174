"""Candidate against champion: both files are scored anew, on the same reference and with the same latents."""

from pathlib import Path

from stages.common.summary import Summary
from stages.config.compare import CompareConfig

__all__ = ["run"]


def run(config: CompareConfig, *, candidate: Path, champion: Path, reference: Path, out: Path) -> Summary:
    """Score two ONNX generators on one reference with the same latents, and say whether the candidate is not worse.

    Not worse: for every measure of `compare.margins`, the bad end of the interval of the difference stays within its
    margin. Better: in a measure of `compare.primary`, that bad end is still a gain. The summary's results hold
    `not_worse`, `better`, `ahead`, `same_data` (both files name the same training data), the `differences` and the
    `reason`.
    Raises ValueError if the two, or the reference, differ in classes, resolution or channels.
    """
    from stages.compare._work import compare

    return compare(config, candidate=candidate, champion=champion, reference=reference, out=out)
