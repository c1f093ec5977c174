"""Start one of the servers' commands with settings that must not appear in `ps`.

    python -m infra.servers.launch FILE MODULE ARGUMENTS...

FILE holds NAME=VALUE lines. They are set inside this process only, so they are neither among its arguments nor in the
environment that it was started with. MLflow's server would start Uvicorn as a second process: this process turns into
it instead, and Uvicorn reads FILE itself.
"""

import os
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any


def read(file: Path) -> dict[str, str]:
    """The settings in a file of NAME=VALUE lines, with or without `export`, quoted as for a shell."""
    settings = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        name, found, value = line.removeprefix("export ").partition("=")
        if found and not line.startswith("#"):
            settings[name] = "".join(shlex.split(value))
    return settings


def main(file: str, module: str, *arguments: str) -> None:
    """Run `module` in this process, with the settings of `file`."""
    before = dict(os.environ)
    settings = read(Path(file))
    start = subprocess.Popen

    class Become(start):  # type: ignore[valid-type, misc]
        def __init__(self, command: Any, **options: Any) -> None:
            if list(command[1:3]) == ["-m", "uvicorn"]:
                environment = {**before, **(options.get("env") or {})}
                public = {name: value for name, value in environment.items() if name not in settings}
                os.execve(command[0], [*command[:3], "--env-file", file, *command[3:]], public)
            super().__init__(command, **options)

    subprocess.Popen = Become  # type: ignore[assignment, misc]
    os.environ.update(settings)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
