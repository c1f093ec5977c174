"""What the machine does while a pipeline runs, as MLflow's system metrics."""

import contextlib
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import Metric

EVERY = 10.0  # seconds between two samples


class Load:
    """Samples of processor, memory, disk, network and, if there is one, GPU; `waiting` holds those not yet sent."""

    def __init__(self) -> None:
        self.waiting: list[Metric] = []
        self._step, self._next = 0, 0.0
        self._monitors: list[Any] = []

    def sample(self) -> None:
        """Take a sample if one is due; metrics are called `system/NAME`, like MLflow's own."""
        if time.monotonic() < self._next:
            return
        from mlflow.entities import Metric

        if not self._monitors:
            self._monitors = _monitors()
        now = int(time.time() * 1000)
        for monitor in self._monitors:
            monitor.collect_metrics()
            found = monitor.aggregate_metrics()
            self.waiting += [Metric(f"system/{name}", float(value), now, self._step) for name, value in found.items()]
            monitor.clear_metrics()
        self._step += 1
        self._next = time.monotonic() + EVERY


def _monitors() -> list[Any]:
    """MLflow's monitors of this machine; the GPU monitor needs a GPU and NVIDIA's library."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    kinds: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor]
    found = []
    for kind in kinds:
        with contextlib.suppress(ImportError, RuntimeError):
            found.append(kind())
    return found
