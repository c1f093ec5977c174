"""`python -m flows.rollback --reason "..." [--to VERSION]`: back to the version that was champion before.

The target must have been champion, and its bytes must still verify, load and draw the images that were recorded when it
was registered. The version that it replaces is marked `rolled_back` with the reason, so that no retrain promotes it
again. `previous` then names the champion before the target. Repeating the command does nothing: going further back
takes `--to`. Exit codes: 0 done or nothing to do, 1 refused (nothing is half done), 2 wrong usage.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.command import command
from flows.promotion import serving
from flows.promotion.moves import ROLLBACK, Log, Move, history, move, recover
from flows.state import alone, serialised, settle
from flows.tracking.registry import Registry, connect, model_name, plain, sentences, unmade
from flows.work.testbench import Testbench
from stages.config import load_section
from stages.config.promote import PromoteConfig

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def main(argv: Sequence[str] | None = None) -> int:
    """Go back, and print what was done; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.rollback", description=__doc__)
    parser.add_argument("--reason", required=True, help="why, in words; it is recorded on the version that is replaced")
    parser.add_argument("--to", metavar="VERSION", help="a former champion to go back to; default: the alias previous")
    options = parser.parse_args(argv)

    def act() -> int:
        sys.stdout.write(run(Path.cwd(), settle(), options.reason, options.to, _say) + "\n")
        return 0

    return command("rollback", act)


def run(project: Path, state: Path, reason: str, to: str | None, log: Log) -> str:
    """Go back in the registry of `project`; returns what was done, in words. Raises ValueError if that is refused."""
    name, why = model_name(project / "params.yaml"), plain(reason)
    if not why:
        raise ValueError("--reason must say why, in words; it is recorded on the version that is replaced")
    config = load_section(PromoteConfig, project / "params.yaml", "promote")
    if unmade(state):
        raise ValueError(f"nothing to go back to: {name} is not registered")
    with sentences(), alone(state, "rollback") as held:
        bench = Testbench(project=project, state=state, held=held, config=config, log=log)
        return rollback(connect(state, name), bench, why, to)


def rollback(registry: Registry, bench: Testbench, reason: str, to: str | None = None) -> str:
    """As `run`. The lock around moves is held only for the move, so that the tests keep no promotion waiting."""
    if not registry.exists():
        raise ValueError(f"nothing to go back to: {registry.name} is not registered")
    with serialised(bench.state):
        recover(registry, bench.log)
    moves, champion = history(registry.notes()), registry.number("champion")
    if to is not None and to == champion:
        return f"version {to} of {registry.name} is champion already; nothing was done"
    if to is None and champion is not None and moves and (moves[-1].kind, moves[-1].version) == (ROLLBACK, champion):
        told = f"version {champion} of {registry.name} is champion again since the rollback"
        told += f" from version {moves[-1].before} ({moves[-1].reason})"
        return f"{told}; nothing was done; use --to VERSION to go further back"
    target = _target(registry, moves, to)
    served = serving.check(target, registry, bench, timed=False)
    if served.failed:
        raise ValueError(
            f"version {target.version} cannot be served, so the champion stays: {'; '.join(served.failed)}"
        )
    with serialised(bench.state):
        recover(registry, bench.log)
        if (found := registry.number("champion")) != champion:
            raise ValueError(
                f"the champion changed from {champion or 'none'} to {found or 'none'} while version"
                f" {target.version} was tested; nothing was done; run it again"
            )
        move(registry, _move(registry, moves, champion, str(target.version), reason), bench.log)
    left = f"; version {champion} is marked rolled_back" if champion is not None else ""
    return f"version {target.version} of {registry.name} is champion{left}; previous: {_previous(registry)}"


def _previous(registry: Registry) -> str:
    number = registry.number("previous")
    return f"version {number}" if number is not None else "none"


def _target(registry: Registry, moves: list[Move], to: str | None) -> "ModelVersion":
    """The version to go back to. Raises ValueError if there is none, it never was champion, or it is damaged."""
    once = [version for version in _champions(registry, moves) if version != registry.number("champion")]
    others = f"former champions that --to can name: {', '.join(once) or 'none'}"
    number = to if to is not None else registry.number("previous")
    if number is None:
        lost = moves[-1].previous if moves else None
        if lost is not None and registry.version(lost) is None:
            raise ValueError(f"nothing to go back to: previous was version {lost}, which was deleted; {others}")
        raise ValueError(f"nothing to go back to: {registry.name} has no version under the alias previous; {others}")
    found = registry.version(number) if number.isdecimal() else None
    if found is None:
        raise ValueError(f"{registry.name} has no version {plain(number, 40)}, or it was deleted; {others}")
    if number not in once:
        raise ValueError(f"version {number} of {registry.name} was never champion, so nothing was moved; {others}")
    if not registry.intact(found):
        raise ValueError(
            f"version {number} of {registry.name} is damaged: its registered bytes are missing or altered; the champion"
            f" stays; {others}"
        )
    return found


def _champions(registry: Registry, moves: list[Move]) -> list[str]:
    """Versions that were champion and still exist, latest first; the older ones are known only by their decision."""
    recorded = [move.version for move in reversed(moves)]
    decided = [str(v.version) for v in reversed(registry.versions()) if v.tags.get("decision") == "promoted"]
    return [v for v in dict.fromkeys(recorded + decided) if registry.version(v) is not None]


def _move(registry: Registry, moves: list[Move], champion: str | None, target: str, reason: str) -> Move:
    fit = [
        version
        for version in _champions(registry, moves)
        if version not in (champion, target)
        and "rolled_back" not in registry.client.get_model_version(registry.name, version).tags
    ]
    best = next((move.best for move in reversed(moves) if move.version == target), target)
    return Move(
        kind=ROLLBACK,
        version=target,
        before=champion,
        previous=next(iter(fit), None),
        previous_before=registry.number("previous"),
        best=best if best in (*fit, target) else target,
        reason=reason,
        facts={"user": os.environ.get("USER") or str(os.getuid())},
    )


def _say(line: str) -> None:
    sys.stderr.write(f"rollback: {line}\n")


if __name__ == "__main__":
    sys.exit(main())
