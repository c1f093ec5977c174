"""The three things that an audit reads, opened and checked to belong together."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumer import Generator
from gan.features.domain import DomainNetwork, Pictures, features
from stages.reference_folder import Reference, open_reference
from stages.store import Store, open_store


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Generator, image store and reference of one data set."""

    generator: Generator
    store: Store
    reference: Reference
    network: DomainNetwork
    train_features: NDArray[np.float32]  # [N, D], training images in store order

    @property
    def classifies(self) -> bool:
        """Whether the extractor knows the classes of this generator."""
        return bool(self.generator.classes) and self.network.kind == "classifier"

    @property
    def extractor(self) -> dict[str, Any]:
        """The part of a protocol that names the feature extractor."""
        about = self.reference.info["extractor"]
        return {"extractor": "domain", "extractor_sha256": about["sha256"], "resize": "none"}

    def look(self, images: Pictures) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Features [N, D] and predicted classes [N] of uint8 images [N, H, W, C]."""
        found, odds = features(self.network, images)
        return found, odds.argmax(axis=1).astype(np.int64)


def open_inputs(onnx: Path, reference: Path, images: Path, *, threads: int) -> Inputs:
    """Open all three. Raises ValueError if they are not of one data set or not of one shape."""
    store = open_store(images)
    opened = open_reference(reference)
    generator = Generator(onnx, providers=["CPUExecutionProvider"], threads=threads)
    stated = {"reference": opened.info["data_hash"], "image store": store.info["data_hash"]}
    _same("data hash", generator.metadata.get("data_hash"), onnx, stated)
    _same("classes", generator.classes, onnx, {"reference": opened.classes, "image store": store.classes})
    shape = {"image store": [store.info["resolution"], store.info["channels"]]}
    _same("resolution and channels", [generator.resolution, generator.channels], onnx, shape)
    train = opened.features("train")
    if len(train) != len(store.splits["train"]):
        raise ValueError(
            f"{reference} holds features of {len(train)} training images, but {images} has "
            f"{len(store.splits['train'])}; run `python -m stages.reference` again"
        )
    return Inputs(generator, store, opened, opened.network(), train)


def _same(what: str, mine: Any, onnx: Path, others: dict[str, Any]) -> None:
    for name, theirs in others.items():
        if mine != theirs:
            raise ValueError(
                f"{onnx} and the {name} do not belong together: {what} {_short(mine)} against {_short(theirs)}; "
                "give the files of one run"
            )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
