"""The evidence about a version as Markdown, for the form that asks a person. Text that others wrote is escaped."""

import html
import json
from typing import TYPE_CHECKING

from flows.tracking.registry import Registry, plain

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def evidence(registry: Registry, version: "ModelVersion", champion: str | None, shown: dict[str, str]) -> str:
    """Champion, decision, waivers, hashes, commit, measures with intervals, and the version's description."""
    run = registry.client.get_run(str(version.run_id))
    names = sorted(name for name in run.data.metrics if not name.startswith(("train/", "system/")) and "." not in name)
    rows = [f"| {_safe(name)} | {run.data.metrics[name]:.4g} | {_interval(run.data.metrics, name)} |" for name in names]
    waived = [f"- waived: {_safe(name)}: {_safe(why)}" for name, why in json.loads(shown["waived"] or "{}").items()]
    facts = [
        f"- champion now: {f'version {champion}' if champion else 'none'}",
        f"- decision: {_safe(shown['reason'])}",
        *waived,
        f"- ONNX {shown['onnx_sha256'][:16]}, data {shown['data_hash'][:16]}",
        f"- commit {_safe(run.data.tags.get('git.commit', 'none'))}, run {version.run_id}",
    ]
    table = ["| measure | value | interval |", "|---|---|---|", *rows]
    title = f"## Promote {_safe(registry.name)} version {version.version}?"
    return "\n".join([title, "", *facts, "", *table, "", version.description or ""])


def _interval(metrics: dict[str, float], name: str) -> str:
    low, high = metrics.get(f"{name}.low"), metrics.get(f"{name}.high")
    return f"{low:.4g} to {high:.4g}" if low is not None and high is not None else "-"


def _safe(text: str) -> str:
    return "".join(f"\\{c}" if c in "|*_`[]#" else c for c in html.escape(plain(text, 4000)))
