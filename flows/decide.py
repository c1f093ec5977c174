"""Whether there is anything to do: from the files and the registry, never from the event that asked."""

import dataclasses
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from flows.evidence import read_candidate
from flows.pipeline import stale
from flows.registry import ONNX, connect, recorded, sentences
from flows.state import embedded_store


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What one `dvc status` and the registry say. `done` is a sentence where nothing is left to do."""

    stale: dict[str, Any]
    done: str | None = None


def decide(project: Path, state: Path) -> Work:
    """Nothing is to be done where no stage is stale and the registry holds the candidate, whole and decided.

    Raises ValueError where DVC or the registry refuses.
    """
    changed = stale(project)
    if changed:
        return Work(stale=changed)
    candidate = read_candidate(project)
    tags = recorded(state, candidate.name, candidate.key) or _asked(state, candidate.name, candidate.key)
    finished = (
        tags is not None
        and tags.get("evidence_sha256") == candidate.evidence_sha256
        and "decision" in tags
        and (tags["champion"] or tags["decision"] == "red")
        and _bytes_there(tags["source"])
    )
    if not finished or tags is None:
        return Work(stale={})
    champion = f"version {tags['champion']}" if tags["champion"] else "none"
    told = f"{candidate.name} version {tags['version']} holds this result ({tags['decision']}: {tags['reason']})"
    return Work(stale={}, done=f"{told}; champion is {champion}")


def _bytes_there(source: str) -> bool:
    """A local source still holds its ONNX file; another registry looks after its own bytes."""
    return not source.startswith("file:") or Path(unquote(urlsplit(source).path), ONNX).is_file()


def _asked(state: Path, name: str, key: str) -> dict[str, str] | None:
    """As `registry.recorded`, from a registry that only mlflow can ask; None for the embedded one, already asked."""
    if os.environ["MLFLOW_TRACKING_URI"] == embedded_store(state):
        return None
    with sentences():
        registry = connect(state, name)
        found = registry.versions(idempotence_key=key)
        champion = registry.alias("champion")
    if not found:
        return None
    extra = {"version": str(found[-1].version), "source": found[-1].source or ""}
    return {**found[-1].tags, **extra, "champion": str(champion.version) if champion is not None else ""}
