"""What several tests of the flows use."""

import time
from pathlib import Path
from typing import Any

import yaml


def set_params(project: Path, **changes: Any) -> None:
    """Change settings of params.yaml: `train__quality=2.0`."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    for name, value in changes.items():
        section, _, key = name.partition("__")
        params[section][key] = value
    (project / "params.yaml").write_text(yaml.safe_dump(params))


def alive(process: int) -> bool:
    """Whether the process runs; one that has ended but was not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(process: int, seconds: float = 10) -> bool:
    """Whether the process ends within `seconds`."""
    deadline = time.monotonic() + seconds
    while alive(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(process)
