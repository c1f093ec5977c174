"""What a retrain did, for people: lines for the terminal, a page and a table for Prefect."""

import dataclasses
import html
from typing import Any

from flows.evidence import Candidate
from flows.promote import Decision
from flows.register import Registered


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """Filled in while the flow runs; what is still None was not reached."""

    stages: dict[str, tuple[str, float]]
    """By stage: "ran", "restored" (from DVC's run cache), "cached", "failed" or "not reached", and seconds."""
    candidate: Candidate | None = None
    registered: Registered | None = None
    decision: Decision | None = None
    error: str | None = None


def lines(outcome: Outcome, seconds: float, where: str) -> list[str]:
    """The last words of `make retrain`: what ran, how long, which version, who is champion and why, where to look."""
    told = [f"  {name:<10} {how:<11} {_duration(spent)}".rstrip() for name, (how, spent) in outcome.stages.items()]
    told.append(f"took       {_duration(seconds)}")
    if outcome.candidate is not None and outcome.registered is not None:
        told.append(f"model      {outcome.candidate.name} {outcome.registered.note}")
    if outcome.decision is not None:
        told.append(f"champion   {_champion(outcome)}")
        told.append(f"because    {outcome.decision.reason}")
    if outcome.error is not None:
        told.append(f"FAILED     {outcome.error}")
    told.append(f"look at    data/card/MODEL_CARD.md, data/evaluate/index.html, `python -m flows.status`; {where}")
    return told


def _champion(outcome: Outcome) -> str:
    assert outcome.decision is not None and outcome.registered is not None
    version, champion = outcome.registered.version, outcome.decision.champion
    if outcome.decision.decision == "promoted":
        return f"version {version} is champion"
    stays = f"version {champion} stays champion" if champion else "there is no champion"
    return f"not moved: version {version} is {outcome.decision.decision}, {stays}".replace("is kept", "is not promoted")


def markdown(outcome: Outcome) -> str:
    """The verdict as a table, and the decision with its reason; text from files is escaped."""
    assert outcome.candidate is not None
    rows = ["| check | status | value | interval | required |", "|---|---|---|---|---|"]
    for check in outcome.candidate.checks:
        interval = f"{_number(check.get('low'))} to {_number(check.get('high'))}"
        required = "yes" if check["required"] else "no"
        cells = [_safe(check["name"]), _safe(check["status"]), _number(check.get("value")), interval, required]
        rows.append(f"| {' | '.join(cells)} |")
    title = "green" if outcome.candidate.passed else "red"
    text = [f"# {_safe(outcome.candidate.name)}: verdict {title}", "", *rows, ""]
    if outcome.registered is not None:
        text += [f"**Registry.** {_safe(outcome.registered.note)}.", ""]
    if outcome.decision is not None:
        text += [f"**Decision.** {_safe(_champion(outcome))}: {_safe(outcome.decision.reason)}.", ""]
    if outcome.error is not None:
        text += [f"**Failed.** {_safe(outcome.error)}", ""]
    return "\n".join(text)


def durations(outcome: Outcome) -> list[dict[str, Any]]:
    """Rows for Prefect's table: stage, how it was done, seconds."""
    return [{"stage": name, "state": how, "seconds": round(spent, 1)} for name, (how, spent) in outcome.stages.items()]


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"


def _safe(text: object) -> str:
    plain = " ".join(html.escape(str(text)).split())
    return "".join(f"\\{character}" if character in "|*_`[]#" else character for character in plain)


def _duration(seconds: float) -> str:
    if not seconds:
        return ""
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{minutes:.0f} min {rest:.0f} s" if minutes else f"{rest:.1f} s"
