"""Checkpoints of a run: one safetensors file each, written atomically, named by step and checksum.

They hold everything that the next step depends on: three networks, two optimisers, the step, and the rows of the curves
so far. A damaged newest file falls back to the one before it.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gan.training import Players
from stages.common.files import write_atomically

FORMAT = 1
KEPT = 2
_log = logging.getLogger(__name__)


def _tensors(players: Players) -> dict[str, Tensor]:
    """Every tensor of the run by a flat name; the tensors of optimisers by the index of their parameter."""
    tensors = {}
    for part in ("generator", "discriminator", "average"):
        for name, tensor in getattr(players, part).state_dict().items():
            tensors[f"{part}/{name}"] = tensor
    for part in ("generator_optimizer", "discriminator_optimizer"):
        for index, moments in getattr(players, part).state_dict()["state"].items():
            for name, tensor in moments.items():
                tensors[f"{part}/{index}/{name}"] = tensor
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def save_checkpoint(folder: Path, players: Players, *, step: int, rows: list[dict[str, float]]) -> None:
    """Write the state after `step` steps and delete all but the newest `KEPT` checkpoints."""
    metadata = {"format": str(FORMAT), "step": str(step), "rows": json.dumps(rows)}
    content = save(_tensors(players), metadata=metadata)
    checksum = hashlib.sha256(content).hexdigest()[:16]
    write_atomically(folder / f"checkpoint-{step:09d}-{checksum}.safetensors", content)
    for old in _newest_first(folder)[KEPT:]:
        old.unlink()


def load_newest(folder: Path, players: Players) -> tuple[int, list[dict[str, float]]]:
    """Put the newest sound checkpoint into `players`; returns its step and curve rows, or (0, []) where none is."""
    for path in _newest_first(folder):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest()[:16] != path.stem.rpartition("-")[2]:
            _log.warning("%s is damaged; falling back to the checkpoint before it", path.name)
            continue
        try:
            tensors, metadata = load(content), _metadata(content)
        except SafetensorError as error:
            _log.warning("%s cannot be read (%s); falling back to the checkpoint before it", path.name, error)
            continue
        _restore(players, tensors)
        return int(metadata["step"]), json.loads(metadata["rows"])
    return 0, []


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.safetensors"), reverse=True)


def _metadata(content: bytes) -> dict[str, str]:
    """The string metadata in a safetensors header: an 8-byte little-endian length, then JSON."""
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    if metadata["format"] != str(FORMAT):
        raise ValueError(f"checkpoint has format {metadata['format']}, this version reads {FORMAT}; delete it")
    return metadata


def _restore(players: Players, tensors: dict[str, Tensor]) -> None:
    for part in ("generator", "discriminator", "average"):
        prefix = f"{part}/"
        state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        getattr(players, part).load_state_dict(state)
    for part in ("generator_optimizer", "discriminator_optimizer"):
        optimizer: torch.optim.Optimizer = getattr(players, part)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        moments: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            if name.startswith(f"{part}/"):
                _, index, moment = name.split("/")
                parameter = parameters[int(index)]
                if tensor.shape == parameter.shape:  # fused Adam walks raw memory: strides must be the parameter's
                    tensor = torch.empty_like(parameter).copy_(tensor)
                moments.setdefault(int(index), {})[moment] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
