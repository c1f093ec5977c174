"""The three questions of a recheck: intact bytes, matching inputs and outputs, good enough on today's data?

Each function answers with sentences about what is wrong, none if all is well.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from flows.tracking.papers import signature
from flows.tracking.registry import ONNX, Registry, fetch_file
from flows.work.process import last_sentence
from flows.work.testbench import STOPPED, Testbench
from stages.common.summary import read_summary
from stages.config import build
from stages.config.card import Check

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

HOURS = 6.0  # the limit for reading today's data, and for scoring


def own_bytes(champion: "ModelVersion", registry: Registry, to: Path) -> list[str]:
    """The registered file, fetched to `to`, must be the one that was registered. No answer is not damage."""
    if not registry.intact(champion):
        return ["its registered bytes are gone, or are not the ones that were registered"]
    registry.fetch(champion, to)
    return []


def declared(champion: "ModelVersion", registry: Registry, folder: Path) -> list[str]:
    """The file's inputs and outputs must be those of the signature that was registered with it, if it has one."""
    from mlflow.artifacts import list_artifacts
    from mlflow.models import Model

    source = registry.source(champion)
    if not any(Path(item.path).name == "MLmodel" for item in list_artifacts(artifact_uri=source)):
        return []
    fetch_file(f"{source}/MLmodel", folder / "MLmodel")
    registered = Model.load(str(folder / "MLmodel")).signature
    if registered is None or registered.to_dict() != signature(folder / ONNX).to_dict():
        return ["its inputs and outputs are not those of its registered signature"]
    return []


def scored(folder: Path, bench: Testbench) -> tuple[list[str], dict[str, float | None], str]:
    """(required checks that no longer hold, scores by name, hash of today's data)."""
    from stages.card.verdict import decide

    reference, out = bench.project / "data" / "reference", folder / "evaluate"
    command = [sys.executable, "-m", "stages.evaluate", "--onnx", str(folder / ONNX), "--reference", str(reference)]
    command += ["--params", str(bench.project / "params.yaml"), "--out", str(out)]
    code, lines = bench.run(command, minutes=HOURS * 60)
    if code == STOPPED:
        raise ValueError(f"scoring the champion took longer than the {HOURS:g} hours that a recheck allows")
    if code:
        raise ValueError(f"the champion could not be scored: {last_sentence(lines)}")
    results = read_summary(out).results
    described = json.loads((reference / "reference.json").read_text(encoding="utf-8"))
    settings = yaml.safe_load((bench.project / "params.yaml").read_text(encoding="utf-8"))["card"]["checks"]
    checks = [check for check in build(tuple[Check, ...], settings, "card.checks") if check.source == "evaluate"]
    verdict = decide(checks, {"evaluate": results}, labelled=bool(described["classes"]))
    failed = [
        f"{line['name']}: {line['reason']}" for line in verdict if line["required"] and line["status"] != "passed"
    ]
    measures = {name: measure["value"] for name, measure in results["measures"].items()}
    return failed, measures, str(described["data_hash"])
