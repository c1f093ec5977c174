"""A person's approval before a promotion (`promote.approval.required`), given on Prefect's page or by command.

    python -m flows.approval                                            # what waits, with the evidence
    python -m flows.approval --approve 7 --by "A. Name" --comment "..." # or --refuse 7

A version that has earned its promotion gets the decision `waiting`. The flow `approve` (a deployment) suspends itself
with a form that shows the evidence; nothing runs while it waits. The digest `seen` covers what was shown: champion,
version, its bytes, evidence, rules and decision. An answer counts for exactly that. If any of it has changed meanwhile,
the answer is void and the flow asks again about the new state; if the champion has moved, the next retrain judges the
version again.
"""

import argparse
import dataclasses
import datetime
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.command import command
from flows.promotion.answer import REFUSED, WAITING, refusal
from flows.promotion.moves import Log, Move, move, promotion, recover
from flows.state import serialised, settle
from flows.tracking.registry import Registry, connect, model_name, plain, sentences, unmade
from flows.tracking.shown import evidence
from flows.work.testbench import rules_sha256

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_SHOWN = ("onnx_sha256", "data_hash", "evidence_sha256", "judged_by", "against", "reason", "waived", "best")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What waits for a person. `seen`: digest of what `text()` shows (Markdown). `stale`: why nobody can approve it.

    `rules`: digest of the rules that held when the request was made.
    """

    version: str
    champion: str | None
    seen: str
    text: Callable[[], str]
    stale: str | None
    rules: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """A person's answer. Raises ValueError if the name or the comment is missing."""

    approved: bool
    approver: str
    comment: str

    def __post_init__(self) -> None:
        if not plain(self.approver, 200) or not plain(self.comment):
            raise ValueError("an answer needs the approver's name (--by) and a comment (--comment); both are recorded")


def request(registry: Registry, rules: str, wanted: str | None = None) -> Request | None:
    """The request about version `wanted`, by default the newest that waits; None if no such version waits.

    A version named by number may be one whose refusal was interrupted, so that the refusal can be repeated. `rules` is
    the digest of the rules that hold now, as returned by `flows.work.testbench.rules_sha256`.
    """
    champion = registry.number("champion")
    if wanted is None:
        found = waiting(registry)
        asked = [version for version in found if version.tags.get("against") == (champion or "none")] or found
    else:
        asked = [version for version in _undecided(registry) if str(version.version) == wanted]
    if not asked:
        return None
    version = asked[-1]
    shown = {key: version.tags.get(key, "") for key in _SHOWN}
    parts = [str(version.version), champion, shown]
    return Request(
        version=str(version.version),
        champion=champion,
        seen=hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest(),
        text=functools.partial(evidence, registry, version, champion, shown),
        stale=_stale(version.tags, champion, rules),
        rules=rules,
    )


def _stale(tags: Mapping[str, str], champion: str | None, rules: str) -> str | None:
    """Why nobody can approve the version with these tags, and what helps; None if somebody can."""
    if (refused := refusal(tags)) is not None:
        return f"{refused}; recording that was interrupted, so refuse it again to complete it"
    if not tags.get("judged_by"):
        return "its decision is not complete; the next retrain completes it"
    if tags.get("against") != (champion or "none"):
        told = f"it was judged against champion {tags.get('against')}, but the champion is now {champion or 'none'}"
        return f"{told}; the next retrain judges it again"
    if tags["judged_by"] != rules:
        told = "section `compare` or `promote` of params.yaml has changed since it was judged"
        return f"{told}; the next retrain judges it again"
    return None


def waiting(registry: Registry) -> "list[ModelVersion]":
    """The versions that wait for a person, oldest first, except those older than a champion promoted meanwhile.

    A version whose refusal was recorded but not completed no longer waits: refusing it again completes the refusal, and
    so does the next retrain of the same result.
    """
    champion = registry.number("champion")
    return [
        version
        for version in _undecided(registry)
        if refusal(version.tags) is None
        and (version.tags.get("against") == (champion or "none") or int(version.version) > int(champion or 0))
    ]


def _undecided(registry: Registry) -> "list[ModelVersion]":
    return registry.versions(decision=WAITING) if registry.exists() else []


def carry_out(registry: Registry, seen: Request, answer: Answer, log: Log) -> str:
    """Promote or refuse what `seen` showed, under a lock that the caller holds; returns what was done, in words.

    Raises ValueError if that is no longer what waits, if nobody can approve it, or if its registered bytes are damaged.
    """
    recover(registry, log)
    now = request(registry, seen.rules, seen.version)
    if now is None or now.seen != seen.seen:
        raise ValueError(
            f"version {seen.version} or the champion has changed since the evidence was shown; look at it again"
        )
    if answer.approved and now.stale:
        raise ValueError(f"version {seen.version} cannot be approved: {now.stale}")
    version = registry.client.get_model_version(registry.name, now.version)
    who = {"approver": plain(answer.approver, 200), "comment": plain(answer.comment), "seen": seen.seen}
    who["time"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    if not answer.approved:
        papers = {"approval": json.dumps({"approved": False, **who})}
        registry.tag(now.version, **papers, reason=str(refusal(papers)))
        registry.drop("challenger", now.version)
        registry.tag(now.version, decision=REFUSED)
        return f"version {now.version} of {registry.name} is refused and stays without alias: {who['comment']}"
    if not registry.intact(version):
        raise ValueError(
            f"version {now.version} is damaged and can only be refused: its registered bytes are missing or altered"
        )
    registry.tag(now.version, approval=json.dumps({"approved": True, **who}))
    move(registry, _move(registry, version, now, who), log)
    return f"version {now.version} of {registry.name} is champion, approved by {who['approver']}"


def _move(registry: Registry, version: "ModelVersion", now: Request, who: dict[str, str]) -> Move:
    tags = version.tags
    facts = {
        **{key: tags[key] for key in ("onnx_sha256", "data_hash", "evidence_sha256")},
        "waived": json.loads(tags.get("waived", "{}")),
        "approval": who,
    }
    best = tags.get("best")
    return promotion(registry, now.version, before=now.champion, best=best, reason=tags["reason"], facts=facts)


def main(argv: Sequence[str] | None = None) -> int:
    """Show what waits, or answer; exit code 0 done or nothing waits, 1 refused, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.approval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--approve", metavar="VERSION", help="promote this waiting version")
    choice.add_argument("--refuse", metavar="VERSION", help="refuse this waiting version; it gets no alias")
    parser.add_argument("--by", default="", help="your name; recorded with the decision")
    parser.add_argument("--comment", default="", help="the reason; recorded with the decision")
    options = parser.parse_args(argv)

    def act() -> int:
        sys.stdout.write(_answer(options) + "\n")
        return 0

    return command("approval", act)


def _answer(options: argparse.Namespace) -> str:
    params = Path("params.yaml")
    state, name = settle(), model_name(params)
    nothing = f"no version of {name} waits for an approval"
    if unmade(state):
        return nothing
    wanted = options.approve or options.refuse
    with sentences():
        registry = connect(state, name)
        asked = request(registry, rules_sha256(params), wanted)
        if wanted is None:
            return asked.text() if asked else nothing
        if asked is None:
            others = ", ".join(str(version.version) for version in waiting(registry))
            told = f"waiting: {others}" if others else nothing
            raise ValueError(f"version {plain(wanted, 40)} does not wait for an answer; {told}")
        answer = Answer(approved=options.approve is not None, approver=options.by, comment=options.comment)
        with serialised(state):
            return carry_out(registry, asked, answer, lambda line: None)


if __name__ == "__main__":
    sys.exit(main())
