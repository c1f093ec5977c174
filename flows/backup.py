"""`python -m flows.backup save FOLDER` and `python -m flows.backup restore FOLDER`: the registry and DVC's data.

`save` covers the registry's database (sqlite by its own backup call; with `--postgres` PostgreSQL by pg_dump, which
finds the database by libpq's variables PGHOST, PGDATABASE, PGUSER, PGPASSWORD or PGSERVICE), the files of all its runs
as MLflow returns them, whatever store holds them, and DVC's data with the run cache: whatever the working copy, any
branch or tag, or an aliased version names, fetched first from the default remote if there is one. FOLDER must be new.
It is complete once it contains `backup.json`, which has the digest of every file and is verified before anything is
restored.

`restore` puts all of it back into the same state folder, because the registry stores absolute addresses. What it
replaces is moved aside and named, never deleted; a PostgreSQL database is replaced in one transaction, during which
nobody else may use it. So behind an MLflow server this takes two steps: stop the server, `restore FOLDER --only
database`; start it, `restore FOLDER --only files`. Both commands refuse while a retrain runs. Exit codes: 0 done, 1
refused or failed, 2 wrong usage.
"""

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.command import command
from flows.state import hold, serialised, settle
from flows.tracking.registry import Registry, connect, model_name, sentences
from flows.upkeep.database import restore_database, save_database
from flows.upkeep.holdings import open_repo
from flows.upkeep.sweep import aliased, kept
from flows.work.workspace import dvc
from stages.common.files import read_json, sha256_file, write_json

if TYPE_CHECKING:
    from dvc.repo import Repo

_FORMAT = 1
_REMOTE = "ganops-backup"
_OPTIONS = ("--all-branches", "--all-tags", "--run-cache")
_ALL = {"all_branches": True, "all_tags": True, "run_cache": True}


def save(project: Path, state: Path, folder: Path, *, postgres: bool) -> str:
    """Write a backup into the new `folder`, under the flow's locks; returns what it holds, in words."""
    from mlflow.entities import ViewType

    if folder.exists():
        raise ValueError(f"{folder} exists; a backup goes into a new folder")
    work = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700, parents=True)
    registry = _registry(project, state)
    save_database(state, work, postgres)
    experiments = [one.experiment_id for one in registry.client.search_experiments(view_type=ViewType.ALL)]
    runs = registry.client.search_runs(experiments, max_results=50_000)
    for run in runs:
        _save_files(run, work / "runs" / str(run.info.run_id))
    with _papers(project, registry):
        if _default_remote(project):
            dvc(project, "fetch", *_OPTIONS)
        with _remote(project, work / "dvc") as repo:
            repo.push(remote=_REMOTE, **_ALL)
    files = {str(path.relative_to(work)): sha256_file(path) for path in sorted(work.rglob("*")) if path.is_file()}
    about = {"format": _FORMAT, "state": str(state), "postgres": postgres, "files": files}
    write_json(work / "backup.json", about)
    work.rename(folder)
    return f"{folder} holds the registry, the files of {len(runs)} runs and DVC's data: {len(files)} files"


def restore(project: Path, state: Path, folder: Path, only: str | None = None) -> str:
    """Restore a backup (`only`: its "database" or "files") under the flow's locks; returns what was done, in words."""
    about = _verified(folder, state)
    if only is None and about["postgres"] and os.environ["MLFLOW_TRACKING_URI"].startswith("http"):
        raise ValueError(
            "the database can be replaced only while the MLflow server is stopped, and the files are restored through "
            "it: stop it and run this with --only database, then start it and run this with --only files"
        )
    told = restore_database(state, folder, about["postgres"]) if only != "files" else ""
    if only == "database":
        return f"restored: the registry's database{told}; start the server, then `restore {folder} --only files`"
    registry = _registry(project, state)
    runs = sorted((folder / "runs").glob("*")) if (folder / "runs").is_dir() else []
    for path in runs:
        registry.client.log_artifacts(path.name, str(path))
    with _papers(project, registry):
        with _remote(project, folder / "dvc") as repo:
            repo.fetch(remote=_REMOTE, **_ALL)
        if remote := _default_remote(project):
            dvc(project, "push", *_OPTIONS)
    where = f"DVC's cache and its remote {remote}" if remote else "DVC's cache"
    database = "the registry, " if only is None else ""
    return f"restored: {database}the files of {len(runs)} runs, {where}{told}; `dvc checkout` fills data/"


def _registry(project: Path, state: Path) -> Registry:
    return connect(state, model_name(project / "params.yaml"))


def _save_files(run: Any, to: Path) -> None:
    from mlflow.artifacts import download_artifacts, list_artifacts

    if list_artifacts(artifact_uri=run.info.artifact_uri):
        to.mkdir(parents=True)
        found = Path(download_artifacts(artifact_uri=run.info.artifact_uri, dst_path=str(to)))
        if found != to and found.is_relative_to(to):  # below the source folder's own name
            for path in found.iterdir():
                shutil.move(path, to / path.name)
            found.rmdir()


def _verified(folder: Path, state: Path) -> dict[str, Any]:
    """What backup.json says. Raises ValueError if a file is missing or changed, or the state folder is another."""
    if not (folder / "backup.json").is_file():
        raise ValueError(f"{folder} is not a complete backup: it has no backup.json; name the folder of one that is")
    about = read_json(folder / "backup.json", format=_FORMAT)
    for name, digest in about["files"].items():
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            raise ValueError(f"{folder / name} is missing or damaged; nothing was restored")
    if about["state"] != str(state):
        raise ValueError(
            f"the backup is of the state folder {about['state']}, but this one is {state}; the registry stores absolute"
            f" addresses, so set GANOPS_STATE to {about['state']} to restore it"
        )
    return dict(about)


@contextlib.contextmanager
def _papers(project: Path, registry: Registry) -> Iterator[None]:
    """While the block runs, git tags name what the aliased versions need, if this is a git repository."""
    with kept(project, registry, aliased(registry)) as unknown:
        if unknown:
            sys.stderr.write(
                f"backup: version {', '.join(unknown)} was registered without dvc.lock, so its data may be missing\n"
            )
        yield


@contextlib.contextmanager
def _remote(project: Path, folder: Path) -> "Iterator[Repo]":
    """DVC with `folder` as its default remote, which it needs to push all branches; no configuration changes."""
    settings = {"remote": {_REMOTE: {"url": str(folder.resolve())}}, "core": {"remote": _REMOTE}}
    with open_repo(project, settings) as repo:
        yield repo


def _default_remote(project: Path) -> str | None:
    """The name of DVC's default remote; None without one."""
    settings = dvc(project, "config", "--list").splitlines()
    return next((line.partition("=")[2] for line in settings if line.startswith("core.remote=")), None)


def main(argv: Sequence[str] | None = None) -> int:
    """Save or restore, and print what was done; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.backup", description=__doc__)
    parser.add_argument("act", choices=("save", "restore"), help="what to do")
    parser.add_argument("folder", type=Path, help="the backup; `save` needs a folder that does not exist yet")
    parser.add_argument("--postgres", action="store_true", help="save: dump PostgreSQL (PGHOST, ... say where it is)")
    parser.add_argument("--only", choices=("database", "files"), help="restore: only this part")
    options = parser.parse_args(argv)

    def act() -> int:
        project, state, folder = Path.cwd(), settle(), options.folder.resolve()
        with hold(state), serialised(state), sentences():
            if options.act == "save":
                told = save(project, state, folder, postgres=options.postgres)
            else:
                told = restore(project, state, folder, options.only)
        sys.stdout.write(f"{told}\n")
        return 0

    return command("backup", act)


if __name__ == "__main__":
    sys.exit(main())
