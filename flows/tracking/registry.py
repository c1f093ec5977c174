"""The MLflow registry as the flows use it: versions found by content, bytes read back, aliases, notes on the model.

Importing mlflow takes seconds, so everything here imports it only when called; `flows.work.shortcut` answers the one
question of a retrain that has nothing to do without it.
"""

import contextlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.state import embedded_store
from flows.work.process import without_passwords
from flows.work.retry import Unavailable
from stages.common.files import sha256_file
from stages.config import read_section
from stages.config.export import MODEL_NAME

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ONNX = "generator.onnx"
FOLDER = "model"  # of a run's artifacts: the folder that a version's source points to


@contextlib.contextmanager
def sentences() -> Iterator[None]:
    """Turn the registry's exceptions into ValueError (Unavailable if it is away or busy) with one sentence."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        said = without_passwords(str(error).partition("\n")[0])
        _busy(said)
        raise ValueError(f"the registry at {address()} cannot be read or written: {said[:500]}") from None
    except MlflowException as error:
        said = without_passwords(" ".join(str(error).split()))
        _busy(said)
        if "Max retries exceeded" in said or "timed out" in said:
            raise Unavailable(f"the registry at {address()} does not answer; start it, then run this again") from None
        if re.search(r"error code 40[13]\b", said) or error.error_code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            raise ValueError(
                f"the registry at {address()} does not accept these credentials; set MLFLOW_TRACKING_USERNAME and"
                " MLFLOW_TRACKING_PASSWORD to those of a user who may write there"
            ) from None
        raise ValueError(f"the registry at {address()} refused: {said[:500]}") from None


def _busy(said: str) -> None:
    """Raise Unavailable if sqlite says that another process is writing: it refuses one of two concurrent writers."""
    if "database is locked" in said:
        raise Unavailable(
            f"the registry at {address()} is being written to by another process; run this again"
        ) from None


def address() -> str:
    """MLFLOW_TRACKING_URI without the credentials that it may carry."""
    before, found, after = os.environ["MLFLOW_TRACKING_URI"].rpartition("@")
    return f"{before.partition('://')[0]}://{after}" if found and "://" in before else after


class Registry:
    """Versions of one registered model. Methods raise MlflowException if the registry does not answer."""

    def __init__(self, client: "MlflowClient", name: str, artifacts: str | None) -> None:
        self.client, self.name, self._artifacts = client, name, artifacts

    def experiment(self) -> str:
        """The experiment that holds the runs of this model, created or restored if needed."""
        found = self.client.get_experiment_by_name(self.name)
        if found is None:
            return self.client.create_experiment(self.name, artifact_location=self._artifacts)
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def exists(self) -> bool:
        """Whether the model has ever been registered."""
        return _found(lambda: self.client.get_registered_model(self.name)) is not None

    def versions(self, **tags: str) -> "list[ModelVersion]":
        """Versions that carry all these tags, oldest first, aliases included."""
        conditions = [f"name = '{self.name}'", *(f"tag.`{key}` = '{value}'" for key, value in tags.items())]
        found = self.client.search_model_versions(" and ".join(conditions), max_results=10_000)
        numbers = sorted(int(version.version) for version in found)
        return [self.client.get_model_version(self.name, str(number)) for number in numbers]

    def version(self, number: str) -> "ModelVersion | None":
        """The version with this number; None if there is none, or none any more."""
        return _found(lambda: self.client.get_model_version(self.name, number))

    def alias(self, alias: str) -> "ModelVersion | None":
        """The version under `alias`, or None."""
        model = _found(lambda: self.client.get_registered_model(self.name))
        number = model.aliases.get(alias) if model is not None else None
        return self.version(str(number)) if number is not None else None

    def number(self, alias: str) -> str | None:
        """The number of the version under `alias`, or None."""
        found = self.alias(alias)
        return str(found.version) if found is not None else None

    def point(self, alias: str, version: str | None) -> None:
        """Move `alias` to `version`, or remove it, and read it back. Raises ValueError if that did not hold."""
        if version is not None:
            self.client.set_registered_model_alias(self.name, alias, version)
        elif self.number(alias) is not None:
            self.client.delete_registered_model_alias(self.name, alias)
        if (found := self.number(alias)) != version:
            raise ValueError(
                f"alias {alias} of {self.name} was set to version {version} but is at {found}; run it again"
            )

    def drop(self, alias: str, version: str) -> None:
        """Remove `alias` if it points to `version`."""
        if self.number(alias) == version:
            self.point(alias, None)

    def claim(self, alias: str, version: str) -> None:
        """Move an `alias` on which nothing depends to `version`, not reading it back: of two callers the later wins."""
        self.client.set_registered_model_alias(self.name, alias, version)

    def tag(self, version: str, **tags: str) -> None:
        """Set tags on a version, in the order given."""
        for key, value in tags.items():
            self.client.set_model_version_tag(self.name, version, key, value)

    def notes(self) -> dict[str, str]:
        """The tags of the model as a whole."""
        model = _found(lambda: self.client.get_registered_model(self.name))
        return dict(model.tags) if model is not None else {}

    def note(self, key: str, value: str | None) -> None:
        """Set a tag of the model as a whole; None removes it."""
        if value is not None:
            self.client.set_registered_model_tag(self.name, key, value)
        elif key in self.notes():
            self.client.delete_registered_model_tag(self.name, key)

    def fetch(self, version: "ModelVersion", to: Path) -> Path:
        """The version's ONNX file, written to `to`. Raises ValueError if it differs from tag `onnx_sha256`."""
        fetch_file(f"{self.source(version)}/{ONNX}", to)
        if (found := sha256_file(to)) != version.tags.get("onnx_sha256"):
            raise ValueError(
                f"version {version.version} of {self.name} is damaged: its file has SHA-256 {found}, not its"
                " registered one"
            )
        return to

    def source(self, version: "ModelVersion") -> str:
        """Address of the folder that holds a version's files."""
        return str(self.client.get_model_version_download_uri(self.name, str(version.version)))

    def intact(self, version: "ModelVersion") -> bool:
        """Whether the registered bytes are there and are the ones that were registered.

        Raises MlflowException or OSError if they could not be read but may be there: no answer is not damage.
        """
        from mlflow.artifacts import list_artifacts
        from mlflow.exceptions import MlflowException

        with tempfile.TemporaryDirectory() as folder:
            try:
                self.fetch(version, Path(folder) / ONNX)
            except (OSError, MlflowException):
                if ONNX in {Path(item.path).name for item in list_artifacts(artifact_uri=self.source(version))}:
                    raise
                return False
            except ValueError:
                return False
        return True


def _found(ask: Any) -> Any:
    """What `ask` returns, or None if the registry says that there is no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def fetch_file(uri: str, to: Path) -> None:
    """Copy one artifact to the path `to`."""
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory(dir=to.parent) as folder:
        shutil.move(download_artifacts(artifact_uri=uri, dst_path=folder), to)


def plain(text: str, longest: int = 1000) -> str:
    """Text from people as one line of printable characters, at most `longest`, ready to be stored and printed."""
    return re.sub(r"[^\x20-\x7e\xa0-\U0010ffff]+", " ", " ".join(text.split()))[:longest].strip()


def model_name(params: Path) -> str:
    """The registered model's name: `export.name` of params.yaml. Raises ValueError if it is missing or invalid."""
    if not params.is_file():
        raise ValueError(f"{params.parent.resolve()} holds no {params.name}; run this in the project's folder")
    try:
        name = read_section(params, "export")["name"]
    except (KeyError, TypeError):
        raise ValueError(f"{params} must hold export.name, the name of the model in the registry") from None
    if not isinstance(name, str) or not re.fullmatch(MODEL_NAME, name):
        said = plain(str(name), 80)
        raise ValueError(f"export.name must be 1 to 63 letters, digits, dots, underscores or hyphens; received {said}")
    return name


def unmade(state: Path) -> bool:
    """Whether the registry is the embedded one and does not exist yet; a look at it must not create it."""
    return os.environ["MLFLOW_TRACKING_URI"] == embedded_store(state) and not (state / "mlflow.db").is_file()


def connect(state: Path, name: str) -> Registry:
    """The registry at MLFLOW_TRACKING_URI. The first connection creates the embedded database: hold the lock.

    Inside `sentences`, it raises ValueError if the embedded store cannot be written.
    """
    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    import mlflow

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    mlflow.set_registry_uri(os.environ["MLFLOW_TRACKING_URI"])
    embedded = os.environ["MLFLOW_TRACKING_URI"] == embedded_store(state)
    return Registry(mlflow.MlflowClient(), name, (state / "artifacts").as_uri() if embedded else None)
