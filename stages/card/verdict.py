"""The gate: a pure function from measures and checks to a verdict.

Conservative in three ways: the bad end of the interval is compared, not the value; distances are read relative to
what real images reach at the same counts; and what is missing or could not be assessed fails if it is required.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stages.config.card import LABELLED_KINDS, Check

PASSED, FAILED, NOT_ASSESSED = "passed", "failed", "not_assessed"


class NotAssessed(Exception):
    """A measure that cannot be compared; the message says why."""


def decide(
    checks: Sequence[Check], evidence: Mapping[str, Mapping[str, Any]], *, labelled: bool, grouped: bool = False
) -> list[dict[str, Any]]:
    """One verdict line per check, in the order given.

    Args:
        checks: the gate.
        evidence: per stage a mapping with `measures` and `protocols`, as summaries hold them.
        labelled: whether the generator is conditional; without classes the checks of LABELLED_KINDS have no meaning,
            so they are reported as not assessed and not required.
        grouped: whether the images come in groups, among which copies cannot be tested for (docs/audit.md); if so, the
            same holds for the checks of memorization.
    """
    return [_line(check, evidence, _pointless(check, labelled=labelled, grouped=grouped)) for check in checks]


def is_green(lines: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every required line passed, and there is at least one."""
    required = [line for line in lines if line["required"]]
    return bool(required) and all(line["status"] == PASSED for line in required)


def _pointless(check: Check, *, labelled: bool, grouped: bool) -> str | None:
    """Why a check has no meaning for these images, so that nobody can require it; None if it has one."""
    if not labelled and check.kind in LABELLED_KINDS:
        return "the images carry no labels, so this check has no meaning and is not required"
    if grouped and check.kind == "memorization":
        return (
            "the images come in groups, so that copies could not be tested for (docs/audit.md): this check has no "
            "meaning and is not required; look at the closest pairs on the audit's page"
        )
    return None


def _line(check: Check, evidence: Mapping[str, Mapping[str, Any]], pointless: str | None) -> dict[str, Any]:
    measure: dict[str, Any] = {}
    compared = None
    try:
        if pointless is not None:
            raise NotAssessed(pointless)
        measure = _measure(check, evidence)
        compared, status, reason = _compare(check, measure)
    except NotAssessed as refusal:
        status, reason = NOT_ASSESSED, f"not assessed: {refusal}"
    return {
        "name": check.name,
        **{key: _number(measure.get(key)) for key in ("value", "low", "high")},
        "compared": compared,
        "rule": {"op": check.op, "threshold": check.threshold, "relative_to": check.relative_to},
        "required": check.required and pointless is None,
        "status": status,
        "reason": reason,
        "source": check.source,
        "measure": check.measure,
        "protocol": measure.get("protocol"),
    }


def _measure(check: Check, evidence: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The measure that a check names, with a protocol that its stage declares."""
    if check.source not in evidence:
        raise NotAssessed(f"no summary of {check.source} was given")
    found = evidence[check.source]
    measure = found.get("measures", {}).get(check.measure)
    if not isinstance(measure, dict):
        raise NotAssessed(f"{check.source} reports no measure {check.measure}")
    protocol = found.get("protocols", {}).get(measure.get("protocol"))
    if not isinstance(protocol, dict):
        raise NotAssessed(f"{check.measure} carries no protocol, so nothing says what the number means")
    # An exact number says so (`interval: "none: ..."`); null means an estimate whose uncertainty nobody knows.
    if measure.get("value") is not None and measure.get("low") is None and protocol.get("interval", "") is None:
        raise NotAssessed(str(measure.get("reason") or f"{check.measure} is an estimate without an interval"))
    return measure


def _compare(check: Check, measure: Mapping[str, Any]) -> tuple[float, str, str]:
    """The number compared with the threshold, the status, and both in words."""
    end = _bad_end(check, measure)
    compared = _relative(check, end, measure.get("reference"))
    holds = compared <= check.threshold if check.op == "<=" else compared >= check.threshold
    exact = measure.get("low") is None and measure.get("high") is None
    which = "the value" if exact else f"the {'upper' if check.op == '<=' else 'lower'} end of the interval"
    limit = (
        f"at most {check.threshold:.4g} is allowed" if check.op == "<=" else f"at least {check.threshold:.4g} is needed"
    )
    reason = f"{which} is {end:.4g}{_reading(check, compared)}; {limit}"
    if not holds and measure.get("reason"):
        reason = f"{measure['reason']} ({reason})"
    return compared, (PASSED if holds else FAILED), reason


def _reading(check: Check, compared: float) -> str:
    """The compared number in words, to follow the end of the interval that it comes from."""
    real = "what real data reach"
    return {
        "none": "",
        "ratio": f", {compared:.4g} times {real}",
        "deviations": f", {compared:+.4g} standard deviations from {real}",
        "difference": f", {compared:+.4g} from {real}",
    }[check.relative_to]


def _bad_end(check: Check, measure: Mapping[str, Any]) -> float:
    """The end of the interval that speaks against passing; the value itself if the measure has no interval."""
    value, low, high = (measure.get(key) for key in ("value", "low", "high"))
    if value is None:
        raise NotAssessed(str(measure.get("reason") or f"{check.measure} has no value"))
    if _number(value) is None:
        raise NotAssessed(f"{check.measure} is {value!r}, not a finite number")
    if low is None and high is None:
        return float(value)
    if _number(low) is None or _number(high) is None or float(low) > float(high):  # type: ignore[arg-type]
        raise NotAssessed(f"{check.measure} has no usable interval: [{low!r}, {high!r}]")
    return float(high if check.op == "<=" else low)  # type: ignore[arg-type]


def _relative(check: Check, end: float, reference: Any) -> float:
    """`end` in the unit of `relative_to`. Raises NotAssessed if the reference does not allow that."""
    if check.relative_to == "none":
        return end
    mean, sd = (_number((reference or {}).get(key)) for key in ("mean", "sd"))
    if mean is None:
        raise NotAssessed(f"{check.measure} has no reference to be relative to")
    if check.relative_to == "difference":
        return end - mean
    divisor = mean if check.relative_to == "ratio" else sd
    if divisor is None or divisor <= 0:
        name = "mean" if check.relative_to == "ratio" else "standard deviation"
        raise NotAssessed(f"the {name} of the reference of {check.measure} must be above 0; it is {divisor!r}")
    return end / mean if check.relative_to == "ratio" else (end - mean) / divisor


def _number(value: Any) -> float | None:
    """A finite number, else None: NaN, infinity, text and true/false are not measurements."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
