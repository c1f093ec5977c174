"""Features of the real images by published extractors: computed once, then found again in the state folder.

`$GANOPS_STATE/features/<key>/` holds features.npy, probabilities.npy and about.json, which is written last. The key is
a hash of all that the bytes depend on: pixels of the split, weights, resize rule, code, versions, threads, device.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

import gan.features.published
from gan.features.published import Published
from gan.metrics import moments
from gan.ranks import Ranks
from stages.common.files import read_array, read_json, sha256_file, write_array_header, write_json
from stages.config.reference import ReferenceConfig
from stages.extraction import Block, blocks, open_entry
from stages.state import exclusive, state_folder
from stages.store import Split, Store

SPLITS = ("train", "heldout")
BATCH = 64  # images per pass, on which the last bits depend
_ROWS = 4096  # rows in memory at once

Record = dict[str, Any]
Kept = tuple[Record, dict[str, Path]]
"""What `reference.json` says about an extractor, and the folder of its features by split."""


def kept_features(config: ReferenceConfig, store: Store, ranks: Ranks) -> list[Kept]:
    """Record, and folders of the features by split, of each entry of `reference.published`; valid on rank 0 alone.

    Every process of the run must call it. Raises ValueError if an entry's file is missing or not the stated one.
    """
    kept = []
    for entry in config.published:
        # Opened even if its features are found again: evaluate needs this very file to measure against them.
        extractor = open_entry(entry.name, entry.resize, entry.weights, entry.sha256, device=ranks.device)
        folders = {name: _kept(extractor, store.splits[name], config.threads, ranks) for name in SPLITS}
        about = {"name": entry.name, "resize": entry.resize, "sha256": entry.sha256, "width": extractor.width}
        kept.append(({**about, "device": extractor.device.partition(":")[0]}, folders))
    return kept


def place(kept: list[Kept], work: Path) -> list[Record]:
    """Copy features and probabilities to `work`/published/<key>/, write their moments, and return the records."""
    for record, folders in kept:
        target = work / "published" / f"{record['name']}-{record['resize']}"
        target.mkdir(parents=True)
        for split, folder in folders.items():
            for path in sorted(folder.glob("*.npy")):
                shutil.copyfile(path, target / f"{path.stem}-{split}.npy")
            mean, covariance = moments(read_array(target / f"features-{split}.npy", mapped=True))
            np.savez(target / f"moments-{split}.npz", mean=mean, cov=covariance)
    return [record for record, _ in kept]


def _kept(extractor: Published, split: Split, threads: int, ranks: Ranks) -> Path:
    """The folder with the split's features, computed by all processes together if it is not there yet."""
    folder = Path()
    identity: Record = {}
    if ranks.rank == 0:
        identity = _identity(extractor, split, threads)
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        folder = state_folder() / "features" / key[:32]
    with exclusive(folder) if ranks.rank == 0 else contextlib.nullcontext():
        if not ranks.told(_whole(folder)):
            found = blocks(lambda i, j: split.take(np.arange(i, j)), len(split), extractor, ranks=ranks, batch=BATCH)
            _write(found, folder, len(split))
            if ranks.rank == 0:
                files = {path.name: sha256_file(path) for path in sorted(folder.glob("*.npy"))}
                write_json(folder / "about.json", {"format": 1, "files": files, "identity": identity})
    return folder


def _whole(folder: Path) -> bool:
    """Whether the folder holds what it says; what a crash or a full disk left is made again."""
    if not (folder / "about.json").is_file():
        return False
    files = read_json(folder / "about.json", needs=("files",))["files"]
    return all((folder / name).is_file() and sha256_file(folder / name) == known for name, known in files.items())


def _write(found: Iterator[Block], folder: Path, count: int) -> None:
    """Append the blocks, in order, to the files: never more than one block is in memory.

    Plain writing, because a memory map on a full disk kills the process instead of raising an error.
    """
    with contextlib.ExitStack() as stack:
        files: dict[str, BinaryIO] = {}
        for _, features, odds in found:
            for name, values in (("features", features), ("probabilities", odds)):
                if values is None:
                    continue
                if name not in files:
                    files[name] = stack.enter_context((folder / f"{name}.npy").open("wb"))
                    write_array_header(files[name], values, count)
                files[name].write(np.ascontiguousarray(values).data)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())


def _identity(extractor: Published, split: Split, threads: int) -> Record:
    """All that the bytes of the features depend on."""
    library = Path(gan.features.published.__file__).parent
    parts = ("published", "resize", "standard", extractor.name.partition("_vit")[0])
    packages = ("torch", "torchvision", "pillow", *(["timm"] if extractor.name.startswith("dinov2") else []))
    return {
        "images": _pixels(split),
        "extractor": extractor.key,
        "sha256": extractor.sha256,
        "batch": BATCH,
        "threads": threads,
        "device": torch.cuda.get_device_name() if extractor.device.startswith("cuda") else extractor.device,
        "code": {name: sha256_file(library / f"{name}.py") for name in parts},
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def _pixels(split: Split) -> str:
    """SHA-256 over the shape and the pixels of a split in order."""
    found = hashlib.sha256(str((len(split), *split.shards[0].shape[1:])).encode())
    for start in range(0, len(split), _ROWS):
        found.update(split.take(np.arange(start, min(start + _ROWS, len(split)))).data)
    return found.hexdigest()
