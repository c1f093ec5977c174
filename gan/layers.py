"""Layers that several networks share, and what the training step must know about them.

Everything here is repeatable and independent of how a batch is shared out: batch statistics are those of all processes,
dropout follows the images' keys, and the power iteration of spectral norms advances once per step, not once per pass.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from gan import chance


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Compute the block in float32 if autocast is on; without autocast, as in an export, change nothing."""
    on = torch.is_autocast_enabled(x.device.type)
    return torch.autocast(x.device.type, enabled=False) if on else contextlib.nullcontext()


class _KeptLayout(torch.autograd.Function):
    """The identity, whose gradient has the memory layout of its input."""

    @staticmethod
    def forward(ctx: "torch.autograd.function.FunctionCtx", x: Tensor) -> Tensor:
        ctx.channels_last = x.is_contiguous(memory_format=torch.channels_last)  # type: ignore[attr-defined]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: "torch.autograd.function.FunctionCtx", gradient: Tensor) -> Tensor:
        last = ctx.channels_last  # type: ignore[attr-defined]
        return gradient.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def flat(x: Tensor) -> Tensor:
    """[N, D, H, W] -> [N, D * H * W], with a gradient in the layout of x: element-wise operations on operands of
    different layouts are many times slower (35 times for the slope of a leaky ReLU on a CPU)."""
    kept: Tensor = _KeptLayout.apply(x)  # type: ignore[no-untyped-call]
    return kept.flatten(1)


def laid_out(x: Tensor, network: nn.Module) -> Tensor:
    """x [N, D, H, W] in the layout of the convolutions of `network`, which are about to see it."""
    filters = [weight for weight in network.parameters() if weight.dim() == 4 and not weight.is_contiguous()]
    last = bool(filters) and filters[0].is_contiguous(memory_format=torch.channels_last)
    return x.contiguous(memory_format=torch.channels_last) if last else x


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is summed over them too."""

    @staticmethod
    def forward(ctx: "torch.autograd.function.FunctionCtx", x: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
        ctx.group = group  # type: ignore[attr-defined]
        total = x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: "torch.autograd.function.FunctionCtx", gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone()
        dist.all_reduce(total, group=ctx.group)  # type: ignore[attr-defined]
        return total, None


def _summed(x: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
    total: Tensor = _Sum.apply(x, group)  # type: ignore[no-untyped-call]
    return total


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) over the global batch: [N, D, ...] -> the same.

    In training the statistics are those of all processes, exchanged over `group`; in evaluation, running means. With
    `classes`, gain and bias belong to the label (de Vries et al. 2017), and `label` int64 [N] must be given.
    """

    def __init__(self, width: int, *, classes: int = 0, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.group: dist.ProcessGroup | None = None
        self.gain = nn.Parameter(torch.ones((classes, width) if classes else (width,)))
        self.bias = nn.Parameter(torch.zeros((classes, width) if classes else (width,)))
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        if self.gain.dim() == 1:
            return self._normalised(x, self.gain, self.bias)
        assert label is not None
        places = (..., *(None,) * (x.dim() - 2))
        return self._normalised(x, None, None) * self.gain[label][places] + self.bias[label][places]

    def _normalised(self, x: Tensor, gain: Tensor | None, bias: Tensor | None) -> Tensor:
        if not self.training or not dist.is_initialized() or dist.get_world_size(self.group) == 1:
            return F.batch_norm(x, self.mean, self.variance, gain, bias, self.training, self.momentum, self.eps)
        given, x = x.dtype, x.float() if x.dtype in (torch.bfloat16, torch.float16) else x  # sums need the digits
        sides = [side for side in range(x.dim()) if side != 1]
        shape = [-1 if side == 1 else 1 for side in range(x.dim())]
        count = x.numel() // x.shape[1] * dist.get_world_size(self.group)
        mean = _summed(x.sum(sides), self.group) / count
        centred = x - mean.view(shape)
        variance = _summed(centred.square().sum(sides), self.group) / count
        with torch.no_grad():
            self.mean.lerp_(mean, self.momentum)
            self.variance.lerp_(variance * (count / (count - 1)), self.momentum)
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        normal = normal if gain is None or bias is None else normal * gain.view(shape) + bias.view(shape)
        return normal.to(given)


class Dropout(nn.Module):
    """Drops whole channels with probability `rate` in training: [N, D, ...] -> the same (Tompson et al. 2015).

    The images' keys, set by `keyed`, decide which ones; `place` tells the layers of a network apart.
    """

    def __init__(self, rate: float, place: int) -> None:
        super().__init__()
        self.rate, self.place = rate, place
        self.keys: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return x
        assert self.keys is not None, "a pass in training stands inside `keyed`"
        kept = chance.uniforms(self.keys, chance.DROPOUT + self.place, x.shape[1]) >= self.rate
        return x * (kept / (1 - self.rate)).to(x.dtype)[(..., *(None,) * (x.dim() - 2))]


@contextlib.contextmanager
def keyed(network: nn.Module, keys: Tensor | None) -> Iterator[None]:
    """Passes inside the block are over images with these keys, int64 [N]."""
    layers = [module for module in network.modules() if isinstance(module, Dropout)]
    for layer in layers:
        layer.keys = keys
    try:
        yield
    finally:
        for layer in layers:
            layer.keys = None


def _grouped(x: Tensor, group: int) -> Tensor:
    """[N, ...] -> [N / group, group, ...]. Raises ValueError if the images do not fill their groups."""
    if len(x) % group:
        raise ValueError(
            f"the discriminator compares images in groups of {group} (network.group), and {len(x)} do not fill such "
            f"groups; choose a batch of which every process gets a multiple of {group} in each of its parts"
        )
    return x.view(-1, group, *x.shape[1:])


class MinibatchDeviation(nn.Module):
    """One more channel: the mean deviation of features within each group (Karras et al. 2018).

    [N, D, H, W] -> [N, D + 1, H, W].
    """

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        grouped = _grouped(x, self.group)
        deviation = (grouped.var(1, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
        each = deviation.repeat_interleave(self.group)[:, None, None, None]
        return torch.cat([x, each.expand(-1, 1, *x.shape[2:])], dim=1)


class MinibatchDiscrimination(nn.Module):
    """Closeness to the others of the group, as further features (Salimans et al. 2016, section 3.2).

    [N, A] -> [N, A + kernels].
    """

    def __init__(self, width: int, group: int, *, kernels: int = 16, dimensions: int = 5) -> None:
        super().__init__()
        self.group, self.kernels = group, kernels
        self.tensor = nn.Linear(width, kernels * dimensions, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        m = _grouped(self.tensor(x).view(len(x), self.kernels, -1), self.group)
        distance = (m[:, :, None] - m[:, None]).abs().sum(-1)
        return torch.cat([x, (torch.exp(-distance).sum(2) - 1).flatten(0, 1)], dim=1)  # less itself, at distance 0


class _Spectral(nn.Module):
    """A weight divided by its largest singular value (Miyato et al. 2018); mixed into the layers below."""

    weight: Any
    left: Tensor
    right: Tensor

    def __init__(self, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        matrix = self.weight.flatten(1)
        self.register_buffer("left", torch.zeros(matrix.shape[0]))
        self.register_buffer("right", torch.zeros(matrix.shape[1]))

    def deviation(self) -> Tensor:
        """The estimated largest singular value: a scalar, differentiable in the weight."""
        sigma: Tensor = self.left @ self.weight.flatten(1) @ self.right
        return sigma

    @torch.no_grad()
    def advance(self, times: int = 1) -> None:
        """Power iterations; one per step is enough, since weights move little."""
        matrix = self.weight.flatten(1)
        for _ in range(times):
            self.right.copy_(F.normalize(self.left @ matrix, dim=0))
            self.left.copy_(F.normalize(matrix @ self.right, dim=0))

    @torch.no_grad()
    def start(self, generator: torch.Generator) -> None:
        """Draw a first vector and iterate until it is close to the leading singular vector."""
        self.left.copy_(F.normalize(torch.randn(len(self.left), generator=generator), dim=0))
        self.advance(20)


class SpectralConv2d(_Spectral, nn.Conv2d):
    """A convolution of spectral norm 1 as a matrix [out, in * kernel]."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight / self.deviation(), self.bias)


class SpectralLinear(_Spectral, nn.Linear):
    """A linear layer of spectral norm 1."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight / self.deviation(), self.bias)


class SpectralEmbedding(_Spectral, nn.Embedding):
    """An embedding whose table has spectral norm 1."""

    def forward(self, label: Tensor) -> Tensor:
        return F.embedding(label, self.weight / self.deviation())


def advance_norms(network: nn.Module) -> None:
    """One power iteration in every spectral norm of a network; once before each step that trains it."""
    for module in network.modules():
        if isinstance(module, _Spectral):
            module.advance()


def singular_vectors(network: nn.Module) -> list[Tensor]:
    """What power iterations have found: the buffers of all spectral norms of a network."""
    found = [module for module in network.modules() if isinstance(module, _Spectral)]
    return [vector for module in found for vector in (module.left, module.right)]


def has_batch_statistics(network: nn.Module) -> bool:
    """True if the output for an image depends on the rest of its batch through batch normalisation."""
    return any(isinstance(module, BatchNorm) for module in network.modules())


def use_group(network: nn.Module, group: "dist.ProcessGroup | None") -> None:
    """Exchange batch statistics over `group` from now on."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.group = group
