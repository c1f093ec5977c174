"""Non-inferiority and superiority: pure functions from paired scores to a judgement, with the reason in words.

Set i of both generators comes from the same latents and meets the same held-out images, so what the two scores share
cancels in their difference; its interval is Student's t over sets. Not worse: the bad end of every required difference
stays within its margin; a candidate that is merely not shown to be worse, because too little was measured, does not
pass. Better: the bad end of a primary difference is a gain. The error level is divided among the primary measures
(Bonferroni), so that equal generators are called better in at most one comparison in forty, however many measures
there are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gan.intervals import LEVEL, mean_interval
from stages.config.compare import HIGHER_IS_BETTER, Margin

UNITS = {"none": "", "ratio": " floors", "deviations": " standard deviations of the floor"}


def differences(
    candidate: Mapping[str, Sequence[float]],
    champion: Mapping[str, Sequence[float]],
    margins: Sequence[Margin],
    floors: Mapping[str, Mapping[str, float]],
    primary: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:
    """Per measure, the difference candidate - champion with its interval, and whether it stays within its margin.

    `candidate` and `champion` map measures to one score per set, in the order of sets. Measures without a margin are
    reported and decide nothing. `floors` maps measures to mean and sd of real draws, for relative margins. Measures in
    `primary` also say whether the candidate is better.
    """
    decisive = {margin.measure: margin for margin in margins}
    found = {
        name: _difference(name, candidate[name], champion[name], decisive.get(name), floors.get(name))
        for name in HIGHER_IS_BETTER
        if name in candidate and name in champion
    }
    shared = [name for name in primary if name in found]
    for name in shared:
        found[name]["better"] = _better(name, candidate[name], champion[name], comparisons=len(shared))
    return found


def _difference(
    name: str, candidate: Sequence[float], champion: Sequence[float], margin: Margin | None,
    floor: Mapping[str, float] | None,
) -> dict[str, Any]:  # fmt: skip
    value, low, high = mean_interval([a - b for a, b in zip(candidate, champion, strict=True)])
    found: dict[str, Any] = {
        "value": value,
        "low": low,
        "high": high,
        "candidate": sum(candidate) / len(candidate),
        "champion": sum(champion) / len(champion),
        "required": margin is not None,
        "margin": margin.margin if margin else None,
        "relative_to": margin.relative_to if margin else "none",
        "status": "reported",
        "reason": "reported only: compare.margins does not name it",
    }
    if margin is None:
        return found
    unit = {"none": 1.0, "ratio": (floor or {}).get("mean"), "deviations": (floor or {}).get("sd")}[margin.relative_to]
    if unit is None or not unit > 0:
        reason = f"the reference has no floor of {name} above 0, to which a margin could be relative"
        return found | {"status": "not_assessed", "reason": reason}
    loss = (-low if HIGHER_IS_BETTER[name] else high) / unit
    holds = loss <= margin.margin
    reason = (
        f"{name} may be worse by up to {max(0.0, loss):.3g}{UNITS[margin.relative_to]}, "
        f"{'within' if holds else 'beyond'} the margin of {margin.margin:g}"
    )
    return found | {"status": "passed" if holds else "failed", "reason": reason}


def _better(name: str, candidate: Sequence[float], champion: Sequence[float], *, comparisons: int) -> bool:
    level = 1 - (1 - LEVEL) / comparisons
    _, low, high = mean_interval([a - b for a, b in zip(candidate, champion, strict=True)], level=level)
    return low > 0 if HIGHER_IS_BETTER[name] else high < 0


def judge(found: Mapping[str, Mapping[str, Any]], absent: Mapping[str, str]) -> dict[str, Any]:
    """`not_worse`, `better` (primary measures shown to be better), `ahead`, and the `reason` in words.

    `ahead`: better in a primary measure and, by the plain differences, behind in no required one. Only such a
    candidate may become the mark that later ones are measured against, so that small losses cannot add up.
    `absent` maps measures that have a margin but that neither generator can have to the reason why.
    """
    required = {name: row for name, row in found.items() if row["required"]}
    wrong = [row["reason"] for row in required.values() if row["status"] != "passed"]
    notes = [row["reason"] for row in required.values()] + list(absent.values())
    if wrong:
        reason = "worse, or not shown to be as good: " + "; ".join(wrong)
    elif not required:
        reason = "nothing was compared: " + "; ".join(dict.fromkeys(absent.values()))
    else:
        reason = "not worse: " + "; ".join(notes)
    not_worse = bool(required) and not wrong
    better = [name for name, row in found.items() if row.get("better")] if not_worse else []
    behind = [name for name, row in required.items() if (row["value"] < 0) == HIGHER_IS_BETTER[name] and row["value"]]
    if not_worse:
        reason += f"; better: {', '.join(better)}" if better else "; better in no primary measure"
    return {"not_worse": not_worse, "better": better, "ahead": bool(better) and not behind, "reason": reason}
