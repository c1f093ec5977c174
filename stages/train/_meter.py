"""How fast a run goes and what it takes: a line a look in the state folder, and the sum at the end.

Times cannot repeat, so none of this is an output of the stage: `log.jsonl` lies beside the checkpoints, for whoever
follows the run while it goes.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in a unit of ru_maxrss


def utilisation() -> float | None:
    """Share of the last moments in which the GPU worked; None where its driver does not tell (in some containers)."""
    try:
        return torch.cuda.utilization() / 100
    except Exception:  # noqa: BLE001 - NVML has errors of its own, and none of them may end a training
        return None


class Meter:
    """Counts from its making: `images` of all processes, which its owner adds."""

    def __init__(self, folder: Path, device: str) -> None:
        self.path, self.cuda = folder / "log.jsonl", torch.device(device).type == "cuda"
        self.start = self.looked = time.perf_counter()
        self.images = self.seen = self.waited = 0.0
        self.busy: list[float] = []  # utilisation at each look

    def look(self, row: dict[str, float], *, waited: float) -> dict[str, Any]:
        """Append the numbers of a look and the speed since the look before, and return them; `waited`: total so far."""
        now = time.perf_counter()
        seconds = max(now - self.looked, 1e-9)
        images = self.images - self.seen
        line = row | {
            "images_per_second": round(images / seconds, 2),
            "seconds_per_kimg": round(1000 * seconds / max(images, 1), 3),
            "waiting_for_data": round(min(1.0, (waited - self.waited) / seconds), 4),
            "memory_mib": round(self.memory() / 2**20, 1),
        }
        if self.cuda:  # what the allocator holds, more than the tensors: this is what runs out
            line["memory_reserved_mib"] = round(torch.cuda.max_memory_reserved() / 2**20, 1)
        if self.cuda and (share := utilisation()) is not None:
            line["utilisation"] = share
            self.busy.append(share)
        self.looked, self.seen, self.waited = now, self.images, waited
        self.write(line)
        return line

    def write(self, line: dict[str, Any]) -> None:
        """Append a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **line}) + "\n")

    def memory(self) -> int:
        """Bytes: the device's peak on a GPU, the process's peak otherwise."""
        if self.cuda:
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT

    def total(self, *, waited: float) -> str:
        """The whole run in one sentence."""
        seconds = max(time.perf_counter() - self.start, 1e-9)
        busy = f"the GPU busy {100 * sum(self.busy) / len(self.busy):.0f} %, " if self.busy else ""
        return (
            f"{self.images / 1000:.1f} kimg in {seconds:.0f} s: {self.images / seconds:.0f} images/s, "
            f"{1000 * seconds / max(self.images, 1):.2f} s per kimg, "
            f"{100 * min(1.0, waited / seconds):.1f} % of it waiting for data, {busy}"
            f"{self.memory() / 2**20:.0f} MiB at most"
        )
