"""Checkpoints of a run: one safetensors file each, written atomically, named by step and checksum.

They hold everything that the next step depends on: three networks, two optimisers, the step, the rows of the curves and
the decisions so far. A damaged newest file falls back to the one before it. The name also counts how often the run went
back before, so that the newest name is the newest work.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor

from gan.training import Players
from stages.common.files import write_atomically
from stages.train._control import Control, Moment
from stages.train._processes import Processes

FORMAT = 2
KEPT = 2
_log = logging.getLogger(__name__)


class Position(NamedTuple):
    """Where a run stands, besides its tensors."""

    step: int
    rows: list[dict[str, float]]
    """Of the curves."""
    control: Control
    """The decisions so far."""

    @staticmethod
    def start() -> "Position":
        """Before the first step."""
        return Position(0, [], Control())


def _tensors(players: Players) -> dict[str, Tensor]:
    """Every tensor of the run by a flat name; the tensors of optimisers by the index of their parameter."""
    tensors = {"strength": players.strength}
    for part in ("generator", "discriminator", "average"):
        for name, tensor in getattr(players, part).state_dict().items():
            tensors[f"{part}/{name}"] = tensor
    for part in ("generator_optimizer", "discriminator_optimizer"):
        for index, moments in getattr(players, part).state_dict()["state"].items():
            for name, tensor in moments.items():
                tensors[f"{part}/{index}/{name}"] = tensor
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def save_checkpoint(folder: Path, players: Players, position: Position) -> None:
    """Write the present state and delete checkpoints that nothing will ask for."""
    _write(folder, _tensors(players), position)
    prune(folder, up_to=position.step, keep=KEPT)


def rewritten(folder: Path, content: bytes, control: Control) -> None:
    """Write a checkpoint's content to `folder`, with other decisions."""
    _write(folder, load(content), _position(content)._replace(control=control))


def _write(folder: Path, tensors: dict[str, Tensor], position: Position) -> None:
    step, rows, control = position
    metadata = {"step": str(step), "rows": json.dumps(rows), "control": json.dumps(control.record())}
    content = save(tensors, metadata={"format": str(FORMAT), **metadata})
    checksum = hashlib.sha256(content).hexdigest()[:16]
    write_atomically(folder / f"checkpoint-{control.attempt:03d}-{step:09d}-{checksum}.safetensors", content)


def prune(folder: Path, *, up_to: int, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints and those that they may go back to or publish.

    Those of a longer run, with more than `up_to` steps, stay.
    """
    kept, needed = 0, set()
    for path, moment in _newest_first(folder, up_to):
        if kept < keep:
            kept += 1
            needed |= _control(_header(path)).needs()
        elif moment not in needed:
            path.unlink()


def load_newest(folder: Path, players: Players, processes: Processes, *, up_to: int) -> Position:
    """Put the newest sound checkpoint of `up_to` steps or fewer into `players`, in every process.

    The first process reads it and the others are told, so that all go on from the same step and need no common disk.
    Where none is, they stay as they are, and the position is that of the start.
    """
    return _loaded(players, folder, processes.sent(_newest_sound(folder, up_to) if processes.first else b""))


def newest_checkpoint(folder: Path, up_to: int) -> tuple[bytes, Position] | None:
    """Content and position of the newest sound checkpoint; None where there is none."""
    content = _newest_sound(folder, up_to)
    return (content, _position(content)) if content else None


def load_moment(folder: Path, players: Players, processes: Processes, moment: Moment) -> Position | None:
    """Put that checkpoint into `players`, in every process; None where it is missing or damaged, and then deleted."""
    content = b""
    if processes.first:
        for path, found in _newest_first(folder, moment.step):
            if found == moment:
                content = _sound(path)
                if not content:
                    path.unlink()
    content = processes.sent(content)
    return _loaded(players, folder, content) if content else None


def _loaded(players: Players, folder: Path, content: bytes) -> Position:
    if not content:
        return Position.start()
    position = _position(content)
    try:
        _restore(players, load(content))
    except RuntimeError as error:
        if not str(error).startswith("Error(s) in loading state_dict"):  # no memory on the device, say
            raise
        said = str(error).splitlines()[1:2] or [str(error)]
        raise ValueError(
            f"the checkpoint of step {position.step} in {folder} is of other networks than this run's; delete it "
            f"({said[0].strip().rstrip('. ')})"
        ) from None
    return position


def _position(content: bytes) -> Position:
    metadata = _metadata(content)
    return Position(int(metadata["step"]), json.loads(metadata["rows"]), Control(**json.loads(metadata["control"])))


def _newest_sound(folder: Path, up_to: int) -> bytes:
    """The content of the newest file that is sound and has what it may go back to beside it; empty where none is."""
    found = _newest_first(folder, up_to)
    there = {moment for _, moment in found}
    for path, moment in found:
        content = _sound(path)
        if not content:
            path.unlink()  # or it would be kept in place of a sound one
            continue
        control = _control(content)
        if control.belongs(up_to) and control.needs() <= there | {moment}:
            return content
    return b""


def _sound(path: Path) -> bytes:
    """The content of a checkpoint; empty, with a warning, where it is not what was written. Raises ValueError where
    another version wrote it."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest()[:16] != path.stem.rpartition("-")[2]:
        _log.warning("%s is damaged; falling back to the checkpoint before it", path.name)
        return b""
    found = _metadata(content).get("format")
    if found != str(FORMAT):
        raise ValueError(
            f"{path} has format {found}, this version reads {FORMAT}; go on with the version that wrote it, or delete "
            "it to train anew"
        )
    return content


def _newest_first(folder: Path, up_to: int) -> list[tuple[Path, Moment]]:
    found = []
    for path in sorted(folder.glob("checkpoint-*.safetensors"), reverse=True):
        _, attempt, step, _ = path.stem.split("-")
        found.append((path, Moment(int(attempt), int(step))))
    return [(path, moment) for path, moment in found if moment.step <= up_to]


def _header(path: Path) -> bytes:
    """The beginning of a checkpoint: all but the tensors, which are large."""
    with path.open("rb") as file:
        length = file.read(8)
        return length + file.read(min(int.from_bytes(length, "little"), path.stat().st_size))  # damaged, it is anything


def _control(content: bytes) -> Control:
    """The decisions that a checkpoint carries, from its header or the whole of it; none where they cannot be read."""
    try:
        return Control(**json.loads(_metadata(content)["control"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Control()


def _metadata(content: bytes) -> dict[str, str]:
    """The string metadata in a safetensors header: an 8-byte little-endian length, then JSON."""
    length = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return metadata


def _restore(players: Players, tensors: dict[str, Tensor]) -> None:
    players.strength.copy_(tensors["strength"])
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
