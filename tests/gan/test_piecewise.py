"""Gradients without differentiating twice: those of autograd, for every discriminator that
says it is piecewise linear."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F

from gan import augmentation, layers, piecewise, training
from gan.batches import Batch
from gan.losses.hinge import Config as Hinge
from gan.losses.relativistic import Config as Relativistic
from gan.objective import Objective
from gan.penalties import squared_gradients
from tests.gan.small_networks import NETWORKS, batch, pair, players

pytestmark = pytest.mark.fast

_DROPPING: dict[str, Any] = {
    "name": "dcgan", "arguments": NETWORKS["compared"]["arguments"] | {"minibatch": "none", "group": 1},
}  # fmt: skip
PIECEWISE = {name: NETWORKS[name] for name in ("r3gan", "r3gan_paper", "upsampling", "resnet")} | {
    "dropping": _DROPPING
}


def discriminator(description: dict[str, Any], classes: int) -> nn.Module:
    """In float64, with weights that are nowhere zero."""
    _, found = pair(description, classes=classes, channels=3)
    with torch.no_grad():
        for place, weight in enumerate(found.parameters()):
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(place))
    return found.double()


def by_autograd(found: nn.Module, images: Tensor, label: Tensor | None, objective: Objective) -> list[Tensor]:
    """Gradients of the loss as it is written down."""
    images = images.clone().requires_grad_()
    logits = found(images, label)
    total = objective.loss.discriminator_loss(*logits.chunk(2))
    for side, squared in zip(("real", "fake"), squared_gradients(logits, images).chunk(2), strict=True):
        total = total + objective.gammas.get(side, 0.0) / 2 * squared.mean()
    return list(torch.autograd.grad(total, list(found.parameters())))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("name", PIECEWISE)
def test_gradients_are_those_of_autograd(name: str, classes: int, layout: torch.memory_format) -> None:
    found = discriminator(PIECEWISE[name], classes).to(memory_format=layout)  # type: ignore[call-overload]
    assert found.piecewise_linear
    objective = Objective(loss=Relativistic(), gammas={"real": 0.7, "fake": 0.3})
    images = torch.randn(12, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    label = torch.arange(12) % classes if classes else None
    with layers.keyed(found, torch.arange(12)):
        expected = by_autograd(found, images, label, objective)
        recorded = piecewise.record(lambda x: found(x, label), images)
        logits = recorded.logits.requires_grad_()
        (scales,) = torch.autograd.grad(objective.loss.discriminator_loss(*logits.chunk(2)), logits)
        weights = torch.tensor([0.7 / 6] * 6 + [0.3 / 6] * 6, dtype=torch.float64)[:, None, None, None]
        piecewise.accumulate(lambda x: found(x, label), recorded, scales, recorded.gradients * weights)
    for (place, weight), gradient in zip(found.named_parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-9, atol=1e-12, msg=place)


def test_what_is_not_piecewise_linear_does_not_say_so() -> None:
    for name in ("transposed", "compared"):  # batch normalisation; comparison within a batch
        assert not pair(NETWORKS[name])[1].piecewise_linear


@pytest.mark.parametrize("transforms", [(), augmentation.TRANSFORMS])
@pytest.mark.parametrize("gammas", [{"real": 2.0}, {"fake": 2.0}, {"real": 2.0, "fake": 1.0}])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("name", PIECEWISE)
def test_a_step_is_the_step_of_the_general_way(
    name: str, parts: int, gammas: dict[str, float], transforms: tuple[str, ...]
) -> None:
    """Both ways through `training.discriminator_step`: augmented, with noise, swapped labels, the batch in pieces."""
    objective = Objective(
        loss=Hinge(), gammas=gammas, instance_noise=0.1, label_noise=0.25, transforms=transforms, strength=0.7
    )
    answers = []
    for straight in (True, False):
        found = players(PIECEWISE[name])
        for net in (found.generator, found.discriminator):
            net.double()
        found.discriminator.piecewise_linear = straight
        (whole, _) = batch(0)
        pieces = [
            Batch(whole.images[s].double(), whole.label[s], whole.z[s].double(), whole.keys[s])
            for s in (slice(p, None, parts) for p in range(parts))
        ]
        terms = training.discriminator_step(found, objective, pieces)
        answers.append((terms, [weight.grad for weight in found.discriminator.parameters()]))
    (terms, gradients), (other_terms, other_gradients) = answers
    assert terms.keys() == other_terms.keys() and len(terms) == 3 + len(gammas)
    for key, value in terms.items():
        torch.testing.assert_close(value, other_terms[key], rtol=1e-9, atol=1e-12, msg=key)
    for gradient, other in zip(gradients, other_gradients, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-12)


def test_fewer_passes_than_autograd_takes() -> None:
    """The point of it: four convolutions a layer for an image instead of six, and nothing is differentiated twice."""

    class Counter(torch.utils._python_dispatch.TorchDispatchMode):
        work = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.ops.aten.convolution.default:
                Counter.work += 1
            if function is torch.ops.aten.convolution_backward.default:
                Counter.work += sum(args[-1][:2])  # of images, of weights
            return function(*args, **(kwargs or {}))

    objective = Objective(
        loss=Relativistic(), gammas={"real": 1.0, "fake": 1.0}, transforms=("shift", "colour"), strength=0.5
    )
    counts = []
    for straight in (True, False):
        found = players(NETWORKS["r3gan"])
        found.discriminator.piecewise_linear = straight
        count = sum(isinstance(module, nn.Conv2d) for module in found.discriminator.modules())
        (data, _) = batch(0)
        Counter.work = 0
        with Counter():
            training.discriminator_step(found, objective, [data])
        drawing = sum(isinstance(module, nn.Conv2d) for module in found.generator.modules())
        counts.append((Counter.work - drawing) / count)
    assert counts[0] == pytest.approx(4)
    assert counts[1] > 5.5  # six, less what the first layer saves


def test_the_slope_of_a_rectifier_is_its_own() -> None:
    """ReLU, leaky ReLU with the slope by position and by name: one layer, closed form."""
    weight = torch.tensor([[2.0, -1.0], [1.0, 3.0]], requires_grad=True)
    images = torch.tensor([[1.0, 1.0], [-1.0, 0.5]])

    def bent(x: Tensor) -> Tensor:
        hidden = F.linear(x, weight)
        return (F.relu(hidden) + F.leaky_relu(hidden, 0.1) + F.leaky_relu(hidden, negative_slope=0.3)).sum(1)

    recorded = piecewise.record(bent, images)
    slopes = torch.where(images @ weight.detach().T > 0, 3.0, 0.4)
    torch.testing.assert_close(recorded.gradients, slopes @ weight.detach())
    piecewise.accumulate(bent, recorded, torch.zeros(2), recorded.gradients)
    # d/dW of |W^T m|^2 / 2 for each image's mask m: m (W^T m)^T
    torch.testing.assert_close(weight.grad, slopes.T @ (slopes @ weight.detach()))


def test_answers_that_no_later_gradient_needs_are_freed_at_once() -> None:
    """What a convolution answers before a bias is a third of the memory of a published R3GAN's step."""
    weight, bias = torch.randn(4, 3, 3, 3, requires_grad=True), torch.randn(4, 1, 1, requires_grad=True)
    freed: list[bool] = []

    def found(x: Tensor) -> Tensor:
        answer = F.conv2d(x, weight)
        held = StorageWeakRef(answer.untyped_storage())
        answer = F.leaky_relu(answer + bias, 0.2)
        freed.append(held.expired())
        return answer.mean((1, 2, 3))

    recorded = piecewise.record(found, torch.randn(2, 3, 8, 8))
    piecewise.accumulate(found, recorded, torch.ones(2), recorded.gradients)
    assert freed == [True, True]
