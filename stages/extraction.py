"""Features of many images by a published extractor, shared out over the processes that torchrun started.

Batch b always covers images b * batch ... (b + 1) * batch - 1, whoever computes it, so the bytes of the result do not
depend on how many processes there are. Rank r computes batches r, r + world, ...; rank 0 collects them in order.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gan.features.published import Published, open_published
from gan.ranks import Ranks
from stages.state import state_folder

Images = Callable[[int, int], NDArray[np.uint8]]
"""images(start, stop): uint8 [stop - start, H, W, C]; must give the same images for the same places in any process."""

Block = tuple[int, NDArray[np.float32], NDArray[np.float64] | None]
"""First image, features [n, D], probabilities [n, K] or None."""


class Extractor(Protocol):
    """What is required of an extractor; `gan.features.published.Published` is one."""

    @property
    def key(self) -> str: ...

    def __call__(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]: ...


def extract(
    images: Images, count: int, extractor: Extractor, *, ranks: Ranks, batch: int = 64
) -> tuple[NDArray[np.float32], NDArray[np.float64] | None] | None:
    """Features [count, D] and probabilities [count, K] (or None) on rank 0, None elsewhere; every process must call it.

    Raises ValueError if `count` or `batch` is below 1, or another process has ended.
    """
    found: NDArray[np.float32] | None = None
    odds: NDArray[np.float64] | None = None
    for start, features, probabilities in blocks(images, count, extractor, ranks=ranks, batch=batch):
        found = np.empty((count, features.shape[1]), np.float32) if found is None else found
        found[start : start + len(features)] = features
        if probabilities is not None:
            odds = np.empty((count, probabilities.shape[1])) if odds is None else odds
            odds[start : start + len(features)] = probabilities
    return None if found is None else (found, odds)


def blocks(images: Images, count: int, extractor: Extractor, *, ranks: Ranks, batch: int = 64) -> Iterator[Block]:
    """The same block by block, in order, on rank 0; other ranks yield nothing, but do their work while iterating."""
    if count < 1 or batch < 1:
        raise ValueError(
            f"features need at least one image and a batch of at least 1; received {count} images, batch {batch}"
        )
    rounds = range(0, count, batch * ranks.world)
    for first in tqdm(rounds, desc=extractor.key, unit="batch", disable=None if ranks.rank == 0 else True):
        start = first + ranks.rank * batch
        # A process without images in the last round computes its first one again: gathering needs equal shapes.
        place = start if start < count else 0
        features, probabilities = extractor(images(place, min(place + batch, count)))
        found = ranks.gathered(_filled(features, batch))
        odds = None if probabilities is None else ranks.gathered(_filled(probabilities, batch))
        for rank, part in enumerate(found):
            begin = first + rank * batch
            size = min(batch, count - begin)
            if size > 0:
                yield begin, part[:size], None if odds is None else odds[rank][:size]


def _filled(values: NDArray[Any], rows: int) -> NDArray[Any]:
    """`values` with rows of zeros up to `rows`."""
    return (
        values
        if len(values) == rows
        else np.concatenate([values, np.zeros((rows - len(values), *values.shape[1:]), values.dtype)])
    )


def open_entry(name: str, resize: str, weights: str, sha256: str, *, device: str = "cpu") -> Published:
    """The extractor of an entry of `reference.published`. Raises ValueError if its file is missing or another one."""
    path = weights_path(weights)
    if not path.is_file():
        raise ValueError(
            f"the weights of {name} are not at {weights}, nor in {state_folder() / 'weights'}; nothing is downloaded "
            f"here. Run `python -m stages.reference.weights {name} --resize {resize}`, with `--from FILE` on a machine "
            f"without network, or place the file with SHA-256 {sha256} there"
        )
    return open_published(name, resize=resize, weights=path, sha256=sha256, device=device)


def weights_path(weights: str) -> Path:
    """The path of an entry's file: `weights` as written if that file exists, else by name in the state folder."""
    stored = state_folder() / "weights" / weights
    return Path(weights) if Path(weights).is_file() else stored
