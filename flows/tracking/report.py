"""What a retrain did, for people: lines for the terminal, a page and a table for Prefect."""

import dataclasses
import html
from collections.abc import Sequence
from typing import Any

from flows.promotion.judge import Decision
from flows.tracking.evidence import Candidate
from flows.tracking.progress import in_words
from flows.tracking.register import Registered


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """Filled in while the flow runs; a field that is still None was not reached."""

    stages: dict[str, tuple[str, float]]
    """Per stage: "ran", "restored" (from DVC's run cache), "cached", "failed" or "not reached", and seconds."""
    candidate: Candidate | None = None
    registered: Registered | None = None
    met: str | None = None
    """The champion that the candidate was judged against."""
    decision: Decision | None = None
    error: str | None = None
    notes: list[str] = dataclasses.field(default_factory=list)
    """What else is worth saying: where data and run branch are, what is left for the next run."""

    @classmethod
    def of(cls, stages: Sequence[str]) -> "Outcome":
        """The outcome at the start, before any stage has run."""
        return cls(stages=dict.fromkeys(stages, ("cached", 0.0)))

    def renew(self) -> None:
        """Before another round: forget the result of the last one, keep which stages ran and the notes."""
        self.candidate = self.registered = self.met = self.decision = self.error = None


def lines(outcome: Outcome, seconds: float | None = None, where: str | None = None) -> list[str]:
    """The closing lines of a retrain: what ran, how long, which version, who is champion and why, where to look."""
    told = [f"  {name:<10} {how:<11} {in_words(spent)}".rstrip() for name, (how, spent) in outcome.stages.items()]
    if seconds is not None:
        told.append(f"took       {in_words(seconds)}")
    if outcome.candidate is not None and outcome.registered is not None:
        told.append(f"model      {outcome.candidate.name} {outcome.registered.note}")
    if outcome.decision is not None:
        told.append(f"champion   {_champion(outcome)}")
        told.append(f"because    {outcome.decision.reason}")
    told += [f"note       {note}" for note in outcome.notes]
    if outcome.error is not None:
        told.append(f"FAILED     {outcome.error}")
    if where is not None:
        told.append(f"look at    data/card/MODEL_CARD.md, data/evaluate/index.html, `python -m flows.status`; {where}")
    return told


def _champion(outcome: Outcome) -> str:
    assert outcome.decision is not None and outcome.registered is not None
    version, champion = outcome.registered.version, outcome.decision.champion
    if outcome.decision.decision == "promoted":
        return f"version {version} is champion"
    stays = f"version {champion} stays champion" if champion else "there is no champion"
    what = {"kept": "not promoted", "unfit": "unfit to be served", "slow": "too slow to be served", "held": "held back"}
    decision = outcome.decision.decision
    return f"not moved: version {version} is {what.get(decision, decision.replace('_', ' '))}, {stays}"


def markdown(outcome: Outcome) -> str:
    """The verdict as a table, and the decision with its reason; text from files is escaped."""
    assert outcome.candidate is not None
    rows = ["| check | status | value | interval | required |", "|---|---|---|---|---|"]
    for check in outcome.candidate.checks:
        interval = f"{number(check.get('low'))} to {number(check.get('high'))}"
        required = "yes" if check["required"] else "no"
        cells = [safe(check["name"]), safe(check["status"]), number(check.get("value")), interval, required]
        rows.append(f"| {' | '.join(cells)} |")
    title = "green" if outcome.candidate.passed else "red"
    text = [f"# {safe(outcome.candidate.name)}: verdict {title}", "", *rows, ""]
    if outcome.registered is not None:
        text += [f"**Registry.** {safe(outcome.registered.note)}.", ""]
    if outcome.decision is not None:
        text += [f"**Decision.** {safe(_champion(outcome))}: {safe(outcome.decision.reason)}.", ""]
    if outcome.error is not None:
        text += [f"**Failed.** {safe(outcome.error)}", ""]
    return "\n".join(text)


def durations(outcome: Outcome) -> list[dict[str, Any]]:
    """Rows for Prefect's table: stage, how it was done, seconds."""
    return [{"stage": name, "state": how, "seconds": round(spent, 1)} for name, (how, spent) in outcome.stages.items()]


def number(value: Any) -> str:
    """Four significant digits, or a dash for what is not a number."""
    return f"{value:.4g}" if isinstance(value, int | float) else "-"


def safe(text: object) -> str:
    """One line of text, escaped so that neither HTML nor Markdown in it has an effect."""
    plain = " ".join(html.escape(str(text)).split())
    return "".join(f"\\{character}" if character in "|*_`[]#" else character for character in plain)
