"""Batches, prepared on a thread while the devices compute: read from the mapped shards, made float, pinned."""

import functools
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan import augmentation, batches, pixels
from gan.batches import Batch
from stages.config.train import TrainConfig
from stages.store import Split
from stages.train._objective import variation
from stages.train._processes import Processes

_AT_ONCE = 16  # batches whose random numbers are drawn together


class Feed:
    """This process's share of each step's batches: the discriminator's, one an update, then the generator's own, if it
    has one. One batch is always prepared ahead. Close it when done.

    A batch is a pure function of (seed, step, turn), so what was prepared and not used is not missed. `waited` counts
    the seconds that `take` had to wait.
    """

    def __init__(self, config: TrainConfig, split: Split, processes: Processes, *, labelled: bool) -> None:
        self.config, self.split, self.processes, self.labelled = config, split, processes, labelled
        if config.balance == "classes" and not labelled:
            raise ValueError("train.balance classes needs images with classes, and these have none; set it to none")
        self.classes = batches.Classes(split.labels) if config.balance == "classes" else None
        self.variation = variation(config)
        self.waited = 0.0
        self.seed = config.seed
        self._device = torch.device(processes.device)
        self._pinned = self._device.type == "cuda"
        own = functools.partial(torch.cuda.set_device, processes.device)  # CUDA's current device is each thread's own
        self._thread = ThreadPoolExecutor(1, "feed", own if self._pinned else None)
        self._block: tuple[tuple[int, int], list[NDArray[Any]]] | None = None
        self._next: tuple[int, Future[tuple[Tensor, Tensor | None, Tensor, Tensor]]] | None = None

    def reseed(self, seed: int) -> None:
        """Draw batches and latents from this seed; what was prepared from another is thrown away."""
        if seed != self.seed:
            self.seed, self._next = seed, None

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)

    def take(self, step: int, turn: int) -> list[Batch]:
        """A batch of a step on this process's device, in parts; the generator's has the turn after the discriminator's.
        The next one is begun."""
        start, number = time.perf_counter(), step * self.config.batches_a_step + turn
        if self._next is None or self._next[0] != number:
            self._next = (number, self._thread.submit(self._prepare, number))
        images, labels, z, keys = self._next[1].result()
        self._next = (number + 1, self._thread.submit(self._prepare, number + 1))
        self.waited += time.perf_counter() - start
        device = self._device
        images, keys = images.to(device, non_blocking=True), keys.to(device, non_blocking=True)
        if self.variation and len(images):
            images = augmentation.vary(images, keys, self.variation)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = None if labels is None else labels.to(device, non_blocking=True)
        z = z.to(device, non_blocking=True)
        size = len(z) // self.config.parts
        pieces = [slice(begin, begin + size) for begin in range(0, len(z), size)]
        return [Batch(images[p], None if labels is None else labels[p], z[p], keys[p]) for p in pieces]

    def _prepare(self, number: int) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Images, labels, latents and keys of the run's batch of this number, on the CPU; no images for a generator's
        update whose loss does not look at real ones."""
        config = self.config
        indices, z, words = self._drawn(number)
        seen = number % config.batches_a_step < config.discriminator_steps or config.loss.paired
        images = torch.from_numpy(pixels.to_float(self.split.take(indices if seen else indices[:0])))
        labels = torch.from_numpy(self.split.labels[indices]) if self.labelled else None
        latents, keys = torch.from_numpy(z), torch.from_numpy(words)
        if self._pinned:  # copies from pinned memory do not hold the device up
            images, latents, keys = images.pin_memory(), latents.pin_memory(), keys.pin_memory()
            labels = None if labels is None else labels.pin_memory()
        return images, labels, latents, keys

    def _drawn(self, number: int) -> list[NDArray[Any]]:
        """Indices, latents and keys of this process's share of a batch. Those of _AT_ONCE batches are drawn together,
        which takes a quarter of the time and gives the same numbers."""
        block, place = divmod(number, _AT_ONCE)
        share = np.arange(self.config.batch)[self.processes.share(self.config.batch)]
        if self._block is None or self._block[0] != (self.seed, block):
            own = (np.arange(_AT_ONCE)[:, None] * self.config.batch + share).ravel()
            size, split = _AT_ONCE * self.config.batch, self.split
            indices, z = batches.draw(self.seed, block, size, len(split), self.config.z_dim, self.classes, own=own)
            keys = batches.draw_keys(self.seed, block, size, own=own)
            self._block = (self.seed, block), [indices, z, keys]
        part = slice(place * len(share), (place + 1) * len(share))
        return [values[part] for values in self._block[1]]
