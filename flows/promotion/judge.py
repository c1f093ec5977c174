"""The rule by which a registered candidate becomes champion: it gives a decision and its reason, and moves nothing.

A version that is red, was rolled back or was refused is not promoted. Otherwise its registered bytes must be servable
(`serving`), and what needs a waiver must have one. If there is a champion, `stages.compare` scores both again on the
present reference: the candidate must not be worse and, if both were trained on the same data, must be better in a
primary measure. Nor may it be worse than the best version ever promoted, so that losses within the margins cannot add
up night by night.
"""

import dataclasses
import shutil
import sys
from typing import TYPE_CHECKING, Any

from flows.promotion import serving, waivers
from flows.promotion.answer import REFUSED, refusal
from flows.promotion.moves import history
from flows.tracking.evidence import Candidate
from flows.tracking.registry import ONNX, Registry
from flows.work.process import last_sentence
from flows.work.testbench import STOPPED, Testbench
from stages.common.summary import read_summary

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """What becomes of a version, and why.

    decision: "promoted", "kept" (the champion stays), "red", "unfit" (its bytes cannot be served), "slow" (too slow:
        the next retrain tests it again), "held" (a waiver is missing), "rolled_back" (it was champion once and was
        rolled back), "waiting" (for a person's approval) or "refused" (by that person).
    champion: the champion's version afterwards; before the move, the one that the decision was taken against. best: the
    best promoted version, once this decision stands. failed: what was not met. waived: waiver to reason.
    """

    decision: str
    reason: str
    champion: str | None
    best: str | None = None
    failed: tuple[str, ...] = ()
    waived: dict[str, str] = dataclasses.field(default_factory=dict)


def judge(candidate: Candidate, version: str, registry: Registry, bench: Testbench) -> Decision:
    """Decide about `version`, which holds `candidate`. Raises ValueError if a test cannot be carried out."""
    own = registry.client.get_model_version(registry.name, version)
    champion, moves = registry.alias("champion"), history(registry.notes())
    number = str(champion.version) if champion is not None else None
    best = moves[-1].best if moves else number
    if not candidate.passed:
        failed = candidate.failed_checks
        reason = f"the verdict is red: {', '.join(failed) or 'no check passed'}"
        if number == version:
            reason += "; this version is champion already and stays so until somebody moves the alias"
        return Decision(decision="red", reason=reason, champion=number, best=best, failed=tuple(failed))
    if number == version:
        recorded = next((move.reason for move in reversed(moves) if move.version == version), None)
        reason = own.tags.get("reason") or recorded or "the verdict is green and this version is champion already"
        return Decision(decision="promoted", reason=reason, champion=number, best=best)
    if "rolled_back" in own.tags:
        reason = f"it was champion and was rolled back: {own.tags['rolled_back']}"
        return Decision(decision="rolled_back", reason=reason, champion=number, best=best)
    if (refused := refusal(own.tags)) is not None:
        return Decision(decision=REFUSED, reason=refused, champion=number, best=best)
    lost = lost_champion(number, registry, moves[-1].version if moves else None)
    served = serving.check(own, registry, bench)
    if served.failed:
        reason = f"its registered bytes fail the serving check: {'; '.join(served.failed)}"
        how = "slow" if served.slow else "unfit"
        return Decision(decision=how, reason=reason, champion=number, best=best, failed=tuple(served.failed))
    wanted = waivers.needed(candidate, champion.tags if champion else {}, champion_lost=lost)
    waived, missing = waivers.given(candidate, bench.config, wanted)
    if lost is not None and "no_champion" not in waived:
        raise ValueError(f'{missing[-1]}; or go back to another version with `python -m flows.rollback --reason "..."`')
    if missing:
        return Decision(decision="held", reason="; ".join(missing), champion=number, best=best, failed=tuple(missing))
    if champion is None:
        reason = "first champion: the verdict is green and there is no champion to compare with"
        return Decision(decision="promoted", reason=reason, champion=None, best=version, waived=waived)
    registry.claim("challenger", version)
    return dataclasses.replace(_meet(own, champion, best, registry, bench), waived=waived)


def lost_champion(number: str | None, registry: Registry, last: str | None) -> str | None:
    """The version that the records name as champion but was deleted; an alias removed by hand is not a loss."""
    return last if number is None and last is not None and registry.version(last) is None else None


def _meet(
    own: "ModelVersion", champion: "ModelVersion", best: str | None, registry: Registry, bench: Testbench
) -> Decision:
    """The candidate against the champion and, if that is another version, against the best so far."""
    version, number = str(own.version), str(champion.version)
    mark = registry.version(best) if best not in (None, number) else None
    found = compare(own, champion, "champion", registry, bench)
    reason = f"compared with version {number}: {found['reason']}"
    earned = found["not_worse"]
    if earned and found["same_data"] and not found["better"]:
        earned = False
        reason += "; both were trained on the same data, so a new champion must be better in one primary measure"
    if not found["same_data"]:
        reason += "; the champion was trained on other data; both were scored on the present reference"
    ahead = found["ahead"]
    if earned and mark is not None:
        against = compare(own, mark, "best", registry, bench)
        reason += f"; compared with the best so far, version {mark.version}: {against['reason']}"
        earned, ahead = against["not_worse"], against["ahead"]
    best = version if earned and ahead else number if mark is None else best
    return Decision(decision="promoted" if earned else "kept", reason=reason, champion=number, best=best)


def compare(
    own: "ModelVersion", other: "ModelVersion", role: str, registry: Registry, bench: Testbench
) -> dict[str, Any]:
    """Results of `stages.compare`, run afresh in its own process on the registered bytes of both.

    Its folder is attached to the candidate's run as `compare/ROLE`. Raises ValueError if it gives no answer.
    """
    out, fetched = bench.state / "compare" / f"{own.version}-{other.version}", bench.state / "compare" / "fetched"
    shutil.rmtree(fetched, ignore_errors=True)
    for side, of in (("candidate", own), ("champion", other)):
        (fetched / side).mkdir(parents=True)
        registry.fetch(of, fetched / side / ONNX)
    command = [sys.executable, "-m", "stages.compare"]
    command += ["--candidate", str(fetched / "candidate" / ONNX), "--champion", str(fetched / "champion" / ONNX)]
    command += ["--reference", str(bench.project / "data" / "reference")]
    command += ["--params", str(bench.project / "params.yaml"), "--out", str(out)]
    limit = bench.config.compare_minutes
    code, lines = bench.run(command, minutes=limit)
    if code == STOPPED:
        raise ValueError(
            f"stages.compare took longer than promote.compare_minutes ({limit:g}), so the champion stays; raise it"
        )
    if code:
        raise ValueError(f"stages.compare failed, the champion stays: {last_sentence(lines)}")
    found = read_summary(out).results
    wanted = {"not_worse": bool, "ahead": bool, "same_data": bool, "better": list, "reason": str}
    if not all(isinstance(found.get(key), kind) for key, kind in wanted.items()):
        raise ValueError(f"{out / 'summary.json'} must give {', '.join(wanted)}; the champion stays")
    registry.client.log_artifacts(str(own.run_id), str(out), f"compare/{role}")
    shutil.rmtree(fetched)
    return found
