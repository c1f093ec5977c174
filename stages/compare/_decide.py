"""Non-inferiority: a pure function from paired scores to `not worse`, with the reason in words.

Set i of both generators comes from the same latents and meets the same held-out images, so the difference of the two
scores loses what they share; its interval is Student's t over sets. The bad end must stay within the margin: a
candidate that is merely not shown to be worse, because too little was measured, does not pass.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gan.intervals import mean_interval
from stages.config.compare import HIGHER_IS_BETTER, Margin

UNITS = {"none": "", "ratio": " floors", "deviations": " standard deviations of the floor"}


def differences(
    candidate: Mapping[str, Sequence[float]],
    champion: Mapping[str, Sequence[float]],
    margins: Sequence[Margin],
    floors: Mapping[str, Mapping[str, float]],
) -> dict[str, dict[str, Any]]:
    """Per measure the difference candidate - champion with its interval, and whether it stays within its margin.

    `candidate` and `champion` map measures to one score a set, in the order of sets. Measures without a margin are
    reported and decide nothing. `floors` maps measures to mean and sd of real draws, for relative margins.
    """
    decisive = {margin.measure: margin for margin in margins}
    return {
        name: _difference(name, candidate[name], champion[name], decisive.get(name), floors.get(name))
        for name in HIGHER_IS_BETTER
        if name in candidate and name in champion
    }


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
        "reason": "reported only, compare.margins does not name it",
    }
    if margin is None:
        return found
    unit = {"none": 1.0, "ratio": (floor or {}).get("mean"), "deviations": (floor or {}).get("sd")}[margin.relative_to]
    if unit is None or not unit > 0:
        reason = f"the reference has no floor of {name} above 0 that a margin could be relative to"
        return found | {"status": "not_assessed", "reason": reason}
    loss = (-low if HIGHER_IS_BETTER[name] else high) / unit
    holds = loss <= margin.margin
    reason = (
        f"{name} may be worse by up to {max(0.0, loss):.3g}{UNITS[margin.relative_to]}, "
        f"{'within' if holds else 'beyond'} the margin of {margin.margin:g}"
    )
    return found | {"status": "passed" if holds else "failed", "reason": reason}


def judge(found: Mapping[str, Mapping[str, Any]], absent: Mapping[str, str]) -> tuple[bool, str]:
    """(not worse, why). `absent` maps measures with a margin that neither generator can have to the reason."""
    required = [row for row in found.values() if row["required"]]
    wrong = [row["reason"] for row in required if row["status"] != "passed"]
    if wrong:
        return False, "worse, or not shown to be as good: " + "; ".join(wrong)
    if not required:
        return False, "nothing was compared: " + "; ".join(absent.values())
    notes = [row["reason"] for row in required] + list(absent.values())
    return True, "not worse: " + "; ".join(notes)
