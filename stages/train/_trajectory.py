"""Which work a state folder holds: everything that decides the trajectory of a run, as a record and as a key.

The budget is not part of it: schedules count images from the start, so a longer run begins with the shorter one.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

import gan
from stages.common.files import read_json, sha256_file, write_json
from stages.config.train import TrainConfig
from stages.store import Store

FORMAT = 1
# Budget, who computes it and who watches: not what is computed.
_FREE = ("total_kimg", "checkpoint_kimg", "processes", "parts", "tensorboard")
_PATHS = ("selection_inputs", "init_from")  # what lies there counts, not where
RECORD = "trajectory.json"
# Settings that came later, as the work before them had them.
_SINCE = {"discriminator_steps": 1, "generator_batch": "fresh"}
# The code that decides the bytes of a run, besides the network and the loss of its settings, in gan/, stages/ and here.
# tests/stages/test_train_ancestry.py says why the rest of what the room loads does not.
_LIBRARY = (
    "augmentation.py",
    "batches.py",
    "chance.py",
    "exchange.py",
    "latents.py",
    "layers.py",
    "losses/__init__.py",
    "networks/__init__.py",
    "objective.py",
    "optimizers.py",
    "penalties.py",
    "piecewise.py",
    "pixels.py",
    "ranks.py",
    "training.py",
)
_STAGES = ("config/train.py", "processor.py", "store.py")
_OWN = (
    "_ancestry.py",
    "_control.py",
    "_course.py",
    "_feed.py",
    "_loop.py",
    "_measure.py",
    "_objective.py",
    "_processes.py",
    "_samples.py",
)
_PROJECT = Path(str(gan.__file__)).parents[1]


def trajectory(config: TrainConfig, store: Store, *, selection: str | None = None) -> dict[str, Any]:
    """The images, the settings, and the code and torch version that compute the trajectory.

    `selection` is the digest of what the run is measured against, where it is.
    """
    chosen = (f"networks/{config.network.name}.py", f"losses/{config.loss.name}.py")
    code = [f"gan/{name}" for name in (*_LIBRARY, *chosen)]
    code += [f"stages/{name}" for name in _STAGES] + [f"stages/train/{name}" for name in _OWN]
    free: tuple[str, ...] = _FREE + _PATHS
    if config.rollbacks.most:  # which checkpoints there are decides where the run goes back to
        free = tuple(name for name in free if name != "checkpoint_kimg")
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name not in free}
    return {
        "format": FORMAT,
        "data_hash": store.info["data_hash"],
        "settings": json.loads(json.dumps(settings)),  # as it is read back: lists, no tuples
        "code": {name: sha256_file(_PROJECT / name) for name in code},
        "torch": torch.__version__,
    } | ({"selection": selection} if selection else {})


def key(found: dict[str, Any]) -> str:
    """Names the work of a trajectory: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def remember(folder: Path, found: dict[str, Any]) -> None:
    """Keep the record beside the checkpoints, so that later runs can say how they differ."""
    if not (folder / RECORD).is_file():
        write_json(folder / RECORD, found)


def recorded(folder: Path) -> dict[str, Any]:
    """The record beside the checkpoints in `folder`, as it would be written today: with the settings that it is too old
    to name, and files of code by their paths where it has bare names."""
    found: dict[str, Any] = read_json(folder / RECORD)
    settings = _SINCE | found.get("settings", {})
    code = {_path(name, settings): digest for name, digest in found.get("code", {}).items()}
    return found | {"settings": settings, "code": code}


def _path(name: str, settings: Mapping[str, Any]) -> str:
    """The path of a file of code that a record with these settings names, from its bare name in an old one."""
    if "/" in name:
        return name
    network, loss = (settings.get(setting, {}).get("name") for setting in ("network", "loss"))
    if name in ("__init__.py", f"{network}.py"):
        return f"gan/networks/{name}"
    if name == f"{loss}.py":
        return f"gan/losses/{name}"
    return f"stages/train/{name}" if name.startswith("_") else f"gan/{name}"


def kin(folder: Path, found: dict[str, Any]) -> tuple[str, list[str]] | None:
    """(key, differences in words) of the newest other work on these images with this network; None where none is.

    `folder` holds one state folder per key. Work without a checkpoint does not count.
    """
    others = [path for path in folder.glob(f"*/{RECORD}") if path.parent.name != key(found)]
    others = [path for path in others if any(path.parent.glob("checkpoint-*.safetensors"))]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        other = recorded(path.parent)
        same = [other.get("data_hash") == found["data_hash"]]
        same += [other.get("settings", {}).get(name) == found["settings"][name] for name in ("network", "z_dim")]
        if all(same):
            return path.parent.name, list(differences(other, found))
    return None


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """`lr 0.002 -> 0.001` for each leaf in which two records differ, in the order of the new one; of code the files
    that changed, those that did not count in the old one, and those that no longer count."""
    for name in [*new, *(name for name in old if name not in new)]:
        before, after = old.get(name), new.get(name)
        if name == "code" and not prefix:
            yield from _code_differences(before or {}, after or {})
        elif isinstance(before, dict) and isinstance(after, dict):
            yield from differences(before, after, f"{prefix}{name}.")
        elif before != after:
            place = f"{prefix}{name}".removeprefix("settings.")
            yield f"{place} {json.dumps(before)} -> {json.dumps(after)}"


def _code_differences(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    yield from (f"{name} changed" for name in new if name in old and old[name] != new[name])
    for words, names in (
        ("code that did not count before", new.keys() - old.keys()),
        ("code that no longer counts", old.keys() - new.keys()),
    ):
        if names:
            yield f"{words}: {', '.join(sorted(names))}"
