"""The train room: from the image store and the state folder to `data/train/`."""

import csv
import dataclasses
import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

import gan
from stages.common.files import output_folder, read_json, sha256_file, write_atomically, write_json
from stages.common.summary import Summary, write_summary
from stages.config.train import TrainConfig
from stages.state import exclusive, state_folder
from stages.store import Store, open_store
from stages.train._loop import Run, architecture


def train(config: TrainConfig, *, images: Path, passed: Path, out: Path) -> Summary:
    """See `stages.train.run`."""
    torch.set_num_threads(config.threads)
    store = open_store(images)
    verdict = read_json(passed)
    if verdict.get("passed") is not True or verdict.get("data_hash") != store.info["data_hash"]:
        raise ValueError(f"{passed} does not say that the images in {images} passed; run `python -m stages.validate`")

    # Train in the state folder, from the last checkpoint where there is one.
    state = state_folder() / "train" / run_key(config, store)
    with exclusive(state):
        run = Run(config, store, state)
        run.to_the_end()

        # Publish what lasts.
        with output_folder(out) as work:
            write_networks(run, work / "generator")
            write_curves(work / "curves.csv", run.rows)
            for grid in sorted(state.glob("samples-*.png")):
                shutil.copyfile(grid, work / grid.name)
            shutil.copyfile(sorted(state.glob("samples-*.png"))[-1], work / "samples.png")
            summary = write_summary(
                work,
                stage="train",
                config=config,
                inputs={"images": images / "dataset.json", "passed": passed},
                results={
                    "data_hash": store.info["data_hash"],
                    "steps": run.steps,
                    "kimg": run.steps * config.batch / 1000,
                    "images": len(run.split),
                    "parameters": {
                        "generator": count_parameters(run.players.generator),
                        "discriminator": count_parameters(run.players.discriminator),
                    },
                    "last": run.rows[-1],
                },
            )
        clear(state)
    return summary


def clear(state: Path) -> None:
    """Delete what a finished run leaves, all but the lock that is still held.

    By name, so that checkpoints go before the grids drawn up to them, and the newest one last: whoever is killed here
    goes on from a checkpoint that misses nothing, or starts afresh.
    """
    for leftover in sorted(state.iterdir()):
        if leftover.name != "lock":
            leftover.unlink()


def run_key(config: TrainConfig, store: Store) -> str:
    """Names the work: the images, every setting, and the code and torch version that compute the trajectory."""
    library = Path(str(gan.__file__)).parent
    files = [library / name for name in ("latents.py", "pixels.py", "penalties.py", "training.py")]
    files += [library / "networks" / f"{config.network.name}.py", library / "losses" / f"{config.loss.name}.py"]
    files += [Path(__file__).with_name("_loop.py")]
    parts = [
        store.info["data_hash"],
        dataclasses.asdict(config),
        [sha256_file(path) for path in files],
        torch.__version__,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def write_networks(run: Run, folder: Path) -> None:
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
        "step": run.step,
        "seed": config.seed,
        "ancestry": [],
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


def write_curves(path: Path, rows: list[dict[str, float]]) -> None:
    """Loss terms over the run as CSV, for `dvc plots`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
