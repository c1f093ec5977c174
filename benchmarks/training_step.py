"""Training steps of configuration A: ours against the same networks in a plain PyTorch loop.

The peer draws its batches with torch's generator, keeps tensors contiguous, uses torch's default Adam, runs the two
discriminator passes apart and takes R1 and R2 by two calls of autograd, as the code bases of the field do.
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.report import paired, report
from gan import networks, pixels, training
from gan.losses import relativistic

SHAPE: dict[str, Any] = {"classes": 10, "resolution": 8, "channels": 1}
A = {"name": "r3gan", "arguments": {"widths": [48, 24], "blocks": [1, 0], "embedding": 32, "projection": 64}}
BATCH, Z_DIM = 64, 32


def nets() -> list[torch.nn.Module]:
    """A generator and a discriminator with the same initial weights at every call."""
    made = [networks.build_generator(A, z_dim=Z_DIM, **SHAPE), networks.build_discriminator(A, **SHAPE)]
    for net in made:
        networks.initialise("r3gan", net, torch.Generator().manual_seed(0))
    return made


class Ours:
    """Steps as `stages.train` runs them."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels, self.step = images, labels, 0
        pair = [net.to(memory_format=torch.channels_last) for net in nets()]  # type: ignore[call-overload]
        self.players = training.assemble(*pair, lr=1e-3, betas=(0.0, 0.99))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            indices, z = training.draw(0, self.step, BATCH, len(self.images), Z_DIM)
            x = torch.from_numpy(pixels.to_float(self.images[indices])).contiguous(memory_format=torch.channels_last)
            y, latents = torch.from_numpy(self.labels[indices]), torch.from_numpy(z)
            parts = [training.Batch(x[h], y[h], latents[h]) for h in (slice(None, BATCH), slice(BATCH, None))]
            training.discriminator_step(self.players, relativistic, parts[0], {"real": 1.0, "fake": 1.0})
            training.generator_step(self.players, relativistic, parts[1])
            training.update_average(self.players, batch=BATCH, images_done=self.step * BATCH, halflife=128e3, ramp=0.05)
            self.step += 1


class Plain:
    """The same step, written the usual way."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = torch.from_numpy(pixels.to_float(images)), torch.from_numpy(labels)
        self.generator, self.discriminator = nets()
        self.average = copy.deepcopy(self.generator)
        self.optimizers = [
            torch.optim.Adam(n.parameters(), 1e-3, (0.0, 0.99)) for n in (self.generator, self.discriminator)
        ]

    def gradient(self, logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(logits.sum(), images, create_graph=True)[0].square().sum((1, 2, 3)).mean()

    def run(self, steps: int) -> None:
        for _ in range(steps):
            i = torch.randint(len(self.images), (BATCH,))
            x, y = self.images[i].requires_grad_(), self.labels[i]
            fake = self.generator(torch.randn(BATCH, Z_DIM), y).detach().requires_grad_()
            real_logits, fake_logits = self.discriminator(x, y), self.discriminator(fake, y)
            penalty = self.gradient(real_logits, x) + self.gradient(fake_logits, fake)
            self.optimizers[1].zero_grad()
            (F.softplus(fake_logits - real_logits).mean() + penalty / 2).backward()  # type: ignore[no-untyped-call]
            self.optimizers[1].step()
            i = torch.randint(len(self.images), (BATCH,))
            x, y = self.images[i], self.labels[i]
            fake_logits, real_logits = (
                self.discriminator(self.generator(torch.randn(BATCH, Z_DIM), y), y),
                self.discriminator(x, y),
            )
            self.optimizers[0].zero_grad()
            F.softplus(real_logits - fake_logits).mean().backward()  # type: ignore[no-untyped-call]
            self.optimizers[0].step()
            with torch.no_grad():
                for a, b in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                    a.lerp_(b, 0.001)


def main() -> None:
    """Compare images per second on as many threads as params.yaml trains with."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 steps a turn instead of 50")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of both")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    steps = 10 if options.quick else 50
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (1000, 8, 8, 1)).astype(np.uint8), rng.integers(0, 10, 1000)
    ours, plain = Ours(*data), Plain(*data)
    seconds = paired(lambda: ours.run(steps), lambda: plain.run(steps), repeats=5)
    speeds = [steps * BATCH / s for s in seconds]
    report(
        "training_step", unit="images/s", ours=speeds[0], peer="plain PyTorch loop", theirs=speeds[1], goal=1.0,
        lower_is_better=False, threads=options.threads, steps=steps, source=Path(__file__).name,
    )  # fmt: skip


if __name__ == "__main__":
    main()
