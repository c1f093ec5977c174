"""One training step of a generator and a discriminator, and the moving average that is kept.

Everything random enters through the batch: see `gan.batches`. The discriminator's update comes first, or several of
them, then the generator's, each on an independent batch as in R3GAN or both on one as in PyTorch's DCGAN example, then
the moving average. An update takes its batch in one or several parts, whose gradients add up before it, and other
processes may hold the rest: see `gan.exchange`. Losses are means over images, so parts and processes of equal size give
what one large batch would.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gan import augmentation, chance, layers, piecewise
from gan.batches import Batch
from gan.exchange import GradientMean
from gan.objective import Adaptive, Objective
from gan.optimizers import optimizer, set_rates
from gan.penalties import one_centred, penalty, squared_gradients


@dataclasses.dataclass
class Players:
    """The networks and optimisers of one run; `average` is the generator's exponential moving average, `strength` the
    present strength of adaptive augmentation, a scalar."""

    generator: nn.Module
    discriminator: nn.Module
    average: nn.Module
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer
    generator_exchange: GradientMean
    discriminator_exchange: GradientMean
    strength: Tensor
    group: "dist.ProcessGroup | None" = None


def assemble(
    generator: nn.Module, discriminator: nn.Module, *, lr: float, betas: tuple[float, float],
    group: "dist.ProcessGroup | None" = None,
    kinds: Sequence[Mapping[str, Any]] = ({"name": "adam"}, {"name": "adam"}),
) -> Players:  # fmt: skip
    """Optimisers, moving average and exchange of gradients for two initialised networks.

    `kinds` are the generator's and the discriminator's optimiser, as settings of `gan.optimizers.optimizer`. `group` is
    what processes send gradients and batch statistics over: None for the default group, or for one process.
    """
    average = copy.deepcopy(generator).requires_grad_(False).eval()
    nets = (generator, discriminator)
    for net in nets:
        layers.use_group(net, group)
    g, d = (optimizer(network=net, lr=lr, betas=betas, **kind) for net, kind in zip(nets, kinds, strict=True))
    exchange_g, exchange_d = (GradientMean(net.parameters(), group=group) for net in nets)
    strength = torch.zeros((), device=next(generator.parameters()).device)
    return Players(generator, discriminator, average, g, d, exchange_g, exchange_d, strength, group)


def step(
    players: Players,
    objective: Objective,
    take: Callable[[int], Sequence[Batch]],
    *,
    discriminator_steps: int = 1,
    shared: bool = False,
) -> dict[str, Tensor]:
    """Update the discriminator that many times and the generator once; returns the loss terms of the last updates.

    `take` gives the batches one after the other, by their number in the step, in parts. With `shared` the generator
    learns from the images that the discriminator saw last, as they were made then, but augmented anew: one pass of the
    generator and one batch less, and its activations in memory meanwhile.
    """
    for turn in range(discriminator_steps):
        parts = take(turn)
        if shared and turn == discriminator_steps - 1:
            parts = [dataclasses.replace(part, fake=_generated(players, objective, part)) for part in parts]
        terms = discriminator_step(players, objective, parts)
    return terms | generator_step(players, objective, parts if shared else take(discriminator_steps))


def discriminator_step(players: Players, objective: Objective, parts: Sequence[Batch]) -> dict[str, Tensor]:
    """Update the discriminator once; returns its loss terms as detached scalars (no synchronisation with a GPU).

    `parts` hold equally many images each.
    """
    layers.advance_norms(players.discriminator)
    players.discriminator_optimizer.zero_grad(set_to_none=True)
    found = []
    for batch in _one_by_one(parts, players.discriminator_exchange):
        found.append(_discriminator_gradients(players, objective, batch, 1 / len(parts)))
    _update(players.discriminator_optimizer, players.discriminator, objective)
    terms = _mean(found)
    if isinstance(objective.strength, Adaptive):
        _adapt(players, objective.strength, terms["sign_real"])
        terms["augmentation"] = players.strength.clone()
    return terms


def _discriminator_gradients(players: Players, objective: Objective, batch: Batch, share: float) -> dict[str, Tensor]:
    """Add `share` of this part's gradients to the discriminator's weights; returns its loss terms."""
    with torch.no_grad():
        fake = _generated(players, objective, batch).detach()
    joined = torch.cat([batch.images, fake])
    if (
        getattr(players.discriminator, "piecewise_linear", False)
        and objective.gammas
        and "between" not in objective.gammas
    ):
        return _piecewise_gradients(players, objective, batch, joined, share)
    centred = bool(objective.gammas.keys() & {"real", "fake"})
    if centred:
        joined.requires_grad_()
    logits = _joined_logits(players, objective, batch, joined)
    total, terms = _adversarial(objective, batch, logits)
    if centred:
        value, more = _penalties(objective, squared_gradients(logits, joined))
        total, terms = total + value, terms | more
    if "between" in objective.gammas:
        squared_between = _between(players, objective, batch, fake)
        terms["gradient_between"] = squared_between.mean()
        total = total + one_centred(squared_between, objective.gammas["between"])
    (total * share).backward()  # type: ignore[no-untyped-call]
    return terms


def _piecewise_gradients(
    players: Players, objective: Objective, batch: Batch, joined: Tensor, share: float
) -> dict[str, Tensor]:
    """The same for a discriminator that is linear around every image: see `gan.piecewise`."""
    label, keys = _doubled(batch)
    seen = _seen(players, objective, joined.requires_grad_(bool(objective.transforms)), keys)

    def discriminator(images: Tensor) -> Tensor:
        return _judged(players, objective, images, label, keys)

    recorded = piecewise.record(discriminator, seen)
    logits = recorded.logits.requires_grad_()
    total, terms = _adversarial(objective, batch, logits)
    (scales,) = torch.autograd.grad(total, logits)
    sides = [objective.gammas.get(side, 0.0) / len(batch.images) for side in ("real", "fake")]
    weights = torch.cat([batch.images.new_full((len(batch.images),), side) for side in sides])[:, None, None, None]
    if objective.transforms:  # back through the augmentation, and forth: linear, so that its own gradient is itself
        slopes = recorded.gradients.requires_grad_()
        (gradients,) = torch.autograd.grad(seen, joined, slopes, create_graph=True)
        (steps,) = torch.autograd.grad(gradients, slopes, gradients.detach() * (weights * share))
        gradients = gradients.detach()
    else:
        gradients, steps = recorded.gradients, recorded.gradients * (weights * share)
    piecewise.accumulate(discriminator, recorded, scales * share, steps)
    return terms | _penalties(objective, gradients.square().flatten(1).sum(1))[1]


def _adversarial(objective: Objective, batch: Batch, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The adversarial loss of logits [2 N], real images' first, and the terms that are known of them."""
    real, fake = logits.chunk(2)
    value = objective.loss.discriminator_loss(*_swapped(objective, batch, real, fake))
    terms = {"loss_d": value, "logit_real": real.mean(), "logit_fake": fake.mean()}
    if isinstance(objective.strength, Adaptive):
        assert objective.loss.boundary is not None
        terms["sign_real"] = (real - objective.loss.boundary).sign().mean()
    return value, terms


def _penalties(objective: Objective, squared: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """R1 and R2, where the objective has them, from squared gradients [2 N], and their mean by side."""
    found = dict(zip(("real", "fake"), squared.chunk(2), strict=True))
    sides = [side for side in found if side in objective.gammas]
    value = torch.stack([penalty(found[side], objective.gammas[side]) for side in sides]).sum()
    return value, {f"gradient_{side}": found[side].mean() for side in sides}


def _doubled(batch: Batch) -> tuple[Tensor | None, Tensor | None]:
    """Labels and keys [2 N] of a batch's real images, then of their generated partners."""
    label = None if batch.label is None else torch.cat([batch.label, batch.label])
    real, fake = _sides(batch)
    return label, None if real is None or fake is None else torch.cat([real, fake])


def _joined_logits(players: Players, objective: Objective, batch: Batch, joined: Tensor) -> Tensor:
    """Logits [2 N] of real images, then generated ones; apart where the discriminator normalises by the batch."""
    label, keys = _doubled(batch)
    if not layers.has_batch_statistics(players.discriminator):
        return _logits(players, objective, joined, label, keys)
    size = len(batch.images)
    halves = (slice(None, size), slice(size, None))
    apart = [_logits(players, objective, joined[h], batch.label, None if keys is None else keys[h]) for h in halves]
    return torch.cat(apart)


def _between(players: Players, objective: Objective, batch: Batch, fake: Tensor) -> Tensor:
    """Squared gradients [N] at random points between real images and their generated partners."""
    assert batch.keys is not None
    share = chance.uniforms(batch.keys, chance.BETWEEN, 1)[:, :, None, None].to(fake.dtype)
    points = torch.lerp(batch.images, fake, share).requires_grad_()
    keys = chance.derived(batch.keys, chance.BETWEEN)
    return squared_gradients(_logits(players, objective, points, batch.label, keys), points)


def generator_step(players: Players, objective: Objective, parts: Sequence[Batch]) -> dict[str, Tensor]:
    """Update the generator once against a frozen discriminator; returns its loss as a detached scalar.

    `parts` hold equally many latents each; real images are looked at only if the loss is `paired`.
    """
    players.generator_optimizer.zero_grad(set_to_none=True)
    found = []
    with _frozen(players.discriminator):
        for batch in _one_by_one(parts, players.generator_exchange):
            real_keys, fake_keys = _sides(batch, chance.AGAIN if batch.fake is not None else None)
            real_logits = None
            if objective.loss.paired:
                with torch.no_grad():
                    real_logits = _logits(players, objective, batch.images, batch.label, real_keys)
            fake_logits = _logits(players, objective, _generated(players, objective, batch), batch.label, fake_keys)
            value = objective.loss.generator_loss(real_logits, fake_logits)
            (value / len(parts)).backward()  # type: ignore[no-untyped-call]
            found.append({"loss_g": value})
    _update(players.generator_optimizer, players.generator, objective)
    return _mean(found)


@contextlib.contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Gradients pass through the network and leave none in it."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def _one_by_one(parts: Sequence[Batch], exchange: GradientMean) -> Iterator[Batch]:
    """The parts of an update, whose gradients add up; those of the last one are exchanged with other processes."""
    yield from parts[:-1]
    with exchange:
        yield parts[-1]


def _sides(batch: Batch, view: int | None = None) -> tuple[Tensor | None, Tensor | None]:
    """Keys [N] of a batch's real images and of their generated partners; others for another `view` of the same ones."""
    if batch.keys is None:
        return None, None
    keys = batch.keys if view is None else chance.derived(batch.keys, view)
    return chance.derived(keys, chance.REAL), chance.derived(keys, chance.FAKE)


def _generated(players: Players, objective: Objective, batch: Batch) -> Tensor:
    """The generator's images [N, C, H, W] of a batch's latents, unless they were made already."""
    if batch.fake is not None:
        return batch.fake
    with _autocast(objective, batch.z):
        return _wide(players.generator(batch.z, batch.label))


def _logits(
    players: Players, objective: Objective, images: Tensor, label: Tensor | None, keys: Tensor | None
) -> Tensor:
    """The discriminator's answer [N] to images as it sees them: augmented and with noise."""
    return _judged(players, objective, _seen(players, objective, images, keys), label, keys)


def _seen(players: Players, objective: Objective, images: Tensor, keys: Tensor | None) -> Tensor:
    """Images as the discriminator sees them: augmented and with noise."""
    if objective.transforms:
        assert keys is not None
        adaptive = isinstance(objective.strength, Adaptive)
        strength: Tensor | float = players.strength if adaptive else objective.strength  # type: ignore[assignment]
        images = augmentation.augment(images, keys, objective.transforms, strength)
    if objective.instance_noise:
        assert keys is not None
        noise = chance.normals(keys, chance.NOISE, images[0].numel()).view_as(images)
        images = images + objective.instance_noise * noise.to(images.dtype)
    return images


def _judged(
    players: Players, objective: Objective, images: Tensor, label: Tensor | None, keys: Tensor | None
) -> Tensor:
    """The discriminator's answer [N] to what it sees."""
    with layers.keyed(players.discriminator, keys), _autocast(objective, images):
        return _wide(players.discriminator(images, label))


def _swapped(objective: Objective, batch: Batch, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [N] each, exchanged in the share of pairs that is given the wrong labels."""
    if not objective.label_noise:
        return real, fake
    assert batch.keys is not None
    wrong = chance.uniforms(batch.keys, chance.SWAP, 1)[:, 0] < objective.label_noise
    return torch.where(wrong, fake, real), torch.where(wrong, real, fake)


def _autocast(objective: Objective, images: Tensor) -> AbstractContextManager[object]:
    if objective.precision is None:
        return nullcontext()
    return torch.autocast(images.device.type, dtype=objective.precision)


def _wide(x: Tensor) -> Tensor:
    """Losses and images outside networks are float32 at least."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _update(found: torch.optim.Optimizer, network: nn.Module, objective: Objective) -> None:
    """Step with the gradients as they are, their norm clipped where asked."""
    if objective.gradient_clip is not None:
        torch.nn.utils.clip_grad_norm_(network.parameters(), objective.gradient_clip, foreach=True)
    found.step()


@torch.no_grad()
def _adapt(players: Players, rule: Adaptive, sign: Tensor) -> None:
    """Move the strength of augmentation by one step; `sign` is this process's mean, the rule is for that of all."""
    if players.discriminator_exchange.world > 1:
        sign = sign.clone()
        dist.all_reduce(sign, group=players.group)
        sign /= players.discriminator_exchange.world
    players.strength.add_((sign - rule.target).sign() * rule.change).clamp_(0, rule.limit)


def _mean(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Loss terms of a step from those of its parts, detached."""
    return {name: torch.stack([part[name].detach() for part in parts]).mean() for name in parts[0]}


@torch.no_grad()
def update_average(players: Players, *, images: int, images_done: int, halflife: float, ramp: float) -> None:
    """Move the average towards the generator after a step that showed so many images; half-life in images, at most
    `ramp` times the images seen before it.

    Running means of batch normalisation are averaged like weights.
    """
    span = min(halflife, ramp * images_done)
    decay = 0.5 ** (images / span) if span > 0 else 0.0
    averaged: list[Tensor] = [*players.average.parameters(), *players.average.buffers()]
    current: list[Tensor] = [*players.generator.parameters(), *players.generator.buffers()]
    torch._foreach_lerp_(averaged, current, 1 - decay)


def set_learning_rate(players: Players, lr: float, beta2: float | None = None) -> None:
    """Use `lr`, and `beta2` where given, in both optimisers from the next step on, each by its own factor."""
    for found in (players.generator_optimizer, players.discriminator_optimizer):
        group = found.param_groups[0]
        present = group["alpha"] if "alpha" in group else group["betas"][1]
        set_rates(found, lr=lr, beta2=present if beta2 is None else beta2)
