"""The order of the work of validate: tables, expectations, report, permission."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from stages.common.files import output_folder, write_atomically, write_json
from stages.common.summary import Summary, write_summary
from stages.config.validate import ValidateConfig
from stages.validate._frames import Frames, read_frames
from stages.validate._page import page
from stages.validate._suite import Finding, checks, run_checks

FORMAT = 1


def validate(config: ValidateConfig, images: Path, out: Path) -> Summary:
    """See `stages.validate.run`."""
    frames = read_frames(images)
    data_hash = frames.store.info["data_hash"]
    findings = run_checks(frames, checks(config, frames))
    failed = [finding for finding in findings if not finding.passed]
    with output_folder(out) as work:
        write_json(work / "expectations.json", _expectations(findings, data_hash))
        write_atomically(work / "report.html", page(frames, findings))
        if not failed:
            write_json(work / "passed.json", {"format": FORMAT, "data_hash": data_hash, "passed": True})
            summary = _summary(work, config, images, frames, findings)
    if failed:  # only now, so that the report is in its place
        first = failed[0]
        more = f" ({first.examples[0]!r})" if first.examples else ""
        raise ValueError(
            f"{len(failed)} of {len(findings)} expectations failed: {', '.join(check.name for check in failed)}; "
            f"first: {first.rule}, but {first.found}{more}; see {out / 'report.html'}"
        )
    print(f"validate: all {len(findings)} expectations hold; see {out / 'report.html'}", file=sys.stderr)  # noqa: T201
    return summary


def _expectations(findings: list[Finding], data_hash: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "data_hash": data_hash,
        "passed": all(finding.passed for finding in findings),
        "expectations": [dataclasses.asdict(finding) for finding in findings],
    }


def _summary(work: Path, config: ValidateConfig, images: Path, frames: Frames, findings: list[Finding]) -> Summary:
    results = {
        "passed": True,
        "data_hash": frames.store.info["data_hash"],
        "images": len(frames.images),
        "expectations": len(findings),
        "split_shares": {row["split"]: row["share"] for row in frames.splits.to_dict("records")},
        "mean_level": float(frames.images["mean_level"].mean()),
        "min_level_range": int(frames.images["level_range"].min()),
    }
    return write_summary(work, stage="validate", config=config, inputs={"images": images}, results=results)
