"""Losses, penalties, the moving average and the networks, against values that can be computed by hand."""

import dataclasses
import hashlib
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan import batches, chance, layers, networks, training
from gan.losses.relativistic import Config as Relativistic
from gan.objective import Objective, cosine
from gan.penalties import penalty, squared_gradients
from tests.gan import small_networks

pytestmark = pytest.mark.fast
SMALL = {"name": "r3gan", "arguments": {"widths": [8, 4], "blocks": [1, 1], "embedding": 4, "projection": 6}}


class Linear(nn.Module):
    """D(x) = <a, x> + b[label], whose gradient is a."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([1.0, -2.0, 2.0, 0.5]).reshape(1, 1, 2, 2))
        self.b = nn.Parameter(torch.zeros(3))

    def forward(self, images: Tensor, label: Tensor) -> Tensor:
        return (images * self.a).sum(dim=(1, 2, 3)) + self.b[label]


class Constant(nn.Module):
    """G(z) = the same image for every z."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.full((1, 1, 2, 2), 0.25))

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return self.image.expand(len(z), -1, -1, -1)


def players() -> training.Players:
    return training.assemble(Constant(), Linear(), lr=0.01, betas=(0.0, 0.99))


def batch(size: int = 6) -> batches.Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(size, 1, 2, 2, generator=generator)
    return batches.Batch(images, torch.arange(size) % 3, torch.zeros(size, 2))


def test_relativistic_loss_in_closed_form() -> None:
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 3.0])
    assert Relativistic().discriminator_loss(real, fake).item() == pytest.approx(
        (math.log1p(math.exp(-1)) + math.log1p(math.exp(3))) / 2
    )
    assert Relativistic().generator_loss(real, fake).item() == pytest.approx(
        (math.log1p(math.exp(1)) + math.log1p(math.exp(-3))) / 2
    )


def test_gradient_of_a_linear_discriminator_is_its_weight() -> None:
    network, images = Linear(), torch.randn(5, 1, 2, 2, requires_grad=True)
    squared = squared_gradients(network(images, torch.zeros(5, dtype=torch.int64)), images)
    torch.testing.assert_close(squared, torch.full((5,), 1 + 4 + 4 + 0.25))
    assert penalty(squared, gamma=3.0).item() == pytest.approx(1.5 * 9.25)


def test_the_penalty_trains_the_discriminator() -> None:
    # d/da of gamma/2 |a|^2 is gamma a: a graph that was cut would leave no gradient at all.
    network, images = Linear(), torch.randn(5, 1, 2, 2, requires_grad=True)
    penalty(squared_gradients(network(images, torch.zeros(5, dtype=torch.int64)), images), gamma=3.0).backward()
    torch.testing.assert_close(network.a.grad, 3 * network.a.detach())


@pytest.mark.parametrize("gammas", [{}, {"real": 2.0}, {"fake": 2.0}, {"real": 2.0, "fake": 1.0}])
def test_a_discriminator_step_follows_the_formula(gammas: dict[str, float]) -> None:
    ours, data = players(), batch()
    expected = Linear()
    fake = torch.full_like(data.images, 0.25)
    total = Relativistic().discriminator_loss(expected(data.images, data.label), expected(fake, data.label))
    total = total + sum(gammas.values()) / 2 * expected.a.square().sum()
    total.backward()
    terms = training.discriminator_step(ours, Objective(loss=Relativistic(), gammas=gammas), [data])
    for ours_parameter, parameter in zip(ours.discriminator.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours_parameter.grad, parameter.grad)
    assert {f"gradient_{side}" for side in gammas} == {name for name in terms if name.startswith("gradient")}


def test_a_generator_step_moves_the_generator_alone() -> None:
    ours = players()
    before = [p.detach().clone() for p in ours.discriminator.parameters()]
    image = ours.generator.image.detach().clone()
    training.generator_step(ours, Objective(loss=Relativistic()), [batch()])
    assert all(torch.equal(a, b) for a, b in zip(before, ours.discriminator.parameters(), strict=True))
    assert all(p.requires_grad for p in ours.discriminator.parameters())
    # D(x) = <a, x>: a better image is one step of Adam along the sign of a.
    torch.testing.assert_close(ours.generator.image - image, 0.01 * ours.discriminator.a.sign())


def test_the_moving_average_halves_the_distance_in_a_half_life() -> None:
    ours = players()
    with torch.no_grad():
        ours.generator.image.fill_(1.25)
    for done in range(100, 110):
        training.update_average(ours, images=10, images_done=done * 1000, halflife=100, ramp=1.0)
    torch.testing.assert_close(ours.average.image, torch.full((1, 1, 2, 2), 0.25 + 0.5))
    training.update_average(ours, images=10, images_done=0, halflife=100, ramp=0.05)
    torch.testing.assert_close(ours.average.image, ours.generator.image)


def test_cosine() -> None:
    assert [cosine(1.0, 0.1, p) for p in (-1, 0, 0.5, 1, 2)] == pytest.approx([1, 1, 0.55, 0.1, 0.1])


def test_batches_are_functions_of_seed_and_number_and_cover_the_images() -> None:
    indices, z = batches.draw(seed=4, number=10, batch=64, images=37, z_dim=5)
    again, _ = batches.draw(seed=4, number=10, batch=64, images=37, z_dim=5)
    other, _ = batches.draw(seed=4, number=11, batch=64, images=37, z_dim=5)
    assert z.shape == (64, 5) and z.dtype == np.float32
    np.testing.assert_array_equal(indices, again)
    assert (indices != other).any()
    counts = np.bincount(np.concatenate([batches.draw(4, number, 64, 37, 5)[0] for number in range(200)]), minlength=37)
    chi_square = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert chi_square < 36 + 4 * (2 * 36) ** 0.5


def test_batches_are_those_of_earlier_versions() -> None:
    """Of three steps with two batches each, as they were drawn when a step always had two."""
    sha256 = hashlib.sha256()
    for number in range(6):
        indices, z = batches.draw(7, number, 16, 37, 5)
        sha256.update(indices.tobytes() + z.tobytes() + batches.draw_keys(7, number, 16).tobytes())
    assert sha256.hexdigest()[:16] == "572bf1ffb9203696"


@pytest.mark.parametrize(("classes", "channels", "resolution"), [(0, 1, 8), (10, 1, 8), (3, 3, 16), (0, 3, 64)])
def test_networks_have_the_shapes_they_promise(classes: int, channels: int, resolution: int) -> None:
    stages = int(math.log2(resolution)) - 1
    description = {
        "name": "r3gan",
        "arguments": {"widths": [8] * stages, "blocks": [1] * stages, "embedding": 4, "projection": 6},
    }
    shape = {"classes": classes, "resolution": resolution, "channels": channels}
    generator = networks.build_generator(description, z_dim=5, **shape)
    discriminator = networks.build_discriminator(description, **shape)
    for network in (generator, discriminator):
        networks.initialise("r3gan", network, torch.Generator().manual_seed(0))
    label = torch.tensor([0, 1, 2]) if classes else None
    images = generator(torch.randn(3, 5), label)
    assert images.shape == (3, channels, resolution, resolution) and images.abs().max() <= 1
    assert discriminator(images, label).shape == (3,)


def test_residual_branches_start_at_zero_and_the_seed_decides() -> None:
    nets = [networks.build_generator(SMALL, z_dim=3, classes=2, resolution=8, channels=1) for _ in range(3)]
    for net, seed in zip(nets, (5, 5, 6), strict=True):
        networks.initialise("r3gan", net, torch.Generator().manual_seed(seed))
    weights = [torch.cat([p.flatten() for p in net.parameters()]) for net in nets]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    block = nets[0].stages[0][0]
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(block(x), x)


def test_widths_must_fit_the_resolution() -> None:
    with pytest.raises(ValueError, match=r"one entry per stage from 4x4 to 16x16 \(3\); received 2 and 2"):
        networks.build_generator(SMALL, z_dim=3, classes=2, resolution=16, channels=1)
    with pytest.raises(
        ValueError, match="network name must be one of dcgan, r3gan, r3gan_paper, resnet; received 'r3gam'"
    ):
        networks.build_generator({"name": "r3gam", "arguments": {}}, z_dim=3, classes=2, resolution=16, channels=1)


@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", small_networks.NETWORKS)
@pytest.mark.parametrize("shared", [False, True], ids=["fresh", "shared"])
def test_one_pass_makes_the_images_that_both_networks_learn_from(
    name: str, precision: torch.dtype | None, shared: bool
) -> None:
    """Two updates of the discriminator and one of the generator: as with the same images made anew for each of them."""
    ours, expected = (small_networks.players(small_networks.NETWORKS[name]) for _ in range(2))
    gammas = {} if layers.has_batch_statistics(ours.discriminator) else {"real": 1.0, "fake": 1.0}
    objective = Objective(loss=Relativistic(), gammas=gammas, precision=precision)
    shown = [*small_networks.batch(0), *small_networks.batch(1)]
    asked, passes = list[int](), list[Tensor]()
    ours.generator.register_forward_hook(lambda _, __, images: passes.append(images))

    def take(number: int) -> list[batches.Batch]:
        asked.append(number)
        return shown[number : number + 1]

    terms = training.step(ours, objective, take, discriminator_steps=2, shared=shared)
    assert asked == ([0, 1] if shared else [0, 1, 2]) and len(passes) == len(asked)
    for number in range(2):
        known = training.discriminator_step(expected, objective, shown[number : number + 1])
    last = shown[2]
    if shared:  # the same images, but another view of them
        keys = None if shown[1].keys is None else chance.derived(shown[1].keys, chance.AGAIN)
        last = dataclasses.replace(shown[1], keys=keys)
    known |= training.generator_step(expected, objective, [last])
    assert {name: value.item() for name, value in terms.items()} == {name: known[name].item() for name in known}
    for found, wanted in ((ours.generator, expected.generator), (ours.discriminator, expected.discriminator)):
        assert all(torch.equal(a, b) for a, b in zip(found.parameters(), wanted.parameters(), strict=True))
