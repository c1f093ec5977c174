"""`python -m infra.smoke`: all eight stages on a cut-down configuration, in a clone of the working copy.

The clone holds every tracked file as it is in the working copy and every new one that git does not ignore; the working
copy's `data/` is never touched. The result cannot be registered.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[1]
CUT = PROJECT / "infra" / "smoke.yaml"


def clone_working_copy(source: Path, target: Path) -> None:
    """Clone `source` to `target` as it lies on disk: changed, new and deleted files included, ignored ones not."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(source), str(target)], check=True)
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=source, check=True, capture_output=True, text=True).stdout
    present = {name for name in listed.split("\0") if name and (source / name).is_file()}
    for name in present:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, target / name)
    cloned = subprocess.run(["git", "ls-files", "-z"], cwd=target, check=True, capture_output=True, text=True).stdout
    for name in set(cloned.split("\0")) - present - {""}:
        (target / name).unlink(missing_ok=True)


def overlay(base: dict[str, Any], changes: dict[str, Any], where: str = "") -> None:
    """Put `changes` over `base` in place, key by key. Raises ValueError for a key that `base` does not have."""
    for key, value in changes.items():
        if key not in base:
            raise ValueError(f"{CUT.name} sets {where}{key}, which params.yaml does not have")
        if isinstance(value, dict) and isinstance(base[key], dict):
            overlay(base[key], value, f"{where}{key}.")
        else:
            base[key] = value


def cut(project: Path) -> None:
    """Rewrite `project`'s params.yaml with the cut-down configuration."""
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    overlay(params, yaml.safe_load(CUT.read_text(encoding="utf-8")))
    path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def environment(state: Path) -> dict[str, str]:
    """The environment for commands in a clone: this Python first, a state folder of its own, telemetry off."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GANOPS_STATE": str(state),
        "DVC_SITE_CACHE_DIR": str(state / "dvc"),
        "DVC_NO_ANALYTICS": "1",
        "DO_NOT_TRACK": "1",
    }


def main() -> int:
    """Clone, cut, and run `dvc repro`; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.smoke", description=__doc__)
    parser.add_argument("--out", type=Path, default=PROJECT / ".smoke", help="folder of the clone; replaced")
    target = parser.parse_args().out
    clone_working_copy(PROJECT, target)
    cut(target)
    env = environment(target / ".ganops")
    for command in (["python", "-m", "infra.digits", "--out", "data/raw"], ["dvc", "repro"]):
        code = subprocess.run(command, cwd=target, env=env, check=False).returncode
        if code:
            return code
    print(f"smoke: done; look at {target / 'data' / 'card' / 'MODEL_CARD.md'}", file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
