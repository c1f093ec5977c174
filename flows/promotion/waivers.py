"""Weaknesses with which a candidate is promoted only if somebody accepted them in `promote.waivers`, with a reason.

A gate that is loosened until the candidate passes proves nothing, so its thresholds, what they are compared with and
the accepted licences are checked against those that the champion passed; the champion's version keeps them as tags. And
parity measured on hardware that widens half precision before computing says nothing about hardware that computes in
half precision.
"""

import json
from collections.abc import Mapping
from typing import Any

from flows.tracking.evidence import Candidate
from stages.config.ingest import same_licence
from stages.config.promote import PromoteConfig, Waiver, WeightsOnly


def gate(candidate: Candidate) -> dict[str, str]:
    """The tags that record, as JSON, what a candidate's verdict asked of it.

    `gate`: name of each required check to [op, threshold, relative_to, source, measure]; `licences`: those accepted for
    the data.
    """
    rules = {check["name"]: _rule(check, check["rule"]) for check in candidate.checks if check["required"]}
    return {"gate": json.dumps(rules), "licences": json.dumps(candidate.licences)}


def _rule(check: Mapping[str, Any], rule: Mapping[str, Any]) -> list[Any]:
    return [rule["op"], rule["threshold"], rule["relative_to"], check["source"], check.get("measure")]


def looser(mine: Mapping[str, str], champion: Mapping[str, str]) -> list[str]:
    """In words, each point in which the gate `mine` asks less than the champion's; both as `gate` wrote them.

    A tag that the champion lacks, for example because its alias was set by hand, is not compared.
    """
    rules, theirs = json.loads(mine["gate"]), json.loads(champion.get("gate", "{}"))
    found = [said for name, rule in theirs.items() if (said := _looser(name, rules.get(name), rule))]
    if "licences" in champion:
        known = {same_licence(name) for name in json.loads(champion["licences"])}
        added = [name for name in json.loads(mine["licences"]) if same_licence(name) not in known]
        found += [f"ingest.licences accepts {name} too" for name in added]
    return found


def _looser(name: str, mine: list[Any] | None, theirs: list[Any]) -> str | None:
    if mine is None:
        return f"{name} is no longer required"
    if [mine[0], *mine[2:]] != [theirs[0], *theirs[2:]]:
        return f"{name} is compared in another way ({_way(mine)}, it was {_way(theirs)})"
    if (mine[1] > theirs[1]) if mine[0] == "<=" else (mine[1] < theirs[1]):
        return f"{name} {mine[0]} {mine[1]:g} (it was {theirs[1]:g})"
    return None


def _way(rule: list[Any]) -> str:
    return " ".join(map(str, [*rule[3:], rule[0], rule[2]]))


def needed(candidate: Candidate, champion: Mapping[str, str], *, champion_lost: str | None) -> dict[str, str]:
    """Each waiver that this candidate needs, by name, with the reason why.

    `champion` holds the champion's tags, none if there is no champion; `champion_lost` names a champion whose version
    was deleted.
    """
    found = {}
    if less := looser(gate(candidate), champion):
        found["looser_thresholds"] = f"its gate asks less than the champion's: {', '.join(less)}"
    if candidate.arithmetic == "weights only":
        found["weights_only"] = "parity says `weights only`: it was not measured in half precision"
    if champion_lost is not None:
        found["no_champion"] = f"version {champion_lost} was champion and was deleted"
    return found


def given(candidate: Candidate, config: PromoteConfig, wanted: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """(waivers that apply, as name to reason; sentences about those that are missing)."""
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
