"""The processes that torchrun started, one per device, on one machine or several; without torchrun, this one alone.

    with joined() as ranks:
        for index in range(ranks.rank, batches, ranks.world):
            ...

They talk over gloo on the CPU: what passes here is numbers, finished features and checkpoints; for gradients see
`gan.exchange`. Each process computes on the GPU of its LOCAL_RANK if there are GPUs, on the CPU otherwise.
"""

import contextlib
import dataclasses
import datetime
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# The death of a process is noticed at once, by its closed connection; this bounds the wait for one that hangs, and must
# be longer than anything rank 0 does alone (training the domain extractor of a large data set, say).
_PATIENCE = datetime.timedelta(hours=12)


def gpus() -> int:
    """Number of GPUs that CUDA gives this process: one of several MIG slices, none if the driver is too old for torch.

    `torch.cuda.device_count` asks the driver's own library instead, which counts others too.
    """
    return torch._C._cuda_getDeviceCount() if torch.cuda.is_available() else 0


def _check_kernels(index: int) -> None:
    """Raises ValueError if this torch has no kernels for GPU number `index`, by torch's own rule."""
    major, minor = torch.cuda.get_device_capability(index)
    kinds = torch.cuda.get_arch_list() if torch.version.cuda else []
    versions = [torch.cuda._extract_arch_version(kind) for kind in kinds]
    if kinds and not any(torch.cuda._code_compatible_with_device(10 * major + minor, each) for each in versions):
        raise ValueError(
            f"GPU {index} is of compute capability {major}.{minor}, for which this torch has no kernels "
            f"({' '.join(kinds)}); use another GPU, or, for one below 7.5, a torch built for CUDA 12.6 in an "
            "environment of its own (docs/training.md), or set CUDA_VISIBLE_DEVICES to nothing to compute on the CPU"
        )


@dataclasses.dataclass(frozen=True)
class Ranks:
    """This process is number `rank` of `world`; rank 0 alone writes files and prints."""

    rank: int = 0
    world: int = 1

    @property
    def device(self) -> str:
        """`cuda:LOCAL_RANK` if there are GPUs, else `cpu`. Raises ValueError if torch has no kernels for it."""
        if not gpus():
            return "cpu"
        index = int(os.environ.get("LOCAL_RANK", "0"))
        _check_kernels(index)
        return f"cuda:{index}"

    def gathered(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """The arrays of all processes in order of rank on rank 0, an empty list elsewhere; all of one shape and dtype.

        Raises ValueError if another process has ended.
        """
        if self.world == 1:
            return [values]
        own = torch.from_numpy(np.ascontiguousarray(values))
        parts = [torch.empty_like(own) for _ in range(self.world)] if self.rank == 0 else None
        with others_named():
            torch.distributed.gather(own, parts)
        return [part.numpy() for part in parts or []]

    def told(self, value: Any) -> Any:
        """What rank 0 passes as `value` (JSON), on every process; the others' own argument is ignored."""
        if self.world == 1:
            return value
        return json.loads(self.sent(json.dumps(value).encode() if self.rank == 0 else b""))

    def sent(self, content: bytes) -> bytes:
        """The bytes that rank 0 passes, on every process; the others' own argument is ignored."""
        if self.world == 1:
            return content
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0).byte()
        size = torch.tensor([len(data)])
        with others_named():
            torch.distributed.broadcast(size, 0)
            data = data if self.rank == 0 else torch.empty(int(size), dtype=torch.uint8)
            torch.distributed.broadcast(data, 0)
        return data.numpy().tobytes()

    def largest(self, value: int) -> int:
        """The largest value of all processes, on each of them."""
        return int(self._reduced(torch.tensor(value), torch.distributed.ReduceOp.MAX))

    def mean(self, values: Sequence[float]) -> list[float]:
        """Means over the processes, place by place, on each of them; all must pass equally many."""
        total = self._reduced(torch.tensor(values, dtype=torch.float64), torch.distributed.ReduceOp.SUM)
        return (total / self.world).tolist()

    def _reduced(self, values: torch.Tensor, how: Any) -> torch.Tensor:
        if self.world > 1:
            with others_named():
                torch.distributed.all_reduce(values, how)
        return values


@contextlib.contextmanager
def joined(patience: datetime.timedelta = _PATIENCE) -> Iterator[Ranks]:
    """All processes of this run, joined by torchrun's rendezvous; this one alone if WORLD_SIZE is not set or 1.

    A process that does not answer for `patience` is taken for dead.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    torch.distributed.init_process_group("gloo", timeout=patience)
    yield Ranks(torch.distributed.get_rank(), world)
    torch.distributed.destroy_process_group()  # only if all went well: NCCL's waits for the others to do the same


@contextlib.contextmanager
def others_named() -> Iterator[None]:
    """One sentence in place of gloo's or NCCL's error about a closed connection: the process that failed says why."""
    try:
        yield
    except torch.distributed.DistBackendError as error:  # NCCL's, which also fails by itself; its reason comes last
        reason = " ".join(str(error).rpartition("Last error:")[2].split())[:400]
        raise ValueError(
            f"the GPUs could not exchange gradients ({reason}); if another process ended first, its message says why"
        ) from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"another process of this run ended before its work was done; its own message says why ({reason})"
        ) from None
