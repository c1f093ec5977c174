"""The steps of validate in order: tables, profile, expectations, report, permission."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from stages.common.files import output_folder, write_atomically, write_json
from stages.common.summary import Summary, write_summary
from stages.config.validate import ValidateConfig
from stages.validate._baseline import in_same_bins, read_baseline
from stages.validate._drift import compare
from stages.validate._drift_checks import CLASSES, COLUMNS, PREFIX, drift_checks, not_compared
from stages.validate._frames import MEASURED, Frames, read_frames
from stages.validate._page import page
from stages.validate._profile import profile, uncounted
from stages.validate._run import Finding, run_checks
from stages.validate._suite import checks, left_out, severities

FORMAT = 1


def validate(config: ValidateConfig, images: Path, baseline: Path | None, out: Path) -> Summary:
    """See `stages.validate.run`."""
    old, frames = read_baseline(baseline), read_frames(images)
    present = profile(frames)
    before, now, unknown = in_same_bins(old, present, frames) if old else (None, present, [])
    moved, other = compare(before, now, config.drift) if before else ([], [])
    without = left_out(config, frames) | not_compared(uncounted(frames, now), unknown, moved)
    moved = [one for one in moved if not one.blind]
    against, table = drift_checks(moved, other, before, now, config.drift) if before else ([], pd.DataFrame())
    wanted = [*checks(config, frames), *against]
    possible = {f"{PREFIX}{name}" for name in present["columns"]} | {COLUMNS, CLASSES, *without}
    findings = run_checks(frames, wanted, severities(wanted, config.warn, possible), table)
    failed = [finding for finding in findings if not finding.passed and finding.severity == "critical"]
    warned = [finding for finding in findings if not finding.passed and finding.severity == "warning"]
    data_hash = frames.store.info["data_hash"]
    with output_folder(out) as work:
        write_json(work / "expectations.json", _expectations(findings, data_hash, bool(failed)))
        write_json(work / "profile.json", present)
        write_atomically(work / "report.html", page(frames, findings, without, moved, old))
        if not failed:
            write_json(work / "passed.json", {"format": FORMAT, "data_hash": data_hash, "passed": True})
            inputs = {"images": images} | ({"baseline": baseline} if baseline else {})
            results = _results(frames, findings, warned, old)
            summary = write_summary(work, stage="validate", config=config, inputs=inputs, results=results)
    report = out / "report.html"
    if failed:  # only now, so that the report is in its place
        first = failed[0]
        more = f" ({first.examples[0]!r})" if first.examples else ""
        raise ValueError(
            f"{len(failed)} of {len(findings)} expectations failed: {', '.join(check.name for check in failed)}; "
            f"first: {first.rule}, but {first.found}{more}; see {report}"
        )
    said = f"{len(warned)} of {len(findings)} expectations warn: {', '.join(check.name for check in warned)}"
    said = said if warned else f"all {len(findings)} expectations hold"
    print(f"validate: {said}; see {report}", file=sys.stderr)  # noqa: T201
    return summary


def _expectations(findings: list[Finding], data_hash: str, failed: bool) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "data_hash": data_hash,
        "passed": not failed,
        "expectations": [dataclasses.asdict(finding) for finding in findings],
    }


def _results(
    frames: Frames, findings: list[Finding], warned: list[Finding], old: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "passed": True,
        "data_hash": frames.store.info["data_hash"],
        "images": len(frames.images),
        "expectations": len(findings),
        "warnings": [finding.name for finding in warned],
        "baseline": old["data_hash"] if old else None,
        "split_shares": {row["split"]: row["share"] for row in frames.splits.to_dict("records")},
        "mean_level": float(frames.images[MEASURED + "brightness"].mean()),
        "min_level_range": int(frames.images[MEASURED + "level_range"].min()),
    }
