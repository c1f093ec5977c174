"""Published feature extractors: a network of known weights, with the resize rule that its numbers were made with.

    extractor = open_published("inception_tf", resize="legacy_tf", weights=Path(...), sha256="...")
    features, probabilities = extractor(images)

`inception_tf` 2048 features and 1008 probabilities, `vgg16` 4096, `dinov2_vitb14` 768, `dinov2_vitl14` 1024.
Nothing is downloaded here; `python -m stages.reference.weights` does that. Networks load only when they are opened.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan.features.resize import RESIZES, resized
from gan.features.weights import SOURCES, fill, read_weights

NAMES = tuple(SOURCES)
PASS = 64  # images per pass; the result's last bits depend on it


class Network(Protocol):
    """What the modules of networks provide: levels 0 ... 255 [N, 3, side, side] to features [N, D] and logits."""

    side: int

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]: ...


@dataclasses.dataclass(frozen=True)
class Published:
    """An opened extractor; `sha256` is that of its weights, `width` the number D of its features."""

    name: str
    resize: str
    sha256: str
    width: int
    network: Network = dataclasses.field(repr=False, compare=False)
    device: str = "cpu"

    @property
    def key(self) -> str:
        """Its name in files and protocols."""
        return f"{self.name}-{self.resize}"

    def __call__(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
        """Features float32 [N, D] and probabilities float64 [N, K] (None if the network has none).

        `images` uint8 [N, H, W, C] of any size, grey or RGB; passes of at most 64. How many images come together
        changes features only by rounding (2e-5 in features of order one). Raises ValueError for other images.
        """
        found = np.empty((len(images), self.width), np.float32)
        odds: NDArray[np.float64] | None = None
        with torch.inference_mode(), _exact():
            for start in range(0, max(1, len(images)), PASS):
                part = slice(start, start + PASS)
                features, logits = self.network(resized(images[part], self.network.side, self.resize, self.device))
                found[part] = features.cpu().numpy()
                if logits is not None:
                    odds = np.empty((len(images), logits.shape[1])) if odds is None else odds
                    odds[part] = torch.softmax(logits.double(), dim=1).cpu().numpy()
        return found, odds


def open_published(name: str, *, resize: str, weights: Path, sha256: str, device: str = "cpu") -> Published:
    """The extractor `name` (one of NAMES) with the weights in file `weights`, whose SHA-256 must be `sha256`.

    `resize` is one of RESIZES; `device` a torch device. Raises ValueError if a name is unknown, an optional package is
    not installed, or the file is missing, has another SHA-256, is damaged or belongs to another network.
    """
    if name not in NAMES:
        raise ValueError(f"a published extractor is one of {', '.join(NAMES)}; received {name!r}")
    if resize not in RESIZES:
        raise ValueError(f"resize must be one of {', '.join(RESIZES)}; received {resize!r}")
    state = read_weights(weights, sha256=sha256)
    with torch.device("meta"):
        network = _network(name)
    fill(network, state, name=name, path=weights, ignored=network.ignored)
    network = network.to(device).eval().requires_grad_(False)
    return Published(name, resize, sha256, network.width, network, device)


def _network(name: str) -> Any:
    """The network without weights. Its module is imported here: torchvision takes seconds, and timm may be missing."""
    if name == "inception_tf":
        from gan.features.inception_tf import InceptionTF

        return InceptionTF()
    if name == "vgg16":
        from gan.features.vgg16 import VGG16

        return VGG16()
    try:
        from gan.features import dinov2
    except ModuleNotFoundError as error:
        raise ValueError(f'{name} needs {error.name}; install it with: pip install "timm>=1.0.20"') from None
    return dinov2.vitb14() if name == "dinov2_vitb14" else dinov2.vitl14()


@contextlib.contextmanager
def _exact() -> Iterator[None]:
    """True float32: GPUs otherwise convolve in TF32, which moves features by a thousandth."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
