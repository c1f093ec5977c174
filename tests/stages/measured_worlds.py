"""Small worlds for tests of reference and evaluate: digits and colour images that passed, and stored images as ONNX."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.common.files import write_json
from stages.config.reference import Fit, ReferenceConfig, Training
from stages.export._onnx import export_module
from stages.reference import run
from tests.stages.stored_digits import write_store

CONFIG = ReferenceConfig(
    threads=1, seed=0, extractor=Fit(name="fit", width=16), largest_set=1000, floor_draws=4, picture_pool=100,
    training=Training(steps=150, batch=64, learning_rate=0.002),
)  # fmt: skip
NAMES = [f"digit {label}" for label in range(10)]


def digits(folder: Path, count: int = 900) -> Path:
    """A folder with `store` and `passed.json` of digits, split 55 / 30 / 15."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))[:count]
    images = np.rint(data.images[order] * (255 / 16)).astype(np.uint8)[..., None]
    return passed_store(folder, images, data.target[order], NAMES)


def colours(folder: Path) -> Path:
    """The same of 16x16 RGB images without labels: bright tops of many colours."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 60, (400, 16, 16, 3)) + np.zeros((1, 16, 1, 1), int)
    images[:, :8] += rng.integers(40, 180, (400, 1, 1, 3))
    return passed_store(folder, images.astype(np.uint8), np.full(400, -1), [])


def passed_store(folder: Path, images: np.ndarray, labels: np.ndarray, classes: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    count = len(images)
    splits = np.searchsorted([int(0.55 * count), int(0.85 * count)], np.arange(count), side="right")
    write_store(folder / "store", images, labels, splits, classes)
    write_json(folder / "passed.json", {"format": 1, "data_hash": "d" * 64, "passed": True})
    return folder


def reference(folder: Path, name: str = "reference", config: ReferenceConfig = CONFIG) -> dict[str, Any]:
    run(config, images=folder / "store", passed=folder / "passed.json", out=folder / name)
    return json.loads((folder / name / "reference.json").read_text())


Z_DIM, POOL = 8, 45


class Stored(nn.Module):
    """Image `pixels[label, nearest key to z]`; without labels `pixels` has one row."""

    keys: Tensor
    pixels: Tensor

    def __init__(self, pixels: np.ndarray) -> None:
        super().__init__()
        keys = np.random.default_rng(5).normal(size=(Z_DIM, pixels.shape[1]))
        self.register_buffer("keys", torch.from_numpy(keys.astype(np.float32)))
        flat = pixels.transpose(0, 1, 4, 2, 3).reshape(pixels.shape[0] * pixels.shape[1], -1)
        self.register_buffer("pixels", torch.from_numpy(flat.astype(np.float32) / 127.5 - 1))
        self.pool, self.shape = pixels.shape[1], (pixels.shape[4], *pixels.shape[2:4])

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        place = (z[:, :, None] - self.keys[None]).square().sum(1).argmin(1)
        place = place if label is None else place + self.pool * label
        return torch.index_select(self.pixels, 0, place).view(-1, *self.shape)


def stored(
    folder: Path, name: str, pixels: np.ndarray, *, data_hash: str = "d" * 64, classes: list[str] = NAMES,
    prior: list[float] | None = None,
) -> Path:  # fmt: skip
    """ONNX file that draws from `pixels` uint8 [classes or 1, pool, H, W, C]."""
    labelled = len(pixels) > 1
    about = {
        "name": name, "licence": "CC BY 4.0", "prior": (prior or [1 / len(pixels)] * len(pixels)) if labelled else [],
        "data_hash": data_hash, "input_digest": "0" * 64,
    }  # fmt: skip
    export_module(
        Stored(pixels), folder / f"{name}.onnx", z_dim=Z_DIM, classes=classes if labelled else [],
        resolution=pixels.shape[2], channels=pixels.shape[4], metadata=about,
    )  # fmt: skip
    return folder / f"{name}.onnx"
