"""What penalties, noise, optimisers and schedules do to a step, in closed form where there is one."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan import batches, chance, layers, training
from gan.batches import Batch
from gan.losses.hinge import Config as Hinge
from gan.losses.least_squares import Config as LeastSquares
from gan.losses.non_saturating import Config as NonSaturating
from gan.losses.relativistic import Config as Relativistic
from gan.losses.wasserstein import Config as Wasserstein
from gan.objective import Adaptive, Objective
from gan.optimizers import KINDS
from gan.penalties import one_centred
from tests.gan.small_networks import NETWORKS, batch, pair, players

pytestmark = pytest.mark.fast


class Linear(nn.Module):
    """D(x) = <a, x>, whose gradient is a, of norm 5 by default."""

    def __init__(self, *a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a or (3.0, 0.0, 4.0, 0.0)).reshape(1, 1, 2, 2))

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        return (images * self.a).sum(dim=(1, 2, 3))


class Constant(nn.Module):
    """G(z) = the same image for every z."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.full((1, 1, 2, 2), 0.25))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self.image.expand(len(z), -1, -1, -1)


def linear(**options: Any) -> training.Players:
    return training.assemble(Constant(), Linear(), lr=0.01, betas=(0.0, 0.99), **options)


def data(size: int = 8) -> Batch:
    images = torch.randn(size, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    return Batch(images, None, torch.zeros(size, 2), torch.arange(size) * 31)


def terms_of(objective: Objective, found: training.Players | None = None) -> dict[str, float]:
    return {k: v.item() for k, v in training.discriminator_step(found or linear(), objective, [data()]).items()}


def test_penalties_of_a_linear_critic_are_those_of_its_weight() -> None:
    everywhere = {"real": 1.0, "fake": 1.0, "between": 10.0}
    found = terms_of(Objective(loss=Relativistic(), gammas=everywhere))
    assert [found[f"gradient_{side}"] for side in everywhere] == pytest.approx([25, 25, 25])
    assert one_centred(torch.tensor([25.0, 25.0]), gamma=10.0).item() == pytest.approx(10 * 16)
    ours = linear()
    terms_of(Objective(loss=Wasserstein(), gammas={"between": 10.0}), ours)
    # d/da of 10 (|a| - 1)^2 is 20 (|a| - 1) a / |a|, beside the loss's mean fake - mean real.
    a = torch.tensor([3.0, 0.0, 4.0, 0.0])
    expected = 20 * 4 * a / 5 + 0.25 - data().images.mean(0).flatten()
    torch.testing.assert_close(ours.discriminator.a.grad.flatten(), expected)


def test_a_critic_of_norm_1_has_no_wgan_penalty() -> None:
    assert one_centred(torch.ones(4), gamma=10.0).item() < 1e-9
    zero = torch.zeros(2, requires_grad=True)
    one_centred(zero, gamma=10.0).backward()
    assert zero.grad.isfinite().all()


@pytest.mark.parametrize("name", ["r3gan", "compared"])
def test_penalties_are_of_the_image_before_it_is_augmented(name: str) -> None:
    # A cut or mirrored image changes the gradient's place, never its origin: with all of it cut nothing is left.
    found = players(NETWORKS[name])
    objective = Objective(loss=Hinge(), gammas={"real": 1.0, "fake": 1.0}, transforms=("zoom", "cutout"), strength=0.8)
    terms = training.discriminator_step(found, objective, batch(0)[:1])
    assert terms["gradient_real"] > 0 and all(p.grad.isfinite().all() for p in found.discriminator.parameters())


def test_noise_on_what_the_discriminator_sees_is_as_strong_as_asked_and_repeats() -> None:
    torch.manual_seed(0)
    one = terms_of(Objective(loss=Hinge(), instance_noise=0.5))
    torch.manual_seed(1)  # nothing comes from torch's own numbers
    assert one == terms_of(Objective(loss=Hinge(), instance_noise=0.5)) != terms_of(Objective(loss=Hinge()))
    many = Batch(torch.zeros(4000, 1, 2, 2), None, torch.zeros(4000, 2), torch.arange(4000))
    logits = training._logits(linear(), Objective(loss=Hinge(), instance_noise=0.5), many.images, None, many.keys)
    assert logits.std().item() == pytest.approx(0.5 * 5, rel=0.05)  # of <a, noise> with |a| = 5


def test_noisy_labels_exchange_the_share_of_pairs() -> None:
    ours = data(4000)
    real, fake = torch.ones(4000), torch.zeros(4000)
    found = training._swapped(Objective(loss=Hinge(), label_noise=0.1), ours, real, fake)
    assert (found[0] == 0).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(found[0] + found[1], torch.ones(4000))
    loss = terms_of(Objective(loss=Wasserstein(), label_noise=0.49))["loss_d"]
    assert loss != terms_of(Objective(loss=Wasserstein()))["loss_d"]


@pytest.mark.parametrize("clip", [0.1, 1e9])
def test_gradients_are_clipped_to_their_norm(clip: float) -> None:
    free, ours = linear(), linear()
    terms_of(Objective(loss=Wasserstein()), free)
    terms_of(Objective(loss=Wasserstein(), gradient_clip=clip), ours)
    norm = free.discriminator.a.grad.norm()
    expected = free.discriminator.a.grad * min(1.0, clip / norm)
    torch.testing.assert_close(ours.discriminator.a.grad, expected, rtol=1e-4, atol=1e-6)
    training.generator_step(ours, Objective(loss=Wasserstein(), gradient_clip=clip), [data()])
    assert ours.generator.image.grad.norm() <= clip * 1.001


@pytest.mark.parametrize("name", KINDS)
def test_optimisers_step_as_their_formulas_say(name: str) -> None:
    kind = {"name": name, "factor": 2.0} | ({"weight_decay": 0.1} if name == "adamw" else {})
    ours = linear(kinds=(kind, kind))
    training.set_learning_rate(ours, 0.02, beta2=0.9)
    before = ours.discriminator.a.detach().clone()
    terms_of(Objective(loss=Wasserstein()), ours)
    gradient, lr = ours.discriminator.a.grad, 0.04
    if name == "rmsprop":
        expected = before - lr * gradient / ((0.1 * gradient**2).sqrt() + 1e-8)
    else:  # the first step of Adam is the sign of the gradient
        decay = 1 - lr * 0.1 if name == "adamw" else 1.0
        expected = before * decay - lr * gradient.sign()
    torch.testing.assert_close(ours.discriminator.a.detach(), expected, rtol=1e-4, atol=1e-6)
    assert ours.generator_optimizer.param_groups[0]["lr"] == 0.04


def test_the_strength_follows_how_sure_the_discriminator_is() -> None:
    ours = linear()
    ours.discriminator = Linear(1.0, 1.0, 1.0, 1.0)
    sure = Batch(torch.ones(4, 1, 2, 2), None, torch.zeros(4, 2), torch.arange(4))
    objective = Objective(
        loss=NonSaturating(), transforms=("flip",), strength=Adaptive(target=0.6, change=0.1, limit=0.25)
    )
    seen = [training.discriminator_step(ours, objective, [sure])["augmentation"].item() for _ in range(4)]
    assert seen == pytest.approx([0.1, 0.2, 0.25, 0.25])
    ours.discriminator = Linear(-1.0, -1.0, -1.0, -1.0)
    seen = [training.discriminator_step(ours, objective, [sure])["augmentation"].item() for _ in range(3)]
    assert seen == pytest.approx([0.15, 0.05, 0.0])


@pytest.mark.parametrize(("targets", "boundary"), [((1.0, 0.0), 0.5), ((0.9, 0.0), 0.45), ((0.9, 0.1), 0.5)])
def test_least_squares_is_sure_beyond_the_middle_of_its_targets(targets: tuple[float, float], boundary: float) -> None:
    loss = LeastSquares(real_target=targets[0], fake_target=targets[1])
    adaptive = Adaptive(target=0.6, change=0.1, limit=0.8)
    sure = Batch(torch.ones(4, 1, 2, 2), None, torch.zeros(4, 2), torch.arange(4))
    for logit, expected in ((boundary + 0.01, 0.6), (boundary - 0.01, 0.4)):
        ours = linear()
        ours.discriminator = Linear(*[logit / 4] * 4)
        ours.strength.fill_(0.5)
        objective = Objective(loss=loss, transforms=("flip",), strength=adaptive)
        terms = training.discriminator_step(ours, objective, [sure])
        assert terms["augmentation"].item() == pytest.approx(expected)


def test_the_average_of_a_constant_generator_in_closed_form_with_its_running_means() -> None:
    ours = players(NETWORKS["resnet"])
    start = [t.clone() for t in (*ours.average.parameters(), *ours.average.buffers())]
    with torch.no_grad():
        for tensor in (*ours.generator.parameters(), *ours.generator.buffers()):
            tensor.add_(1.0)
    for step in range(7):
        training.update_average(ours, images=10, images_done=1000 + step, halflife=50, ramp=1.0)
    for before, now in zip(start, (*ours.average.parameters(), *ours.average.buffers()), strict=True):
        torch.testing.assert_close(now, before + 1 - 0.5 ** (7 * 10 / 50), rtol=1e-5, atol=1e-5)


def test_real_and_generated_images_are_normalised_apart() -> None:
    found, first = players(NETWORKS["transposed"], resolution=16), batch(0, resolution=16)[0]
    expected = pair(NETWORKS["transposed"], resolution=16)
    fake = expected[0](first.z, first.label).detach()
    real_logits = expected[1](first.images, first.label)
    loss = Relativistic().discriminator_loss(real_logits, expected[1](fake, first.label))
    assert layers.has_batch_statistics(found.discriminator)
    terms = training.discriminator_step(found, Objective(loss=Relativistic()), [first])
    assert terms["loss_d"].item() == pytest.approx(loss.item(), rel=1e-5)


def test_every_class_is_drawn_equally_often_and_every_image_of_it() -> None:
    labels = np.array([0] * 90 + [1] * 9 + [2])
    np.random.default_rng(0).shuffle(labels)
    classes = batches.Classes(labels)
    drawn = np.concatenate([batches.draw(4, number, 64, 100, 5, classes)[0] for number in range(200)])
    shares = np.bincount(labels[drawn]) / len(drawn)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.02)
    assert set(drawn) == set(range(100))
    of_one = np.bincount(drawn[labels[drawn] == 1])
    assert of_one[of_one > 0].min() > 0.7 * of_one.max()
    _, z = batches.draw(4, 3, 64, 100, 5)
    np.testing.assert_array_equal(z, batches.draw(4, 3, 64, 100, 5, classes)[1])  # latents do not change with it


def test_keys_are_functions_of_seed_and_number() -> None:
    found = [batches.draw_keys(4, number, 64) for number in range(3)]
    assert len(set(np.concatenate(found))) == 3 * 64 and found[0].dtype == np.int64
    np.testing.assert_array_equal(batches.draw_keys(4, 2, 64), found[2])
    assert (batches.draw_keys(5, 2, 64) != found[2]).all()
    assert math.isclose(float(chance.uniforms(torch.from_numpy(found[0]), 0, 50).mean()), 0.5, abs_tol=0.02)
