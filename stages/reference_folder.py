"""The folder that reference writes, opened by those who measure against it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan.features.domain import DomainNetwork, load
from stages.common.files import read_array, read_json, sha256_file

_NEEDS = ("data_hash", "classes", "counts", "extractor", "recipe", "floors", "baselines", "seed")


@dataclasses.dataclass(frozen=True)
class Reference:
    """An opened reference: `info` is `reference.json`; arrays are read when asked for."""

    path: Path
    info: dict[str, Any]

    @property
    def classes(self) -> list[str]:
        """Class names in label order; empty where the images carry no labels."""
        return list(self.info["classes"])

    @property
    def heldout(self) -> int:
        """Number of held-out images: the size of every set that is compared with them."""
        return int(self.info["counts"]["heldout"])

    def features(self, split: str) -> NDArray[np.float32]:
        """Features [N, D] of a split: train, fit or heldout."""
        return read_array(self.path / f"features-{split}.npy")

    def pictures(self, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images uint8 [N, H, W, C] and labels [N] of `heldout` (all) or `train` (some, evenly spread)."""
        images = read_array(self.path / f"{split}_images.npy")
        return images, read_array(self.path / f"{split}_labels.npy")

    def network(self) -> DomainNetwork:
        """The feature network. Raises ValueError where the file is not the one that `reference.json` names."""
        path = self.path / "extractor.safetensors"
        found, stated = sha256_file(path), self.info["extractor"]["sha256"]
        if found != stated:
            raise ValueError(
                f"{path} has SHA-256 {found}, reference.json names {stated}; run `python -m stages.reference`"
            )
        return load(path)


def open_reference(path: Path) -> Reference:
    """Open the folder `path`. Raises ValueError where reference has not finished there."""
    if not (path / "summary.json").is_file():
        raise ValueError(f"{path} is no finished reference: it holds no summary.json; run `python -m stages.reference`")
    return Reference(path, read_json(path / "reference.json", needs=_NEEDS))
