"""Which version is champion, since when and why; what was refused and why: `python -m flows.status [--json]`."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.command import command
from flows.promotion.moves import INTENT, ROLLBACK, Move, history
from flows.state import settle
from flows.tracking.registry import Registry, connect, model_name, plain, sentences, unmade

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_TAGS = ("decision", "reason", "rolled_back", "verdict", "onnx_sha256", "data_hash", "params_hash")
_LISTS = ("failed", "waived", "approval", "rechecked")  # tags that hold JSON
_SHOWN = 10  # refused versions and rollbacks, the latest ones, in the text


def main(argv: Sequence[str] | None = None) -> int:
    """Print the state of the registry; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.status", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    options = parser.parse_args(argv)

    def act() -> int:
        found = status(settle(), model_name(Path("params.yaml")))
        sys.stdout.write(json.dumps(found, indent=2) + "\n" if options.json else text(found))
        return 0

    return command("status", act)


def status(state: Path, name: str) -> dict[str, Any]:
    """Champion, previous, moves and all versions, newest first, with decision and reason. Writes nothing."""
    nothing = dict.fromkeys(("champion", "since", "previous", "challenger", "best", "unfinished"))
    empty: dict[str, Any] = {"format": 1, "model": name, **nothing, "moves": [], "versions": []}
    if unmade(state):
        return empty
    with sentences():
        registry = connect(state, name)
        if not registry.exists():
            return empty
        versions = [_told(version, registry) for version in reversed(registry.versions())]
        notes = registry.notes()
    moves = history(notes)
    holder = {alias: item["version"] for item in versions for alias in item["aliases"]}
    champion = holder.get("champion")
    return {
        **empty,
        **{alias: holder.get(alias) for alias in ("champion", "previous", "challenger")},
        "since": next((move.time for move in reversed(moves) if move.version == champion), None),
        "best": moves[-1].best if moves else champion,
        "unfinished": json.loads(notes[INTENT]) if INTENT in notes else None,
        "moves": [dataclasses.asdict(move) for move in reversed(moves)],
        "versions": versions,
    }


def _told(version: "ModelVersion", registry: Registry) -> dict[str, Any]:
    run = registry.client.get_run(version.run_id).data.tags if version.run_id else {}
    return {
        "version": str(version.version),
        "aliases": sorted(version.aliases),
        **{key: version.tags.get(key) for key in _TAGS},
        **{key: json.loads(version.tags.get(key, "null")) for key in _LISTS},
        "git_commit": run.get("git.commit"),
        "git_dirty": run.get("git.dirty"),
        "run_id": version.run_id,
        "registered_ms": version.creation_timestamp,
    }


def text(found: dict[str, Any]) -> str:
    """The same for people: the champion with its papers, then what was refused, then the rollbacks."""
    if not found["versions"]:
        return f"{found['model']}: nothing is registered yet; run `make retrain`\n"
    champion = f"version {found['champion']}" if found["champion"] else "none"
    others = ", ".join(f"{alias} {found[alias] or 'none'}" for alias in ("previous", "challenger", "best"))
    told = [f"{found['model']}: champion {champion}; {others}"]
    if found["unfinished"]:
        unfinished = found["unfinished"]
        told.append(
            f"a {unfinished['kind']} of version {unfinished['version']} is under way or was interrupted;"
            " if interrupted, the next retrain completes or undoes it"
        )
    refused = [item for item in found["versions"] if item["decision"] not in ("promoted", None) and not item["aliases"]]
    for item in found["versions"]:
        if item["aliases"] or item["decision"] is None:
            told += ["", *_paragraph(item, found)]
    told += _section("not champion, the latest first", [f"version {i['version']}: {_why(i)}" for i in refused])
    back = [Move(**move) for move in found["moves"] if move["kind"] == ROLLBACK]
    rows = [f"{m.time[:19]}Z from version {m.before or 'none'} to {m.version}: {plain(m.reason)}" for m in back]
    return "\n".join(told + _section("rollbacks, the latest first", rows)) + "\n"


def _paragraph(item: dict[str, Any], found: dict[str, Any]) -> list[str]:
    marks = f" ({', '.join(item['aliases'])})" if item["aliases"] else ""
    since = f" since {found['since'][:19]}Z" if item["version"] == found["champion"] and found["since"] else ""
    dirty = " with uncommitted changes" if item["git_dirty"] == "true" else ""
    waived = [f"{name}: {plain(why)}" for name, why in (item["waived"] or {}).items()]
    said = item["approval"]
    return [
        f"version {item['version']}{marks}{since}: {_why(item)}",
        *(f"  waived   {line}" for line in waived),
        *([f"  approved by {plain(said['approver'])}: {plain(said['comment'])}"] if said and said["approved"] else []),
        *([f"  checked  {_checked(item['rechecked'])}"] if item["rechecked"] else []),
        f"  onnx     {item['onnx_sha256']}",
        f"  data     {item['data_hash']}",
        f"  commit   {item['git_commit']}{dirty}",
        f"  run      {item['run_id']}",
    ]


def _checked(found: dict[str, Any]) -> str:
    """When the champion was scored again, and what came of it."""
    return f"{found['time'][:19]}Z " + (f"ALARM: {plain('; '.join(found['failed']))}" if found["failed"] else "fine")


def _why(item: dict[str, Any]) -> str:
    reason = item["rolled_back"] or item["reason"] or "-"
    return f"{(item['decision'] or 'not decided yet').replace('_', ' ')}, because {plain(reason, 4000)}"


def _section(title: str, rows: list[str]) -> list[str]:
    if not rows:
        return []
    more = [f"  and {len(rows) - _SHOWN} more: --json shows all"] if len(rows) > _SHOWN else []
    return ["", f"{title}:", *(f"  {row}" for row in rows[:_SHOWN]), *more]


if __name__ == "__main__":
    sys.exit(main())
