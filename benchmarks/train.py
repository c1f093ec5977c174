"""Training steps, ours against loops written the usual way, on the same images, networks, batch and threads, in turns.

Each side computes in a process of its own, prepared as its users would prepare it.

    dcgan_*   the networks, batch and step of PyTorch's own DCGAN example: 64 pixels, width 64, latents of 100, batch
              64, binary cross entropy; real and generated images pass the discriminator apart, not frozen for G, which
              learns from the images of the discriminator's update: ours does so too (`generator_batch: shared`)
    r3gan_*   R3GAN with R1 and R2 at every step: fp32, contiguous tensors, each penalty by its own call of autograd, a
              moving average tensor by tensor, a DataLoader with workers

Ours computes as `stages.train` does, without its schedules: read-ahead on a thread, channels_last, one joined pass,
penalties without a second derivative, fused Adam, the average by foreach, freed memory kept. The rows `*_bfloat16` are
ours at `precision: bfloat16` against the same plain loop in float32: fast where the device has instructions for it (a
GPU, or a CPU with AVX512-BF16).

`r3gan_published_*` are the networks of docs/presets: at 64 px on a CPU with two images a batch, which takes seconds; at
256 px on a GPU only. There each case has a row `*_bfloat16_against_float32` of ours alone, in thousand images a
second, and the others tell the GPU's utilisation at each of our turns. Nothing of this was run on a GPU yet.
"""

import argparse
import contextlib
import copy
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks.report import paired, report
from gan import batches, networks, pixels, training
from gan.losses.non_saturating import Config as NonSaturating
from gan.losses.relativistic import Config as Relativistic
from gan.objective import Objective
from stages.processor import use_processor
from stages.train._meter import utilisation

DCGAN = {
    "form": "transposed",
    "width": 64,
    "embedding": 1,
    "norm": "batch",
    "dropout": 0.0,
    "minibatch": "none",
    "group": 1,
}
DEFAULT = {"widths": [48, 24], "blocks": [1, 0], "embedding": 32, "projection": 64}
PUBLISHED = {"width": 768, "full_to": 32, "blocks": 2, "group_width": 16, "embedding": 64, "projection": 768}
NARROW = {"width": 96, "full_to": 32, "blocks": 2, "group_width": 16, "embedding": 64, "projection": 96}
CASES: dict[str, dict[str, Any]] = {
    "dcgan_64": {
        "network": ("dcgan", DCGAN), "resolution": 64, "channels": 3, "classes": 0, "z_dim": 100, "steps": 4,
        "turns": 9,
    },
    "r3gan_default_8": {
        "network": ("r3gan", DEFAULT), "resolution": 8, "channels": 1, "classes": 10, "z_dim": 32, "steps": 40,
    },
    "r3gan_narrow_32": {
        "network": ("r3gan_paper", NARROW), "resolution": 32, "channels": 3, "classes": 10, "z_dim": 64, "steps": 2,
    },
    "r3gan_published_64": {
        "network": ("r3gan_paper", PUBLISHED), "resolution": 64, "channels": 3, "classes": 0, "z_dim": 64, "steps": 1,
        "batch": {"cpu": 2, "cuda": 256}, "turns": 2,
    },
    "r3gan_published_256": {
        "network": ("r3gan_paper", PUBLISHED), "resolution": 256, "channels": 3, "classes": 0, "z_dim": 64, "steps": 1,
        "batch": {"cuda": 32}, "turns": 2,
    },
}  # fmt: skip
GPU_ONLY = ("r3gan_published_256",)
BATCH, LR, BETAS, THREADS = 64, 2e-4, (0.0, 0.99), 2


def batch_of(case: dict[str, Any], device: str) -> int:
    """Images of one update."""
    return int(case.get("batch", {}).get(device, BATCH))


def nets(case: dict[str, Any], device: str) -> list[nn.Module]:
    """A generator and a discriminator, the same at every call."""
    name, arguments = case["network"]
    shape = {key: case[key] for key in ("classes", "resolution", "channels")}
    description = {"name": name, "arguments": arguments}
    made = [
        networks.build_generator(description, z_dim=case["z_dim"], **shape),
        networks.build_discriminator(description, **shape),
    ]
    for net in made:
        networks.initialise(name, net, torch.Generator().manual_seed(0))
        net.to(device)
    return made


class Ours:
    """Steps as `stages.train` runs them."""

    def __init__(self, case: dict[str, Any], data: "Images", device: str, precision: torch.dtype | None = None) -> None:
        self.case, self.data, self.device, self.step = case, data, device, 0
        classic = case["network"][0] == "dcgan"
        self.batch, self.shared = batch_of(case, device), classic
        pair = [net.to(memory_format=torch.channels_last) for net in nets(case, device)]  # type: ignore[call-overload]
        self.players = training.assemble(*pair, lr=LR, betas=(0.5, 0.999) if classic else BETAS)
        self.objective = Objective(
            loss=NonSaturating() if classic else Relativistic(),
            gammas={} if classic else {"real": 1.0, "fake": 1.0},
            precision=precision,
        )
        self.thread = ThreadPoolExecutor(1)
        self.next: Future[Any] = self.thread.submit(self._prepare, 0)

    def _prepare(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count = self.batch if self.shared else 2 * self.batch
        indices, z = batches.draw(0, step, count, len(self.data.images), self.case["z_dim"])
        keys = torch.from_numpy(batches.draw_keys(0, step, count))
        images = torch.from_numpy(pixels.to_float(self.data.images[indices]))
        return images, torch.from_numpy(self.data.labels[indices]), torch.from_numpy(z), keys

    def run(self, steps: int) -> None:
        for _ in range(steps):
            images, labels, z, keys = (part.to(self.device, non_blocking=True) for part in self.next.result())
            self.step += 1
            self.next = self.thread.submit(self._prepare, self.step)
            images = images.contiguous(memory_format=torch.channels_last)
            label = labels if self.case["classes"] else None
            pieces = [slice(begin, begin + self.batch) for begin in range(0, len(z), self.batch)]
            parts = [batches.Batch(images[p], None if label is None else label[p], z[p], keys[p]) for p in pieces]
            training.step(self.players, self.objective, lambda turn: parts[turn : turn + 1], shared=self.shared)  # noqa: B023
            done = self.step * self.batch
            training.update_average(self.players, images=self.batch, images_done=done, halflife=5e5, ramp=0.05)


class Images(Dataset[tuple[Tensor, int]]):
    """Random images in memory, one at a time for the DataLoader of the plain loops."""

    def __init__(self, case: dict[str, Any], count: int = 2000) -> None:
        rng = np.random.default_rng(0)
        shape = (count, case["resolution"], case["resolution"], case["channels"])
        self.images = rng.integers(0, 256, shape).astype(np.uint8)
        self.labels = rng.integers(0, max(case["classes"], 1), count)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.images[index]).permute(2, 0, 1).float() / 127.5 - 1, int(self.labels[index])


def endless(data: Images, batch: int) -> Iterator[list[Tensor]]:
    """Batches from a DataLoader with workers, epoch after epoch."""
    loader = DataLoader(data, batch_size=batch, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True)
    while True:
        yield from loader


class PlainDCGAN:
    """The step of the classic example: three passes of the discriminator with their own backward, no average."""

    def __init__(self, case: dict[str, Any], data: Images, device: str) -> None:
        self.case, self.device = case, device
        self.generator, self.discriminator = nets(case, device)
        self.batch = batch_of(case, device)
        self.batches = endless(data, self.batch)
        self.g, self.d = (
            torch.optim.Adam(net.parameters(), lr=LR, betas=(0.5, 0.999))
            for net in (self.generator, self.discriminator)
        )

    def loss(self, images: Tensor, target: float) -> Tensor:
        logits = self.discriminator(images)
        return F.binary_cross_entropy(torch.sigmoid(logits), torch.full_like(logits, target))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            real = next(self.batches)[0].to(self.device)
            self.discriminator.zero_grad()
            self.loss(real, 1.0).backward()  # type: ignore[no-untyped-call]
            fake = self.generator(torch.randn(self.batch, self.case["z_dim"], device=self.device))
            self.loss(fake.detach(), 0.0).backward()  # type: ignore[no-untyped-call]
            self.d.step()
            self.generator.zero_grad()
            self.loss(fake, 1.0).backward()  # type: ignore[no-untyped-call]
            self.g.step()


class PlainR3GAN:
    """The step written straight from the formulas."""

    def __init__(self, case: dict[str, Any], data: Images, device: str) -> None:
        self.case, self.device, self.batch = case, device, batch_of(case, device)
        self.batches = endless(data, self.batch)
        self.generator, self.discriminator = nets(case, device)
        self.average = copy.deepcopy(self.generator)
        self.g, self.d = (
            torch.optim.Adam(net.parameters(), lr=LR, betas=BETAS) for net in (self.generator, self.discriminator)
        )

    def gradient(self, logits: Tensor, images: Tensor) -> Tensor:
        return torch.autograd.grad(logits.sum(), images, create_graph=True)[0].square().sum((1, 2, 3)).mean()

    def draw(self) -> tuple[Tensor, Tensor | None, Tensor]:
        images, labels = (part.to(self.device) for part in next(self.batches))
        return (
            images,
            labels if self.case["classes"] else None,
            torch.randn(self.batch, self.case["z_dim"], device=self.device),
        )

    def run(self, steps: int) -> None:
        for _ in range(steps):
            x, y, z = self.draw()
            x = x.requires_grad_()
            fake = self.generator(z, y).detach().requires_grad_()
            real_logits, fake_logits = self.discriminator(x, y), self.discriminator(fake, y)
            penalty = self.gradient(real_logits, x) + self.gradient(fake_logits, fake)
            self.d.zero_grad()
            (F.softplus(fake_logits - real_logits).mean() + penalty / 2).backward()  # type: ignore[no-untyped-call]
            self.d.step()
            x, y, z = self.draw()
            fake_logits, real_logits = self.discriminator(self.generator(z, y), y), self.discriminator(x, y)
            self.g.zero_grad()
            F.softplus(real_logits - fake_logits).mean().backward()  # type: ignore[no-untyped-call]
            self.g.step()
            with torch.no_grad():
                for a, b in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                    a.copy_(b.lerp(a, 0.999))


def loop(name: str, who: str) -> Any:
    """One side of a case, prepared as its users would: stages prepare the processor, a plain loop sets the threads."""
    case, device = CASES[name], "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.allow_tf32 = False  # as in stages.train
    data = Images(case)
    if who == "plain":
        torch.set_num_threads(THREADS)
        return (PlainDCGAN if case["network"][0] == "dcgan" else PlainR3GAN)(case, data, device)
    use_processor(THREADS)
    return Ours(case, data, device, torch.bfloat16 if who == "bfloat16" else None)


def serve(name: str, who: str, orders: Connection) -> None:
    """In a process of its own: as many steps as asked for, then the utilisation of a GPU, until nobody asks more."""
    side = loop(name, who)
    with contextlib.suppress(EOFError):
        while True:
            side.run(orders.recv())
            busy = utilisation() if side.device == "cuda" else None  # while it computes
            if side.device == "cuda":
                torch.cuda.synchronize()
                torch.cuda.empty_cache()  # the other side needs the memory for its turn
            orders.send(busy)
    if who != "plain":
        side.thread.shutdown()


@contextlib.contextmanager
def serving(name: str, who: str) -> Iterator[Callable[[int], float | None]]:
    """Steps of one side, in a process of its own: how memory is kept is a property of the process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(name, who, there))
    process.start()
    there.close()

    def run(steps: int) -> float | None:
        here.send(steps)
        busy: float | None = here.recv()
        return busy

    try:
        yield run
    finally:
        here.close()
        process.join()


def compare(name: str, *, device: str, quick: bool) -> None:
    """Report images a second of one case."""
    case = CASES[name]
    batch, classic = batch_of(case, device), case["network"][0] == "dcgan"
    steps = 1 if quick else case["steps"] * (10 if device == "cuda" else 1)
    own: list[float] = []
    with serving(name, "plain") as plain:
        for who in ("float32", "bfloat16"):
            busy: list[float | None] = []
            with serving(name, who) as ours:
                seconds = paired(
                    lambda ours=ours, busy=busy: busy.append(ours(steps)),  # type: ignore[misc]
                    lambda: plain(steps),
                    1 if quick else case.get("turns", 5),
                )
            speeds = [steps * batch / s for s in seconds]
            own.append(speeds[0])
            more: dict[str, Any] = {"utilisation": busy} if device == "cuda" else {"threads": THREADS}
            report(
                name if who == "float32" else f"{name}_{who}", unit="images/s", ours=speeds[0],
                peer="plain loop, fp32", theirs=speeds[1], goal=1.3 if classic else 1.5, lower_is_better=False,
                device=device, batch=batch, **more,
            )  # fmt: skip
    if device == "cuda":
        report(
            f"{name}_bfloat16_against_float32", unit="kimg/s", ours=own[1] / 1000, peer="ours, fp32",
            theirs=own[0] / 1000, goal=1.5, lower_is_better=False, device=device, batch=batch,
        )  # fmt: skip


def main() -> None:
    """Run the cases, all or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one step a turn, to see that it runs")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in options.cases:
        if name in GPU_ONLY and device != "cuda":
            continue
        compare(name, device=device, quick=options.quick)


if __name__ == "__main__":
    main()
