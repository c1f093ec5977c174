"""The training loop: steps, curves, snapshots and checkpoints. All its randomness is a function of (seed, step)."""

import contextlib
import importlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from gan import latents, networks, pixels, training
from gan.penalties import SIDES
from gan.training import Batch, Players
from stages.common.command import ResumeLater
from stages.config.train import TrainConfig
from stages.pictures import write_grid
from stages.store import Store
from stages.train._checkpoints import load_newest, save_checkpoint

_LOG_EVERY = 20  # steps between two looks at the losses; each look waits for the device
_GRID = 10  # columns of a sample grid


def architecture(config: TrainConfig) -> dict[str, object]:
    """The network as `generator.json` describes it."""
    network = config.network
    arguments = {"widths": list(network.widths), "blocks": list(network.blocks)}
    return {
        "name": network.name,
        "arguments": arguments | {"embedding": network.embedding, "projection": network.projection},
    }


def assemble(config: TrainConfig, store: Store, device: torch.device) -> Players:
    """Networks with their initial weights, drawn from the run's seed on the CPU, and their optimisers."""
    shape = {key: store.info[key] for key in ("resolution", "channels")} | {"classes": len(store.classes)}
    nets = [
        networks.build_generator(architecture(config), z_dim=config.z_dim, **shape),
        networks.build_discriminator(architecture(config), **shape),
    ]
    randomness = torch.Generator().manual_seed(config.seed)
    for net in nets:
        networks.initialise(config.network.name, net, randomness)
        net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 1.1 to 1.3 times faster
    return training.assemble(*nets, lr=config.lr, betas=(config.beta1, config.beta2))


class Stopper:
    """Turns SIGINT and SIGTERM into a request that the loop answers between two steps."""

    def __init__(self) -> None:
        self.received: int | None = None

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen while the block runs; further signals change nothing, since the answer is at most one step away."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self._remember) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def check(self, save: Callable[[], None]) -> None:
        """Save and leave the loop where a signal has come."""
        if self.received is not None:
            save()
            if self.received == signal.SIGINT:
                raise KeyboardInterrupt
            raise ResumeLater("stopped by SIGTERM; the work is saved, run it again to go on")


class Run:
    """One run from its state folder to its last step."""

    def __init__(self, config: TrainConfig, store: Store, state: Path) -> None:
        self.config, self.store, self.state = config, store, state
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.split = store.splits["train"]
        self.loss = importlib.import_module(f"gan.losses.{config.loss.name}")
        self.players = assemble(config, store, self.device)
        self.step, self.rows = load_newest(state, self.players)
        self.steps = int(config.total_kimg * 1000 // config.batch)

    def batches(self) -> tuple[Batch, Batch]:
        """The discriminator's and the generator's batch of the present step."""
        config = self.config
        indices, z = training.draw(config.seed, self.step, config.batch, len(self.split), config.z_dim)
        images = torch.from_numpy(pixels.to_float(self.split.take(indices))).to(self.device)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.from_numpy(self.split.labels[indices]).to(self.device) if self.store.classes else None
        parts = [
            Batch(images[half], None if labels is None else labels[half], torch.from_numpy(z[half]).to(self.device))
            for half in (slice(None, config.batch), slice(config.batch, None))
        ]
        return parts[0], parts[1]

    def one_step(self) -> dict[str, Tensor]:
        """Both updates, the moving average, and the loss terms as tensors."""
        config, done = self.config, self.step * self.config.batch
        burn_in = done / (config.burn_in_kimg * 1000)
        gammas = {SIDES[p.name]: training.cosine(p.gamma, p.gamma_final, burn_in) for p in config.penalties}
        training.set_learning_rate(self.players, training.cosine(config.lr, config.lr_final, self.step / self.steps))
        first, second = self.batches()
        terms = training.discriminator_step(self.players, self.loss, first, gammas)
        terms |= training.generator_step(self.players, self.loss, second)
        training.update_average(
            self.players,
            batch=config.batch,
            images_done=done,
            halflife=config.ema_halflife_kimg * 1000,
            ramp=config.ema_ramp,
        )
        self.step += 1
        return terms

    def note(self, terms: dict[str, Tensor]) -> dict[str, float]:
        """Add a row to the curves. Raises FloatingPointError where a term is not finite."""
        row = {"step": float(self.step), "kimg": self.step * self.config.batch / 1000}
        row |= {name: round(float(value), 6) for name, value in terms.items()}
        if not np.isfinite(list(row.values())).all():
            raise FloatingPointError(
                f"training diverged at step {self.step}: {row}; raise the gamma of r1 and r2, or lower train.lr"
            )
        self.rows.append(row)
        return row

    def samples(self, count: int) -> NDArray[np.uint8]:
        """Images 0 ... count - 1 of the run's seed from the moving average; classes in turn, one a column."""
        z = torch.from_numpy(latents.latents(self.config.seed, 0, count, self.config.z_dim)).to(self.device)
        label = torch.arange(count, device=self.device) % len(self.store.classes) if self.store.classes else None
        with torch.no_grad():
            return pixels.to_uint8(self.players.average(z, label).cpu().numpy())

    def snapshot(self) -> None:
        """A grid of the same samples at this moment, in the state folder until the run is published."""
        columns = len(self.store.classes) if 2 <= len(self.store.classes) <= 20 else _GRID
        kimg = round(self.step * self.config.batch / 1000)
        write_grid(self.state / f"samples-{kimg:06d}.png", self.samples(8 * columns), columns=columns)

    def save(self) -> None:
        """Checkpoint the present step."""
        save_checkpoint(self.state, self.players, step=self.step, rows=self.rows)

    def due(self, kimg: float) -> bool:
        """True at the step that completes another `kimg` thousand images, and at the last one."""
        interval = max(1, round(kimg * 1000 / self.config.batch))
        return self.step % interval == 0 or self.step == self.steps

    def to_the_end(self) -> None:
        """Train until the budget is spent; where it stops earlier, the work is saved."""
        stopper = Stopper()
        bar = tqdm(total=self.steps, initial=self.step, unit="step", desc="train", disable=None, smoothing=0.05)
        with stopper.listening(), bar:
            while self.step < self.steps:
                terms = self.one_step()
                bar.update()
                if self.step % _LOG_EVERY == 0 or self.step == self.steps:
                    row = self.note(terms)
                    speed = (bar.format_dict["rate"] or 0) * self.config.batch
                    bar.set_postfix_str(f"{speed:.0f} images/s, D {row['loss_d']:.3f}, G {row['loss_g']:.3f}")
                if self.due(self.config.snapshot_kimg):
                    self.snapshot()
                if self.due(self.config.checkpoint_kimg):
                    self.save()
                stopper.check(self.save)
