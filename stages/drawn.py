"""Generated images one block at a time, or on disk if a stage needs them again: never a whole set in memory."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

BATCH = 256  # images in memory at once; how many of them the generator makes per call is up to it

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


class Drawer(Protocol):
    """What is required of a generator; `consumer.Generator` is one."""

    def draw(self, count: int, seed: int = 0, *, start: int = 0) -> tuple[Images, Labels | None]: ...


def blocks(generator: Drawer, count: int, *, seed: int, start: int = 0) -> Iterator[tuple[Images, Labels | None]]:
    """Images start ... start + count - 1 of `seed` and their labels, BATCH of them at a time."""
    for first in range(0, count, BATCH):
        yield generator.draw(min(BATCH, count - first), seed, start=start + first)


def drawn(
    generator: Drawer, count: int, *, seed: int, folder: Path, start: int = 0, title: str = "images"
) -> tuple[Images, Labels | None]:
    """The same images together, uint8 [count, H, W, C], read-only, and their labels [count].

    They lie in an unnamed file in `folder`, mapped into memory: the system keeps in memory what there is room for, and
    frees the file with the last reference or the process. `title` names the progress bar. Raises OSError if the disk is
    full.
    """
    labels: list[Labels] = []
    shape: tuple[int, ...] = ()
    bar = tqdm(total=count, desc=title, unit="image", disable=None)
    with bar, tempfile.TemporaryFile(dir=folder) as file:
        for images, asked in blocks(generator, count, seed=seed, start=start):
            file.write(np.ascontiguousarray(images).data)
            shape = images.shape[1:]
            labels += [] if asked is None else [asked]
            bar.update(len(images))
        file.flush()
        return np.memmap(file, np.uint8, "r", shape=(count, *shape)), np.concatenate(labels) if labels else None
