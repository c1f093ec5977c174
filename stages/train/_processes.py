"""The processes of one training run: which device each has, and how they agree."""

import contextlib
import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from gan import ranks
from gan.ranks import Ranks

# A process that ends is noticed at once, by its closed connection; these bound the wait for one that hangs.
_PATIENCE = timedelta(hours=2)  # longer than the first process measures, draws and saves alone
_GRADIENTS = timedelta(minutes=10)  # longer than a step takes, the slowest process's included


@dataclasses.dataclass(frozen=True)
class Processes(Ranks):
    """This process among its equals; gradients travel over `gradients`, None where it is alone."""

    gradients: "dist.ProcessGroup | None" = None

    @property
    def first(self) -> bool:
        """True in the one process that writes files and talks."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """The rows of a global batch that are this process's."""
        own = batch // self.world
        return slice(self.rank * own, (self.rank + 1) * own)

    def check_equal(self, tensors: list[Tensor]) -> None:
        """Raises ValueError where the tensors of the processes differ: some device or library computes wrongly."""
        if self.world == 1:
            return
        sha256 = hashlib.sha256()
        for tensor in tensors:
            sha256.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        number = int.from_bytes(sha256.digest()[:7])  # fits int64, with either sign
        if self.largest(number) != -self.largest(-number):
            raise ValueError(
                "the processes of this run hold different weights, so one of them computes wrongly; nothing was saved "
                "since the last checkpoint: exchange the machine or GPU, then start again to go on from there"
            )


def check_gpus(processes: int) -> None:
    """Raises ValueError where torch would answer with the CPU though the driver tells of GPUs, for which it is too old,
    or CUDA_VISIBLE_DEVICES names some; and where more processes are asked for than this machine has GPUs."""
    asked, gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ""), ranks.gpus()
    if not gpus and (told := torch.cuda.device_count()):
        raise ValueError(
            f"the NVIDIA driver tells of GPUs ({told}) that this torch cannot use; it needs a driver for CUDA "
            f"{torch.version.cuda} (nvidia-smi names the driver's): update the driver, or set CUDA_VISIBLE_DEVICES to "
            "nothing to train on the CPU"
        )
    named = re.findall(r"(?:^|,)\s*(\d+|GPU-[^,]+|MIG-[^,]+)", asked)
    if len(named) > gpus:
        raise ValueError(
            f"CUDA_VISIBLE_DEVICES asks for {asked}, of which torch finds {gpus} on this machine; name GPUs that "
            "nvidia-smi -L lists (of MIG slices one alone), or set it to nothing to train on the CPU"
        )
    if gpus and processes > gpus:
        raise ValueError(
            f"train.processes must be at most the number of GPUs of this machine, {gpus}, or 0 for as many; received "
            f"{processes}"
        )


def check_precision(precision: str, device: str) -> None:
    """Raises ValueError where the GPU would only imitate bfloat16."""
    if precision == "bfloat16" and device != "cpu" and torch.cuda.get_device_capability(device) < (8, 0):
        raise ValueError(
            "train.precision bfloat16 needs a GPU of compute capability 8.0 or newer, and this one is of "
            f"{'.'.join(map(str, torch.cuda.get_device_capability(device)))}; set it to float32"
        )


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """All processes of this run; see `gan.ranks.joined`. Gradients between GPUs travel over NCCL, all else over gloo.

    Raises ValueError where this machine has GPUs, but fewer than processes, or where torchrun restarted the processes
    with the store of those before them.
    """
    shares_a_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and os.environ.get("WORLD_SIZE") != "1"
    if shares_a_store and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        raise ValueError(
            "torchrun restarted this run with the addresses of the processes that ended, which nobody can reach; "
            "start torchrun with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 and --rdzv-backend c10d to go on from the last "
            "checkpoint"
        )
    local, gpus = int(os.environ.get("LOCAL_RANK", "0")), ranks.gpus()
    if gpus and local >= gpus:
        raise ValueError(
            f"process {local} of this machine has no GPU of its own, there are {gpus}; lower train.processes, or "
            "torchrun's --nproc-per-node, to at most that many"
        )
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32; whoever wants it faster sets train.precision
    if gpus:
        torch.cuda.set_device(local)
    with ranks.joined(_PATIENCE) as found:
        group = dist.new_group(backend="nccl" if gpus else "gloo", timeout=_GRADIENTS) if found.world > 1 else None
        yield Processes(found.rank, found.world, group)
