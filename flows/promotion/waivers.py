"""What a candidate may be promoted with only if somebody said so in `promote.waivers`, with a reason.

A gate that is loosened until the candidate fits proves nothing, so its thresholds are compared with those that the
champion passed; they are kept on its version as the tag `gate`. Parity that was measured where half precision is
widened before it is computed with says nothing about hardware that computes in it.
"""

import json
from collections.abc import Mapping
from typing import Any

from flows.tracking.evidence import Candidate
from stages.config.promote import PromoteConfig, Waiver, WeightsOnly


def gate(candidate: Candidate) -> str:
    """The required checks of a candidate's verdict as the JSON of tag `gate`: name to [op, threshold, relative_to]."""
    rules = {check["name"]: check["rule"] for check in candidate.checks if check["required"]}
    return json.dumps({name: [rule["op"], rule["threshold"], rule["relative_to"]] for name, rule in rules.items()})


def looser(mine: str, champion: str | None) -> list[str]:
    """In words, each check by which the gate `mine` asks less than the champion's; both as `gate` wrote them."""
    rules, theirs = json.loads(mine), json.loads(champion or "{}")
    return [said for name, rule in theirs.items() if (said := _looser(name, rules.get(name), rule))]


def _looser(name: str, mine: list[Any] | None, theirs: list[Any]) -> str | None:
    if mine is None:
        return f"{name} is no longer required"
    if (mine[0], mine[2]) != (theirs[0], theirs[2]):
        return f"{name} is compared in another way ({mine[0]} {mine[2]}, it was {theirs[0]} {theirs[2]})"
    if (mine[1] > theirs[1]) if mine[0] == "<=" else (mine[1] < theirs[1]):
        return f"{name} {mine[0]} {mine[1]:g} (it was {theirs[1]:g})"
    return None


def needed(candidate: Candidate, champion_gate: str | None, *, champion_lost: str | None) -> dict[str, str]:
    """By name of waiver, why this candidate needs it. `champion_lost` names a champion whose version was deleted."""
    found = {}
    if less := looser(gate(candidate), champion_gate):
        found["looser_thresholds"] = f"its gate asks less than the champion's: {', '.join(less)}"
    if candidate.arithmetic == "weights only":
        found["weights_only"] = "parity says `weights only`: it was not measured in half precision"
    if champion_lost is not None:
        found["no_champion"] = f"version {champion_lost} was champion and was deleted"
    return found


def given(candidate: Candidate, config: PromoteConfig, wanted: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """(waivers that apply: name to reason, sentences about those that are missing)."""
    reasons = {waiver.name: waiver.reason for waiver in config.waivers if _applies(waiver, candidate)}
    missing = [
        f"{why}; to promote it all the same, write down why in promote.waivers: {_example(name, candidate)}"
        for name, why in wanted.items()
        if name not in reasons
    ]
    return {name: reasons[name] for name in wanted if name in reasons}, missing


def _applies(waiver: Waiver, candidate: Candidate) -> bool:
    return isinstance(waiver, WeightsOnly) or candidate.onnx_sha256.startswith(waiver.onnx)


def _example(name: str, candidate: Candidate) -> str:
    onnx = "" if name == "weights_only" else f"onnx: '{candidate.onnx_sha256[:12]}', "
    return f"{{name: {name}, {onnx}reason: ...}}"
