"""`python -m flows.housekeeping [--dry-run] [--days N]`: free disk space that nobody needs any more.

It keeps what the present work needs, what is younger than N days, and whatever a version under an alias (`champion`,
`previous`, `challenger` or one of yours) needs: its files, its run branch, its training's checkpoints, its data in
DVC's cache. It refuses while a retrain runs. With `--dry-run` it says what it would remove, and removes nothing. Exit
codes: 0 done, 1 refused or failed, 2 wrong usage.
"""

import argparse
import contextlib
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from flows.command import command
from flows.state import hold, settle
from flows.tracking.registry import Registry, connect, model_name, sentences, unmade
from flows.upkeep import sweep
from flows.work.repository import git
from stages.common.files import read_json
from stages.state import exclusive

_BRANCHES = "refs/heads/ganops/run-*"


def clean(broom: sweep.Broom, registry: Registry | None) -> None:
    """Sweep all stores, under the flow's lock, which the caller holds; `registry`: None if there is none yet."""
    aliased = sweep.aliased(registry) if registry is not None else []
    if registry is not None:
        sweep.red_versions(broom, registry)
    trainings(broom, {version.tags.get("data_hash", "") for version in aliased})
    caches(broom, {version.tags.get("onnx_sha256", "") for version in aliased})
    if not (broom.project / ".git").exists():
        broom.say("the project is not a git repository: run branches and DVC's cache are left alone")
        return
    worktrees(broom)
    branches(broom, {version.tags.get("idempotence_key", "") for version in aliased})
    sweep.dvc_cache(broom, registry)


def trainings(broom: sweep.Broom, needed: set[str]) -> None:
    """Remove old trainings' checkpoints; those on data of an aliased version stay, and so does the newest training."""
    folders = sorted((broom.state / "train").glob("*/"), key=sweep.written)
    for folder in folders[:-1]:
        record = folder / "trajectory.json"
        data = read_json(record).get("data_hash") if record.is_file() else None
        if data in needed or not broom.old(folder):
            continue
        try:  # a dry run must leave no trace, not even a lock file
            with contextlib.nullcontext() if broom.dry else exclusive(folder):
                broom.remove(folder, "the training")
        except ValueError as error:
            broom.say(f"left: {error}")


def caches(broom: sweep.Broom, needed: set[str]) -> None:
    """Remove what is computed again if missing: features, ingest's work, fetched generators, unfinished comparisons."""
    for pattern in ("features/*", "ingest/*", "consumer/*", "compare/*", "recheck", "serving-*"):
        for path in sorted(broom.state.glob(pattern)):
            if path.stem not in needed and broom.old(path):
                broom.remove(path, "the cache")


def worktrees(broom: sweep.Broom) -> None:
    """Remove workspaces that failed runs left; no run is under way, since the lock is ours."""
    for path in sorted(broom.state.glob("worktrees/*")):
        if broom.old(path):
            broom.remove(path, "the workspace")
    if not broom.dry:
        git(broom.project, "worktree", "prune")


def branches(broom: sweep.Broom, needed: set[str]) -> None:
    """Delete this clone's old run branches, except the newest and those of aliased versions; remotes are left alone."""
    form = "--format=%(refname:short)%00%(committerdate:unix)%00%(contents:body)%01"
    found = [
        item.strip().split("\0")
        for item in git(broom.project, "for-each-ref", "--sort=committerdate", form, _BRANCHES).split("\1")
    ]
    for name, date, body in [item for item in found if len(item) == 3][:-1]:
        key = next((line.partition(": ")[2] for line in body.splitlines() if line.startswith("Candidate: ")), "")
        if key in needed or float(date) >= broom.before:
            continue
        broom.say(f"{'would remove' if broom.dry else 'removed'} the run branch {name}")
        if not broom.dry:
            git(broom.project, "branch", "-D", name)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Sweep, and print what was removed; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.housekeeping", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed, remove nothing")
    parser.add_argument("--days", type=float, default=30, help="keep what is younger than this; default: 30")
    options = parser.parse_args(argv)

    def act() -> int:
        if not options.days >= 0:
            raise ValueError(f"--days must be 0 or more; received {options.days:g}")
        project, state = Path.cwd(), settle()
        before = time.time() - options.days * 86400
        broom = sweep.Broom(project=project, state=state, before=before, dry=options.dry_run, say=_say)
        with hold(state), sentences():
            free = shutil.disk_usage(state).free
            clean(broom, None if unmade(state) else connect(state, model_name(project / "params.yaml")))
            _say(f"{(shutil.disk_usage(state).free - free) / 1e6:+.1f} MB of free disk")
        return 0

    return command("housekeeping", act)


if __name__ == "__main__":
    sys.exit(main())
