"""The registry's database, saved and restored: sqlite by its own means, PostgreSQL by pg_dump and pg_restore."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path

from flows.state import embedded_store
from flows.work.process import last_sentence

_OTHERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend'"
)


def save_database(state: Path, work: Path, postgres: bool) -> None:
    """Write the database into `work`. Raises ValueError if it cannot be read from here."""
    if postgres:
        _postgres("pg_dump", "--format=custom", "--no-owner", "--file", str(work / "registry.dump"))
        return
    with (
        contextlib.closing(sqlite3.connect(_sqlite(state))) as source,
        contextlib.closing(sqlite3.connect(work / "registry.sqlite")) as target,
    ):
        source.backup(target)


def restore_database(state: Path, folder: Path, postgres: bool) -> str:
    """Put the database in place; returns what was moved aside, in words."""
    if postgres:
        if others := int(_postgres("psql", "-Atqc", _OTHERS)):  # pg_restore would wait for them for ever
            raise ValueError(
                f"the database has {others} other connections; stop the MLflow server, then run this again"
            )
        options = ("--clean", "--if-exists", "--no-owner", "--single-transaction")
        _postgres("pg_restore", *options, "--dbname", os.environ.get("PGDATABASE", ""), str(folder / "registry.dump"))
        return ""
    path, aside = _sqlite(state), time.strftime("before-%Y%m%d-%H%M%S", time.gmtime())
    moved = [old for old in (path, path.with_name("artifacts")) if old.exists()]
    for old in moved:
        old.rename(old.with_name(f"{old.name}.{aside}"))
    shutil.copyfile(folder / "registry.sqlite", path.with_suffix(".restored"))
    path.with_suffix(".restored").replace(path)
    return f"; moved aside: {', '.join(f'{old.name}.{aside}' for old in moved)}" if moved else ""


def _sqlite(state: Path) -> Path:
    if os.environ["MLFLOW_TRACKING_URI"] != embedded_store(state):
        raise ValueError(
            "MLFLOW_TRACKING_URI names a server, whose database cannot be copied as a file; save a PostgreSQL database"
            " with --postgres, and set PGHOST and PGDATABASE to reach it"
        )
    return state / "mlflow.db"


def _postgres(program: str, *arguments: str) -> str:
    found = shutil.which(program) or next(
        map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))[::-1]), None
    )
    if found is None:
        raise ValueError(f"{program} is not on this machine; install PostgreSQL's client programs")
    answer = subprocess.run([found, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if answer.returncode:
        raise ValueError(f"{program}: {last_sentence(answer.stderr.splitlines())}")
    return answer.stdout
