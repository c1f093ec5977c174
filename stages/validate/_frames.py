"""The tables that the expectations are about: one row per image, per class and split, and per split."""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.common.summary import read_summary
from stages.store import SPLITS, Store, open_store
from stages.validate._measures import measure, names

UNLABELLED = "(no labels)"
MEASURED = "measured_"  # prefix of all columns added here; ingest refuses attributes with it
ASPECT = MEASURED + "aspect"  # of the source file, not of the stored pixels
MISSING = MEASURED + "missing_fields"
STORED_LABEL, STORED_SPLIT = MEASURED + "label", MEASURED + "split"  # as stored beside the pixels
PIXELS = MEASURED + "pixels"  # SHA-256 of the pixels
NEAR, NEAR_ELSEWHERE = MEASURED + "near_duplicate", MEASURED + "near_in_other_split"
SPLITS_OF_PICTURE, SPLITS_OF_GROUP = MEASURED + "splits_of_picture", MEASURED + "splits_of_group"
UNDECLARED = MEASURED + "undeclared_"
_CHUNK_BYTES = 2_000_000  # of pixels read at once


@dataclass(frozen=True)
class Frames:
    """What is validated: `manifest` as read; `images`, the same with measured columns added; `classes`, one row per
    class and split; `splits`, one row per split."""

    store: Store
    columns: list[str]  # that the manifest must have, in order
    smallest: int  # px, the least width and height of a source file
    near: bool  # whether ingest looked for near duplicates
    manifest: pd.DataFrame
    images: pd.DataFrame
    classes: pd.DataFrame
    splits: pd.DataFrame

    @property
    def declares(self) -> dict[str, Any]:
        """What the datasheet declares of the images; see docs/data.md."""
        return dict(self.store.info["datasheet"].get("declares") or {})


def read_frames(path: Path) -> Frames:
    """All tables of the image store in folder `path`. Raises ValueError if it is not a finished one."""
    summary, store = read_summary(path), open_store(path)
    settings, refused = summary.config, summary.results.get("refused", {}).get("near duplicate", 0)
    columns = ["sha256", "source", "split", "label", "class", "width", "height", *store.info["attributes"]]
    columns += [*store.info.get("declared", ()), *(["group"] if store.info.get("grouped") else [])]
    manifest = pd.read_parquet(path / "manifest.parquet")
    # By row number, as an outer join: if one of the two is longer, the other's fields are empty in the extra rows.
    images = manifest.join(_measured(store), how="outer")
    images[MISSING] = images.reindex(columns=[*columns, PIXELS]).isna().sum(axis=1)
    if {"width", "height"} <= set(images):
        images[ASPECT] = images["width"] / images["height"].clip(lower=1)
    _add_leaks(images, path)
    _add_undeclared(images, store.info["datasheet"].get("declares") or {})
    smallest = 1 if settings.get("upscale") else store.info["resolution"]
    splits = _splits(store, settings["splits"], images, refused, store.info["counts"]["duplicates"])
    near = settings.get("near_duplicates") is not None
    return Frames(store, columns, smallest, near, manifest, images, _classes(store), splits)


def of_pixels(column: str) -> bool:
    """Whether a column of `images` describes the stored pixels."""
    return column.startswith(MEASURED) and column != ASPECT


def _measured(store: Store) -> pd.DataFrame:
    """What is measured on the pixels themselves, one row per stored image in store order."""
    count = sum(len(split) for split in store.splits.values())
    label, split, digests = np.empty(count, np.int64), np.empty(count, np.uint8), np.empty(count, "S64")
    channels = int(store.info["channels"])
    values = {name: np.empty(count, np.float32) for name in names(channels)}
    chunk = max(1, _CHUNK_BYTES // (store.info["resolution"] ** 2 * channels))
    for code, part in enumerate(store.splits.values()):
        label[part.rows], split[part.rows] = part.labels, code
        for start in range(0, len(part), chunk):
            places = np.arange(start, min(start + chunk, len(part)))
            rows, pixels = part.rows[places], part.take(places)
            for name, column in measure(pixels).items():
                values[name][rows] = column
            flat = pixels.reshape(len(pixels), -1)
            digests[rows] = [hashlib.sha256(row.tobytes()).hexdigest().encode() for row in flat]
    frame = pd.DataFrame({STORED_LABEL: label, STORED_SPLIT: _words(SPLITS, split), PIXELS: _texts(digests)})
    return frame.assign(**{MEASURED + name: column for name, column in values.items()})


def _words(words: tuple[str, ...], codes: NDArray[np.uint8]) -> pd.Series:
    return pd.Series(pd.Categorical.from_codes(codes.astype(np.int64), pd.Index(words))).astype(str)


def _texts(values: NDArray[np.bytes_]) -> pd.Series:
    return pd.Series(values.astype(str), dtype="str")


def _add_leaks(images: pd.DataFrame, path: Path) -> None:
    """Add in how many splits each picture and group lies, and whether its near duplicate lies in another split."""
    if "split" not in images:
        return
    images[SPLITS_OF_PICTURE] = _splits_of(images, PIXELS)
    if "group" in images:
        images[SPLITS_OF_GROUP] = _splits_of(images, "group")
    with (path / "near_duplicates.csv").open(encoding="utf-8", newline="") as file:
        pairs = list(csv.reader(file))[1:]
    split = images.set_index("source")["split"] if pairs and "source" in images else None
    images[NEAR], images[NEAR_ELSEWHERE] = 0, 0
    if split is not None:
        of = pd.DataFrame(pairs, columns=["source", "near"]).drop_duplicates("source").set_index("source")["near"]
        near = images["source"].map(of)
        sides = near.map(split[~split.index.duplicated()])
        images[NEAR] = near.notna().astype(np.int64)
        images[NEAR_ELSEWHERE] = (near.notna() & (sides != images["split"])).astype(np.int64)


def _add_undeclared(images: pd.DataFrame, declares: dict[str, Any]) -> None:
    """Add, per attribute, 1 for a value that the datasheet does not declare and 0 otherwise; an empty one is 1, too."""
    for name, allowed in (declares.get("attributes") or {}).items():
        if name not in images:
            continue
        if "values" in allowed:
            inside = images[name].isin(allowed["values"])
        else:
            values = pd.to_numeric(images[name], errors="coerce")
            inside = values.between(float(allowed.get("min", "-inf")), float(allowed.get("max", "inf")))
        images[f"{UNDECLARED}{name}"] = (~inside).astype(np.int64)


def _splits_of(images: pd.DataFrame, column: str) -> NDArray[np.int64]:
    """In how many splits the value of `column` lies, for every row; 0 if it is empty."""
    codes, values = pd.factorize(images[column])
    sides = np.zeros((len(values) + 1, len(SPLITS) + 1), np.bool_)
    side = np.array([SPLITS.index(name) if name in SPLITS else len(SPLITS) for name in images["split"]], np.int64)
    sides[codes, side] = True
    sides[-1] = False  # code -1: empty
    return np.asarray(sides.sum(axis=1)[codes])


def _classes(store: Store) -> pd.DataFrame:
    """Images of each class in each split, and all images of the class as a share of those of the largest class."""
    classes = store.classes or [UNLABELLED]
    counts = {name: _counts(part.labels, len(store.classes)) for name, part in store.splits.items()}
    totals: NDArray[np.int64] = np.sum(list(counts.values()), axis=0)
    rows = [
        {"class": name, "split": split, "images": int(counts[split][index]), "class_images": int(totals[index])}
        for index, name in enumerate(classes)
        for split in SPLITS
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(of_largest=frame["class_images"] / max(1, int(totals.max())))


def _counts(labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """How often each label occurs; without classes, how many images there are."""
    return np.bincount(labels[labels >= 0], minlength=classes)[:classes] if classes else np.array([len(labels)])


def _splits(store: Store, shares: dict[str, Any], images: pd.DataFrame, near: int, copies: int) -> pd.DataFrame:
    """Share of each split beside the configured one, and how far the assignment was from that in standard deviations.

    These are binomial; if whole groups are assigned, those of the number of draws that would vary as much,
    (sum of sizes)^2 / sum of squared sizes. The `near` duplicates that ingest refused (none of them held out) and the
    `copies` that it left out were assigned, too, but it is not known to which splits, so each split may have had any
    number of them: the deviation given is the smallest possible.
    """
    kept = sum(len(part) for part in store.splits.values())
    sizes = images["group"].value_counts().to_numpy() if "group" in images else np.ones(max(1, kept))
    draws = sizes.sum() ** 2 / (sizes**2).sum() if len(sizes) else max(1, kept)
    assigned = max(1, kept + near + copies)
    rows = []
    for name in SPLITS:
        count, wanted = len(store.splits[name]), float(shares[name])
        low, high = count / assigned, (count + copies + (near if name != "heldout" else 0)) / assigned
        deviation = max(0.0, low - wanted, wanted - high) / (wanted * (1 - wanted) / draws) ** 0.5
        share = count / max(1, kept)
        rows.append({"split": name, "images": count, "share": share, "wanted": wanted, "deviation": deviation})
    return pd.DataFrame(rows)
