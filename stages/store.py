"""The image store that ingest writes: memory-mapped shards, read by row."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.common.files import read_array, read_json

SPLITS = ("train", "fit", "heldout")  # the code of a split in `split-*.npy` is its place here


@dataclasses.dataclass(frozen=True)
class Split:
    """The images of one split, in store order; nothing is read before `take`."""

    shards: tuple[NDArray[np.uint8], ...]  # memory maps [n, H, W, C]
    rows: NDArray[np.int64]  # rows of the split in the whole store
    labels: NDArray[np.int64]  # [len(rows)]; -1 if the store has no classes

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, H, W, C] of all images; with this and `split[indices]` a split can stand in for an array."""
        return (len(self), *self.shards[0].shape[1:])

    @functools.cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Row in the whole store of the first image of each shard."""
        return np.cumsum([0, *(len(shard) for shard in self.shards[:-1])])

    def __getitem__(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        return self.take(indices)

    def take(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Images at these places of the split: uint8 [len(indices), H, W, C]."""
        rows = self.rows[indices]
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        images = np.empty((len(rows), *self.shards[0].shape[1:]), np.uint8)
        # One by one: a batch of a large store has hardly two images of one shard.
        for place, (owner, row) in enumerate(zip(owners.tolist(), (rows - self._starts[owners]).tolist(), strict=True)):
            images[place] = self.shards[owner][row]
        return images

    def all(self) -> NDArray[np.uint8]:
        """All images of the split: uint8 [len(self), H, W, C]."""
        return self.take(np.arange(len(self)))


@dataclasses.dataclass(frozen=True)
class Store:
    """An opened image store: `info` is `dataset.json`, `splits` maps each name of SPLITS to its images."""

    path: Path
    info: dict[str, Any]
    splits: dict[str, Split]

    @property
    def classes(self) -> list[str]:
        """Class names in label order; empty if the images carry no labels."""
        return list(self.info["classes"])


def open_store(path: Path) -> Store:
    """Open the image store in folder `path`. Raises ValueError if it is not one or its parts disagree."""
    if not (path / "dataset.json").is_file():
        raise ValueError(f"{path} is not an image store: it holds no dataset.json; run `python -m stages.ingest`")
    info = read_json(path / "dataset.json", needs=("resolution", "channels", "classes", "counts", "data_hash"))
    names = sorted(path.glob("images-*.npy"))
    if not names:
        raise ValueError(f"{path} holds no images-*.npy; run ingest again")
    shards = tuple(np.asarray(read_array(name, mapped=True)) for name in names)
    labels, codes = (
        np.concatenate([read_array(name.with_name(name.name.replace("images", kind))) for name in names])
        for kind in ("labels", "split")
    )
    if not len(labels) == len(codes) == sum(len(shard) for shard in shards) == info["counts"]["kept"]:
        raise ValueError(f"{path}: images, labels, splits and dataset.json differ in length; run ingest again")
    shape = (info["resolution"], info["resolution"], info["channels"])
    if any(shard.shape[1:] != shape for shard in shards) or labels.max(initial=-1) >= len(info["classes"]):
        raise ValueError(f"{path}: images or labels are not those that dataset.json describes; run ingest again")
    splits = {}
    for code, name in enumerate(SPLITS):
        rows = np.flatnonzero(codes == code)
        splits[name] = Split(shards, rows, labels[rows].astype(np.int64))
    return Store(path, info, splits)


def open_passed_store(path: Path, passed: Path) -> Store:
    """As `open_store`; also raises ValueError unless `passed` (validate's passed.json) says that its images passed."""
    store, verdict = open_store(path), read_json(passed)
    if verdict.get("passed") is not True or verdict.get("data_hash") != store.info["data_hash"]:
        raise ValueError(f"{passed} does not say that the images in {path} passed; run `python -m stages.validate`")
    return store
