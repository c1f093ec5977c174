"""Networks by name: each is a file of this folder that holds `Config`, `Generator`, `Discriminator`, `initialise`.

`Config` is a frozen dataclass with `name: Literal["<file>"]` and the network's settings; it overrides what differs from
`Plain`. A network is described by `{"name": file, "arguments": {...}}`, which is what `generator.json` carries; z_dim,
classes, resolution and channels come from the data and the run.
A Discriminator that is linear around every image sets `piecewise_linear = True`: see `gan.piecewise`.
"""

import dataclasses
import importlib
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gan.layers import full_precision

__all__ = ["Plain", "build_discriminator", "build_generator", "describe", "full_precision", "initialise", "stages"]


class Plain:
    """What training must know about a network before it is built; a network's `Config` overrides what differs."""

    batch_statistics: frozenset[str] = frozenset()
    """Sides ("generator", "discriminator") with batch normalisation."""
    bounded: bool = False
    """Whether the discriminator's slope is bounded by spectral norms."""
    group: int = 1
    """Images of a batch that the discriminator compares with each other."""


def check_numbers(config: Any, low: int = 1) -> None:
    """Raises ValueError if a whole number of `config`, or of a list in it, lies outside [low, 8192]."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for number in value if isinstance(value, tuple | list) else (value,):
            if type(number) is int and not low <= number <= 8192:
                raise ValueError(f"{field.name} must be a whole number >= {low} and <= 8192; received {number}")


def stages(resolution: int) -> int:
    """Stages from 4x4 up, one per doubling. Raises ValueError for a size that is not a power of two from 8 to 256."""
    found = math.log2(resolution) - 1 if resolution > 0 else 0.0
    if found not in (2, 3, 4, 5, 6, 7):
        raise ValueError(f"networks draw images of 8, 16, 32, 64, 128 or 256 pixels a side; received {resolution}")
    return int(found)


def describe(config: Any) -> dict[str, Any]:
    """A network's `Config` as `generator.json` carries it."""
    settings = dataclasses.asdict(config)
    arguments = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    return {"name": arguments.pop("name"), "arguments": arguments}


def _module(name: str) -> Any:
    known = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    if name not in known:
        raise ValueError(f"network name must be one of {', '.join(known)}; received {name!r}")
    return importlib.import_module(f"gan.networks.{name}")


def _config(architecture: dict[str, Any]) -> tuple[Any, Any]:
    """The network's module and its `Config`. Raises ValueError if the arguments are not those of that module."""
    module, arguments = _module(architecture["name"]), architecture["arguments"]
    try:
        return module, module.Config(name=architecture["name"], **arguments)
    except TypeError:
        known = [field.name for field in dataclasses.fields(module.Config) if field.name != "name"]
        raise ValueError(
            f"network {architecture['name']} has the arguments {', '.join(known)}; received {', '.join(arguments)}"
        ) from None


def build_generator(
    architecture: dict[str, Any], *, z_dim: int, classes: int, resolution: int, channels: int
) -> nn.Module:
    """A generator with initial weights still to be drawn: (z [N, z_dim], label int64 [N]) -> [N, C, H, W] in [-1, 1].

    `classes` 0 means unconditional: the label is left out. Raises ValueError for an unknown name or arguments that do
    not fit the resolution.
    """
    module, config = _config(architecture)
    return module.Generator(config, z_dim=z_dim, classes=classes, resolution=resolution, channels=channels)


def build_discriminator(architecture: dict[str, Any], *, classes: int, resolution: int, channels: int) -> nn.Module:
    """The matching discriminator: (images [N, C, H, W], label int64 [N]) -> logits [N]."""
    module, config = _config(architecture)
    return module.Discriminator(config, classes=classes, resolution=resolution, channels=channels)


def initialise(name: str, network: nn.Module, generator: torch.Generator) -> None:
    """Draw the initial weights of a network that was built under `name`, in place."""
    _module(name).initialise(network, generator)
