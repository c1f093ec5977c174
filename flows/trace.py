"""Trace an image: `python -m flows.trace SHA256 [--json]`: from the image to data versions, runs and model versions.

If the image was left out as a copy, its pixels are stored under another hash, which is traced too; if it was refused,
the reason is given. Data versions are image stores in the workspace and in DVC's cache; `dvc fetch --all-commits`
brings those of a remote. Runs and model versions are those in the registry that name the same data hash. Writes
nothing.
"""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.command import command
from flows.erase import TAG
from flows.state import settle
from flows.tracking.registry import Registry, connect, model_name, sentences, unmade
from flows.upkeep.holdings import Unstored, data_versions, open_cache, open_repo, unstored


def main(argv: Sequence[str] | None = None) -> int:
    """Print where an image went; exit code 0 done (found or not), 1 failed."""
    parser = argparse.ArgumentParser(prog="python -m flows.trace", description=__doc__)
    parser.add_argument("sha256", help="SHA-256 of the image's content, as in manifest.parquet and quarantine.csv")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    options = parser.parse_args(argv)

    def act() -> int:
        found = trace(Path.cwd(), settle(), options.sha256.lower())
        sys.stdout.write(json.dumps(found, indent=2) + "\n" if options.json else text(found))
        return 0

    return command("trace", act)


def trace(project: Path, state: Path, sha256: str) -> dict[str, Any]:
    """Data versions that hold the image, with runs and model versions of each; those that left it out; and the same for
    the images that it is a copy of. Raises ValueError if `sha256` is not a hash."""
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError(f"an image is named by its SHA-256, 64 hexadecimal digits; received {sha256!r}")
    with open_repo(project) as repo:
        cache = open_cache(repo)
        left_out = unstored(project, cache, sha256)
        originals = sorted({one.copy_of for one in left_out} - {"", sha256})
        found = {one: data_versions(project, cache, one) for one in (sha256, *originals)}
        refused = {one: unstored(project, cache, one) for one in originals}
    hashes = sorted({version.data_hash for versions in found.values() for version, _ in versions})
    models: dict[str, list[dict[str, Any]]] = {data_hash: [] for data_hash in hashes}
    if not unmade(state):
        with sentences():
            registry = connect(state, model_name(project / "params.yaml"))
            models = {data_hash: _models(registry, data_hash) for data_hash in hashes}

    def told(one: str, left_out: Sequence[Unstored]) -> dict[str, Any]:
        return {
            "sha256": one,
            "data_versions": [
                {**dataclasses.asdict(version), "models": models[version.data_hash]} for version, _ in found[one]
            ],
            "left_out": [dataclasses.asdict(version) for version in left_out],
        }

    return {"format": 1, **told(sha256, left_out), "copy_of": [told(one, refused[one]) for one in originals]}


def _models(registry: Registry, data_hash: str) -> list[dict[str, Any]]:
    """Model versions made from these data, oldest first, each with its run."""
    if not registry.exists():
        return []
    return [
        {
            "version": str(model.version),
            "aliases": sorted(model.aliases),
            "run_id": model.run_id,
            "onnx_sha256": model.tags.get("onnx_sha256"),
            "verdict": model.tags.get("verdict"),
            "erased": json.loads(model.tags.get(TAG, "{}")),
        }
        for model in registry.versions(data_hash=data_hash)
    ]


def text(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"image {found['sha256']}", *_lines(found)]
    for original in found["copy_of"]:
        lines += [f"  a copy of {original['sha256']}, whose trace is", *(f"  {line}" for line in _lines(original))]
    return "\n".join(lines) + "\n"


def _lines(found: dict[str, Any]) -> list[str]:
    lines = []
    for version in found["data_versions"]:
        lines.append(
            f"  data {version['data_hash'][:12]} ({version['place']}): {version['source']}, {version['split']}"
        )
        for model in version["models"]:
            alias = f" ({', '.join(model['aliases'])})" if model["aliases"] else ""
            erased = ", one of its images was erased since" if model["erased"] else ""
            lines.append(f"    run {model['run_id']}: model version {model['version']}{alias}{erased}")
        lines += ["    no model version was made from it"] * (not version["models"])
    for one in found["left_out"]:
        lines.append(f"  left out of data {one['data_hash'][:12]} ({one['place']}): {one['source']}, {one['reason']}")
    return lines or ["  in no data version of the workspace or of DVC's cache"]


if __name__ == "__main__":
    sys.exit(main())
