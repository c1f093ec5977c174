"""Networks by name: each is a file of this folder that holds `Arguments`, `Generator` and `Discriminator`.

A network is described by `{"name": file, "arguments": {...}}`, which is what `generator.json` carries; z_dim, classes,
resolution and channels come from the data and the run.
"""

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["build_discriminator", "build_generator", "initialise"]


def _module(name: str) -> Any:
    known = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")
    if name not in known:
        raise ValueError(f"network name must be one of {', '.join(known)}; received {name!r}")
    return importlib.import_module(f"gan.networks.{name}")


def build_generator(
    architecture: dict[str, Any], *, z_dim: int, classes: int, resolution: int, channels: int
) -> nn.Module:
    """A generator with initial weights still to be drawn: (z [N, z_dim], label int64 [N]) -> [N, C, H, W] in [-1, 1].

    `classes` 0 means unconditional: the label is left out. Raises ValueError for an unknown name or arguments that do
    not fit the resolution.
    """
    module = _module(architecture["name"])
    arguments = module.Arguments(**architecture["arguments"])
    return module.Generator(arguments, z_dim=z_dim, classes=classes, resolution=resolution, channels=channels)


def build_discriminator(architecture: dict[str, Any], *, classes: int, resolution: int, channels: int) -> nn.Module:
    """The matching discriminator: (images [N, C, H, W], label int64 [N]) -> logits [N]."""
    module = _module(architecture["name"])
    arguments = module.Arguments(**architecture["arguments"])
    return module.Discriminator(arguments, classes=classes, resolution=resolution, channels=channels)


def initialise(name: str, network: nn.Module, generator: torch.Generator) -> None:
    """Draw the initial weights of a network that was built under `name`, in place."""
    _module(name).initialise(network, generator)
