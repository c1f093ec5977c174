"""The training loop: steps, curves, snapshots and checkpoints. All its randomness is a function of (seed, step)."""

import contextlib
import functools
import logging
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gan import layers, networks, training
from gan.training import Players
from stages.config.train import TrainConfig
from stages.store import Store
from stages.train import _control as control_rules
from stages.train._ancestry import Start
from stages.train._board import Board
from stages.train._checkpoints import Position, load_newest, save_checkpoint
from stages.train._course import alarm, go_back, measure
from stages.train._feed import Feed
from stages.train._measure import Yardstick
from stages.train._memory import explained, ran_out
from stages.train._meter import Meter
from stages.train._objective import halflife, kinds, objective, scheduled, set_rates
from stages.train._processes import Processes
from stages.train._samples import snapshot, snapshot_due
from stages.train._stopper import Stopper

_log = logging.getLogger(__name__)
_LOG_EVERY = 20  # steps between two looks at the losses; each look waits for the device


def architecture(config: TrainConfig) -> dict[str, object]:
    """The network as `generator.json` describes it."""
    return networks.describe(config.network)


def assemble(config: TrainConfig, store: Store, processes: Processes) -> Players:
    """Networks with their initial weights, drawn from the run's seed on the CPU, and their optimisers."""
    shape = {key: store.info[key] for key in ("resolution", "channels")} | {"classes": len(store.classes)}
    nets = [
        networks.build_generator(architecture(config), z_dim=config.z_dim, **shape),
        networks.build_discriminator(architecture(config), **shape),
    ]
    randomness = torch.Generator().manual_seed(config.seed)
    for net in nets:
        networks.initialise(config.network.name, net, randomness)
        net.to(processes.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 1.1 to 1.3 times faster
    return training.assemble(
        *nets, lr=config.lr, betas=(config.beta1, config.beta2), group=processes.gradients, kinds=kinds(config)
    )


class Run:
    """One run from its state folder to its last step."""

    def __init__(
        self,
        config: TrainConfig,
        store: Store,
        state: Path,
        processes: Processes,
        *,
        yardstick: Yardstick | None = None,
        start: Start | None = None,
    ) -> None:
        self.config, self.store, self.state, self.processes = config, store, state, processes
        self.start, self.yardstick, self.meter = start, yardstick, Meter(state, processes.device)
        self.split = store.splits["train"]
        _check_batch(config, processes, images=len(self.split))
        self.feed = Feed(config, self.split, processes, labelled=bool(store.classes))
        self.renew()
        self.steps = config.steps
        self.take(load_newest(state, self.players, processes, up_to=self.steps))
        if not self.step and start is not None:
            self.control.ancestry = start.ancestry

    def fresh(self) -> Players:
        """Networks with the seed's initial weights."""
        return assemble(self.config, self.store, self.processes)

    def renew(self) -> None:
        """Networks and optimisers as at the start."""
        self.players = self.fresh()
        if self.start is not None:
            self.start.into(self.players)

    def take(self, position: Position) -> None:
        """Go on from a checkpoint. Drops the row that a shorter budget logged only because it ended there."""
        step, rows, control = position
        self.step, self.control = step, control
        ends = (self.steps, step) if control.stopped is not None else (self.steps,)
        self.rows = [row for row in rows if row["step"] % _LOG_EVERY == 0 or row["step"] in ends]
        control.alarms = [one for one in control.alarms if self.regular(one["step"]) or one["step"] == self.steps]
        control.measures = [row for row in control.measures if self.due_at(int(row["step"]), "selection")]
        self.feed.reseed(control_rules.seed(self.config, control.attempt))

    def one_step(self) -> dict[str, Tensor]:
        """Make all updates and move the average; returns the loss terms of each network's last update as tensors.

        Raises ValueError, with the batch that would fit, where a GPU's memory runs out.
        """
        try:
            return self._one_step()
        except RuntimeError as error:
            if not ran_out(error):
                raise
            said = str(error)
        raise explained(self, said)

    def _one_step(self) -> dict[str, Tensor]:
        config, done = self.config, self.images
        present = objective(config, done)
        set_rates(config, self.players, done)
        self._slow_down()
        terms = training.step(
            self.players,
            present,
            functools.partial(self.feed.take, self.step),
            discriminator_steps=config.discriminator_steps,
            shared=config.generator_batch == "shared",
        )
        training.update_average(
            self.players,
            images=config.images_a_step,
            images_done=done,
            halflife=halflife(config, done),
            ramp=config.ema_ramp,
        )
        self.step += 1
        return terms

    def _slow_down(self) -> None:
        """Lower the learning rates of this step after the run went back."""
        factor = control_rules.slowed(self.config, self.control.attempt)
        if factor != 1:
            for optimizer in (self.players.generator_optimizer, self.players.discriminator_optimizer):
                for group in optimizer.param_groups:
                    group["lr"] *= factor

    def note(self, terms: dict[str, Tensor]) -> tuple[dict[str, float], bool]:
        """(row of the loss terms, whether the run must go back); a finite row is added to the curves."""
        row = {"step": float(self.step), "kimg": self.images / 1000}
        means = self.processes.mean(torch.stack(list(terms.values())).tolist())
        row |= {name: round(value, 6) for name, value in zip(terms, means, strict=True)}
        if not np.isfinite(list(row.values())).all():
            return row, alarm(self, "divergence", f"{row}", fatal=True)
        limit, before = self.config.alarms.loss, self.rows[-1] if self.rows else {}
        self.rows.append(row)
        largest = max(("loss_d", "loss_g"), key=lambda name: abs(row[name]))
        if abs(row[largest]) > limit and (self.config.rollbacks.most or abs(before.get(largest, 0.0)) <= limit):
            return row, alarm(self, "divergence", f"{largest} is {row[largest]:.6g}, the limit {limit:g}")
        return row, False

    def regular(self, step: int) -> bool:
        """True at steps at which any budget would have looked, measured or saved."""
        kinds = ["checkpoint_kimg"] + (["selection"] if self.yardstick else [])
        if step % _LOG_EVERY == 0 or any(step % self.interval(kind) == 0 for kind in kinds):
            return True
        return step != self.steps and snapshot_due(self, step)

    def save(self) -> None:
        """Checkpoint the present step."""
        self.processes.check_equal(self.tensors(alike=True))
        if self.processes.first:
            save_checkpoint(self.state, self.players, Position(self.step, self.rows, self.control))

    def finite(self) -> bool:
        """False where a weight, or a running mean, is not a number any more."""
        return bool(torch.stack([torch.isfinite(tensor).all() for tensor in self.tensors()]).all())

    def tensors(self, *, alike: bool = False) -> list[Tensor]:
        """Weights, running means and singular vectors of all three networks. `alike` leaves out the singular vectors:
        each process iterates its own, and different GPUs round them differently."""
        nets = (self.players.generator, self.players.discriminator, self.players.average)
        left_out = {id(vector) for net in nets for vector in layers.singular_vectors(net)} if alike else set()
        found = [tensor for net in nets for tensor in (*net.parameters(), *net.buffers())]
        return [tensor for tensor in found if id(tensor) not in left_out]

    def checkpoint(self) -> None:
        """Checkpoint a step at which one is due."""
        if self.step % self.interval("checkpoint_kimg") == 0:
            self.control.checkpointed(self.config, self.step)
        self.save()

    def due(self, setting: str) -> bool:
        """True at the step that completes another interval of that setting (thousand images), and at the last one."""
        return self.due_at(self.step, setting)

    def due_at(self, step: int, setting: str) -> bool:
        return step % self.interval(setting) == 0 or step == self.steps

    def interval(self, setting: str) -> int:
        """Steps between two of what a setting spaces: snapshots, checkpoints or, for `selection`, evaluations."""
        selection = self.config.selection
        kimg = getattr(self.config, setting) if setting != "selection" else getattr(selection, "every_kimg", 1.0)
        return max(1, round(kimg * 1000 / self.config.images_a_step))

    @property
    def images(self) -> int:
        """Real images shown so far."""
        return self.step * self.config.images_a_step

    @property
    def finished(self) -> bool:
        """True where no step is left to take."""
        return self.step >= self.steps or self.control.stopped is not None

    def to_the_end(self) -> None:
        """Train until the budget is spent; where it stops earlier, the work is saved."""
        stopper, before = Stopper(), self.step
        meter = self.meter = Meter(self.state, self.processes.device)
        board = self.board = Board(self)
        quiet = None if self.processes.first else True
        bar = tqdm(total=self.steps, initial=self.step, unit="step", desc="train", disable=quiet, smoothing=0.05)
        with stopper.listening(), bar, contextlib.closing(self.feed), contextlib.closing(board):
            while not self.finished:
                terms = self.one_step()
                bar.update()
                meter.images += self.config.images_a_step
                if self._looks(terms, bar, meter):
                    go_back(self)
                    board.went_back(self)
                    bar.n = self.step
                stopper.check(self.processes, self.save)
        if self.processes.first and self.step > before:
            _log.info(meter.total(waited=self.feed.waited))

    def _looks(self, terms: dict[str, Tensor], bar: "tqdm[NoReturn]", meter: Meter) -> bool:
        """Log, measure, draw and save where that is due after a step; returns whether the run must go back."""
        if self.step % _LOG_EVERY == 0 or self.step == self.steps:
            row, back = self.note(terms)
            speed = (bar.format_dict["rate"] or 0) * self.config.images_a_step
            bar.set_postfix_str(f"{speed:.0f} images/s, D {row['loss_d']:.3f}, G {row['loss_g']:.3f}")
            if back:
                return True
            if self.processes.first:
                given = scheduled(self.config, self.players, self.images - self.config.images_a_step)
                line = meter.look(row | given, waited=self.feed.waited)
                self.board.numbers("train", {name: value for name, value in line.items() if name not in given})
                self.board.numbers("schedule", {"step": self.step, **given})
        measures = self.yardstick is not None and self.due("selection")
        shows, saves = snapshot_due(self, self.step), measures or self.due("checkpoint_kimg")
        if (shows or saves) and not self.finite():
            return alarm(self, "divergence", "weights are not finite", fatal=True)
        if measures and measure(self):
            return True
        ended = self.control.stopped is not None and not (self.rows and self.rows[-1]["step"] == self.step)
        if ended and self.note(terms)[1]:  # curves end where the run does
            return True
        if shows and not snapshot(self):
            return alarm(self, "divergence", "images are not finite", fatal=True)
        if saves:
            self.checkpoint()
        return False


def _check_batch(config: TrainConfig, processes: Processes, *, images: int) -> None:
    """Refuse a batch that there are not images enough for, or that cannot be shared out in equal parts."""
    if config.batch > images:
        raise ValueError(
            f"train.batch must be at most the number of training images, {images}; received {config.batch}: lower it, "
            "or ingest more images"
        )
    if config.batch % (processes.world * config.parts):
        raise ValueError(
            f"train.batch must be a multiple of the number of processes times train.parts, {processes.world} x "
            f"{config.parts}; received {config.batch}"
        )
    share = config.batch // (processes.world * config.parts)
    if share % config.network.group:
        raise ValueError(
            f"train.batch must give every process, in each of its parts, a multiple of train.network.group images, "
            f"{config.network.group}; received {config.batch}, which gives {share}"
        )
