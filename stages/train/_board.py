"""TensorBoard event files of a run, in its state folder: they carry times, so they are no output of the stage.

Only where tensorboard is installed; a training needs it for nothing.
"""

import importlib.util
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import nn

if TYPE_CHECKING:
    from stages.train._loop import Run

FOLDER = "tensorboard"
_log = logging.getLogger(__name__)


class Board:
    """What TensorBoard shows of a run; writes nothing where it is off, in other processes than the first, and where
    tensorboard is not installed. What an earlier, killed run wrote of later steps is hidden."""

    def __init__(self, run: "Run") -> None:
        self._writer: Any = None
        if not (run.config.tensorboard and run.processes.first):
            return
        if importlib.util.find_spec("tensorboard") is None:
            _log.info("tensorboard is not installed, so there are no event files; log.jsonl has the numbers")
            return
        begun = any((run.state / FOLDER).glob("events.*"))
        self._open(run)
        if not begun:
            self._graphs(run)

    def _open(self, run: "Run") -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.state / FOLDER), purge_step=run.step + 1, flush_secs=10)

    def went_back(self, run: "Run") -> None:
        """Hide what was written of later steps than the present one, which are taken again."""
        if self._writer is not None:
            self._writer.close()
            self._open(run)

    def numbers(self, group: str, row: dict[str, Any]) -> None:
        """The numbers of a row at its step, under `group`."""
        if self._writer is not None:
            for name, value in row.items():
                if name not in ("step", "kimg"):
                    self._writer.add_scalar(f"{group}/{name}", value, int(row["step"]))

    def text(self, kind: str, said: str, step: int) -> None:
        """A sentence at a step."""
        if self._writer is not None:
            self._writer.add_text(kind, said, step)

    def snapshot(self, run: "Run", grid: Path) -> None:
        """The sample grid, and histograms of all weights and of the gradients of the step just taken."""
        if self._writer is None:
            return
        with Image.open(grid) as picture:
            self._writer.add_image("samples", np.asarray(picture.convert("RGB")), run.step, dataformats="HWC")
        for side in ("generator", "discriminator"):
            for name, weight in getattr(run.players, side).named_parameters():
                self._histogram(f"{side}.weights/{name}", weight, run.step)
                self._histogram(f"{side}.gradients/{name}", weight.grad, run.step)

    def close(self) -> None:
        """Write out what is pending."""
        if self._writer is not None:
            self._writer.close()

    def _histogram(self, name: str, values: torch.Tensor | None, step: int) -> None:
        if values is not None and bool(torch.isfinite(values).all()):
            self._writer.add_histogram(name, values.detach().float().cpu().numpy(), step)

    def _graphs(self, run: "Run") -> None:
        """Both networks, one below the other, as traced on two samples, or on one group of them."""
        count, classes, info = max(2, run.config.network.group), len(run.store.classes), run.store.info
        z, label = torch.zeros(count, run.config.z_dim), (torch.arange(count) % classes,) if classes else ()
        images = torch.zeros(count, info["channels"], info["resolution"], info["resolution"])
        fresh = run.fresh()  # without the hooks and the gradients of those that train
        pair = _Pair(fresh.generator, fresh.discriminator).cpu().eval()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the tracer, about branches on shapes, which are fixed here
            self._writer.add_graph(pair, (z, images, *label))


class _Pair(nn.Module):
    """Both networks in one module, so that one graph shows both."""

    def __init__(self, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator

    def forward(self, z: torch.Tensor, images: torch.Tensor, label: torch.Tensor | None = None) -> Any:
        """(generated images, logits of `images`)."""
        return self.generator(z, label), self.discriminator(images, label)
