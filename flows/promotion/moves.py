"""Moves of the alias `champion`: announced, made in one write, recorded; and finished or undone after a crash.

The registry itself keeps the records, as tags of the model, so that they travel with it and cannot disagree with it:
`intent` while a move is under way, and `move.TIME` for each move that was made. `champion` is set in one write between
the two. The next caller finds an intent only after a crash: if the champion is where the intent wanted it, the records
are completed; if it is still where it was, `previous` is put back. The caller holds `flows.state.serialised`; if
several state folders share a registry, the intent is what keeps them apart.
"""

import dataclasses
import datetime
import json
import os
import platform
from collections.abc import Callable, Mapping
from typing import Any

from flows.tracking.registry import Registry

INTENT, RECORD = "intent", "move."
PROMOTION, ROLLBACK = "promotion", "rollback"
_PATIENCE = 600.0  # seconds for which the intent of a process that may still be alive is respected
Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Move:
    """One move of `champion`, with what `previous` becomes. Versions are numbers as text; `time` is UTC, ISO."""

    kind: str
    version: str
    before: str | None
    previous: str | None
    previous_before: str | None
    best: str
    """The best version promoted so far; the margins are measured against it too."""
    reason: str
    time: str = ""
    host: str = ""
    process: int = 0
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What the move rested on: hashes, waivers, approval."""

    def to_json(self) -> str:
        return json.dumps({"format": 1, **dataclasses.asdict(self)}, sort_keys=True)


def promotion(
    registry: Registry, version: str, *, before: str | None, best: str | None, reason: str, facts: dict[str, Any]
) -> Move:
    """The move that makes `version` champion in place of `before`, which becomes `previous` if there is one."""
    previous = registry.number("previous")
    return Move(
        kind=PROMOTION,
        version=version,
        before=before,
        previous=before or previous,
        previous_before=previous,
        best=best or version,
        reason=reason,
        facts=facts,
    )


def read_move(text: str) -> Move:
    """The move that `to_json` wrote. Raises ValueError if the text is not in this format."""
    try:
        value = json.loads(text)
        if value.pop("format") != 1:
            raise ValueError("another format")
        return Move(**value)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"the registry holds a record of a move that cannot be read: {text[:80]}") from None


def history(notes: Mapping[str, str]) -> list[Move]:
    """The moves recorded in a model's tags, oldest first."""
    return [read_move(notes[key]) for key in sorted(notes) if key.startswith(RECORD)]


def move(registry: Registry, wanted: Move, log: Log) -> None:
    """Make the move. Raises ValueError if the champion is not where the caller last saw it, or cannot be set."""
    wanted = dataclasses.replace(wanted, time=_time(registry), host=platform.node(), process=os.getpid())
    log(f"{wanted.kind}: announce version {wanted.version}")
    registry.note(INTENT, wanted.to_json())
    log(f"{wanted.kind}: set previous to {wanted.previous or 'nothing'}")
    registry.point("previous", wanted.previous)
    if (found := registry.number("champion")) != wanted.before or registry.notes().get(INTENT) != wanted.to_json():
        raise ValueError(
            f"the champion changed from {wanted.before or 'none'} to {found or 'none'} meanwhile; run it again"
        )
    log(f"{wanted.kind}: set champion to {wanted.version}")
    registry.point("champion", wanted.version)  # the commit point
    _finish(registry, wanted, log)


def _time(registry: Registry) -> str:
    """Now, but later than every recorded move, however wrong the clocks: records sort in the order of the moves."""
    now = datetime.datetime.now(datetime.UTC)
    if moves := history(registry.notes()):
        now = max(now, datetime.datetime.fromisoformat(moves[-1].time) + datetime.timedelta(microseconds=1))
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def recover(registry: Registry, log: Log) -> None:
    """Finish or undo a move that was interrupted. Raises ValueError while another process may still be making it."""
    text = registry.notes().get(INTENT)
    if text is None:
        return
    died = read_move(text)
    if _may_live(died):
        raise ValueError(
            f"process {died.process} on {died.host} has been moving the champion since {died.time}; run it again when"
            " it is done, or in ten minutes"
        )
    champion = registry.number("champion")
    if champion == died.version:
        log(f"finishing the {died.kind} of version {died.version}, which was interrupted after the champion was set")
        _finish(registry, died, log)
        return
    log(f"undoing the {died.kind} of version {died.version}, which was interrupted before the champion was set")
    if champion == died.before:
        gone = died.previous_before is not None and registry.version(died.previous_before) is None
        registry.point("previous", None if gone else died.previous_before)
    registry.note(INTENT, None)


def _may_live(announced: Move) -> bool:
    """Whether the process that announced a move may still be making it. This one is not: it has only just begun.

    A time far in the future comes from a wrong clock and is trusted as little as one long past.
    """
    now = datetime.datetime.now(datetime.UTC)
    if abs((now - datetime.datetime.fromisoformat(announced.time)).total_seconds()) > _PATIENCE:
        return False
    if announced.host != platform.node():
        return True
    try:
        os.kill(announced.process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return announced.process != os.getpid()


def _finish(registry: Registry, done: Move, log: Log) -> None:
    """What follows the commit point; each step can be repeated."""
    log(f"{done.kind}: record")
    registry.note(f"{RECORD}{done.time}", done.to_json())
    registry.drop("challenger", done.version)
    if done.kind == ROLLBACK and done.before is not None and registry.version(done.before) is not None:
        log(f"{done.kind}: mark version {done.before}")
        registry.tag(done.before, rolled_back=done.reason, decision="rolled_back")
    if "rolled_back" in registry.client.get_model_version(registry.name, done.version).tags:
        log(f"{done.kind}: version {done.version} is no longer rolled back")
        registry.client.delete_model_version_tag(registry.name, done.version, "rolled_back")
    registry.tag(done.version, decision="promoted")
    log(f"{done.kind}: close")
    registry.note(INTENT, None)
