"""Take the decision about a registered candidate, write it down, and move the alias `champion` if it was earned.

The judgement may take long and holds no lock; the move does, and checks that the champion is still the one that the
candidate was judged against. After a promotion the drift baseline follows. The last thing written is `judged_by`, the
digest of the rules: without it the next retrain takes the decision again, so a crash at any point costs only that work.
"""

import dataclasses
import json

from flows.promotion import waivers
from flows.promotion.answer import REFUSED, WAITING
from flows.promotion.baseline import follow_promotion
from flows.promotion.judge import Decision, judge
from flows.promotion.moves import Move, move, promotion, recover
from flows.state import serialised
from flows.tracking.evidence import Candidate
from flows.tracking.registry import Registry, plain
from flows.work.testbench import Testbench, rules_sha256


def promote(candidate: Candidate, version: str, registry: Registry, bench: Testbench) -> Decision:
    """Decide about `version` and carry the decision out; returns it, with the champion as it is afterwards.

    Raises ValueError if a test cannot be carried out, or if the champion moves or a person decides about the version
    meanwhile: nothing was decided then.
    """
    with serialised(bench.state):
        recover(registry, bench.log)
    before = _word(registry, version)
    outcome = judge(candidate, version, registry, bench)
    if bench.config.approval.required and outcome.decision == "promoted" and outcome.champion != version:
        outcome = dataclasses.replace(outcome, decision=WAITING)
    with serialised(bench.state):
        recover(registry, bench.log)
        if (found := registry.number("champion")) != outcome.champion:
            raise ValueError(
                f"the champion changed from {outcome.champion or 'none'} to {found or 'none'} while version"
                f" {version} was being judged; run it again"
            )
        if _word(registry, version) != before:
            raise ValueError(f"somebody decided about version {version} while it was being judged; run it again")
        outcome = carry_out(candidate, version, outcome, registry, bench)
    if outcome.decision == "promoted" and outcome.champion == version:
        follow_promotion(bench, candidate.data_hash)
    close(version, registry, bench)
    return outcome


def _word(registry: Registry, version: str) -> list[str | None]:
    """What people have decided about a version: an answer to its request, a rollback from it."""
    tags = registry.client.get_model_version(registry.name, version).tags
    return [tags.get(name) for name in ("approval", "rolled_back")]


def carry_out(candidate: Candidate, version: str, outcome: Decision, registry: Registry, bench: Testbench) -> Decision:
    """Record a decision and, if it says so, move the champion, under a lock that the caller holds."""
    bench.log(f"decision about version {version}: {outcome.decision}")
    stays = outcome.decision == "promoted" and outcome.champion == version
    registry.tag(version, reason=plain(outcome.reason, 4000))
    if not stays:
        papers = {"against": outcome.champion or "none", "failed": json.dumps(outcome.failed)}
        papers["waived"] = json.dumps(outcome.waived, sort_keys=True)
        registry.tag(version, **papers)
    if outcome.decision in ("promoted", WAITING) and not stays:
        registry.tag(version, **waivers.gate(candidate), best=outcome.best or version)
    if outcome.decision == WAITING:
        registry.point("challenger", version)
    if outcome.decision == REFUSED:
        registry.drop("challenger", version)
    if outcome.decision == "promoted" and not stays:
        move(registry, _move(candidate, version, outcome, registry), bench.log)
        outcome = dataclasses.replace(outcome, champion=version)
    else:
        registry.tag(version, decision=outcome.decision)
    return outcome


def close(version: str, registry: Registry, bench: Testbench) -> None:
    """Record that the decision about `version` is complete, and by which rules it was taken."""
    bench.log(f"decision about version {version}: taken")
    registry.tag(version, judged_by=rules_sha256(bench.project / "params.yaml"))


def _move(candidate: Candidate, version: str, outcome: Decision, registry: Registry) -> Move:
    facts = {
        "onnx_sha256": candidate.onnx_sha256,
        "data_hash": candidate.data_hash,
        "evidence_sha256": candidate.evidence_sha256,
        "waived": outcome.waived,
    }
    reason = plain(outcome.reason, 4000)
    return promotion(registry, version, before=outcome.champion, best=outcome.best, reason=reason, facts=facts)
