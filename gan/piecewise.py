"""Exact gradients of a loss with R1 and R2 on a piecewise linear discriminator, without differentiating twice.

The loss is L = f(D(x_1), ..., D(x_N)) + sum_i w_i / 2 * |grad_x D(x_i)|^2. If D is made of linear layers and (leaky)
ReLUs, and logit i depends on image i alone, it is linear around x_i: for a layer z = W h + b with
d_i = grad of logit i with respect to z,

    dL/dW = sum_i d_i (s_i h_i + t_i)^T,    dL/db = sum_i s_i d_i,    s_i = df/dD(x_i)

where t_i is the layer's input when the network, linearised at x_i and without biases, is fed w_i grad_x D(x_i). So one
pass from s_i x_i + w_i grad_x D(x_i), with biases times s_i, gives everything. If D sees A(x_i), augmented by an affine
map A, the gradient is A^T grad D(A(x_i)) with the linear part of A, and w_i A A^T grad D(A(x_i)) takes the place of
w_i grad_x D(x_i). A step costs a forward pass, an input gradient, this pass and one gradient of the weights, four
passes of equal work; differentiating the penalty takes six. Nothing is approximated; only the order of sums differs.

A discriminator sets `piecewise_linear = True` if this holds. It may use convolutions and linear layers, leaky ReLU and
ReLU, addition, biases added to images of more dimensions, and whatever is linear in the images and has no weights:
reshaping, means, sums, constant factors, fixed filters. Its output may end in a product with a label's vector.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_LAYERS = (F.conv2d, F.linear)
_ADDITIONS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)
Bend = tuple[Tensor, float]
"""The input of a leaky ReLU, and its slope below zero."""


def _slope(function: Any, _: Tensor, negative_slope: float = 0.01, *__: Any, **___: Any) -> float | None:
    """The slope below zero of a leaky ReLU or ReLU; None for another function."""
    if function is F.leaky_relu:
        return negative_slope
    return 0.0 if function in (F.relu, torch.relu, Tensor.relu) else None


def _bias(function: Any, args: tuple[Any, ...]) -> tuple[Tensor, Tensor] | None:
    """(images, bias) of an addition whose operands differ in number of dimensions; None for anything else."""
    if function not in _ADDITIONS or not all(isinstance(side, Tensor) for side in args[:2]):
        return None
    small, large = sorted(args[:2], key=Tensor.dim)
    return (large, small) if small.dim() < large.dim() and small.requires_grad else None


class _Recorder(TorchFunctionMode):
    """Records the outputs of layers with weights, as edges of the graph, and the network's bends, in order of calls."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[GradientEdge] = []  # not the tensors, which the graph frees if it does not need them
        self.bends: list[Bend] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        answer = function(*args, **kwargs)
        slope = _slope(function, *args, **kwargs) if args else None
        if slope is not None:
            self.bends.append((args[0].detach(), slope))
        if (function in _LAYERS and args[1].requires_grad) or _bias(function, args):
            self.answers.append(get_gradient_edge(answer))
        return answer


class _Replay(TorchFunctionMode):
    """Runs the network linearised at the recorded images: bends are those recorded, biases count `scales` times.

    Each layer's output keeps the graph to that layer's own weights alone, in `answers`.
    """

    def __init__(self, bends: Iterable[Bend], scales: Tensor) -> None:
        super().__init__()
        self.bends, self.scales = iter(bends), scales
        self.answers: list[GradientEdge] = []

    def _kept(self, answer: Tensor) -> Tensor:
        self.answers.append(get_gradient_edge(answer))
        return answer.detach()

    def _scaled(self, bias: Tensor, dim: int, places: int) -> Tensor:
        """Bias [D, ...] times the scales [N], for an addition to [N, ..., D, ...] with `places` dimensions after D."""
        scales = self.scales.view(-1, *(1,) * (dim - 1))
        return scales * bias.view(*bias.shape, *(1,) * places)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if args and _slope(function, *args, **kwargs) is not None:
            before, slope = next(self.bends)
            return torch.ops.aten.leaky_relu_backward(args[0], before, slope, False)
        if (found := _bias(function, args)) is not None:
            images, bias = found
            return self._kept(images + self._scaled(bias, images.dim(), 0).to(images.dtype))
        if function not in _LAYERS or not args[1].requires_grad:
            return function(*args, **kwargs)
        bias = kwargs.get("bias", args[2] if len(args) > 2 else None)
        others = {key: value for key, value in kwargs.items() if key != "bias"}
        answer = function(*args[:2], None, *args[3:], **others)
        if bias is not None:
            places = answer.dim() - 2 if function is F.conv2d else 0
            answer = answer + self._scaled(bias, answer.dim(), places).to(answer.dtype)
        return self._kept(answer)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recorded:
    """One pass of the discriminator over `images` [N, ...], with the gradient of its `logits` [N]; all detached."""

    images: Tensor
    logits: Tensor
    gradients: Tensor
    """grad_x D(x_i), shaped as `images`."""
    bends: list[Bend]
    slopes: list[Tensor]
    """The gradient of each image's logit with respect to each layer's output."""


def record(discriminator: Callable[[Tensor], Tensor], images: Tensor) -> Recorded:
    """Run a piecewise linear `discriminator` over images [N, ...], and take its input gradient."""
    images = images.detach().requires_grad_()
    recorder = _Recorder()
    with recorder:
        logits = discriminator(images)
    gradients, *slopes = torch.autograd.grad(logits.sum(), [get_gradient_edge(images), *recorder.answers])
    return Recorded(
        images=images.detach(), logits=logits.detach(), gradients=gradients, bends=recorder.bends, slopes=slopes
    )


def accumulate(discriminator: Callable[[Tensor], Tensor], pass_: Recorded, scales: Tensor, steps: Tensor) -> None:
    """Add dL/dw to `grad` of every weight of `discriminator`, the function that `pass_` recorded.

    `scales` [N] are df/dD(x_i); `steps`, shaped as the images, are w_i grad_x D(x_i), or w_i A A^T grad D(A(x_i)).
    """
    mixed = pass_.images * scales.view(-1, *(1,) * (pass_.images.dim() - 1)) + steps
    replay = _Replay(pass_.bends, scales)
    with replay:
        last = discriminator(mixed)
    answers, slopes = list(replay.answers), list(pass_.slopes)
    if last.requires_grad:  # a product with a label's vector, the only weight that belongs to no layer
        answers.append(get_gradient_edge(last))
        slopes.append(torch.ones_like(last))
    torch.autograd.backward(answers, slopes)
