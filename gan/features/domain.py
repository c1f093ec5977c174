"""The domain extractor: a small CNN trained on the images at hand; the default, since published networks may not fit.

With labels it is a classifier of the classes. Without, it learns which of four rotations was applied (Gidaris, Singh,
Komodakis: "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018): that needs no label, no
download and no second network, and telling which way up an image stands takes some understanding of it.

All randomness (weights, order, augmentation, dropout) comes from the counter-based streams of `gan.latents`; torch's
own generators are never used, so a fit repeats byte for byte at the same thread count.
Shapes: N images, H x W pixels, C channels, D features, K outputs.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn
from torch.nn import functional as F

from gan.draws import AUGMENTATION, DROPOUT, ORDER, WEIGHTS, permutation
from gan.latents import normals, uniforms
from gan.pixels import to_float

SIDES = (8, 16, 32, 64, 128, 256)  # pixels
ROTATIONS = 4  # quarter turns that the network without labels tells apart
_CHUNK = 256  # images per pass when features are taken


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained; the same recipe serves the extractor and the classification accuracy score.

    `steps` optimizer steps of `batch` images with AdamW, warm-up to `learning_rate` over a tenth of them, then cosine.
    """

    width: int = 32
    steps: int = 1000
    batch: int = 64
    learning_rate: float = 2e-3


class DomainNetwork(nn.Module):
    """3x3 convolutions with batch norm, max-pools that halve down to 2x2, a ReLU layer of D features, K outputs.

    Beyond 64 pixels the first convolution looks at 4x4 or 8x8 pixels and steps by 2 or 4: the rest costs what it costs
    at 64, and fine detail is still seen. `kind` says what the outputs mean: the classes, or four rotations; `classes`
    are the classes' names in the order of the outputs, [] if they are not known.
    `resolution` is a power of two from 8 to 256.
    """

    def __init__(
        self, *, kind: Literal["classifier", "rotation"], resolution: int, channels: int, width: int, outputs: int,
        classes: Sequence[str] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.settings = {
            "kind": kind, "resolution": resolution, "channels": channels, "width": width, "outputs": outputs
        }  # fmt: skip
        self.classes = list(classes)
        self.kind, self.resolution, self.channels, self.width, self.outputs = kind, resolution, channels, width, outputs
        step = max(1, resolution // 64)
        pools = int(math.log2(resolution // step)) - 1
        widths = [32, 64, 64, 96, 128, 128][: pools + 1]
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(zip([channels, *widths], widths, strict=False)):
            first = nn.Conv2d(before, after, 2 * step, step, padding=step // 2, bias=False)
            plain = nn.Conv2d(before, after, 3, padding=1, bias=False)
            layers += [first if index == 0 and step > 1 else plain, nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if index < pools else []
        self.body = nn.Sequential(*layers)
        self.hidden = nn.Linear(4 * widths[-1], width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features [N, D] and logits [N, K] of float images [N, C, H, W]; `keep` [N, ...] scales the body (dropout)."""
        flat = self.body(x).flatten(1)
        features = F.relu(self.hidden(flat if keep is None else flat * keep))
        return features, self.head(features)


class Pictures(Protocol):
    """uint8 images [N, H, W, C] that may stay on disk until some are asked for; an array will do."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, places: NDArray[np.int64], /) -> NDArray[np.uint8]: ...


def fit(
    images: Pictures,
    labels: NDArray[np.int64] | None,
    *,
    classes: int,
    recipe: Recipe,
    seed: int,
    done: Callable[[int], object] = lambda steps: None,
) -> DomainNetwork:
    """Train on `images` [N, H, W, C]: on their `labels` [N] in 0 ... classes - 1, or on rotations if None.

    Returns the network in evaluation mode; `done(1)` is called after each step. Raises ValueError for fewer images than
    a quarter of a batch, for labels that do not fit, for one class, and for a resolution that is not a power of two
    from 8 to 256.
    """
    _check(images, labels, classes, recipe)
    outputs = ROTATIONS if labels is None else classes
    kind: Literal["classifier", "rotation"] = "rotation" if labels is None else "classifier"
    with torch.device("meta"):
        network = DomainNetwork(
            kind=kind, resolution=images.shape[1], channels=images.shape[3], width=recipe.width, outputs=outputs
        )
    network = _channels_last(network.to_empty(device="cpu")).train()
    _initialize(network, seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=0.05)
    for step, (x, y, keep) in enumerate(_batches(images, labels, network, recipe, seed)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe.steps)
        loss = F.cross_entropy(network(x, keep)[1], y, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        done(1)
    return network.eval().requires_grad_(False)


def _channels_last(network: DomainNetwork) -> DomainNetwork:
    """The same network with its weights in the layout that is faster on CPU."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _schedule(step: int, steps: int) -> float:
    """Share of the peak learning rate: linear warm-up over a tenth, then half a cosine to zero."""
    warm = max(1, steps // 10)
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _batches(
    images: Pictures, labels: NDArray[np.int64] | None, network: DomainNetwork, recipe: Recipe, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """`steps` times: augmented images, targets and dropout scales; each epoch has its own order."""
    count, inputs = len(images), network.hidden.in_features
    order = np.empty(0, np.int64)
    epoch = 0
    for step in range(recipe.steps):
        while len(order) < recipe.batch:
            order = np.concatenate([order, permutation(seed, ORDER, epoch, count)])
            epoch += 1
        chosen, order = order[: recipe.batch], order[recipe.batch :]
        places = np.arange(step * recipe.batch, (step + 1) * recipe.batch)
        u = uniforms(seed, AUGMENTATION, places, 7)
        keep = (uniforms(seed, DROPOUT, places, inputs) > 0.3).astype(np.float32) / np.float32(0.7)
        x = _moved(torch.from_numpy(to_float(images[chosen])), u)
        if labels is None:
            turns = (u[:, 6] * ROTATIONS).astype(np.int64)
            x, y = _turned(x, turns), turns
        else:
            y = labels[chosen]
        yield x.contiguous(memory_format=torch.channels_last), torch.from_numpy(y), torch.from_numpy(keep)


def _moved(x: Tensor, u: NDArray[np.float64]) -> Tensor:
    """Images turned by up to 10 degrees, scaled and sheared by up to a tenth, shifted by up to a sixteenth."""
    spread = 2 * torch.from_numpy(u) - 1  # [N, 6+] in (-1, 1)
    angle, scale_x, scale_y = spread[:, 0] * math.radians(10), 1 + 0.1 * spread[:, 1], 1 + 0.1 * spread[:, 2]
    shear, shift_x, shift_y = 0.1 * spread[:, 3], spread[:, 4] / 8, spread[:, 5] / 8  # of the half side
    cosine, sine = torch.cos(angle), torch.sin(angle)
    rows = [scale_x * cosine, scale_x * (shear * cosine - sine), shift_x, scale_y * sine, scale_y * cosine, shift_y]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3).to(x.dtype)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _turned(x: Tensor, turns: NDArray[np.int64]) -> Tensor:
    """Each image rotated by its number of quarter turns."""
    return torch.stack([torch.rot90(image, int(turn), (1, 2)) for image, turn in zip(x, turns, strict=True)])


def _initialize(network: DomainNetwork, seed: int) -> None:
    """He-normal weights from the stream, zero biases, batch norm at identity."""
    for index, module in enumerate(network.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            shape = module.weight.shape
            drawn = normals(seed, WEIGHTS, index * 1_000_000 + np.arange(shape[0]), shape[1:].numel())
            scale = np.float32(math.sqrt(2 / shape[1:].numel()))
            with torch.no_grad():
                module.weight.copy_(torch.from_numpy(drawn * scale).view(shape))
                if module.bias is not None:
                    module.bias.zero_()


def features(network: DomainNetwork, images: Pictures) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Features float32 [N, D] and output probabilities float64 [N, K] of uint8 images [N, H, W, C].

    Passes of at most 256 images; an image's features do not depend on how many others come with it (within 1e-5).
    Raises ValueError for images of another size or number of channels than the network was trained on.
    """
    expected = (network.resolution, network.resolution, network.channels)
    if images.shape[1:] != expected:
        raise ValueError(f"this extractor takes images [N, {', '.join(map(str, expected))}]; got {list(images.shape)}")
    found = [np.empty((0, network.width), np.float32)]
    odds = [np.empty((0, network.outputs))]
    with torch.inference_mode():
        for start in range(0, len(images), _CHUNK):
            block = images[np.arange(start, min(start + _CHUNK, len(images)))]
            x = torch.from_numpy(to_float(block)).contiguous(memory_format=torch.channels_last)
            hidden, logits = network(x)
            found.append(hidden.numpy())
            odds.append(torch.softmax(logits.double(), dim=1).numpy())
    return np.concatenate(found), np.concatenate(odds)


def rotation_accuracy(network: DomainNetwork, images: NDArray[np.uint8]) -> tuple[int, int]:
    """(right, asked) over all four rotations of every image, for a network without labels."""
    right = 0
    for turn in range(ROTATIONS):
        right += int((features(network, np.rot90(images, turn, (1, 2)))[1].argmax(axis=1) == turn).sum())
    return right, ROTATIONS * len(images)


def save(network: DomainNetwork, path: Path) -> None:
    """Write weights, settings and class names as one safetensors file; `load` needs nothing else."""
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    names = {"classes": network.classes} if network.classes else {}
    settings = json.dumps({"format": 1, **network.settings, **names}, sort_keys=True)
    # A single metadata key: safetensors writes several in random order.
    path.write_bytes(safetensors_bytes(tensors, {"ganops_domain_network": settings}))


def load(path: Path) -> DomainNetwork:
    """The network of a file that `save` wrote, in evaluation mode. Raises ValueError for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads((file.metadata() or {})["ganops_domain_network"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if settings.pop("format") != 1:
            raise ValueError("another format version")
        with torch.device("meta"):
            network = DomainNetwork(**settings)
        network.load_state_dict(tensors, assign=True)
    except (KeyError, ValueError, TypeError, RuntimeError, OSError) as error:
        raise ValueError(
            f"{path} is not a domain extractor written by ganops: {' '.join(str(error).split())}"
        ) from None
    except Exception as error:  # noqa: BLE001 (safetensors raises a class of its own)
        raise ValueError(f"{path} is not a safetensors file: {error}") from None
    return _channels_last(network).eval().requires_grad_(False)


def _check(images: Pictures, labels: NDArray[np.int64] | None, classes: int, recipe: Recipe) -> None:
    sides = images.shape[1:3]
    if sides[0] != sides[1] or sides[0] not in SIDES:
        raise ValueError(f"the domain extractor takes 8, 16, ... 256 pixels a side; got {sides[0]} x {sides[1]}")
    if len(images) < recipe.batch // 4:
        raise ValueError(f"training needs at least {recipe.batch // 4} images, a quarter of a batch; got {len(images)}")
    if labels is None:
        return
    if classes < 2 or len(labels) != len(images) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"a classifier needs two classes or more, and per image one label from 0 to classes - 1; received "
            f"{len(labels)} labels from {labels.min()} to {labels.max()} for {len(images)} images and {classes} classes"
        )
