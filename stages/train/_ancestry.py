"""What a run begins with besides random weights: another run's checkpoint, adopted, or published networks."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from gan.training import Players
from stages.common.files import digest, read_json
from stages.config.train import TrainConfig
from stages.generator_folder import FILES
from stages.state import exclusive
from stages.store import Store
from stages.train._checkpoints import newest_checkpoint, rewritten
from stages.train._control import Control
from stages.train._trajectory import RECORD, differences, recorded

_FIXED = ("network", "z_dim", "optimizers", "batch", "discriminator_steps")  # what a checkpoint's tensors and step mean
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Start:
    """Published networks that a run begins with; `ancestry` says which, and what they began with themselves."""

    generator: dict[str, torch.Tensor]
    discriminator: dict[str, torch.Tensor]
    ancestry: list[dict[str, Any]]

    def into(self, players: Players) -> None:
        """Put the weights into all three networks. Raises ValueError where they are not those of the architecture."""
        try:
            players.generator.load_state_dict(self.generator)
            players.average.load_state_dict(self.generator)
            players.discriminator.load_state_dict(self.discriminator)
        except RuntimeError as error:
            said = " ".join(str(error).split())[:300]
            raise ValueError(f"the networks of train.init are not those of their generator.json: {said}") from None


def open_start(config: TrainConfig, folder: Path | None, store: Store, architecture: dict[str, Any]) -> Start | None:
    """The networks of `train.init`, or None. Raises ValueError where the folder is not the one that is pinned, or where
    they do not fit this run."""
    if config.init.name == "none":
        return None
    if folder is None or not all((folder / name).is_file() for name in FILES):
        raise ValueError(
            "train.init needs train.init_from to be a folder that holds generator.json, generator.safetensors and "
            f"discriminator.safetensors; received {folder}: `python -m stages.warm_start` makes data/init"
        )
    found = digest(folder)
    if found != config.init.sha256:
        raise ValueError(f"train.init.sha256 is {config.init.sha256}, but the digest of {folder} is {found}")
    about = read_json(folder / "generator.json")
    expected = {
        "architecture": architecture, "z_dim": config.z_dim, "classes": store.classes,
        "resolution": store.info["resolution"], "channels": store.info["channels"],
    }  # fmt: skip
    for name, value in expected.items():
        if about[name] != value:
            raise ValueError(
                f"the networks in {folder} have {name} {json.dumps(about[name])}, this run {json.dumps(value)}; a warm "
                "start needs the same"
            )
    kept = ["name", "licence", "data_hash", "step", "seed"]
    kept += ["model_version"] if "model_version" in about else []  # where they came from a registry
    ancestry = [*about["ancestry"], {"init": found, **{name: about[name] for name in kept}}]
    try:
        generator, discriminator = (load_file(folder / name) for name in FILES[1:])
    except SafetensorError as error:
        raise ValueError(
            f"{folder} holds no whole networks ({error}); `python -m stages.warm_start` copies some"
        ) from None
    return Start(generator, discriminator, ancestry)


def take_over(state: Path, found: dict[str, Any], adopt: str, *, up_to: int) -> None:
    """Begin the work in `state` with the newest checkpoint of the work named `adopt`, of `up_to` steps or fewer.

    What differs is kept with it. Doing it again changes nothing. Raises ValueError where that work cannot be gone on
    with under these settings, or where this work has begun already.
    """
    source = state.parent / adopt
    if adopt == state.name or not (source / RECORD).is_file():
        known = sorted(path.parent.name for path in state.parent.glob(f"*/{RECORD}") if path.parent != state)
        raise ValueError(f"--adopt must name other work in {state.parent}: {', '.join(known) or 'there is none'}")
    own = newest_checkpoint(state, up_to)
    if own is not None:
        if any(entry.get("adopted") == adopt for entry in own[1].control.ancestry):
            return
        raise ValueError(f"--adopt {adopt}: this work has begun already; to begin it anew delete {state}")
    record = recorded(source)
    if record["data_hash"] != found["data_hash"]:
        raise ValueError(f"--adopt {adopt}: that work is on other images; train.init starts from its networks instead")
    for name in _FIXED:
        if record["settings"].get(name) != found["settings"][name]:
            raise ValueError(
                f"--adopt {adopt}: train.{name} differs, and a checkpoint does not fit another; see train.init"
            )
    with exclusive(source):
        newest = newest_checkpoint(source, up_to)
        if newest is None:
            raise ValueError(f"--adopt {adopt}: that work has no sound checkpoint of {up_to} steps or fewer")
    content, (step, _, control) = newest
    changes = list(differences(record, found))
    entry = {"adopted": adopt, "step": step, "changes": changes}
    begun = Control(ancestry=[*control.ancestry, entry])
    if found["settings"]["rollbacks"]["most"]:  # the start, to which this work can go back
        begun.good = begun.pending = {"attempt": 0, "step": step}
    rewritten(state, content, begun)
    _log.info("adopted %s at step %d with these changes: %s", adopt, step, "; ".join(changes))
