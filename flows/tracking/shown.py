"""The evidence about a version as Markdown, for the form that asks a person. Text written by others is escaped."""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.tracking.evidence import MEASURING, measured
from flows.tracking.pages import interval
from flows.tracking.registry import Registry, fetch_file, plain
from flows.tracking.report import number, safe

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def evidence(registry: Registry, version: "ModelVersion", champion: str | None, shown: dict[str, str]) -> str:
    """Champion, decision, waivers, hashes, commit, measures with intervals, and the version's description."""
    run = registry.client.get_run(str(version.run_id))
    waived = [f"- waived: {_safe(name)}: {_safe(why)}" for name, why in json.loads(shown["waived"] or "{}").items()]
    facts = [
        f"- champion now: {f'version {champion}' if champion else 'none'}",
        f"- decision: {_safe(shown['reason'])}",
        *waived,
        f"- ONNX {shown['onnx_sha256'][:16]}, data {shown['data_hash'][:16]}",
        f"- commit {_safe(run.data.tags.get('git.commit', 'none'))}, run {version.run_id}",
    ]
    table = ["| measure | value | interval |", "|---|---|---|", *_rows(registry, version)]
    title = f"## Promote {_safe(registry.name)} version {version.version}?"
    return "\n".join([title, "", *facts, "", *table, "", version.description or ""])


def _rows(registry: Registry, version: "ModelVersion") -> list[str]:
    from mlflow.exceptions import MlflowException

    try:
        found = _measures(registry, version)
    except (MlflowException, OSError):  # a version whose files are gone can still be refused
        return ["| the files cannot be read | - | - |"]
    return [f"| {_safe(name)} | {number(found[name]['value'])} | {interval(found[name])} |" for name in sorted(found)]


def _measures(registry: Registry, version: "ModelVersion") -> dict[str, Any]:
    """Measures from the attached summaries: the run's metrics may be from an evaluation that was replaced."""
    source = registry.source(version)
    with tempfile.TemporaryDirectory() as name:
        for stage in MEASURING:
            (folder := Path(name) / stage).mkdir()
            fetch_file(f"{source}/{stage}/summary.json", folder / "summary.json")
        return measured(Path(name))


def _safe(text: str) -> str:
    return safe(plain(text, 4000))
