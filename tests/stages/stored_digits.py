"""Known truth for tests of audit and compare: stored digits behind the ONNX interface, by the real exporter.

The reference folder is a small one of the released format, with the real extractor at a short training.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gan.features.domain import DomainNetwork, Recipe, features, fit, save
from gan.latents import labels as draw_labels
from gan.latents import latents
from stages.common.files import sha256_file, write_json
from stages.export._onnx import export_module
from stages.scoring import set_scores
from stages.store import Split, Store, open_store

SAMPLES, SEED, Z_DIM, UNSEEN = 300, 7, 16, 300


class Stored(nn.Module):
    """Draws from stored images: latent i of SEED gives image i, whatever the batch; a label is obeyed by the table."""

    keys: Tensor
    pixels: Tensor

    def __init__(self, images: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("keys", torch.from_numpy(latents(SEED, 0, SAMPLES, Z_DIM)).T.contiguous())
        pixels = images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
        self.register_buffer("pixels", torch.from_numpy(pixels).flatten(1))
        self.shape = images.shape

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        distance = (z[:, :, None] - self.keys[None]).square().sum(1)
        if label is not None:
            distance = distance + 0 * label[:, None].to(distance.dtype)
        chosen = torch.index_select(self.pixels, 0, distance.argmin(1))
        return chosen.view(-1, self.shape[3], self.shape[1], self.shape[2])


@dataclasses.dataclass
class World:
    """Store and reference of a data set, and 300 images that nobody has seen."""

    folder: Path
    store: Store
    unseen: np.ndarray
    unseen_labels: np.ndarray

    def export(self, name: str, images: np.ndarray) -> Path:
        path, info = self.folder / f"{name}.onnx", self.store.info
        counts = (
            np.bincount(self.store.splits["train"].labels, minlength=len(info["classes"])) if info["classes"] else []
        )
        metadata = {
            "name": name, "licence": "CC BY 4.0", "prior": [float(n / sum(counts)) for n in counts],
            "data_hash": info["data_hash"], "input_digest": "0" * 64,
        }  # fmt: skip
        export_module(
            Stored(images), path, z_dim=Z_DIM, classes=info["classes"], resolution=8, channels=info["channels"],
            metadata=metadata,
        )  # fmt: skip
        return path

    def by_label(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """SAMPLES of the images in the order of the labels that will be asked for; used in turn, from the start."""
        counts = np.bincount(self.store.splits["train"].labels, minlength=10)
        asked = draw_labels(SEED, 0, SAMPLES, counts / counts.sum())
        rows = np.empty(SAMPLES, np.int64)
        for label in range(10):
            places, pool = np.flatnonzero(asked == label), np.flatnonzero(labels == label)
            rows[places] = pool[np.arange(len(places)) % len(pool)]
        return images[rows]


def write_reference(path: Path, store: Store) -> None:
    """The parts of a reference folder that audit and compare read, by the real extractor at a short training."""
    path.mkdir()
    side, classes = store.splits, store.classes
    labelled = side["fit"].labels if classes else None
    network = fit(side["fit"].all(), labelled, classes=len(classes), recipe=Recipe(steps=400), seed=0)
    save(network, path / "extractor.safetensors")
    for name in ("train", "heldout"):
        np.save(path / f"features-{name}.npy", features(network, side[name].all())[0])
    np.save(path / "heldout_images.npy", side["heldout"].all())
    np.save(path / "heldout_labels.npy", side["heldout"].labels)
    confusion = np.zeros((len(classes), len(classes)), int)
    if classes:
        predicted = features(network, side["heldout"].all())[1].argmax(1)
        np.add.at(confusion, (side["heldout"].labels, predicted), 1)
    about = {"sha256": sha256_file(path / "extractor.safetensors"), **network.settings}
    write_json(
        path / "reference.json",
        {
            "format": 1, "data_hash": store.info["data_hash"], "classes": classes, "extractor": about,
            "confusion": confusion.tolist(), "floors": floors(network, side),
            "counts": {name: len(split) for name, split in side.items()}, "set_size": len(side["heldout"]),
            "recipe": {"steps": 400}, "baselines": {}, "seed": 0,  # what evaluate alone reads
        },
    )  # fmt: skip
    write_json(path / "summary.json", {"format": 1})


def floors(network: DomainNetwork, side: dict[str, Split]) -> dict[str, dict[str, float]]:
    """Mean and deviation of three draws of training images against the held-out ones."""
    (real, _), (pool, odds) = (features(network, side[name].all()) for name in ("heldout", "train"))
    orders = [np.random.default_rng(draw).permutation(len(pool))[: len(real)] for draw in range(3)]
    rows = [set_scores(real, pool[chosen], odds[chosen]) for chosen in orders]
    return {
        name: {
            "mean": float(np.mean([row[name] for row in rows])),
            "sd": float(np.std([row[name] for row in rows], ddof=1)),
        }
        for name in rows[0]
    }


def write_store(path: Path, images: np.ndarray, labels: np.ndarray, splits: np.ndarray, classes: list[str]) -> Store:
    """An image store of the released format with one shard, of which no image was refused."""
    path.mkdir()
    for kind, values in (("images", images), ("labels", labels.astype(np.int64)), ("split", splits.astype(np.uint8))):
        np.save(path / f"{kind}-00000.npy", values)
    info = {
        "format": 1, "resolution": images.shape[1], "channels": images.shape[3], "classes": classes,
        "counts": {"kept": len(images)}, "data_hash": "d" * 64,
    }  # fmt: skip
    write_json(path / "dataset.json", info)
    (path / "near_refused.csv").write_text("refused,split,kept,squared_distance\n")
    return open_store(path)


def digits_world(folder: Path) -> World:
    """The digits, 300 of them set aside, the rest split 55 / 30 / 15."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], digits.target[order]
    kept = len(images) - UNSEEN
    splits = np.searchsorted([int(0.55 * kept), int(0.85 * kept)], np.arange(kept), side="right")
    names = [f"digit {label}" for label in range(9)] + ["<b>nine & *more*</b>"]
    store = write_store(folder / "store", images[:kept], labels[:kept], splits, names)
    write_reference(folder / "reference", store)
    return World(folder, store, images[kept:], labels[kept:])
