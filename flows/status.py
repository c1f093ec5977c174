"""What is champion and why, what was refused and why: `python -m flows.status [--json]`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from flows.registry import Registry, connect, sentences
from flows.state import embedded_store, settle

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_TAGS = ("decision", "reason", "verdict", "onnx_sha256", "data_hash", "params_hash")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the state of the registry; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.status", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    options = parser.parse_args(argv)
    state = settle()
    try:
        found = status(state, model_name(Path("params.yaml")))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"status: {error}\n")
        return 1
    sys.stdout.write(json.dumps(found, indent=2) + "\n" if options.json else text(found))
    return 0


def model_name(params: Path) -> str:
    """The registered model's name: `export.name` of params.yaml. Raises ValueError where it has none."""
    content = yaml.safe_load(params.read_text(encoding="utf-8"))
    try:
        return str(content["export"]["name"])
    except (KeyError, TypeError):
        raise ValueError(f"{params} must hold export.name, the name of the model in the registry") from None


def status(state: Path, name: str) -> dict[str, Any]:
    """Champion, previous and all versions, newest first, with decision and reason. Writes nothing."""
    empty = {"format": 1, "model": name, "champion": None, "previous": None, "versions": []}
    if os.environ["MLFLOW_TRACKING_URI"] == embedded_store(state) and not (state / "mlflow.db").is_file():
        return empty
    with sentences():
        registry = connect(state, name)
        if not registry.exists():
            return empty
        versions = [_told(version, registry) for version in reversed(registry.versions())]
    holder = {alias: item["version"] for item in versions for alias in item["aliases"]}
    return {**empty, "champion": holder.get("champion"), "previous": holder.get("previous"), "versions": versions}


def _told(version: "ModelVersion", registry: Registry) -> dict[str, Any]:
    run = registry.client.get_run(version.run_id).data.tags if version.run_id else {}
    return {
        "version": str(version.version),
        "aliases": sorted(version.aliases),
        **{key: version.tags.get(key) for key in _TAGS},
        "git_commit": run.get("git.commit"),
        "git_dirty": run.get("git.dirty"),
        "run_id": version.run_id,
        "registered_ms": version.creation_timestamp,
    }


def text(found: dict[str, Any]) -> str:
    """The same for people: one paragraph a version."""
    if not found["versions"]:
        return f"{found['model']}: nothing is registered yet; `make retrain` does it\n"
    champion = f"version {found['champion']}" if found["champion"] else "none"
    told = [f"{found['model']}: champion {champion}, previous {found['previous'] or 'none'}"]
    for item in found["versions"]:
        marks = f" ({', '.join(item['aliases'])})" if item["aliases"] else ""
        told.append(f"\nversion {item['version']}{marks}: {item['decision'] or 'not decided yet'}")
        told.append(f"  because  {item['reason'] or '-'}")
        told.append(f"  onnx     {item['onnx_sha256']}")
        dirty = " with uncommitted changes" if item["git_dirty"] == "true" else ""
        told.append(f"  data     {item['data_hash']}\n  commit   {item['git_commit']}{dirty}")
    return "\n".join(told) + "\n"


if __name__ == "__main__":
    sys.exit(main())
