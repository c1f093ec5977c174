"""What to say when a GPU has no memory for a step: which batch would fit, found by trying smaller ones."""

import contextlib
import dataclasses
import re
from typing import TYPE_CHECKING

import torch

from gan import training
from gan.batches import Batch
from gan.training import Players
from stages.train._objective import objective

if TYPE_CHECKING:
    from stages.train._loop import Run

_LIBRARIES = re.compile(r"ALLOC_FAILED|CUDA error: out of memory")  # cuBLAS, cuDNN, the driver


class _Alone(contextlib.nullcontext[None]):
    """In place of the exchange of gradients: other processes do not take part in a trial."""

    world = 1


def ran_out(error: RuntimeError) -> bool:
    """Whether the GPU had no memory: torch's allocator says so by a class of its own, NVIDIA's libraries in words."""
    return isinstance(error, torch.OutOfMemoryError) or _LIBRARIES.search(str(error)) is not None


def explained(run: "Run", said: str) -> ValueError:
    """The error to raise after a step ended with an error that `ran_out` knows, whose words were `said`.

    The networks of `run` are of no use afterwards. Call it where that error is gone already: its traceback holds what
    the step had allocated.
    """
    config, world, share = run.config, run.processes.world, _share(run)
    begin = f"GPU memory ran out at step {run.step + 1} with {share} images at a time ({said.partition('. ')[0]}): "
    if config.network.batch_statistics and world > 1:
        return ValueError(f"{begin}lower train.batch, or use more processes, which share it")
    fits = fitting(run)
    if fits is None:
        return ValueError(f"{begin}not even {config.network.group} would fit; choose a smaller train.network")
    if config.network.batch_statistics or config.generator_batch == "shared":
        return ValueError(f"{begin}{fits} would fit; set train.batch to {fits * world}")
    parts = config.batch // world // fits
    return ValueError(
        f"{begin}{fits} would fit; set train.parts to {parts}, which trains with the same batch, or train.batch to "
        f"{fits * world * config.parts}"
    )


def fitting(run: "Run") -> int | None:
    """Images of the largest part, smaller than the present one, in which two whole steps of one process end; parts of
    that size fill its share of the batch. None where there is no such size."""
    share, group = run.config.batch // run.processes.world, run.config.network.group
    sizes = [size for size in range(_share(run) - 1, 0, -1) if share % size == 0 and size % group == 0]
    return next((size for size in sizes if _fits(run, size)), None)


def _share(run: "Run") -> int:
    """Images of one part of this process's share."""
    return run.config.batch // (run.processes.world * run.config.parts)


def _fits(run: "Run", size: int) -> bool:
    """Two steps, since optimisers allocate in the first, in two parts where parts are allowed, since the second finds
    gradients there."""
    for optimizer in (run.players.generator_optimizer, run.players.discriminator_optimizer):
        optimizer.zero_grad(set_to_none=True)
    if torch.device(run.processes.device).type == "cuda":
        torch.cuda.empty_cache()
    alone: Players = dataclasses.replace(run.players, generator_exchange=_Alone(), discriminator_exchange=_Alone())  # type: ignore[arg-type]
    copies = alone.discriminator.parameters() if run.processes.world > 1 else ()
    try:
        sent = [torch.empty_like(weight) for weight in copies]  # gradients on their way, as the exchange holds them
        present, shared = objective(run.config, run.images), run.config.generator_batch == "shared"
        numbers = (0,) if shared else (0, run.config.discriminator_steps)  # one update of each network is enough
        whole = [run.feed.take(run.step, number)[0] for number in numbers]
        for _ in range(2):
            training.step(alone, present, lambda turn: [_cut(whole[turn], size)] * (1 if shared else 2), shared=shared)
        del sent
    except RuntimeError as error:
        if not ran_out(error):
            raise
        return False
    return True


def _cut(batch: Batch, size: int) -> Batch:
    """The first `size` images of a batch."""
    label, keys = (None if values is None else values[:size] for values in (batch.label, batch.keys))
    return Batch(batch.images[:size], label, batch.z[:size], keys)
