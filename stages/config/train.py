"""Section `train` of params.yaml."""

import dataclasses
from typing import Annotated, Any, Literal, Protocol

from stages.config import FileOf, Range


class Network(Protocol):
    """What every `Config` of gan/networks/ has; the rest is in the file of that name."""

    @property
    def name(self) -> str: ...
    @property
    def batch_statistics(self) -> frozenset[str]: ...
    @property
    def bounded(self) -> bool: ...
    @property
    def group(self) -> int: ...


class Loss(Protocol):
    """What every `Config` of gan/losses/ has; see there."""

    @property
    def name(self) -> str: ...
    @property
    def paired(self) -> bool: ...
    @property
    def boundary(self) -> float | None: ...
    def discriminator_loss(self, real: Any, fake: Any) -> Any: ...
    def generator_loss(self, real: Any, fake: Any) -> Any: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Penalty:
    """Gradient penalty on real (r1) or generated images (r2), or one that pulls gradient norms between them to 1
    (wgan_gp); its weight falls by a cosine over the burn-in."""

    name: Literal["r1", "r2", "wgan_gp"]
    gamma: Annotated[float, Range(gt=0)]
    """Weight at the start; it must be tuned to the data, and scales with the resolution."""
    gamma_final: Annotated[float, Range(gt=0)]
    """Weight from the end of the burn-in on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam with `lr`, `beta1` and `beta2` of the section."""

    name: Literal["adam"]
    factor: Annotated[float, Range(gt=0, le=100)]
    """Times the learning rate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay."""

    name: Literal["adamw"]
    factor: Annotated[float, Range(gt=0, le=100)]
    """Times the learning rate."""
    weight_decay: Annotated[float, Range(gt=0, lt=1)]
    """Share of a weight that each step takes off, before it is multiplied by the learning rate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RMSprop:
    """RMSprop, with `beta2` as the decay of its squares; it keeps no mean, so `beta1` must be 0."""

    name: Literal["rmsprop"]
    factor: Annotated[float, Range(gt=0, le=100)]
    """Times the learning rate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizers:
    """The optimiser of each network."""

    generator: Adam | AdamW | RMSprop
    discriminator: Adam | AdamW | RMSprop


Transform = Literal["flip", "turn", "shift", "zoom", "rotation", "colour", "cutout"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoAugmentation:
    """The discriminator sees images as they are."""

    name: Literal["none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheduled:
    """Real and generated images are augmented; the probability goes by a cosine over the burn-in."""

    name: Literal["scheduled"]
    transforms: tuple[Transform, ...]
    """Those that may be applied, each by its own draw."""
    strength: Annotated[float, Range(ge=0, le=0.8)]
    """Probability of each transform at the start."""
    strength_final: Annotated[float, Range(ge=0, le=0.8)]
    """Probability of each transform from the end of the burn-in on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptive:
    """Real and generated images are augmented; the probability follows how sure the discriminator is of real ones."""

    name: Literal["adaptive"]
    transforms: tuple[Transform, ...]
    """Those that may be applied, each by its own draw."""
    target: Annotated[float, Range(gt=-1, lt=1)]
    """Mean sign of the logits of real images, seen from the loss's boundary, above which the probability grows."""
    ramp_kimg: Annotated[float, Range(gt=0)]
    """Thousand images over which the probability can go from 0 to 1."""
    limit: Annotated[float, Range(gt=0, le=0.8)]
    """Largest probability; above 0.8 augmentation shows in what is generated."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variations:
    """Of the real images alone: the generator learns to draw these variants too."""

    flip: bool
    """Mirror half of them."""
    rotation: Annotated[float, Range(ge=0, le=180)]
    """Degrees at most, either way."""
    zoom: Annotated[float, Range(ge=0, le=0.5)]
    """Share at most by which they are enlarged or shrunk."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomInit:
    """Weights drawn from the run's seed."""

    name: Literal["none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Generator and discriminator of another training, in the folder `init_from`."""

    name: Literal["weights"]
    sha256: str
    """Digest of that folder, as `python -m stages.warm_start` prints it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoSelection:
    """Nothing is measured while training; the last generator is published."""

    name: Literal["none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DomainSelection:
    """Measures on the domain features, against the train split."""

    name: Literal["domain"]
    metric: Literal["fid_train", "precision_train", "recall_train", "density_train", "coverage_train"]
    """What best means."""
    keep: Literal["best", "last"]
    """Which generator is published."""
    every_kimg: Annotated[float, Range(gt=0)]
    """Thousand images between two evaluations."""
    images: Annotated[int, Range(ge=100, le=100_000)]
    """Generated images per evaluation, and training images at most."""
    seed: Annotated[int, Range(ge=0, lt=2**63)]
    """Key of their latents and labels; another one than the run's, evaluate's and audit's."""
    patience_kimg: Annotated[float, Range(gt=0)] | None
    """Thousand images without a better value after which the run stops; null: it spends its budget."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alarms:
    """What is said and recorded when it happens; see `Rollbacks` for what is done."""

    loss: Annotated[float, Range(gt=0)]
    """Magnitude of loss_d or loss_g above which training counts as diverged; a loss that is not finite always does."""
    collapse: Annotated[float, Range(ge=0, lt=1)]
    """Share of the largest coverage or diversity so far below which the generator counts as collapsed."""
    separation: Annotated[float, Range(ge=0.5, le=1)]
    """Share of pairs that the discriminator may put in order; above it, it has learnt the training images by heart."""
    in_a_row: Annotated[int, Range(ge=1, le=100)]
    """Evaluations in a row that must show collapse or overfitting."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rollbacks:
    """What an alarm does: nothing with `most` 0, else the run goes back to its last good checkpoint."""

    most: Annotated[int, Range(ge=0, le=100)]
    """How often at most; after that the run ends with its best moment where it keeps the best, and fails otherwise."""
    reseed: bool
    """Whether it goes on with other batches and latents."""
    lr_factor: Annotated[float, Range(gt=0, le=1)]
    """What learning rates are multiplied by each time."""

    def __post_init__(self) -> None:
        if self.most and not self.reseed and self.lr_factor == 1:
            raise ValueError("rollbacks that change nothing end where they began; set reseed or lower lr_factor")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. Budgets and intervals count thousands of real images shown to the discriminator (kimg)."""

    seed: Annotated[int, Range(ge=0, lt=2**63)]
    """Of initial weights, batches, latents and the sample grids."""
    threads: Annotated[int, Range(ge=1, le=64)]
    """CPU threads; part of the run's identity, since another count changes the last bits."""
    network: Annotated[Network, FileOf("gan.networks")]
    """Generator and discriminator: a file of gan/networks/ and its settings."""
    z_dim: Annotated[int, Range(ge=1, le=1024)]
    """Size of a latent."""
    loss: Annotated[Loss, FileOf("gan.losses")]
    """The adversarial loss of both networks: a file of gan/losses/ and its settings."""
    penalties: tuple[Penalty, ...]
    """Gradient penalties on the discriminator, each at most once; their weights must be tuned to the data."""
    optimizers: Optimizers
    augmentation: NoAugmentation | Scheduled | Adaptive
    """Of real and generated images alike, before the discriminator sees them."""
    variations: Variations
    balance: Literal["none", "classes"]
    """Which are drawn equally often: `none`: all images; `classes`: all classes."""
    label_noise: Annotated[float, Range(ge=0, lt=0.5)]
    """Share of pairs in which the real and the generated image exchange their labels "real" and "generated"."""
    instance_noise: Annotated[float, Range(ge=0, le=10)]
    """Standard deviation, at the start, of noise on what the discriminator sees; 0 at the end of the burn-in."""
    gradient_clip: Annotated[float, Range(gt=0)] | None
    """Largest norm of a network's gradient; null: gradients are taken as they are."""
    precision: Literal["float32", "bfloat16", "float16"]
    """Arithmetic of the networks; their 4x4 stages, weights and losses stay in float32. float16 is refused."""
    batch: Annotated[int, Range(ge=2, le=65536)]
    """Images of one update, of all processes together."""
    discriminator_steps: Annotated[int, Range(ge=1, le=100)]
    """Updates of the discriminator for each of the generator, every one with a batch of its own."""
    generator_batch: Literal["fresh", "shared"]
    """What the generator's update sees: a batch of its own, or that of the discriminator's last update."""
    processes: Annotated[int, Range(ge=0, le=1024)]
    """Processes on this machine; 0: one per GPU, or one without GPU. No part of the run's identity."""
    parts: Annotated[int, Range(ge=1, le=65536)]
    """Pieces of a process's share of a batch, one after the other, where memory is short; the gradient is the same."""
    total_kimg: Annotated[float, Range(gt=0)]
    """The budget: thousand real images shown to the discriminator. No schedule depends on it."""
    burn_in_kimg: Annotated[float, Range(gt=0)]
    """Thousand images over which penalties, `beta2`, the moving average's half-life, scheduled augmentation and
    instance noise go from their start to their end."""
    lr: Annotated[float, Range(gt=0, lt=1)]
    """Learning rate at the start."""
    lr_final: Annotated[float, Range(gt=0, lt=1)]
    """Learning rate from `lr_kimg` on."""
    lr_kimg: Annotated[float, Range(gt=0)]
    """Thousand images over which the learning rate goes from `lr` to `lr_final`, by a cosine."""
    beta1: Annotated[float, Range(ge=0, lt=1)]
    """Decay of the optimisers' mean of gradients."""
    beta2: Annotated[float, Range(ge=0, lt=1)]
    """Decay of the optimisers' mean of squared gradients, at the start."""
    beta2_final: Annotated[float, Range(ge=0, lt=1)]
    """The same at the end of the burn-in."""
    ema_halflife_start_kimg: Annotated[float, Range(ge=0)]
    """Half-life of the moving average of the generator's weights, which is published: thousand images, at the start."""
    ema_halflife_kimg: Annotated[float, Range(gt=0)]
    """The same at the end of the burn-in."""
    ema_ramp: Annotated[float, Range(gt=0, le=1)]
    """The half-life is at most this share of the images shown so far, so that the first weights are soon forgotten."""
    snapshot_kimg: Annotated[float, Range(gt=0)]
    """Thousand images between two sample grids."""
    checkpoint_kimg: Annotated[float, Range(gt=0)]
    """Thousand images between two checkpoints."""
    tensorboard: bool
    """Whether event files are written to the state folder, where tensorboard is installed; they change no result."""
    init: RandomInit | Weights
    """What the run begins with."""
    init_from: str
    """Folder of the networks that `init` pins, an input of the stage; any other file where it pins none."""
    selection: NoSelection | DomainSelection
    """Whether the run is measured while it trains, and what follows from the measures."""
    selection_inputs: str
    """Folder `selection` that reference wrote, an input of the stage; any other file where nothing is measured."""
    alarms: Alarms
    rollbacks: Rollbacks

    def __post_init__(self) -> None:
        check_combinations(self)
        names = [penalty.name for penalty in self.penalties]
        if len(set(names)) < len(names):
            raise ValueError(f"penalties must name each penalty once; received {', '.join(names)}")
        if not self.steps:
            raise ValueError(
                f"total_kimg must hold at least one step, batch times discriminator_steps; received "
                f"{self.total_kimg:g} for {self.images_a_step} images"
            )

    @property
    def images_a_step(self) -> int:
        """Real images that the discriminator is shown for one step of the generator."""
        return self.batch * self.discriminator_steps

    @property
    def steps(self) -> int:
        """Whole steps in the budget, whose images are rounded first: 1000 times the float 516.8 is below 516,800."""
        return round(self.total_kimg * 1000) // self.images_a_step

    @property
    def batches_a_step(self) -> int:
        """Batches drawn for one step of the generator."""
        return self.discriminator_steps + (self.generator_batch == "fresh")


def check_combinations(config: TrainConfig) -> None:
    """Raises ValueError, with the reason, where settings make no sense together."""
    network, loss = config.network, config.loss
    penalties = {penalty.name for penalty in config.penalties}
    if penalties and "discriminator" in network.batch_statistics:
        raise ValueError(
            f"penalties ({', '.join(sorted(penalties))}) need a discriminator without batch normalisation, in which "
            "each logit depends on all images and no image has a gradient of its own; set network.norm to spectral or "
            "none"
        )
    if "wgan_gp" in penalties and penalties & {"r1", "r2"}:
        raise ValueError("penalties must not pull gradients to 0 (r1, r2) and to 1 (wgan_gp) at once; choose one kind")
    if "wgan_gp" in penalties and network.group > 1:
        raise ValueError(
            f"penalties (wgan_gp) need a discriminator that looks at one image at a time: in groups of {network.group} "
            "each logit depends on all of them and no image has a gradient of its own; set network.minibatch to none "
            "and network.group to 1, or use r1"
        )
    if loss.name == "wasserstein" and not penalties and not network.bounded:
        raise ValueError(
            "loss wasserstein has no lower bound unless the discriminator's slope has one; add a penalty such as "
            "{name: wgan_gp, gamma: 10, gamma_final: 10}, or use spectral norms without minibatch discrimination, "
            "which has none"
        )
    if config.precision == "float16":
        raise ValueError(
            "precision float16 would need loss scaling, which is not implemented; use bfloat16, which needs none"
        )
    if network.batch_statistics and config.parts > 1:
        raise ValueError(
            f"parts must be 1 for network {network.name}: its batch statistics are those of the whole batch, which "
            f"parts one after the other do not see; received {config.parts}, use more processes instead"
        )
    if config.generator_batch == "shared" and config.parts > 1:
        raise ValueError(
            f"parts must be 1 with generator_batch shared, which keeps the generator's images and activations of the "
            f"whole batch until its update; received {config.parts}, use more processes or generator_batch fresh"
        )
    for side, optimizer in (
        ("generator", config.optimizers.generator),
        ("discriminator", config.optimizers.discriminator),
    ):
        if optimizer.name == "rmsprop" and config.beta1:
            raise ValueError(
                f"optimizers.{side} rmsprop keeps no mean of gradients: beta1 must be 0; received {config.beta1:g}"
            )
    if config.augmentation.name == "adaptive" and loss.boundary is None:
        raise ValueError(
            f"augmentation adaptive reads the sign of logits, and loss {loss.name} leaves their level open; "
            "use scheduled"
        )
    if config.augmentation.name != "none" and not config.augmentation.transforms:
        raise ValueError("augmentation.transforms must name a transform, or augmentation be {name: none}")
