"""Register a candidate in MLflow, once: the same ONNX file from the same data is one version, however often it runs.

Order: run with params, metrics, files; bytes read back; run finished; then the version with all its tags in one call.
So a crash leaves at most a run without a version, which the next registration removes, or a whole version.
"""

import dataclasses
import datetime
import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.evidence import Candidate
from flows.registry import FOLDER, ONNX, Registry, fetch_file
from stages.common.files import sha256_file, write_json

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclasses.dataclass(frozen=True, kw_only=True)
class Registered:
    """A version of the registry, and what had to be done for it."""

    version: str
    new: bool
    note: str


def register(candidate: Candidate, registry: Registry, facts: Mapping[str, Any]) -> Registered:
    """Make sure that exactly one version holds the candidate, whole and with its present evidence.

    `facts` is what cannot repeat (commit, machine, durations); it goes into the run as `run.json` and tags. Raises
    ValueError where the candidate must not be registered, or the registered bytes differ from its own.
    """
    if not candidate.registrable:
        raise ValueError(
            "nothing registered: the verdict says registrable: false, as in the smoke configuration;"
            " set card.registrable in params.yaml for a real run"
        )
    _remove_leftovers(candidate, registry)
    kept = [version for version in registry.versions(idempotence_key=candidate.key) if _keep(version, registry)]
    if not kept:
        version = _create(candidate, registry, facts)
        return Registered(version=version, new=True, note=f"registered as version {version}")
    number = str(kept[-1].version)
    if kept[-1].tags.get("evidence_sha256") == candidate.evidence_sha256:
        return Registered(version=number, new=False, note=f"is version {number} already; nothing new was registered")
    _replace_evidence(candidate, registry, kept[-1], facts)
    note = f"is version {number} already; its evidence changed and was replaced"
    return Registered(version=number, new=False, note=note)


def version_tags(candidate: Candidate) -> dict[str, str]:
    """The tags by which a version says what it is; `decision` and `reason` follow from promotion."""
    return {
        "idempotence_key": candidate.key,
        "onnx_sha256": candidate.onnx_sha256,
        "data_hash": candidate.data_hash,
        "params_hash": candidate.params_hash,
        "verdict": "passed" if candidate.passed else "red",
        "evidence_sha256": candidate.evidence_sha256,
    }


def git_facts(project: Path) -> dict[str, str]:
    """Commit and dirty state of the working copy ("none" without git), and the MD5 of dvc.lock."""

    def git(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True)
        except OSError:
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    changes, lock = git("status", "--porcelain"), project / "dvc.lock"
    md5 = hashlib.md5(lock.read_bytes(), usedforsecurity=False).hexdigest() if lock.is_file() else "none"
    return {
        "git.commit": git("rev-parse", "--verify", "HEAD") or "none",
        "git.dirty": "none" if changes is None else str(bool(changes)).lower(),
        "dvc.lock_md5": md5,
    }


def run_facts(project: Path, seconds: Mapping[str, float]) -> dict[str, Any]:
    """What cannot repeat, for `run.json`: when, on what, from which commit, how long each stage took (seconds)."""
    return {
        "format": 1,
        "registered": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "python": platform.python_version(), "cpus": os.cpu_count()},
        "stage_seconds": {name: round(value, 1) for name, value in seconds.items()},
        **git_facts(project),
    }


def _remove_leftovers(candidate: Candidate, registry: Registry) -> None:
    """Delete runs of this candidate that no version came from: a registration that died on the way."""
    experiment = registry.experiment()
    runs = registry.client.search_runs([experiment], f"tags.idempotence_key = '{candidate.key}'")
    used = {version.run_id for version in registry.versions(idempotence_key=candidate.key)}
    for run in runs:
        if run.info.run_id not in used:
            registry.client.delete_run(run.info.run_id)


def _keep(version: "ModelVersion", registry: Registry) -> bool:
    """False where a version's bytes are lost or damaged; then it is deleted, unless an alias still needs it."""
    if registry.intact(version):
        return True
    if version.aliases:
        raise ValueError(
            f"version {version.version} of {registry.name} is damaged (its {ONNX} does not read back) and is"
            f" {', '.join(version.aliases)}; move that alias to another version by hand, then run it again"
        )
    registry.client.delete_model_version(registry.name, version.version)
    return False


def _create(candidate: Candidate, registry: Registry, facts: Mapping[str, Any]) -> str:
    client = registry.client
    identity = {key: str(value) for key, value in facts.items() if key.startswith(("git.", "dvc.", "prefect."))}
    tags = {"idempotence_key": candidate.key, "onnx_sha256": candidate.onnx_sha256, **identity}
    run = client.create_run(registry.experiment(), run_name=f"{candidate.name}-{candidate.onnx_sha256[:8]}", tags=tags)
    run_id, source = run.info.run_id, f"{run.info.artifact_uri}/{FOLDER}"
    _log_numbers(candidate, registry, run_id)
    _log_files({ONNX: candidate.onnx, **candidate.evidence}, facts, registry, run_id)
    with tempfile.TemporaryDirectory() as folder:
        fetch_file(f"{source}/{ONNX}", Path(folder) / ONNX)
        if sha256_file(Path(folder) / ONNX) != candidate.onnx_sha256:
            raise ValueError(f"{ONNX} did not read back from the registry as it was written; run it again")
    client.set_terminated(run_id)
    if not registry.exists():
        text = "Generators made by ganops; the alias champion is the one to serve."
        client.create_registered_model(candidate.name, description=text)
    made = client.create_model_version(
        candidate.name, source, run_id=run_id, tags=version_tags(candidate), description=_description(candidate)
    )
    return str(made.version)


def _log_numbers(candidate: Candidate, registry: Registry, run_id: str) -> None:
    """Params, metrics and the data set of a run, in batches of the sizes that MLflow takes."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

    now = int(time.time() * 1000)
    params = [Param(key, value) for key, value in candidate.params.items()]
    metrics = [Metric(key, value, now, 0) for key, value in candidate.metrics.items()]
    for start in range(0, max(len(params), len(metrics)), 100):
        registry.client.log_batch(run_id, metrics[start : start + 100], params[start : start + 100])
    source = json.dumps({"path": "data/ingest", "md5": candidate.data_md5, "data_hash": candidate.data_hash})
    data = Dataset(name="ingest", digest=candidate.data_md5[:36], source_type="dvc", source=source)
    registry.client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])


def _log_files(files: Mapping[str, Path], facts: Mapping[str, Any], registry: Registry, run_id: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, path in files.items():
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        write_json(Path(folder) / "run.json", dict(facts))
        registry.client.log_artifacts(run_id, folder, FOLDER)


def _replace_evidence(
    candidate: Candidate, registry: Registry, version: "ModelVersion", facts: Mapping[str, Any]
) -> None:
    """New card, verdict and pages for the same bytes; the ONNX file is not touched, the digest is set last."""
    _log_files(candidate.evidence, facts, registry, str(version.run_id))
    number, tags = str(version.version), version_tags(candidate)
    for stale in ("decision", "reason"):
        if stale in version.tags:
            registry.client.delete_model_version_tag(registry.name, number, stale)
    registry.client.update_model_version(registry.name, number, _description(candidate))
    registry.tag(number, **tags)


def _description(candidate: Candidate) -> str:
    failed = ", ".join(candidate.failed_checks)
    verdict = "green" if candidate.passed else f"red ({failed})"
    return f"Verdict {verdict}. ONNX {candidate.onnx_sha256[:12]}, data {candidate.data_hash[:12]}. See MODEL_CARD.md."
