"""One question answered from the embedded registry's own tables, read-only, without importing mlflow."""

import contextlib
import os
import sqlite3
from pathlib import Path

from flows.state import embedded_store


def recorded(state: Path, name: str, key: str) -> dict[str, str] | None:
    """Tags of the newest version with the idempotence key `key`, with `version`, `champion`, `source` and `intent`.

    None if there is no such version, or if the registry is not the embedded one or has other tables: then mlflow must
    be asked.
    """
    path = state / "mlflow.db"
    if os.environ["MLFLOW_TRACKING_URI"] != embedded_store(state) or not path.is_file():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as database:
            return _recorded(database, name, key)
    except sqlite3.Error:
        return None


def _recorded(database: sqlite3.Connection, name: str, key: str) -> dict[str, str] | None:
    row = database.execute(
        "SELECT v.version, v.source FROM model_versions v JOIN model_version_tags t"
        " ON t.name = v.name AND t.version = v.version WHERE v.name = ? AND t.key = 'idempotence_key' AND t.value = ?"
        " AND v.current_stage != 'Deleted_Internal' ORDER BY v.version DESC LIMIT 1",
        (name, key),
    ).fetchone()
    if row is None:
        return None
    tags = database.execute("SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?", (name, row[0]))
    champion = database.execute(
        "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = 'champion'", (name,)
    ).fetchone()
    intent = database.execute(
        "SELECT value FROM registered_model_tags WHERE name = ? AND key = 'intent'", (name,)
    ).fetchone()
    extra = {"version": str(row[0]), "source": row[1], "champion": str(champion[0]) if champion else ""}
    return {**dict(tags.fetchall()), **extra, "intent": intent[0] if intent else ""}
