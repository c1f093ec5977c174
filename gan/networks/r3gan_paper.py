"""R3GAN as published (Huang, Gokaslan, Kuleshov, Tompkin: "The GAN is dead; long live the GAN! A modern GAN baseline",
NeurIPS 2024, configuration E), reimplemented from the paper, for images of 8 to 256 pixels. `r3gan` is the same recipe
at the size that very small images need.

x + P(act(G(act(E(x))))): E 1x1 to twice the width, G 3x3 in groups of channels, P 1x1 back, zero at the start;
act is a bias and a leaky ReLU; no normalisation. Stages change size by the filter [1, 3, 3, 1] and width by a 1x1
convolution. The generator begins with a learned 4x4 basis scaled by a linear map of latent and label, the discriminator
ends with a 4x4 depthwise convolution and a linear map. No tanh: pixels are clipped where images leave the network.

Shapes: N images, C channels, H = W pixels, D width of a stage; stages go from 4x4 up, one per doubling.
"""

import dataclasses
import itertools
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan.layers import laid_out
from gan.networks import Plain, check_numbers, full_precision, stages

_SLOPE, _EXPANSION = 0.2, 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Plain):
    """Sizes; the paper's presets are in docs/recipes.md."""

    name: Literal["r3gan_paper"]
    width: int
    """Channels of the stages up to `full_to` pixels; half as many at each doubling beyond."""
    full_to: int
    """Pixels a side of the last stage of full width."""
    blocks: int
    """Residual blocks per stage."""
    group_width: int
    """Channels in a group of the 3x3 convolutions."""
    embedding: int
    """Size of a label's vector in the generator."""
    projection: int
    """Size of the vector that the discriminator compares with the label's."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def widths(self, resolution: int) -> list[int]:
        """Channels per stage from 4x4 up. Raises ValueError if a stage does not fill its groups."""
        sizes = [4 * 2**stage for stage in range(stages(resolution))]
        found = [self.width * self.full_to // max(size, self.full_to) for size in sizes]
        if any(width * _EXPANSION % self.group_width or not width for width in found):
            raise ValueError(
                f"twice the channels of every stage must be a multiple of network.group_width, {self.group_width}; "
                f"network.width {self.width}, halved per stage beyond network.full_to, {self.full_to}, gives {found}"
            )
        return found


class Act(nn.Module):
    """Leaky ReLU of x + bias, one bias per channel: [N, D, H, W] -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_NDHW: Tensor) -> Tensor:
        return F.leaky_relu(x_NDHW + self.bias.to(x_NDHW.dtype)[:, None, None], _SLOPE)  # bfloat16 stays bfloat16


class Residual(nn.Module):
    """The block in the module's docstring: [N, D, H, W] -> the same."""

    def __init__(self, width: int, group_width: int) -> None:
        super().__init__()
        inner = width * _EXPANSION
        self.expand = nn.Conv2d(width, inner, 1, bias=False)
        self.first = Act(inner)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1, groups=inner // group_width, bias=False)
        self.second = Act(inner)
        self.project = nn.Conv2d(inner, width, 1, bias=False)

    def forward(self, x_NDHW: Tensor) -> Tensor:
        return x_NDHW + self.project(self.second(self.mix(self.first(self.expand(x_NDHW)))))


class Resample(nn.Module):
    """Twice or half the size, by the outer product of [1, 3, 3, 1], with zeros outside the image."""

    def __init__(self, *, up: bool) -> None:
        super().__init__()
        self.up = up
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.filter: Tensor
        self.register_buffer("filter", torch.outer(line, line)[None, None] * (4 if up else 1), persistent=False)

    def forward(self, x_NDHW: Tensor) -> Tensor:
        width = x_NDHW.shape[1]
        kernel = self.filter.to(x_NDHW.dtype).expand(width, -1, -1, -1)
        resample = F.conv_transpose2d if self.up else F.conv2d
        return resample(x_NDHW, kernel, stride=2, padding=1, groups=width)


def _blocks(config: Config, width: int) -> list[nn.Module]:
    return [Residual(width, config.group_width) for _ in range(config.blocks)]


class Generator(nn.Module):
    """(z [N, z_dim], label int64 [N]) -> images [N, C, H, W], about [-1, 1]; without classes the label is left out."""

    def __init__(self, config: Config, *, z_dim: int, classes: int, resolution: int, channels: int) -> None:
        super().__init__()
        widths = config.widths(resolution)
        self.embed = nn.Embedding(classes, config.embedding) if classes else None
        self.basis = nn.Parameter(torch.zeros(widths[0], 4, 4))
        self.scale = nn.Linear(z_dim + (config.embedding if classes else 0), widths[0], bias=False)
        self.stages = nn.ModuleList([nn.Sequential(*_blocks(config, widths[0]))])
        for before, width in itertools.pairwise(widths):
            change = [nn.Conv2d(before, width, 1, bias=False)] if width != before else []
            self.stages.append(nn.Sequential(*change, Resample(up=True), *_blocks(config, width)))
        self.image = nn.Conv2d(widths[-1], channels, 1, bias=False)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], dim=1)
        with full_precision(z):  # at 4x4 there is little to save, and rounding is felt by all that follows
            x_NDHW = self.basis * self.scale(z)[:, :, None, None]
            x_NDHW = self.stages[0](laid_out(x_NDHW, self))
        for stage in self.stages[1:]:
            x_NDHW = stage(x_NDHW)
        return self.image(x_NDHW)


class Discriminator(nn.Module):
    """(images [N, C, H, W], label int64 [N]) -> logits [N]; without classes the label is left out."""

    piecewise_linear = True

    def __init__(self, config: Config, *, classes: int, resolution: int, channels: int) -> None:
        super().__init__()
        widths = config.widths(resolution)[::-1]
        self.first = nn.Conv2d(channels, widths[0], 1, bias=False)
        self.stages = nn.ModuleList()
        for width, after in itertools.pairwise(widths):
            change = [nn.Conv2d(width, after, 1, bias=False)] if width != after else []
            self.stages.append(nn.Sequential(*_blocks(config, width), Resample(up=False), *change))
        self.stages.append(nn.Sequential(*_blocks(config, widths[-1])))
        self.last = nn.Conv2d(widths[-1], widths[-1], 4, groups=widths[-1], bias=False)
        self.score = nn.Linear(widths[-1], config.projection if classes else 1, bias=False)
        self.embed = nn.Embedding(classes, config.projection) if classes else None

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        x_NDHW = self.first(images)
        for stage in self.stages[:-1]:
            x_NDHW = stage(x_NDHW)
        with full_precision(images):
            x_NDHW = self.stages[-1](x_NDHW.to(self.score.weight.dtype))
            score = self.score(self.last(x_NDHW).flatten(1))
            if self.embed is None:
                return score[:, 0]
            return (score * self.embed(label)).sum(1)


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the initial weights of a Generator or Discriminator from `generator`, in the order of its parameters.

    Normal with deviation gain / sqrt(fan_in): inside blocks sqrt(2 / (1 + 0.2^2)) * L^(-1/4) for L blocks, 1 elsewhere;
    projections of blocks and biases are zero; the basis has deviation 1. An embedding is a linear map of the classes,
    so its fan_in is their number; its gain is 1 in the generator, 1 / sqrt(projection) in the discriminator.
    """
    residuals = [module for module in network.modules() if isinstance(module, Residual)]
    inside = {id(layer) for block in residuals for layer in (block.expand, block.mix)}
    zero = {id(block.project) for block in residuals}
    gain = math.sqrt(2 / (1 + _SLOPE**2)) * max(len(residuals), 1) ** -0.25
    if isinstance(network, Generator):
        network.basis.normal_(generator=generator)
    for module in network.modules():
        if isinstance(module, nn.Embedding):
            size = 1 if isinstance(network, Generator) else module.embedding_dim
            module.weight.normal_(0, (module.num_embeddings * size) ** -0.5, generator=generator)
        elif id(module) in zero:
            module.weight.zero_()  # type: ignore[operator]
        elif isinstance(module, nn.Conv2d | nn.Linear):
            deviation = (gain if id(module) in inside else 1) / math.sqrt(module.weight[0].numel())
            module.weight.normal_(0, deviation, generator=generator)
