"""Whether there is anything to do: decided from the files and the registry, never from the event that asked for it."""

import dataclasses
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from flows.promotion.answer import WAITING, refusal
from flows.promotion.moves import INTENT
from flows.state import embedded_store
from flows.tracking.evidence import read_candidate
from flows.tracking.registry import ONNX, connect, model_name, sentences
from flows.work.pipeline import check_lock, stale
from flows.work.shortcut import recorded
from flows.work.testbench import rules_sha256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What one `dvc status` and the registry say. `done` is a sentence if nothing is left to do."""

    stale: dict[str, Any]
    done: str | None = None


def decide(project: Path, state: Path) -> Work:
    """Nothing is to be done if no stage is stale and the registry holds the candidate, whole and decided.

    Raises ValueError if DVC or the registry refuses.
    """
    model_name(project / "params.yaml")  # for a clearer error than DVC's if the file cannot be read
    check_lock(project)
    changed = stale(project)
    if changed:
        return Work(stale=changed)
    return Work(stale={}, done=settled(project, state))


def settled(project: Path, state: Path) -> str | None:
    """In words, what the registry says of the candidate in `project`/data; None if something is left to do there.

    Something is left to do if the candidate is not registered whole, its evidence or the rules have changed, a decision
    is missing or was taken against another champion, or a move of the champion was interrupted.
    """
    candidate = read_candidate(project)
    rules = rules_sha256(project / "params.yaml")
    return told(state, candidate.name, candidate.key, candidate.evidence_sha256, rules)


def told(state: Path, name: str, key: str, evidence: str, rules: str) -> str | None:
    """As `settled`, without the candidate's files: given its idempotence key and the digests of evidence and rules."""
    tags = recorded(state, name, key) or _asked(state, name, key)
    if (
        tags is None
        or tags["intent"]
        or tags.get("evidence_sha256") != evidence
        or tags.get("judged_by") != rules
        or not _stands(tags)
        or not _bytes_there(tags["source"])
    ):
        return None
    champion = f"version {tags['champion']}" if tags["champion"] else "none"
    why = tags.get("rolled_back") or tags["reason"]
    result = f"{name} version {tags['version']} holds this result ({tags['decision'].replace('_', ' ')}: {why})"
    return f"{result}; champion is {champion}"


def _stands(tags: dict[str, str]) -> bool:
    """Whether the decision still holds, given who is champion now."""
    decision, champion = tags.get("decision"), tags["champion"]
    if decision == WAITING and refusal(tags) is not None:  # recording the refusal was interrupted
        return False
    if decision in ("kept", "held", WAITING):
        return (champion or "none") == tags.get("against")
    return decision in ("red", "unfit", "refused") or (decision in ("promoted", "rolled_back") and bool(champion))


def _bytes_there(source: str) -> bool:
    """Whether a local source still holds its ONNX file; other registries look after their own bytes."""
    return not source.startswith("file:") or Path(unquote(urlsplit(source).path), ONNX).is_file()


def _asked(state: Path, name: str, key: str) -> dict[str, str] | None:
    """As `recorded`, from a registry that only mlflow can query; None for the embedded one, which was asked already."""
    if os.environ["MLFLOW_TRACKING_URI"] == embedded_store(state):
        return None
    with sentences():
        registry = connect(state, name)
        found = registry.versions(idempotence_key=key)
        champion, notes = registry.number("champion"), registry.notes()
    if not found:
        return None
    extra = {"version": str(found[-1].version), "source": found[-1].source or "", "champion": champion or ""}
    return {**found[-1].tags, **extra, "intent": notes.get(INTENT, "")}
