"""DCGAN in its two classic forms: `transposed`, all strided and transposed 4x4 convolutions (Radford, Metz, Chintala:
"Unsupervised representation learning with deep convolutional generative adversarial networks", ICLR 2016), and
`upsampling`, nearest-neighbour upsampling and 3x3 convolutions with leaky ReLU (after Odena, Dumoulin, Olah:
"Deconvolution and checkerboard artifacts", 2016). Both end in a tanh and start from N(0, 0.02).

Labels are not part of the classics; if there are classes, the generator gets an embedding beside the latent and the
discriminator a projection (Miyato and Koyama 2018). Stages go from 4x4 up; N images, D width of a stage.
"""

import dataclasses
import itertools
from typing import Literal

import torch
from torch import Tensor, nn

from gan.layers import (
    BatchNorm,
    Dropout,
    MinibatchDeviation,
    MinibatchDiscrimination,
    SpectralConv2d,
    SpectralEmbedding,
    SpectralLinear,
    flat,
)
from gan.networks import Plain, check_numbers, stages

_SLOPE, _DEVIATION, _MOST = 0.2, 0.02, 8  # widths grow to at most _MOST times that of the last stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Plain):
    """Form, sizes, and the stabilisers of the discriminator."""

    name: Literal["dcgan"]
    form: Literal["transposed", "upsampling"]
    """transposed: 4x4 transposed convolutions; upsampling: nearest neighbours, then 3x3 convolutions."""
    width: int
    """Channels at half the resolution; twice as many at each halving below, up to eight times as many."""
    embedding: int
    """Size of a label's vector in the generator."""
    norm: Literal["batch", "spectral", "none"]
    """The discriminator's; the generator always has batch normalisation. Gradient penalties need spectral or none."""
    dropout: float
    """Share of channels that the discriminator drops after each stage; 0 for none."""
    minibatch: Literal["none", "deviation", "discrimination"]
    """How the discriminator compares the images of a group."""
    group: int
    """Images in a group; 1 if minibatch is none."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be a share >= 0 and < 1; received {self.dropout:g}")
        if (self.minibatch == "none") != (self.group == 1):
            raise ValueError(
                f"group must be 1 if minibatch is none, and 2 or more otherwise; received group {self.group}, "
                f"minibatch {self.minibatch}"
            )

    @property
    def batch_statistics(self) -> frozenset[str]:  # type: ignore[override]
        """The generator's always, the discriminator's if its norm is batch."""
        return frozenset({"generator", "discriminator"} if self.norm == "batch" else {"generator"})

    @property
    def bounded(self) -> bool:  # type: ignore[override]
        """Spectral norms bound the slope, unless minibatch discrimination, which has none, takes part."""
        return self.norm == "spectral" and self.minibatch != "discrimination"

    def widths(self, resolution: int) -> list[int]:
        """Channels per stage from 4x4 to half the resolution."""
        count = stages(resolution) - 1
        return [self.width * min(_MOST, 2 ** (count - 1 - stage)) for stage in range(count)]


class Generator(nn.Module):
    """(z [N, z_dim], label int64 [N]) -> images [N, C, H, W] in [-1, 1]; without classes the label is left out."""

    def __init__(self, config: Config, *, z_dim: int, classes: int, resolution: int, channels: int) -> None:
        super().__init__()
        widths = config.widths(resolution)
        self.embed = nn.Embedding(classes, config.embedding) if classes else None
        size = z_dim + (config.embedding if classes else 0)
        if config.form == "transposed":
            layers = [nn.ConvTranspose2d(size, widths[0], 4, bias=False), BatchNorm(widths[0]), nn.ReLU()]
            for before, width in itertools.pairwise(widths):
                layers += [nn.ConvTranspose2d(before, width, 4, 2, 1, bias=False), BatchNorm(width), nn.ReLU()]
            layers += [nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1, bias=False)]
        else:
            layers = [nn.Linear(size, widths[0] * 16), nn.Unflatten(1, (widths[0], 4, 4)), BatchNorm(widths[0])]
            for before, width in zip(widths, [*widths[1:], widths[-1]], strict=True):
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(before, width, 3, padding=1, bias=False)]
                layers += [BatchNorm(width), nn.LeakyReLU(_SLOPE)]
            layers += [nn.Conv2d(widths[-1], channels, 3, padding=1)]
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], dim=1)
        return self.layers(z[:, :, None, None] if isinstance(self.layers[0], nn.ConvTranspose2d) else z)


class Discriminator(nn.Module):
    """(images [N, C, H, W], label int64 [N]) -> logits [N]; without classes the label is left out."""

    def __init__(self, config: Config, *, classes: int, resolution: int, channels: int) -> None:
        super().__init__()
        self.piecewise_linear = config.norm != "batch" and config.minibatch == "none"
        spectral = config.norm == "spectral"
        conv = SpectralConv2d if spectral else nn.Conv2d
        kernel = 4 if config.form == "transposed" else 3
        biased = config.form == "upsampling" or config.norm != "batch"  # the classic has no biases: its norms shift
        widths = config.widths(resolution)[::-1]
        layers: list[nn.Module] = []
        for place, (before, width) in enumerate(zip([channels, *widths], widths, strict=False)):
            normed = config.norm == "batch" and place > 0
            layers += [conv(before, width, kernel, 2, 1, bias=biased and not normed)]
            layers += [BatchNorm(width)] if normed else []
            layers += [nn.LeakyReLU(_SLOPE)]
            layers += [Dropout(config.dropout, place)] if config.dropout else []
        wide = widths[-1] * 16
        layers += [MinibatchDeviation(config.group)] if config.minibatch == "deviation" else []
        wide += 16 if config.minibatch == "deviation" else 0
        self.layers = nn.Sequential(*layers)
        self.compare = MinibatchDiscrimination(wide, config.group) if config.minibatch == "discrimination" else None
        wide += self.compare.kernels if self.compare else 0
        linear, embedding = (SpectralLinear, SpectralEmbedding) if spectral else (nn.Linear, nn.Embedding)
        self.score = linear(wide, 1, bias=biased)  # on 4x4 pixels, the classic's 4x4 convolution
        self.embed = embedding(classes, wide) if classes else None

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        features = flat(self.layers(images))
        if self.compare is not None:
            features = self.compare(features)
        score = self.score(features)[:, 0]
        return score if self.embed is None else score + (features * self.embed(label)).sum(1)


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the initial weights from `generator`, in order: N(0, 0.02), gains N(1, 0.02), biases 0; embeddings of the
    generator have deviation 1."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.gain.normal_(1, _DEVIATION, generator=generator)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            module.weight.normal_(0, _DEVIATION, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            spread = 1.0 if isinstance(network, Generator) else _DEVIATION
            module.weight.normal_(0, spread, generator=generator)
        if isinstance(module, SpectralConv2d | SpectralLinear | SpectralEmbedding):
            module.start(generator)
