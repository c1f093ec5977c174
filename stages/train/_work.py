"""The train room: from the image store and the state folder to `data/train/`."""

import contextlib
import csv
import dataclasses
import io
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from stages.common.files import output_folder, write_atomically, write_json
from stages.common.summary import Summary, write_summary
from stages.config.train import TrainConfig
from stages.processor import use_processor
from stages.state import exclusive, state_folder
from stages.store import open_passed_store
from stages.train._ancestry import open_start, take_over
from stages.train._checkpoints import prune
from stages.train._control import Moment
from stages.train._course import choose
from stages.train._loop import Run, architecture
from stages.train._measure import MEASURES, identity, open_yardstick
from stages.train._processes import check_precision, joined
from stages.train._progress import write_progress
from stages.train._samples import ROWS, grid, grids
from stages.train._trajectory import key, kin, remember, trajectory

_log = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    *,
    images: Path,
    passed: Path,
    out: Path,
    selection: Path | None = None,
    init: Path | None = None,
    adopt: str | None = None,
) -> Summary:
    """See `stages.train.run`."""
    use_processor(config.threads)
    store = open_passed_store(images, passed)

    # Train in the state folder, from the last checkpoint where there is one.
    found = trajectory(config, store, selection=identity(config, selection))
    yardstick = open_yardstick(config, selection, store)
    start = open_start(config, init, store, architecture(config))
    state = state_folder() / "train" / key(found)
    with joined() as processes, exclusive(state) if processes.first else contextlib.nullcontext():
        check_precision(config.precision, processes.device)
        if adopt and processes.first:
            take_over(state, found, adopt, up_to=config.steps)
        run = Run(config, store, state, processes, yardstick=yardstick, start=start)
        if processes.first:
            _announce(run, found)
            remember(state, found)
        run.to_the_end()
        published = choose(run)
        if not processes.first:
            return Summary(**processes.told(None))

        # Publish what lasts.
        inputs = {"images": images / "dataset.json", "passed": passed}
        if selection is not None and yardstick is not None:
            inputs["selection"] = selection
        if init is not None and start is not None:
            inputs["init"] = init
        summary = publish(run, published, inputs, out)
        prune(state, up_to=run.steps, keep=1)  # what stays lets a larger budget go on from here
        processes.told(dataclasses.asdict(summary))
    return summary


def publish(run: Run, published: Moment, inputs: Mapping[str, Path], out: Path) -> Summary:
    """Write the networks, which are those of the moment `published`, curves, pictures and summary to `out`."""
    with output_folder(out) as work:
        write_networks(run, work / "generator", step=published.step)
        names = list(dict.fromkeys(name for row in run.rows for name in row))
        write_curves(work / "curves.csv", run.rows, names=names)
        write_curves(work / "measures.csv", run.control.measures, names=("step", "kimg", *MEASURES))
        write_pictures(run, work)
        results = {
            "data_hash": run.store.info["data_hash"],
            "steps": run.step,
            "kimg": run.images / 1000,
            "images": len(run.split),
            "parameters": {
                "generator": count_parameters(run.players.generator),
                "discriminator": count_parameters(run.players.discriminator),
            },
            "last": run.rows[-1],
            "ancestry": run.control.ancestry,
            "control": course(run, published),
        }
        return write_summary(work, stage="train", config=run.config, inputs=inputs, results=results)


def write_pictures(run: Run, work: Path) -> None:
    """The sample grids of all snapshots and of the published generator, and how the samples changed."""
    shown = grids(run)
    for step, path in shown.items():
        if run.due_at(step, "snapshot_kimg"):
            shutil.copyfile(path, work / f"samples-{_moment(run, step)}.png")
    grid(run, work / "samples.png")
    moments = shown or {run.step: work / "samples.png"}
    by_kimg = [(step * run.config.images_a_step / 1000, path) for step, path in moments.items()]
    write_progress(work, by_kimg, rows_a_grid=ROWS)


def _moment(run: Run, step: int) -> str:
    """Thousand images at a step, in names that sort; with decimals where snapshots lie closer than a thousand."""
    kimg, images = step * run.config.images_a_step / 1000, run.interval("snapshot_kimg") * run.config.images_a_step
    return f"{kimg:06.0f}" if images >= 1000 else f"{kimg:010.3f}"


def _announce(run: Run, found: dict[str, Any]) -> None:
    """Say where the run starts, where that is not the first step or other work on these images exists."""
    if run.finished:
        _log.info("this work is finished already, its networks are written anew; to repeat it delete %s", run.state)
    elif run.step:
        _log.info("going on from step %d of %d", run.step, run.steps)
    elif other := kin(run.state.parent, found):
        name, changes = other
        shown = "; ".join(changes[:8]) + (f"; {len(changes) - 8} more" if len(changes) > 8 else "")
        _log.info("starting afresh, since this is other work than %s: %s", name, shown)


def course(run: Run, published: Moment) -> dict[str, Any]:
    """What happened on the way, for whoever judges the result."""
    control = run.control
    return {
        "published_step": published.step,
        "best": control.best,
        "stopped": control.stopped,
        "alarms": control.alarms,
        "rollbacks": control.rollbacks,
    }


def write_networks(run: Run, folder: Path, *, step: int) -> None:
    """The moving average as the generator, the discriminator beside it for warm starts, and what they are."""
    folder.mkdir()
    info, config = run.store.info, run.config
    write_atomically(folder / "generator.safetensors", save(state_dict(run.players.average)))
    write_atomically(folder / "discriminator.safetensors", save(state_dict(run.players.discriminator)))
    description: dict[str, Any] = {
        "format": 1,
        "architecture": architecture(config),
        "z_dim": config.z_dim,
        "classes": run.store.classes,
        "resolution": info["resolution"],
        "channels": info["channels"],
        "step": step,
        "seed": config.seed,
        "ancestry": run.control.ancestry,
        "data_hash": info["data_hash"],
        "prior": class_shares(run.split.labels, len(run.store.classes)),
        "licence": info["datasheet"]["licence"],
        "name": info["datasheet"]["name"],
    }
    write_json(folder / "generator.json", description)


def state_dict(network: nn.Module) -> dict[str, torch.Tensor]:
    """Weights on the CPU, contiguous, so that the file's bytes depend on their values alone."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}


def class_shares(labels: np.ndarray, classes: int) -> list[float]:
    """Share of each class among `labels`; empty without classes."""
    return [float(np.mean(labels == label)) for label in range(classes)]


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def write_curves(path: Path, rows: list[dict[str, float]], *, names: Sequence[str]) -> None:
    """Rows over the run as CSV, for `dvc plots`; a value that a row lacks is left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
