"""Generators by name: `models:/NAME@ALIAS` and `models:/NAME/VERSION` from an MLflow registry.

The one module outside `flows/` that may import mlflow; the rest of the package never needs it. A file is fetched once
and kept under the SHA-256 that the registered version carries as tag `onnx_sha256`, so it is verified each time.
"""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

_ARTIFACT, _TAG = "generator.onnx", "onnx_sha256"


def fetch(uri: str) -> Path:
    """The verified ONNX file of a registered generator.

    The registry is $MLFLOW_TRACKING_URI, or else the embedded one, $GANOPS_STATE/mlflow.db. Raises ValueError where
    mlflow is not installed, the registry or the version cannot be found, or the file is not the one registered.
    """
    match = re.fullmatch(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))", uri)
    if match is None:
        raise ValueError(
            f"a registered generator is written models:/NAME@ALIAS or models:/NAME/VERSION; received {uri}"
        )
    state = state_folder()
    client, trouble = _connect(_tracking_uri(state))
    try:
        if match["alias"]:
            version = client.get_model_version_by_alias(match["name"], match["alias"])
        else:
            version = client.get_model_version(match["name"], match["version"])
        wanted = version.tags.get(_TAG, "")
        if not re.fullmatch(r"[0-9a-f]{64}", wanted):
            raise ValueError(f"{uri} is version {version.version}, which carries no tag {_TAG}; register it again")
        kept = state / "consumer" / f"{wanted}.onnx"
        if not (kept.is_file() and _sha256(kept) == wanted):
            _download(client, version, kept, wanted)
    except trouble as error:
        reason = re.sub(r"//[^/@\s]*@", "//", " ".join(str(error).split()))  # the address without its password
        raise ValueError(f"{uri} was not found: {reason}") from None
    return kept


def state_folder() -> Path:
    """$GANOPS_STATE, by default `.ganops` beside the git common directory, so that worktrees share it."""
    if os.environ.get("GANOPS_STATE"):
        return Path(os.environ["GANOPS_STATE"])
    command = ["git", "rev-parse", "--path-format=absolute", "--git-common-dir"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        return Path(found).parent / ".ganops"
    return Path(".ganops")


def _tracking_uri(state: Path) -> str:
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return given
    database = (state / "mlflow.db").resolve()
    if not database.is_file():  # mlflow would make an empty one
        raise ValueError(f"there is no registry at {database}; run `make retrain`, or set MLFLOW_TRACKING_URI")
    return f"sqlite:///{database}"


def _connect(tracking_uri: str) -> tuple[Any, type[Exception]]:
    """A client of that registry, and the exception that it raises."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise ValueError(
            'generators from a registry need mlflow: python -m pip install "mlflow>=3.17,<3.18", '
            "or download the ONNX file and pass its path"
        ) from None
    mlflow.set_tracking_uri(tracking_uri)  # what resolves artifact addresses reads it from here
    return mlflow.MlflowClient(tracking_uri), MlflowException


def _download(client: Any, version: Any, kept: Path, wanted: str) -> None:
    """Put the version's ONNX file at `kept`, whole and verified."""
    import mlflow

    kept.parent.mkdir(parents=True, exist_ok=True)
    source = client.get_model_version_download_uri(version.name, version.version)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        address = f"{source.rstrip('/')}/{_ARTIFACT}"
        file = Path(mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=folder))
        if not file.is_relative_to(Path(folder).resolve()):  # a local store may answer with its own file
            file = Path(shutil.copy(file, folder))
        found = _sha256(file)
        if found != wanted:
            raise ValueError(
                f"{_ARTIFACT} of {version.name} version {version.version} was changed after registration: "
                f"its SHA-256 is {found}, registered was {wanted}"
            )
        file.replace(kept)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
