"""One training step of a generator and a discriminator, and the moving average that is kept.

Everything random enters through the batch: see `Batch`. Follows R3GAN's order: the discriminator's step, then the
generator's on a second, independent batch, then the moving average.
"""

import copy
import dataclasses
import math
from collections.abc import Mapping
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gan import latents
from gan.penalties import penalty, squared_gradients


@dataclasses.dataclass(frozen=True)
class Batch:
    """Real images [N, C, H, W] in [-1, 1], their labels int64 [N] or None, and as many latents [N, z_dim]."""

    images: Tensor
    label: Tensor | None
    z: Tensor


def draw(seed: int, step: int, batch: int, images: int, z_dim: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Image indices int64 [2 * batch] and latents float32 [2 * batch, z_dim] of one step, a pure function of them.

    The first half serves the discriminator, the second the generator. Images are drawn with replacement.
    """
    samples = np.arange(step * 2 * batch, (step + 1) * 2 * batch)
    numbers = latents.uniforms(seed, latents.TRAINING, samples, 1 + z_dim)
    indices = np.minimum((numbers[:, 0] * images).astype(np.int64), images - 1)
    return indices, latents.inverse_normal_cdf(numbers[:, 1:]).astype(np.float32)


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` at progress 0 to `end` at progress 1, constant outside."""
    return end + (start - end) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2


@dataclasses.dataclass
class Players:
    """The networks and optimisers of one run; `average` is the generator's exponential moving average."""

    generator: nn.Module
    discriminator: nn.Module
    average: nn.Module
    generator_optimizer: torch.optim.Adam
    discriminator_optimizer: torch.optim.Adam


def assemble(generator: nn.Module, discriminator: nn.Module, *, lr: float, betas: tuple[float, float]) -> Players:
    """Optimisers and moving average for two initialised networks (Adam, eps 1e-8, fused)."""
    average = copy.deepcopy(generator).requires_grad_(False)
    optimizers = [
        torch.optim.Adam(net.parameters(), lr=lr, betas=betas, fused=True) for net in (generator, discriminator)
    ]
    return Players(generator, discriminator, average, *optimizers)


def discriminator_step(
    players: Players, loss: ModuleType, batch: Batch, gammas: Mapping[str, float]
) -> dict[str, Tensor]:
    """Update the discriminator once; returns its loss terms as detached scalars (no synchronisation with a GPU).

    `gammas` maps "real" (R1) and "fake" (R2) to the weight of that penalty; a side that is absent is not penalised.
    """
    with torch.no_grad():
        fake = players.generator(batch.z, batch.label)
    joined = torch.cat([batch.images, fake])
    if gammas:
        joined.requires_grad_()
    label = None if batch.label is None else torch.cat([batch.label, batch.label])
    logits = players.discriminator(joined, label)
    real_logits, fake_logits = logits.chunk(2)
    adversarial = loss.discriminator_loss(real_logits, fake_logits)
    terms = {"loss_d": adversarial, "logit_real": real_logits.mean(), "logit_fake": fake_logits.mean()}
    total = adversarial
    if gammas:
        sides = dict(zip(("real", "fake"), squared_gradients(logits, joined).chunk(2), strict=True))
        for side, gamma in gammas.items():
            terms[f"gradient_{side}"] = sides[side].mean()
            total = total + penalty(sides[side], gamma)
    players.discriminator_optimizer.zero_grad(set_to_none=True)
    total.backward()
    players.discriminator_optimizer.step()
    return {name: value.detach() for name, value in terms.items()}


def generator_step(players: Players, loss: ModuleType, batch: Batch) -> dict[str, Tensor]:
    """Update the generator once against a frozen discriminator; returns its loss as a detached scalar."""
    players.discriminator.requires_grad_(False)
    with torch.no_grad():
        real_logits = players.discriminator(batch.images, batch.label)
    value = loss.generator_loss(
        real_logits, players.discriminator(players.generator(batch.z, batch.label), batch.label)
    )
    players.generator_optimizer.zero_grad(set_to_none=True)
    value.backward()
    players.generator_optimizer.step()
    players.discriminator.requires_grad_(True)
    return {"loss_g": value.detach()}


@torch.no_grad()
def update_average(players: Players, *, batch: int, images_done: int, halflife: float, ramp: float) -> None:
    """Move the average towards the generator; half-life in images, at most `ramp` times the images seen so far."""
    span = min(halflife, ramp * images_done)
    decay = 0.5 ** (batch / span) if span > 0 else 0.0
    averaged: list[Tensor] = list(players.average.parameters())
    current: list[Tensor] = list(players.generator.parameters())
    torch._foreach_lerp_(averaged, current, 1 - decay)
    for target, source in zip(players.average.buffers(), players.generator.buffers(), strict=True):
        target.copy_(source)


def set_learning_rate(players: Players, lr: float) -> None:
    """Use `lr` in both optimisers from the next step on."""
    for optimizer in (players.generator_optimizer, players.discriminator_optimizer):
        for group in optimizer.param_groups:
            group["lr"] = lr
