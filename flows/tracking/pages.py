"""What a run shows on its page in Prefect: pictures, measures with intervals and differences to the champion, links.

Names come from files that others wrote, so they are escaped; pictures are embedded, so the page needs no other host.
"""

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flows.tracking.evidence import Candidate, measured
from flows.tracking.registry import address
from flows.tracking.report import number, safe
from stages.common.summary import read_summary

LARGEST_PICTURE = 2_000_000  # bytes
PAPERS = ("MODEL_CARD.md", "validate/report.html", "evaluate/index.html", "audit/index.html")


def picture(candidate: Candidate) -> str | None:
    """The sample grid as a data URI that holds the picture itself; None if there is none or it is too large."""
    path = candidate.data / "train" / "samples.png"
    if not path.is_file() or path.stat().st_size > LARGEST_PICTURE:
        return None
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def differences(state: Path, version: str, champion: str | None) -> dict[str, Any]:
    """Paired differences to the champion by measure, from the comparison of the two; empty if there was none."""
    folder = state / "compare" / f"{version}-{champion}"
    if champion is None or not (folder / "summary.json").is_file():
        return {}
    return dict(read_summary(folder).results.get("differences", {}))


def measures(candidate: Candidate, against: Mapping[str, Any], champion: str | None) -> str:
    """A Markdown table: each measure of the candidate with its interval and, if both were scored, the difference."""
    rows = ["| measure | value | interval | difference to the champion | interval |", "|---|---|---|---|---|"]
    found = measured(candidate.data)
    for name, measure in found.items():
        cells = [safe(name), number(measure["value"]), interval(measure)]
        rows.append(f"| {' | '.join([*cells, *_difference(against.get(name))])} |")
    if rest := [name for name in against if name not in found]:
        rows += [f"| {safe(name)} | - | - | {' | '.join(_difference(against[name]))} |" for name in rest]
    what = f"version {safe(champion)}, both scored anew" if against else "no champion: no comparison was made"
    return "\n".join([f"# Measures of {safe(candidate.name)}, against {what}", "", *rows, ""])


def papers(candidate: Candidate, version: str) -> str:
    """Markdown: card and reports of the version, with a link if the registry has pages, else how to fetch them."""
    name, which = quote(candidate.name), quote(version)
    files = [f"- {path}" for path in PAPERS if path in candidate.evidence]
    if os.environ["MLFLOW_TRACKING_URI"].startswith(("http://", "https://")):
        about = f"{address().rstrip('/')}/#/models/{name}/versions/{which}"
        text = f"[Its page in the registry]({about}) leads to the run, whose artifacts in `model/` are"
    else:
        text = f'`mlflow.artifacts.download_artifacts("models:/{name}/{which}")` fetches'
    return "\n".join([f"# {safe(candidate.name)} version {safe(version)}", "", f"{text}:", "", *files, ""])


def _difference(found: Any) -> list[str]:
    return [number(found["value"]), interval(found)] if isinstance(found, dict) else ["-", "-"]


def interval(measure: Mapping[str, Any]) -> str:
    """Both ends as text, or a dash if there are none."""
    ends = [measure.get(end) for end in ("low", "high")]
    return "-" if ends == [None, None] else " to ".join(map(number, ends))
