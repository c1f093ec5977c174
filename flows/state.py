"""Where the flows keep their state, the lock around it, and an environment that keeps the tools' data local."""

import contextlib
import datetime
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from stages.state import state_folder

_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
}


class Busy(ValueError):
    """Somebody else holds the lock and did not release it in time."""


def settle() -> Path:
    """Prepare this process and its children, and return the state folder (mode 0700).

    Telemetry is off; DVC's pickled index cache, Prefect's home and MLflow's store lie in the state folder. What the
    user has set takes precedence. Call it before prefect, mlflow or dvc is imported: they read the environment once.
    """
    folder = state_folder()
    folder.chmod(0o700)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    places = {
        "GANOPS_STATE": str(folder),
        "DVC_SITE_CACHE_DIR": str(folder / "dvc"),
        "PREFECT_HOME": str(folder / "prefect"),
        "MLFLOW_TRACKING_URI": embedded_store(folder),
    }
    for name, value in {**_SETTINGS, **places}.items():
        os.environ.setdefault(name, value)
    Path(os.environ["DVC_SITE_CACHE_DIR"]).mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def embedded_store(folder: Path) -> str:
    """Address of the registry that needs no server: sqlite in the state folder."""
    return f"sqlite:///{folder / 'mlflow.db'}"


def hold(folder: Path, seconds: float = 0) -> contextlib.AbstractContextManager[int]:
    """Hold the state folder alone while the block runs; yields the lock's file descriptor.

    A child that is given the descriptor keeps the lock until it too ends, so that a retrain whose flow was killed is
    over only when its stages are. Raises Busy if another retrain, which it names, still holds the lock after `seconds`.
    """
    return _locked(folder / "retrain.lock", "retrain", seconds)


def serialised(folder: Path, seconds: float = 60) -> contextlib.AbstractContextManager[int]:
    """Be the only one to move an alias while the block runs; as `hold`, waiting at most `seconds` for the turn."""
    return _locked(folder / "promote.lock", "promotion or rollback", seconds)


def alone(folder: Path, what: str, seconds: float = 60) -> contextlib.AbstractContextManager[int]:
    """Be the only one to do `what` while the block runs; as `hold`, waiting at most `seconds` for the turn."""
    return _locked(folder / f"{what}.lock", what, seconds)


@contextlib.contextmanager
def _locked(path: Path, what: str, seconds: float) -> Iterator[int]:
    deadline = time.monotonic() + seconds
    with path.open("a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.seek(0)
                    raise Busy(f"another {what} holds {file.name}: {_holder(file.read())}") from None
                time.sleep(0.05)
        file.truncate(0)
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        file.write(json.dumps({"process": os.getpid(), "folder": str(Path.cwd()), "since": now}))
        file.flush()
        yield file.fileno()


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        process, where, since = int(holder["process"]), holder["folder"], holder["since"]
    except (ValueError, KeyError, TypeError):
        return "it has just started; wait for it, or stop it"
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return f"process {process} was killed and its stages are being stopped; try again in half a minute"
    except PermissionError:
        pass
    return f"process {process}, in {where}, since {since}; wait for it, or stop it with `kill {process}`"
