"""Optimisers by name, whose settings mean the same: `betas` are the decays of the running means of gradients and of
their squares (RMSprop, which keeps no mean of gradients, uses the second alone), epsilon is 1e-8."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

_EPSILON = 1e-8


def _adam(parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], decay: float) -> Any:
    return torch.optim.Adam(parameters, lr=lr, betas=betas, eps=_EPSILON, fused=True)


def _adamw(parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], decay: float) -> Any:
    return torch.optim.AdamW(parameters, lr=lr, betas=betas, eps=_EPSILON, weight_decay=decay, fused=True)


def _rmsprop(parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], decay: float) -> Any:
    return torch.optim.RMSprop(parameters, lr=lr, alpha=betas[1], eps=_EPSILON, foreach=True)


KINDS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": _adam, "adamw": _adamw, "rmsprop": _rmsprop}


def optimizer(
    name: str,
    network: nn.Module,
    *,
    lr: float,
    betas: tuple[float, float],
    factor: float = 1.0,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """One of KINDS over all weights of `network`, with `factor` times the learning rate; `weight_decay` is adamw's."""
    made = KINDS[name](network.parameters(), lr * factor, betas, weight_decay)
    for group in made.param_groups:
        group["factor"] = factor
    return made


def set_rates(found: torch.optim.Optimizer, *, lr: float, beta2: float) -> None:
    """Use these from the next step on; `lr` is multiplied by the optimiser's factor."""
    for group in found.param_groups:
        group["lr"] = lr * group["factor"]
        if "alpha" in group:
            group["alpha"] = beta2
        else:
            group["betas"] = (group["betas"][0], beta2)
