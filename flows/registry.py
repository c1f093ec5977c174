"""The MLflow registry as the flows use it: versions found by content, bytes read back, aliases.

Importing mlflow takes seconds, so `recorded` answers the one question of a retrain with nothing to do from the
embedded sqlite file itself, and everything else imports mlflow when it is called.
"""

import contextlib
import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.state import embedded_store
from stages.common.files import sha256_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ONNX = "generator.onnx"
FOLDER = "model"  # of a run's artifacts: what a version's source points at


@contextlib.contextmanager
def sentences() -> Iterator[None]:
    """Turn the registry's exceptions into ValueError with one sentence."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        said = " ".join(str(error).split())
        if "Max retries exceeded" in said or "timed out" in said:
            raise ValueError(f"the registry at {address()} does not answer; start it, then run this again") from None
        raise ValueError(f"the registry at {address()} refused: {said[:500]}") from None


def address() -> str:
    """MLFLOW_TRACKING_URI without the credentials that it may carry."""
    before, found, after = os.environ["MLFLOW_TRACKING_URI"].rpartition("@")
    return f"{before.partition('://')[0]}://{after}" if found and "://" in before else after


class Registry:
    """Versions of one registered model. Methods raise MlflowException where the registry does not answer."""

    def __init__(self, client: "MlflowClient", name: str, artifacts: str | None) -> None:
        self.client, self.name, self._artifacts = client, name, artifacts

    def experiment(self) -> str:
        """The experiment that holds the runs of this model, made or restored where needed."""
        found = self.client.get_experiment_by_name(self.name)
        if found is None:
            return self.client.create_experiment(self.name, artifact_location=self._artifacts)
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def exists(self) -> bool:
        """Whether the model has ever been registered."""
        return bool(self.client.search_registered_models(f"name = '{self.name}'"))

    def versions(self, **tags: str) -> "list[ModelVersion]":
        """Versions that carry all these tags, oldest first, aliases included."""
        conditions = [f"name = '{self.name}'", *(f"tag.`{key}` = '{value}'" for key, value in tags.items())]
        found = self.client.search_model_versions(" and ".join(conditions), max_results=10_000)
        numbers = sorted(int(version.version) for version in found)
        return [self.client.get_model_version(self.name, str(number)) for number in numbers]

    def alias(self, alias: str) -> "ModelVersion | None":
        """The version under `alias`, or None."""
        if not self.exists():
            return None
        aliases: dict[str, Any] = self.client.get_registered_model(self.name).aliases
        return self.client.get_model_version(self.name, str(aliases[alias])) if alias in aliases else None

    def point(self, alias: str, version: str) -> None:
        """Move `alias` to `version` and read it back. Raises ValueError where it points elsewhere afterwards."""
        self.client.set_registered_model_alias(self.name, alias, version)
        found = self.alias(alias)
        if found is None or str(found.version) != version:
            raise ValueError(
                f"alias {alias} of {self.name} was set to version {version} but is not there; run it again"
            )

    def tag(self, version: str, **tags: str) -> None:
        """Set tags on a version, in the order given."""
        for key, value in tags.items():
            self.client.set_model_version_tag(self.name, version, key, value)

    def fetch(self, version: "ModelVersion", to: Path) -> Path:
        """The version's ONNX file, written to `to`. Raises ValueError where it differs from tag `onnx_sha256`."""
        uri = self.client.get_model_version_download_uri(self.name, str(version.version))
        fetch_file(f"{uri}/{ONNX}", to)
        if (found := sha256_file(to)) != version.tags.get("onnx_sha256"):
            raise ValueError(f"version {version.version} of {self.name} holds bytes with SHA-256 {found}, not its own")
        return to

    def intact(self, version: "ModelVersion") -> bool:
        """Whether the registered bytes are there and are the ones that were registered.

        Raises MlflowException or OSError where they could not be read but may be there: silence is no damage.
        """
        from mlflow.artifacts import list_artifacts
        from mlflow.exceptions import MlflowException

        uri = self.client.get_model_version_download_uri(self.name, str(version.version))
        with tempfile.TemporaryDirectory() as folder:
            try:
                self.fetch(version, Path(folder) / ONNX)
            except (OSError, MlflowException):
                if ONNX in {Path(item.path).name for item in list_artifacts(artifact_uri=uri)}:
                    raise
                return False
            except ValueError:
                return False
        return True


def fetch_file(uri: str, to: Path) -> None:
    """Copy one artifact to the path `to`."""
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory(dir=to.parent) as folder:
        shutil.move(download_artifacts(artifact_uri=uri, dst_path=folder), to)


def connect(state: Path, name: str) -> Registry:
    """The registry at MLFLOW_TRACKING_URI. The first connection makes the embedded database: hold the lock.

    Raises ValueError where the embedded store cannot be written.
    """
    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    import mlflow

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    mlflow.set_registry_uri(os.environ["MLFLOW_TRACKING_URI"])
    embedded = os.environ["MLFLOW_TRACKING_URI"] == embedded_store(state)
    return Registry(mlflow.MlflowClient(), name, (state / "artifacts").as_uri() if embedded else None)


def recorded(state: Path, name: str, key: str) -> dict[str, str] | None:
    """Tags of the newest version with the idempotence key `key`, with `version`, `champion` and `source` added.

    Reads the embedded registry's tables without mlflow. None where there is no such version, or where the registry is
    another one or has other tables: then mlflow must be asked.
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
    extra = {"version": str(row[0]), "source": row[1], "champion": str(champion[0]) if champion else ""}
    return {**dict(tags.fetchall()), **extra}
