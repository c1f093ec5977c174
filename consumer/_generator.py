"""The generator as the world sees it: an ONNX file that turns a seed and a label into images."""

import hashlib
import logging
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumer._format import check_signature, describe
from consumer._runtime import RUNTIME_ERRORS, choose_providers, open_session
from consumer._wire import read_metadata
from gan.latents import labels, latents
from gan.pixels import at_once

_log = logging.getLogger("consumer")


class Generator:
    """A generator that ganops exported, ready to draw.

    Image i of seed s is the same for every `batch` and `start`, within one 8-bit level on one provider. Attributes:
    `name`, `classes` (names in label order), `prior` (their serving shares; both empty if there are no labels),
    `resolution` (pixels a side), `channels`, `z_dim`, `sha256` (of the file), `metadata` (all that the file says) and
    `provider` (what it runs on). Calls from several threads at once are safe.
    """

    def __init__(self, path: str | Path, *, providers: Sequence[str] | None = None, threads: int = 1) -> None:
        """Load the ONNX file `path`; weights come from that one file only.

        `providers` as in onnxruntime, by default CUDA if it can load, else the CPU. `threads` is the number of CPU
        threads; one by default, so that every machine rounds alike. Raises ValueError if the file is not a generator
        that ganops exported or a provider cannot be used, OSError if the file cannot be read.
        """
        if threads < 1:
            raise ValueError(f"threads must be at least 1; received {threads}")
        chosen = choose_providers(providers)
        content = Path(path).read_bytes()  # read once: what is hashed and checked is what is run
        try:
            self.metadata = read_metadata(content)
            about = describe(self.metadata)
            self._session = open_session(content, chosen, threads)
            check_signature(self._session, about)
        except ValueError as error:
            raise ValueError(f"{path} cannot be used: {error}") from None
        self.name, self.classes, self.prior = about.name, list(about.classes), list(about.prior)
        self.resolution, self.channels, self.z_dim = about.resolution, about.channels, about.z_dim
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.provider: str = self._session.get_providers()[0]
        _log.info("%s (sha256 %s) runs on %s", self.name, self.sha256, self.provider)

    def generate(
        self, count: int = 1, seed: int = 0, label: int | str | None = None, *, start: int = 0, batch: int | None = None
    ) -> NDArray[np.uint8]:
        """Images start ... start + count - 1 of `seed`: uint8 [count, H, W, C], `batch` of them per call.

        By default `batch` is 256 up to 64 pixels a side, and smaller beyond, so that a call takes no more memory.
        `label` is a class's name or its index; None draws labels from the serving prior. Raises ValueError for a label
        outside the classes, one given to a generator without labels, a count below 0, or a seed outside [0, 2**64).
        """
        if label is None:
            return self.draw(count, seed, start=start, batch=batch)[0]
        index = self.class_index(label)
        seed, start, count = _whole(seed, start, count)
        return self._drawn(seed, start, np.full(count, index, np.int64), count, batch)

    def draw(
        self, count: int, seed: int = 0, *, start: int = 0, batch: int | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
        """The images of `generate(label=None)` and their labels, drawn from the serving prior.

        uint8 [count, H, W, C] and int64 [count], or None in place of labels if there are no classes. Raises ValueError
        for a count below 0 or a seed outside [0, 2**64).
        """
        seed, start, count = _whole(seed, start, count)
        drawn = labels(seed, start, count, self.prior) if self.classes else None
        return self._drawn(seed, start, drawn, count, batch), drawn

    def render(
        self, z: NDArray[np.float32], label: NDArray[np.int64] | None = None, *, batch: int | None = None
    ) -> NDArray[np.uint8]:
        """Images of latents that the caller chose, for interpolations and the like: uint8 [N, H, W, C].

        `z` float32 [N, z_dim], finite; `label` whole numbers [N], one index per latent, if there are classes, else
        None. `generate` draws its latents from `gan.latents`; with the same latents the images are the same. Raises
        ValueError if either does not fit.
        """
        z = np.asarray(z)
        if z.ndim != 2 or z.shape[1] != self.z_dim or z.dtype.kind != "f" or not np.isfinite(z).all():
            raise ValueError(f"z must be finite numbers [N, {self.z_dim}]; received {z.dtype} {list(z.shape)}")
        z, given = z.astype(np.float32), self._checked(label, len(z))
        return self._images(lambda first, size: z[first : first + size], given, len(z), batch)

    def _checked(self, label: NDArray[np.int64] | None, count: int) -> NDArray[np.int64] | None:
        """Labels that fit the graph: int64 [count] of this generator's classes, None if it has none."""
        if not self.classes:
            if label is not None:
                raise ValueError(f"{self.name} draws without labels; leave the label out")
            return None
        if label is None:
            raise ValueError(f"{self.name} needs a label for each latent, an index from 0 to {len(self.classes) - 1}")
        given = np.asarray(label)
        inside = given.shape == (count,) and given.dtype.kind in "iu"
        if not inside or (count and not 0 <= given.min() <= given.max() < len(self.classes)):
            raise ValueError(
                f"label must hold {count} indices from 0 to {len(self.classes) - 1}; received {given.dtype} "
                f"{list(given.shape)}"
            )
        return given.astype(np.int64)

    def class_index(self, label: int | str) -> int:
        """Index of a class given by name or index. Raises ValueError if the generator has no such class."""
        if not self.classes:
            raise ValueError(f"{self.name} draws without labels; leave the label out (received {label!r})")
        if isinstance(label, str):
            if label in self.classes:
                return self.classes.index(label)
        elif not isinstance(label, bool) and 0 <= operator.index(label) < len(self.classes):
            return operator.index(label)
        raise ValueError(
            f"label must be one of the classes {', '.join(self.classes)}, or an index from 0 to "
            f"{len(self.classes) - 1}; received {label!r}"
        )

    def _drawn(
        self, seed: int, start: int, drawn: NDArray[np.int64] | None, count: int, batch: int | None
    ) -> NDArray[np.uint8]:
        return self._images(lambda first, size: latents(seed, start + first, size, self.z_dim), drawn, count, batch)

    def _images(
        self,
        z: Callable[[int, int], NDArray[np.float32]],
        label: NDArray[np.int64] | None,
        count: int,
        batch: int | None,
    ) -> NDArray[np.uint8]:
        """`count` images, `batch` per call; z(first, size) gives the latents, so that at most one batch is held."""
        batch = at_once(self.resolution) if batch is None else batch
        if batch < 1:
            raise ValueError(f"batch must be at least 1; received {batch}")
        images = np.empty((count, self.resolution, self.resolution, self.channels), np.uint8)
        for first in range(0, count, batch):
            size = min(batch, count - first)
            part = None if label is None else label[first : first + size]
            images[first : first + size] = self._run(z(first, size), part)
        return images

    def _run(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        feed: dict[str, Any] = {"z": z} if label is None else {"z": z, "label": label}
        try:
            return self._session.run(["image"], feed)[0]
        except RUNTIME_ERRORS as error:
            raise ValueError(f"{self.name} failed on {self.provider}: {' '.join(str(error).split())}") from None


def _whole(seed: int, start: int, count: int) -> tuple[int, int, int]:
    """The three as whole numbers. Raises ValueError if they cannot name images."""
    try:
        seed, start, count = operator.index(seed), operator.index(start), operator.index(count)
    except TypeError:
        raise ValueError(
            f"seed, start and count must be whole numbers; received {seed!r}, {start!r}, {count!r}"
        ) from None
    if count < 0 or not 0 <= start <= 2**63 - 1 - count:
        raise ValueError(f"count, start and their sum must lie in [0, 2**63); received count {count}, start {start}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must lie in [0, 2**64); received {seed}")
    return seed, start, count
