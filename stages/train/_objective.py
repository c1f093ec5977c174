"""What a step minimises at a moment of the run: the schedules of the section, and its settings as `gan` takes them.

Everything counts images since the start, so a resumed run and a longer one have the same schedules.
"""

import dataclasses
from typing import Any

import torch

from gan import training
from gan.augmentation import Variation
from gan.objective import Adaptive, Objective, cosine
from gan.penalties import SIDES
from gan.training import Players
from stages.config.train import TrainConfig


def objective(config: TrainConfig, done: int) -> Objective:
    """The objective after `done` images."""
    burn_in = done / (config.burn_in_kimg * 1000)
    augmentation: Any = config.augmentation
    strength: float | Adaptive = 0.0
    if augmentation.name == "scheduled":
        strength = cosine(augmentation.strength, augmentation.strength_final, burn_in)
    elif augmentation.name == "adaptive":
        change = config.batch / (augmentation.ramp_kimg * 1000)
        strength = Adaptive(target=augmentation.target, change=change, limit=augmentation.limit)
    return Objective(
        loss=config.loss,
        gammas={SIDES[p.name]: cosine(p.gamma, p.gamma_final, burn_in) for p in config.penalties},
        transforms=() if augmentation.name == "none" or strength == 0 else augmentation.transforms,
        strength=strength,
        instance_noise=cosine(config.instance_noise, 0.0, burn_in),
        label_noise=config.label_noise,
        gradient_clip=config.gradient_clip,
        precision=None if config.precision == "float32" else torch.bfloat16,
    )


def set_rates(config: TrainConfig, players: Players, done: int) -> None:
    """Give both optimisers their learning rate and `beta2` for the step after `done` images."""
    lr = cosine(config.lr, config.lr_final, done / (config.lr_kimg * 1000))
    beta2 = cosine(config.beta2, config.beta2_final, done / (config.burn_in_kimg * 1000))
    training.set_learning_rate(players, lr, beta2)


def halflife(config: TrainConfig, done: int) -> float:
    """Of the moving average, in images."""
    start, end = config.ema_halflife_start_kimg * 1000, config.ema_halflife_kimg * 1000
    return cosine(start, end, done / (config.burn_in_kimg * 1000))


def scheduled(config: TrainConfig, players: Players, done: int) -> dict[str, float]:
    """What the schedules gave the step just taken, after `done` images: learning rates as both optimisers had them, the
    moving average's half-life in thousand images; what is switched off is left out."""
    present, found = objective(config, done), dict[str, float]()
    for side, optimizer in (("d", players.discriminator_optimizer), ("g", players.generator_optimizer)):
        group = optimizer.param_groups[0]
        found[f"lr_{side}"] = group["lr"]
    found["beta2"] = group["alpha"] if "alpha" in group else group["betas"][1]
    found |= {f"gamma_{p.name}": present.gammas[SIDES[p.name]] for p in config.penalties}
    found["ema_halflife_kimg"] = min(halflife(config, done), config.ema_ramp * done) / 1000
    if config.augmentation.name == "scheduled" and isinstance(present.strength, float):
        found["augmentation"] = present.strength
    if config.instance_noise:
        found["instance_noise"] = present.instance_noise
    return found


def kinds(config: TrainConfig) -> list[dict[str, Any]]:
    """Settings of the generator's and the discriminator's optimiser for `gan.training.assemble`."""
    return [dataclasses.asdict(each) for each in (config.optimizers.generator, config.optimizers.discriminator)]


def variation(config: TrainConfig) -> Variation:
    """How the real images are varied."""
    return Variation(**dataclasses.asdict(config.variations))
