"""Register a candidate in MLflow, once: the same ONNX file from the same data is one version, however often it runs.

Order: run with params, metrics, files; bytes read back; run finished; then the version with all its tags in one call.
So a crash leaves at most a run without a version, which the next registration removes, or a whole version. When
evidence is replaced, the decision that rested on it is removed first.
"""

import dataclasses
import datetime
import hashlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.tracking.evidence import Candidate
from flows.tracking.papers import model_description, version_description
from flows.tracking.record import log_files, log_new_measures, log_numbers
from flows.tracking.registry import FOLDER, ONNX, Registry, fetch_file
from flows.tracking.runs import begin, identity, revive
from stages.common.files import sha256_file

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclasses.dataclass(frozen=True, kw_only=True)
class Registered:
    """A version in the registry, and what had to be done for it."""

    version: str
    new: bool
    note: str


def register(candidate: Candidate, registry: Registry, facts: Mapping[str, Any], run: str | None = None) -> Registered:
    """Make sure that exactly one version holds the candidate, whole and with its present evidence.

    `facts` is what is not repeatable (commit, machine, durations); it goes into the run as `run.json` and tags. `run`
    is the pipeline's MLflow run (`follow`), which gets all numbers, and the files if the version is new, and is ended;
    None: a run is made if a version is. Raises ValueError if the candidate must not be registered, if the registered
    bytes differ from its own, or if a version under an alias is damaged.
    """
    if not candidate.registrable:
        raise ValueError(
            "nothing registered: card.registrable is false, as in the smoke configuration;"
            " set it to true in params.yaml for a real run"
        )
    if run is not None:
        revive(registry, run)
    _remove_leftovers(candidate, registry, run)
    kept = [version for version in registry.versions(idempotence_key=candidate.key) if _keep(version, registry)]
    if not kept:
        version = _create(candidate, registry, facts, run)
        return Registered(version=version, new=True, note=f"registered as version {version}")
    number = str(kept[-1].version)
    if kept[-1].tags.get("evidence_sha256") == candidate.evidence_sha256:
        note = f"is already registered as version {number}; nothing new was registered"
    else:
        _replace_evidence(candidate, registry, kept[-1], facts)
        note = f"is already registered as version {number}; its evidence changed and was replaced"
    if run is not None and run != kept[-1].run_id:
        _tag_run(registry, run, registered_as=number, **_run_tags(candidate, facts))
        log_numbers(candidate, registry, run)
        registry.client.set_terminated(run)
    return Registered(version=number, new=False, note=note)


def _run_tags(candidate: Candidate, facts: Mapping[str, Any]) -> dict[str, str]:
    """Tags by which the run of a candidate can be searched for."""
    return {
        "idempotence_key": candidate.key,
        "onnx_sha256": candidate.onnx_sha256,
        "work_key": candidate.work_key,
        "verdict": "passed" if candidate.passed else "red",
        "mlflow.note.content": version_description(candidate),
        **identity(facts),
    }


def _tag_run(registry: Registry, run: str, **tags: str) -> None:
    for key, value in tags.items():
        registry.client.set_tag(run, key, value)


def version_tags(candidate: Candidate) -> dict[str, str]:
    """The tags by which a version says what it is; promotion adds `decision`, `reason` and others."""
    return {
        "idempotence_key": candidate.key,
        "onnx_sha256": candidate.onnx_sha256,
        "data_hash": candidate.data_hash,
        "params_hash": candidate.params_hash,
        "work_key": candidate.work_key,
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
    """What is not repeatable, for `run.json`: when, on which machine, from which commit, seconds per stage."""
    return {
        "format": 1,
        "registered": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "python": platform.python_version(), "cpus": os.cpu_count()},
        "stage_seconds": {name: round(value, 1) for name, value in seconds.items()},
        **git_facts(project),
    }


def _remove_leftovers(candidate: Candidate, registry: Registry, present: str | None) -> None:
    """Delete runs of this candidate that belong to no version, left by registrations that were interrupted."""
    experiment = registry.experiment()
    runs = registry.client.search_runs([experiment], f"tags.idempotence_key = '{candidate.key}'")
    used = {present, *(version.run_id for version in registry.versions(idempotence_key=candidate.key))}
    for run in runs:
        if run.info.run_id not in used and "registered_as" not in run.data.tags:
            registry.client.delete_run(run.info.run_id)


def _keep(version: "ModelVersion", registry: Registry) -> bool:
    """False if a version's bytes are lost or damaged; it is deleted then. Raises ValueError if it has an alias."""
    if registry.intact(version):
        return True
    if set(version.aliases) - {"challenger"}:
        raise ValueError(
            f"version {version.version} of {registry.name} is damaged (its {ONNX} does not read back) and is"
            f" {', '.join(version.aliases)}; move that alias to another version by hand, then run it again"
        )
    registry.client.delete_model_version(registry.name, version.version)
    return False


def _create(candidate: Candidate, registry: Registry, facts: Mapping[str, Any], run: str | None) -> str:
    client = registry.client
    run_id = run or begin(registry, facts, idempotence_key=candidate.key)
    _tag_run(registry, run_id, **_run_tags(candidate, facts))
    source = f"{client.get_run(run_id).info.artifact_uri}/{FOLDER}"
    log_numbers(candidate, registry, run_id)
    log_files(candidate, facts, registry, run_id, generator=True)
    with tempfile.TemporaryDirectory() as folder:
        fetch_file(f"{source}/{ONNX}", Path(folder) / ONNX)
        if sha256_file(Path(folder) / ONNX) != candidate.onnx_sha256:
            raise ValueError(f"{ONNX} did not read back from the registry as it was written; run it again")
    client.set_terminated(run_id)
    if registry.exists():
        client.update_registered_model(candidate.name, model_description(candidate))
    else:
        client.create_registered_model(candidate.name, description=model_description(candidate))
    made = client.create_model_version(
        candidate.name, source, run_id=run_id, tags=version_tags(candidate), description=version_description(candidate)
    )
    _tag_run(registry, run_id, registered_as=str(made.version))
    return str(made.version)


def _replace_evidence(
    candidate: Candidate, registry: Registry, version: "ModelVersion", facts: Mapping[str, Any]
) -> None:
    """Write new card, verdict, measures and pages for the same bytes; the ONNX file stays.

    The old decision is removed first, so that a crash leaves a version that nobody can approve; the digest of the
    evidence is set last, so that the next registration then writes all of it again.
    """
    number = str(version.version)
    for stale in ("decision", "judged_by", "reason", "approval", "evidence_sha256"):
        if stale in version.tags:
            registry.client.delete_model_version_tag(registry.name, number, stale)
    log_files(candidate, facts, registry, str(version.run_id), generator=False)
    log_new_measures(candidate, registry, str(version.run_id))
    registry.client.update_model_version(registry.name, number, version_description(candidate))
    registry.client.update_registered_model(registry.name, model_description(candidate))
    registry.tag(number, **version_tags(candidate))
