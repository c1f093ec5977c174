"""Residual networks without normalisation, after R3GAN (Huang, Gokaslan, Kuleshov, Tompkin: "The GAN is dead; long
live the GAN! A modern GAN baseline", NeurIPS 2024), reimplemented from the paper at a size that small images need.

Kept from the paper: no normalisation, leaky ReLU, residual branches that start at zero, initial weights scaled by
L^(-1/4) for L blocks, labels by embedding in the generator and by projection in the discriminator. Changed for speed
on small images: plain 3x3 convolutions instead of grouped bottlenecks, pixel shuffle and strided convolutions instead
of bilinear resampling, tanh at the end.

Shapes: N images, C channels, H = W pixels, D width of a stage; stages go from 4x4 up, one per doubling.
"""

import dataclasses
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan.layers import flat, laid_out
from gan.networks import Plain, check_numbers, full_precision, stages

_SLOPE = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Plain):
    """`widths` and `blocks`: channels and residual blocks per stage from 4x4 up; `embedding`: size of a label's
    embedding in the generator; `projection`: size of the vector that the discriminator compares with the label."""

    name: Literal["r3gan"]
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    embedding: int
    projection: int

    def __post_init__(self) -> None:
        check_numbers(self, low=0)
        if min([*self.widths, self.embedding, self.projection]) < 1:
            raise ValueError("widths, embedding and projection must be 1 or more; received 0")

    def check(self, resolution: int) -> None:
        """Raises ValueError unless there is one width and one block count for each stage of `resolution`."""
        needed = stages(resolution)
        if not len(self.widths) == len(self.blocks) == needed:
            raise ValueError(
                f"network.widths and network.blocks must have one entry per stage from 4x4 to {resolution}x{resolution}"
                f" ({needed}); received {len(self.widths)} and {len(self.blocks)}"
            )


class Residual(nn.Module):
    """x + conv(act(conv(act(x)))), 3x3, the second convolution zero at the start: [N, D, H, W] -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x_NDHW: Tensor) -> Tensor:
        hidden = self.first(F.leaky_relu(x_NDHW, _SLOPE))
        return x_NDHW + self.second(F.leaky_relu(hidden, _SLOPE))


class Generator(nn.Module):
    """(z [N, z_dim], label int64 [N]) -> images [N, C, H, W] in [-1, 1]; without classes the label is left out."""

    def __init__(self, config: Config, *, z_dim: int, classes: int, resolution: int, channels: int) -> None:
        super().__init__()
        config.check(resolution)
        widths = config.widths
        self.embed = nn.Embedding(classes, config.embedding) if classes else None
        self.base = nn.Linear(z_dim + (config.embedding if classes else 0), widths[0] * 16)
        self.stages = nn.ModuleList()
        for stage, (width, blocks) in enumerate(zip(widths, config.blocks, strict=True)):
            layers: list[nn.Module] = []
            if stage:
                layers += [nn.Conv2d(widths[stage - 1], 4 * width, 1), nn.PixelShuffle(2)]
            self.stages.append(nn.Sequential(*layers, *(Residual(width) for _ in range(blocks))))
        self.last = nn.Conv2d(widths[-1], widths[-1], 3, padding=1)
        self.image = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], dim=1)
        with full_precision(z):  # at 4x4 there is little to save, and rounding is felt by all that follows
            x_NDHW = laid_out(self.base(z).unflatten(1, (-1, 4, 4)), self)
            x_NDHW = self.stages[0](x_NDHW)
        for stage in self.stages[1:]:
            x_NDHW = stage(x_NDHW)
        x_NDHW = self.last(F.leaky_relu(x_NDHW, _SLOPE))
        return torch.tanh(self.image(F.leaky_relu(x_NDHW, _SLOPE)))


class Discriminator(nn.Module):
    """(images [N, C, H, W], label int64 [N]) -> logits [N]; without classes the label is left out."""

    piecewise_linear = True

    def __init__(self, config: Config, *, classes: int, resolution: int, channels: int) -> None:
        super().__init__()
        config.check(resolution)
        widths = config.widths[::-1]
        self.first = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.stages = nn.ModuleList()
        for stage, (width, blocks) in enumerate(zip(widths, config.blocks[::-1], strict=True)):
            layers: list[nn.Module] = [Residual(width) for _ in range(blocks)]
            if stage + 1 < len(widths):
                layers += [nn.LeakyReLU(_SLOPE), nn.Conv2d(width, widths[stage + 1], 3, stride=2, padding=1)]
            self.stages.append(nn.Sequential(*layers))
        self.features = nn.Linear(widths[-1] * 16, config.projection)
        self.embed = nn.Embedding(classes, config.projection) if classes else None
        self.score = None if classes else nn.Linear(config.projection, 1)

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        x_NDHW = self.first(images)
        for stage in self.stages[:-1]:
            x_NDHW = stage(x_NDHW)
        with full_precision(images):
            x_NDHW = self.stages[-1](x_NDHW.to(self.features.weight.dtype))
            features = self.features(F.leaky_relu(flat(x_NDHW), _SLOPE))
            if self.embed is not None:
                return (features * self.embed(label)).sum(1) / math.sqrt(features.shape[1])
            assert self.score is not None
            return self.score(features)[:, 0]


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the initial weights of a Generator or Discriminator from `generator`, in the order of its parameters.

    Normal with standard deviation gain / sqrt(fan_in); the gain of a leaky ReLU is sqrt(2 / (1 + 0.2^2)), times
    L^(-1/4) inside L residual blocks; biases and second convolutions of blocks are zero, embeddings have deviation 1.
    """
    residuals = [module for module in network.modules() if isinstance(module, Residual)]
    inside = {id(block.first) for block in residuals}
    zero = {id(block.second) for block in residuals}
    for module in network.modules():
        if isinstance(module, nn.Embedding):
            module.weight.normal_(generator=generator)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            gain = math.sqrt(2 / (1 + _SLOPE**2)) * (len(residuals) ** -0.25 if id(module) in inside else 1)
            deviation = 0.0 if id(module) in zero else gain / math.sqrt(module.weight[0].numel())
            module.weight.normal_(0, deviation, generator=generator) if deviation else module.weight.zero_()
            if module.bias is not None:
                module.bias.zero_()
