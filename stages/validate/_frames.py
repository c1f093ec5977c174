"""The tables that the expectations are about: one row per image, per class and split, and per split."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.common.summary import read_summary
from stages.store import SPLITS, Store, open_store

UNLABELLED = "(no labels)"
_CHUNK = 8192  # images read at once


@dataclass(frozen=True)
class Frames:
    """What is validated: `manifest` as it was read; `images`, the same with measured columns beside it; `classes`, a
    row per class and split; `splits`, a row per split."""

    store: Store
    columns: list[str]  # that the manifest must have, in order
    manifest: pd.DataFrame
    images: pd.DataFrame
    classes: pd.DataFrame
    splits: pd.DataFrame


def read_frames(path: Path) -> Frames:
    """All tables of the image store in folder `path`. Raises ValueError where it is not a finished one."""
    shares = read_summary(path).config["splits"]
    store = open_store(path)
    columns = ["sha256", "source", "split", "label", "class", "width", "height", *store.info["attributes"]]
    manifest = pd.read_parquet(path / "manifest.parquet")
    # By row number and outer: where one of the two is longer, the fields of the other are empty there.
    images = manifest.join(_measured(store), how="outer")
    images["missing_fields"] = images.reindex(columns=[*columns, "pixels"]).isna().sum(axis=1)
    if {"pixels", "split"} <= set(images):
        images["splits_of_picture"] = images.groupby("pixels")["split"].transform("nunique")
    return Frames(store, columns, manifest, images, _classes(store), _splits(store, shares))


def _measured(store: Store) -> pd.DataFrame:
    """What the pixels themselves say, one row per stored image in store order."""
    count = sum(len(split) for split in store.splits.values())
    label, split = np.empty(count, np.int64), np.empty(count, object)
    darkest, brightest = np.empty(count, np.int64), np.empty(count, np.int64)
    mean, digests = np.empty(count), np.empty(count, object)
    for name, part in store.splits.items():
        label[part.rows], split[part.rows] = part.labels, name
        for start in range(0, len(part), _CHUNK):
            places = np.arange(start, min(start + _CHUNK, len(part)))
            rows, pixels = part.rows[places], part.take(places)
            flat = pixels.reshape(len(pixels), -1)
            darkest[rows], brightest[rows] = flat.min(axis=1), flat.max(axis=1)
            mean[rows] = flat.sum(axis=1, dtype=np.int64) / flat.shape[1]
            digests[rows] = [hashlib.sha256(row.tobytes()).hexdigest() for row in flat]
    return pd.DataFrame(
        {
            "stored_label": label,
            "stored_split": split.astype(str),
            "mean_level": mean,
            "level_range": brightest - darkest,
            "pixels": digests.astype(str),
        }
    )


def _classes(store: Store) -> pd.DataFrame:
    """Images of each class in each split, and of the class in all as a share of the largest class."""
    names = store.classes or [UNLABELLED]
    counts = {name: _counts(part.labels, len(store.classes)) for name, part in store.splits.items()}
    totals: NDArray[np.int64] = np.sum(list(counts.values()), axis=0)
    rows = [
        {"class": name, "split": split, "images": int(counts[split][index]), "class_images": int(totals[index])}
        for index, name in enumerate(names)
        for split in SPLITS
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(of_largest=frame["class_images"] / max(1, int(totals.max())))


def _counts(labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """How often each label occurs; without classes, how many images there are."""
    return np.bincount(labels[labels >= 0], minlength=classes)[:classes] if classes else np.array([len(labels)])


def _splits(store: Store, shares: dict[str, Any]) -> pd.DataFrame:
    """Share of each split beside the configured one, and their distance in binomial standard deviations."""
    total = max(1, sum(len(part) for part in store.splits.values()))
    rows = []
    for name in SPLITS:
        share, wanted = len(store.splits[name]) / total, float(shares[name])
        deviation = abs(share - wanted) / (wanted * (1 - wanted) / total) ** 0.5
        rows.append(
            {"split": name, "images": len(store.splits[name]), "share": share, "wanted": wanted, "deviation": deviation}
        )
    return pd.DataFrame(rows)
