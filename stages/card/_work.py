"""The work of the room: read, decide, write."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.card import evidence as evidence_
from stages.card.page import model_card, sample_grid
from stages.card.provenance import statement
from stages.card.verdict import decide, is_green
from stages.common.files import output_folder, sha256_file, write_atomically, write_json
from stages.common.summary import Summary, write_summary
from stages.config.card import CardConfig

FORMAT = 1


def write_card(config: CardConfig, *, summaries: Sequence[Path], passed: Path, out: Path) -> Summary:
    """Write verdict, model card, provenance and summary into `out`; see `stages.card.run`."""
    evidence = evidence_.read_evidence(summaries, passed)
    measures = evidence_.measured(evidence)
    configs = {stage: summary.config for stage, summary in evidence.summaries.items()}
    configs["card"] = dataclasses.asdict(config)
    labelled = bool(evidence.generator["classes"])
    lines = decide(config.checks, measures, labelled=labelled, grouped=evidence.grouped)
    verdict: dict[str, Any] = {
        "format": FORMAT,
        "passed": is_green(lines),
        "registrable": config.registrable,
        "onnx_sha256": evidence.onnx_sha256,
        "data_hash": evidence.data_hash,
        "params_hash": evidence_.params_hash(configs),
        "licences": evidence.licences,
        "checks": lines,
    }
    with output_folder(out) as work:
        write_json(work / "verdict.json", verdict)
        picture = sample_grid(evidence)
        if picture is not None:
            write_atomically(work / "samples.png", picture.read_bytes())
        write_atomically(work / "MODEL_CARD.md", model_card(evidence, verdict, measures))
        subjects = {path.name: sha256_file(path) for path in work.iterdir()}
        subjects[evidence_.ONNX] = evidence.onnx_sha256
        write_json(work / "provenance.json", statement(evidence, configs, subjects))
        # The digest of the summary file, not of the folder: the summary holds the digests of all the rest.
        inputs = {stage: folder / "summary.json" for stage, folder in sorted(evidence.folders.items())}
        results = {key: verdict[key] for key in ("passed", "registrable", "onnx_sha256", "data_hash", "params_hash")}
        required = [line for line in lines if line["required"]]
        failed = [line["name"] for line in required if line["status"] != "passed"]
        results |= {"failed": failed}
        summary = write_summary(work, stage="card", config=config, inputs={**inputs, "passed": passed}, results=results)
    said = f"GREEN, all {len(required)} required checks passed"
    if not verdict["passed"]:
        names = ", ".join(failed) or "none is required"
        said = f"RED, {len(failed)} of {len(required)} required checks did not pass: {names}"
    print(f"card: {said}; see {out / 'MODEL_CARD.md'}", file=sys.stderr)  # noqa: T201
    return summary
