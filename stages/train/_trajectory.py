"""Which work a state folder holds: everything that decides the trajectory of a run, as a record and as a key.

The budget is not part of it: schedules count images from the start, so a longer run begins with the shorter one.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
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
_SINCE = {
    "discriminator_steps": 1,
    "generator_batch": "fresh",
}  # settings that came later, as the work before them had them
_LIBRARY = (
    "augmentation.py",
    "batches.py",
    "chance.py",
    "latents.py",
    "layers.py",
    "objective.py",
    "optimizers.py",
    "penalties.py",
    "piecewise.py",
    "pixels.py",
    "training.py",
)


def trajectory(config: TrainConfig, store: Store, *, selection: str | None = None) -> dict[str, Any]:
    """The images, the settings, and the code and torch version that compute the trajectory.

    `selection` is the digest of what the run is measured against, where it is.
    """
    library = Path(str(gan.__file__)).parent
    files = [library / name for name in _LIBRARY]
    files += [library / "networks" / name for name in ("__init__.py", f"{config.network.name}.py")]
    files += [library / "losses" / f"{config.loss.name}.py"]
    own = ("_ancestry.py", "_control.py", "_course.py", "_feed.py", "_loop.py", "_measure.py", "_objective.py")
    files += [Path(__file__).with_name(name) for name in own]
    free: tuple[str, ...] = _FREE + _PATHS
    if config.rollbacks.most:  # which checkpoints there are decides where the run goes back to
        free = tuple(name for name in free if name != "checkpoint_kimg")
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name not in free}
    return {
        "format": FORMAT,
        "data_hash": store.info["data_hash"],
        "settings": json.loads(json.dumps(settings)),  # as it is read back: lists, no tuples
        "code": {path.name: sha256_file(path) for path in files},
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
    """The record beside the checkpoints in `folder`, with the settings that it is too old to name."""
    found: dict[str, Any] = read_json(folder / RECORD)
    return found | {"settings": _SINCE | found.get("settings", {})}


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
    """`settings.lr 0.002 -> 0.001` for each leaf in which two records differ, in the order of the new one."""
    for name in [*new, *(name for name in old if name not in new)]:
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from differences(before, after, f"{prefix}{name}.")
        elif before != after:
            place = f"{prefix}{name}".removeprefix("settings.")
            yield f"{place} changed" if prefix == "code." else f"{place} {json.dumps(before)} -> {json.dumps(after)}"
