"""Decide whether a registered candidate becomes champion, and say why either way.

Green and no champion: the absolute verdict decides. Green and a champion: both are scored anew by `stages.compare` on
the present reference. `champion` is moved last, in one write, after `previous` has been set and the champion has been
read again; a crash leaves the old champion or the new one, and the next run finishes the papers.
"""

import dataclasses
import datetime
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.evidence import Candidate
from flows.process import last_sentence, leashed
from flows.registry import ONNX, Registry
from stages.common.summary import read_summary
from stages.config.promote import PromoteConfig

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """What became of a version: "promoted", "kept" (the champion stays) or "red", with the reason in words."""

    decision: str
    reason: str
    champion: str | None
    """The champion's version afterwards."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """Where the two generators meet: folders and limits of one comparison."""

    project: Path
    state: Path
    held: int
    config: PromoteConfig
    log: Callable[[str], None]


def promote(candidate: Candidate, version: str, registry: Registry, bench: Bench) -> Decision:
    """Move the alias `champion` to `version` if it earned it; record the decision on the version and in the state.

    Raises ValueError where the comparison fails or the champion moves meanwhile: then nothing was decided.
    """
    before = registry.alias("champion")
    outcome = _judge(candidate, version, before, registry, bench)
    registry.tag(version, reason=outcome.reason)
    if outcome.decision == "promoted" and outcome.champion != version:
        _move(version, before, registry)
        outcome = dataclasses.replace(outcome, champion=version)
    _record(candidate, version, before, outcome, registry, bench.state)
    registry.tag(version, decision=outcome.decision)
    return outcome


def _judge(
    candidate: Candidate, version: str, champion: "ModelVersion | None", registry: Registry, bench: Bench
) -> Decision:
    number = str(champion.version) if champion is not None else None
    if not candidate.passed:
        reason = f"the verdict is red: {', '.join(candidate.failed_checks) or 'no check passed'}"
        if number == version:
            reason += "; this version is champion already and stays so until somebody moves the alias"
        return Decision(decision="red", reason=reason, champion=number)
    if champion is None:
        reason = "first champion: the verdict is green and there is no champion to compare with"
        return Decision(decision="promoted", reason=reason, champion=None)
    if number == version:
        reason = champion.tags.get("reason", "the verdict is green and this version is champion already")
        return Decision(decision="promoted", reason=reason, champion=number)
    found = compare(candidate, version, champion, registry, bench)
    reason = f"compared with version {number}: {found['reason']}"
    if champion.tags.get("data_hash") != candidate.data_hash:
        reason += "; the champion saw other data, both were scored on the present reference"
    return Decision(decision="promoted" if found["not_worse"] else "kept", reason=reason, champion=number)


def compare(
    candidate: Candidate, version: str, champion: "ModelVersion", registry: Registry, bench: Bench
) -> dict[str, Any]:
    """Results of `stages.compare`, run anew in a process of its own on the registered bytes of both.

    Its folder is attached to the candidate's run as `compare`. Raises ValueError where it fails or gives no answer.
    """
    out, fetched = bench.state / "compare" / f"{version}-{champion.version}", bench.state / "compare" / "fetched"
    shutil.rmtree(fetched, ignore_errors=True)
    own = registry.client.get_model_version(registry.name, version)
    for side, of in (("candidate", own), ("champion", champion)):
        (fetched / side).mkdir(parents=True)
        registry.fetch(of, fetched / side / ONNX)
    command = [sys.executable, "-m", "stages.compare"]
    command += ["--candidate", str(fetched / "candidate" / ONNX), "--champion", str(fetched / "champion" / ONNX)]
    command += ["--reference", str(bench.project / "data" / "reference")]
    command += ["--params", str(bench.project / "params.yaml"), "--out", str(out)]
    _run(command, bench)
    found = read_summary(out).results
    if not isinstance(found.get("not_worse"), bool) or not isinstance(found.get("reason"), str):
        raise ValueError(f"{out} gives no not_worse and reason; the champion stays")
    registry.client.log_artifacts(str(own.run_id), str(out), "compare")
    return found


def _run(command: list[str], bench: Bench) -> None:
    lines: list[str] = []
    limit = bench.config.compare_minutes
    with leashed(command, cwd=bench.project, held=bench.held, timeout=limit * 60) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            bench.log(lines[-1])
        code = process.wait()
    if code == 143:
        raise ValueError(f"stages.compare took longer than promote.compare_minutes ({limit:g}); the champion stays")
    if code:
        raise ValueError(f"stages.compare failed, the champion stays: {last_sentence(lines)}")


def _move(version: str, before: "ModelVersion | None", registry: Registry) -> None:
    now = registry.alias("champion")
    held, found = (None if item is None else str(item.version) for item in (before, now))
    if held != found:
        raise ValueError(f"the champion moved from version {held} to {found} while the gate compared; run it again")
    if before is not None:
        registry.point("previous", str(before.version))
    registry.point("champion", version)  # the commit point


def _record(
    candidate: Candidate,
    version: str,
    before: "ModelVersion | None",
    outcome: Decision,
    registry: Registry,
    state: Path,
) -> None:
    """Append one line to promotions.jsonl, unless its last line already says the same."""
    line = {
        "format": 1,
        "model": registry.name,
        "version": version,
        "decision": outcome.decision,
        "reason": outcome.reason,
        "champion": outcome.champion,
        "onnx_sha256": candidate.onnx_sha256,
        "data_hash": candidate.data_hash,
        "evidence_sha256": candidate.evidence_sha256,
    }
    path = state / "promotions.jsonl"
    last = path.read_text(encoding="utf-8").splitlines()[-1:] if path.is_file() else []
    same = bool(last) and line.items() <= json.loads(last[0]).items()
    if same:
        return
    extra = {"champion_before": str(before.version) if before is not None else None}
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, **extra, "time": time}) + "\n")
        file.flush()
        os.fsync(file.fileno())
