"""What an MLflow run records about a candidate: params, metrics with their steps, the data set, and all its files."""

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.promotion.serving import SELFTEST, record_selftest
from flows.tracking import curves
from flows.tracking.evidence import Candidate
from flows.tracking.follow import curve_metrics
from flows.tracking.papers import CARD, CARD_PAGE, card_page, write_flavor
from flows.tracking.registry import FOLDER, ONNX, Registry
from flows.tracking.runs import log_metrics
from stages.common.files import write_json
from stages.state import state_folder

if TYPE_CHECKING:
    from mlflow.entities import Metric

PIPELINE = "pipeline"  # folder of a version: what DVC needs to restore its data, and housekeeping to keep them
PAPERS = ("dvc.lock", "dvc.yaml", "params.yaml", "data/raw.dvc")
_PARAMS = 100  # per call, MLflow's limit


def log_numbers(candidate: Candidate, registry: Registry, run_id: str) -> None:
    """Params, measures at the generator's step, the whole curve and the data set. Doing it again changes nothing."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    client = registry.client
    began = client.get_run(run_id).info.start_time
    params = [Param(key, value) for key, value in candidate.params.items()]
    for start in range(0, len(params), _PARAMS):
        client.log_batch(run_id, params=params[start : start + _PARAMS])
    rows = curves.whole(candidate.data, state_folder())
    metrics = _measures(candidate, rows, began) + curve_metrics(_missing(rows, registry, run_id), began)
    log_metrics(client, run_id, metrics)
    source = json.dumps({"path": "data/ingest", "md5": candidate.data_md5, "data_hash": candidate.data_hash})
    data = Dataset(name="ingest", digest=candidate.data_md5[:36], source_type="dvc", source=source)
    client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])


def log_new_measures(candidate: Candidate, registry: Registry, run_id: str) -> None:
    """Log new evidence's measures on a run that has the old ones: MLflow shows the latest value of each step."""
    rows = curves.whole(candidate.data, state_folder())
    log_metrics(registry.client, run_id, _measures(candidate, rows, int(time.time() * 1000)))


def _measures(candidate: Candidate, rows: list[curves.Row], time_ms: int) -> "list[Metric]":
    from mlflow.entities import Metric

    step = int(rows[-1]["step"]) if rows else 0
    return [Metric(key, value, time_ms, step) for key, value in candidate.metrics.items()]


def _missing(rows: list[curves.Row], registry: Registry, run_id: str) -> list[curves.Row]:
    """The part of the curve that the run does not have yet, by step and name."""
    names = {name for row in rows for name in row} - {"step", "time"}
    taken = registry.client.get_run(run_id).data.metrics
    have = {
        (metric.step, name)
        for name in names
        if f"train/{name}" in taken
        for metric in registry.client.get_metric_history(run_id, f"train/{name}")
    }
    return [
        {name: value for name, value in row.items() if name not in names or (int(row["step"]), name) not in have}
        for row in rows
    ]


def log_files(
    candidate: Candidate, facts: Mapping[str, Any], registry: Registry, run_id: str, *, generator: bool
) -> None:
    """Log evidence, pipeline files, `run.json` and the card as a page; with `generator` a model with the ONNX file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {**candidate.evidence, **({ONNX: candidate.onnx} if generator else {})}
        for place, path in files.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / place)
        for paper in PAPERS:
            if (path := candidate.data.parent / paper).is_file():
                (folder / PIPELINE).mkdir(exist_ok=True)
                shutil.copyfile(path, folder / PIPELINE / path.name)
        (folder / CARD_PAGE).write_text(card_page(candidate.evidence[CARD]), encoding="utf-8")
        write_json(folder / "run.json", dict(facts))
        if generator:
            record_selftest(folder / ONNX, folder / SELFTEST)
            write_flavor(folder, run_id, FOLDER)
        registry.client.log_artifacts(run_id, name, FOLDER)
