"""Residual networks of the SNGAN family (Miyato, Kataoka, Koyama, Yoshida: "Spectral normalization for generative
adversarial networks", ICLR 2018; Miyato and Koyama: "cGANs with projection discriminator", ICLR 2018): conditional
batch normalisation in the generator, spectral norms and a projection of the label in the discriminator.

The published networks for 32 pixels are `generator_width: 256, discriminator_width: 128`. Other sizes by rule: one
generator block per doubling from 4x4; discriminator blocks that halve down to 8x8 (4x4 for 8 pixels), then two more.
N images, D width, H = W pixels.
"""

import dataclasses
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan.layers import BatchNorm, SpectralConv2d, SpectralEmbedding, SpectralLinear
from gan.networks import Plain, check_numbers, stages


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Plain):
    """Channels of the generator's and the discriminator's blocks."""

    name: Literal["resnet"]
    generator_width: int
    discriminator_width: int

    batch_statistics = frozenset({"generator"})
    bounded = True

    def __post_init__(self) -> None:
        check_numbers(self)


class Up(nn.Module):
    """Twice the size: norm, ReLU, upsample, 3x3, norm, ReLU, 3x3, beside upsample and 1x1."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([BatchNorm(width, classes=classes) for _ in range(2)])
        self.convs = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(2)])
        self.short = nn.Conv2d(width, width, 1)

    def forward(self, x_NDHW: Tensor, label: Tensor | None) -> Tensor:
        hidden = F.interpolate(F.relu(self.norms[0](x_NDHW, label)), scale_factor=2)
        hidden = self.convs[1](F.relu(self.norms[1](self.convs[0](hidden), label)))
        return hidden + F.interpolate(self.short(x_NDHW), scale_factor=2)  # a 1x1 convolution first costs a quarter


class Generator(nn.Module):
    """(z [N, z_dim], label int64 [N]) -> images [N, C, H, W] in [-1, 1]; without classes the label is left out."""

    def __init__(self, config: Config, *, z_dim: int, classes: int, resolution: int, channels: int) -> None:
        super().__init__()
        width = config.generator_width
        self.base = nn.Linear(z_dim, width * 16)
        self.blocks = nn.ModuleList([Up(width, classes) for _ in range(stages(resolution) - 1)])
        self.norm = BatchNorm(width)
        self.image = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        x_NDHW = self.base(z).unflatten(1, (-1, 4, 4))
        for block in self.blocks:
            x_NDHW = block(x_NDHW, label)
        return torch.tanh(self.image(F.relu(self.norm(x_NDHW))))


class Down(nn.Module):
    """ReLU, 3x3, ReLU, 3x3 beside a 1x1, then half the size if `down`; the first block begins without ReLU."""

    def __init__(self, before: int, width: int, *, down: bool, first: bool = False) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.convs = nn.ModuleList([SpectralConv2d(n, width, 3, padding=1) for n in (before, width)])
        self.short = SpectralConv2d(before, width, 1) if down or before != width else None

    def forward(self, x_NDHW: Tensor) -> Tensor:
        hidden = self.convs[1](F.relu(self.convs[0](x_NDHW if self.first else F.relu(x_NDHW))))
        if self.down:
            hidden, x_NDHW = F.avg_pool2d(hidden, 2), F.avg_pool2d(x_NDHW, 2)  # before the 1x1: same result, cheaper
        return hidden + (x_NDHW if self.short is None else self.short(x_NDHW))


class Discriminator(nn.Module):
    """(images [N, C, H, W], label int64 [N]) -> logits [N]; without classes the label is left out."""

    piecewise_linear = True

    def __init__(self, config: Config, *, classes: int, resolution: int, channels: int) -> None:
        super().__init__()
        width, halvings = config.discriminator_width, max(1, stages(resolution) - 2)
        blocks = [Down(channels, width, down=True, first=True)]
        blocks += [Down(width, width, down=place < halvings - 1) for place in range(halvings + 1)]
        self.blocks = nn.Sequential(*blocks)
        self.score = SpectralLinear(width, 1)
        self.embed = SpectralEmbedding(classes, width) if classes else None

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        features = F.relu(self.blocks(images)).sum((2, 3))
        score = self.score(features)[:, 0]
        return score if self.embed is None else score + (features * self.embed(label)).sum(1)


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the initial weights from `generator`, in order: Glorot's uniform, times sqrt(2) inside blocks; biases 0."""
    inside = {id(conv) for block in network.modules() if isinstance(block, Up | Down) for conv in block.convs}
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            matrix = module.weight.flatten(2).sum(2) if module.weight.dim() == 4 else module.weight
            places = module.weight.numel() // matrix.numel()
            gain = math.sqrt(2) if id(module) in inside else 1.0
            bound = gain * math.sqrt(6 / (places * (matrix.shape[0] + matrix.shape[1])))
            module.weight.uniform_(-bound, bound, generator=generator)
            if not isinstance(module, nn.Embedding) and module.bias is not None:
                module.bias.zero_()
        if isinstance(module, SpectralConv2d | SpectralLinear | SpectralEmbedding):
            module.start(generator)
