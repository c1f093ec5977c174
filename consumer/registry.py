"""Generators by name: `models:/NAME@ALIAS` and `models:/NAME/VERSION` from an MLflow registry.

The one module outside `flows/` that may import mlflow; the rest of the package never needs it. A file is fetched once
and kept under the SHA-256 in the registered version's tag `onnx_sha256`; every use verifies it.
"""

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ARTIFACT, _TAG = "generator.onnx", "onnx_sha256"
_LARGEST = 2**31  # bytes; the limit of protobuf, and so of a generator in one file


def fetch(uri: str) -> Path:
    """The verified ONNX file of a registered generator.

    The registry is $MLFLOW_TRACKING_URI, or else the embedded one, $GANOPS_STATE/mlflow.db. Raises ValueError if
    mlflow is not installed, the registry or the version cannot be read, or the file is not the one registered.
    """
    name, alias, number = parse(uri)
    state = state_folder()
    with _sentences(uri):
        client = _connect(_tracking_uri(state))
        version = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        wanted = version.tags.get(_TAG, "")
        if not re.fullmatch(r"[0-9a-f]{64}", wanted):
            raise ValueError(f"{uri} is version {version.version}, which carries no tag {_TAG}; register it again")
        kept = state / "consumer" / f"{wanted}.onnx"
        if not (kept.is_file() and _sha256(kept) == wanted):
            _download(client, version, kept, wanted)
    return kept


def parse(uri: str) -> tuple[str, str | None, str | None]:
    """(name, alias, version) of a registered model's address; either alias or version is None. Raises ValueError for
    any other address."""
    match = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/([0-9]+))", uri)
    if match is None:
        raise ValueError(f"a registered version is written models:/NAME@ALIAS or models:/NAME/VERSION; received {uri}")
    return match[1], match[2], match[3]


@contextlib.contextmanager
def _sentences(uri: str) -> Iterator[None]:
    """Turn what a registry, its store or a driver raises into a ValueError of one sentence, without passwords."""
    try:
        yield
    except (ValueError, MemoryError):
        raise
    except ImportError as error:
        raise ValueError(f"{uri} lies in a store that needs {error.name}, which is not installed here") from None
    except Exception as error:  # MLflow's, SQLAlchemy's, botocore's and drivers' have no base class in common
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = re.sub(r"//\S*@", "//", " ".join(str(error).split()))
        raise ValueError(f"{uri} cannot be fetched: {reason[:500]}") from None


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
    if not database.is_file():  # mlflow would create an empty one
        raise ValueError(f"there is no registry at {database}; run `make retrain`, or set MLFLOW_TRACKING_URI")
    return f"sqlite:///{database}"


def _connect(tracking_uri: str) -> Any:
    """A client of that registry."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if not sys.stderr.isatty():
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        import mlflow
    except ImportError:
        raise ValueError(
            'generators from a registry need mlflow: python -m pip install "mlflow>=3.17,<3.18", '
            "or download the ONNX file and pass its path"
        ) from None
    mlflow.set_tracking_uri(tracking_uri)  # the code that resolves artifact addresses reads it from here
    return mlflow.MlflowClient(tracking_uri)


def _download(client: Any, version: Any, kept: Path, wanted: str) -> None:
    """Put the version's ONNX file at `kept`, whole and verified."""
    import mlflow

    kept.parent.mkdir(parents=True, exist_ok=True)
    source = client.get_model_version_download_uri(version.name, version.version).rstrip("/")
    sizes = {Path(item.path).name: item.file_size for item in mlflow.artifacts.list_artifacts(artifact_uri=source)}
    if (sizes.get(_ARTIFACT) or 0) > _LARGEST:
        raise ValueError(
            f"{_ARTIFACT} of {version.name} version {version.version} is larger than the 2 GiB of an ONNX file"
        )
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        address = f"{source}/{_ARTIFACT}"
        file = Path(mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=folder))
        found = _sha256(file)
        if found != wanted:
            raise ValueError(
                f"{_ARTIFACT} of {version.name} version {version.version} was changed after registration: "
                f"its SHA-256 is {found}, but {wanted} was registered"
            )
        file.replace(kept)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
