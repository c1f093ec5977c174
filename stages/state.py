"""Work in progress: the state folder, outside DVC's outputs because DVC wipes those before a stage runs.

`$GANOPS_STATE`, by default `.ganops/` in the folder that contains the git common directory, so that all worktrees of a
clone share it; without git, in the current folder.
"""

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


def state_folder() -> Path:
    """The state folder, made if it is missing; only its owner may enter it."""
    folder = Path(os.environ["GANOPS_STATE"]) if os.environ.get("GANOPS_STATE") else _project_root() / ".ganops"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder.resolve()


def _project_root() -> Path:
    try:
        command = ["git", "rev-parse", "--path-format=absolute", "--git-common-dir"]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return Path.cwd()
    return Path(answer.stdout.strip()).parent


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder` alone while the block runs; the lock ends with the process, however that ends.

    Raises ValueError if another process holds it, naming that process.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise ValueError(f"{folder} is in use by process {holder}; wait for it or stop it first") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
