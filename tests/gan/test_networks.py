"""Every architecture: the sizes of the papers, promised shapes, first steps, and the layers that they share."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gan import batches, layers, networks, training
from gan.losses.relativistic import Config as Relativistic
from gan.objective import Objective
from tests.gan.small_networks import NETWORKS, Z_DIM, batch, pair, players

pytestmark = pytest.mark.fast
FIRST_STEPS = Path(__file__).with_name("first_steps.json")


def millions(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def on_paper(architecture: dict[str, Any], *, z_dim: int, **shape: int) -> list[float]:
    with torch.device("meta"):
        nets = [
            networks.build_generator(architecture, z_dim=z_dim, **shape),
            networks.build_discriminator(architecture, **shape),
        ]
    return [millions(net) for net in nets]


@pytest.mark.parametrize(
    ("width", "full_to", "resolution", "classes", "expected"),
    [
        (768, 32, 32, 10, (20.8, 21.3)),
        (768, 32, 64, 0, (22.4, 22.4)),
        (768, 32, 256, 0, (23.06, 23.01)),
        (1536, 32, 32, 1000, (82.9, 86.6)),
        (1536, 64, 64, 1000, (103.6, 107.2)),
    ],
)
def test_the_presets_of_the_paper_have_its_parameters(
    width: int, full_to: int, resolution: int, classes: int, expected: tuple[float, float]
) -> None:
    sizes = {"width": width, "full_to": full_to, "projection": width}
    arguments = sizes | {"blocks": 2, "group_width": width // 48, "embedding": 64}  # 96 groups at full width
    found = on_paper(
        {"name": "r3gan_paper", "arguments": arguments}, z_dim=64, classes=classes, resolution=resolution, channels=3
    )
    assert found == pytest.approx(expected, rel=0.006)


def test_labels_start_in_the_network_of_the_paper_as_linear_maps_of_the_classes() -> None:
    arguments = NETWORKS["r3gan_paper"]["arguments"] | {"embedding": 64, "projection": 64}
    generator, discriminator = pair({"name": "r3gan_paper", "arguments": arguments}, classes=100)
    assert generator.embed.weight.std().item() == pytest.approx(100**-0.5, rel=0.05)
    assert discriminator.embed.weight.std().item() == pytest.approx((100 * 64) ** -0.5, rel=0.05)
    compared: list[torch.Tensor] = []
    discriminator.score.register_forward_hook(lambda *given: compared.append(given[2]))
    logits = discriminator(torch.randn(4, 1, 8, 8), torch.arange(4))
    torch.testing.assert_close(logits, (compared[0] * discriminator.embed.weight[:4]).sum(1))


def test_the_classic_dcgan_has_its_parameters() -> None:
    arguments = NETWORKS["transposed"]["arguments"] | {"width": 64}
    found = on_paper({"name": "dcgan", "arguments": arguments}, z_dim=100, classes=0, resolution=64, channels=3)
    assert found == [3.576704, 2.765568]


@pytest.mark.parametrize("form", ["transposed", "upsampling"])
@pytest.mark.parametrize("norm", ["batch", "spectral", "none"])
def test_discriminators_of_dcgan_have_biases_where_nothing_shifts_in_their_place(form: str, norm: str) -> None:
    arguments = NETWORKS["upsampling"]["arguments"] | {"form": form, "norm": norm}
    _, discriminator = pair({"name": "dcgan", "arguments": arguments}, classes=0, resolution=16)
    biases = [m.bias is not None for m in discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    if norm == "batch":
        assert biases == ([False] * 3 if form == "transposed" else [True, False, True])
        return
    assert all(biases)
    with torch.no_grad():
        for name, parameter in discriminator.named_parameters():
            if name.endswith("bias"):
                parameter.fill_(0.1)
        assert discriminator(torch.zeros(1, 1, 16, 16)).item() != 0


@pytest.mark.parametrize("resolution", [8, 16, 32, 64, 128, 256])
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "r3gan"])
def test_all_sizes_with_and_without_classes(name: str, resolution: int) -> None:
    for classes, channels in ((0, 3), (3, 1)):
        generator, discriminator = pair(NETWORKS[name], classes=classes, resolution=resolution, channels=channels)
        label = torch.arange(4) % 3 if classes else None
        images = generator(torch.randn(4, Z_DIM), label)
        assert images.shape == (4, channels, resolution, resolution)
        with layers.keyed(discriminator, torch.arange(4)):
            assert discriminator(images, label).shape == (4,)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("resolution", [4, 12, 512])
def test_other_sizes_are_refused(name: str, resolution: int) -> None:
    with pytest.raises(ValueError, match=rf"8, 16, 32, 64, 128 or 256 pixels a side; received {resolution}"):
        pair(NETWORKS[name], resolution=resolution)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("r3gan", {"widths": [8, 0]}, "widths, embedding and projection must be 1 or more"),
        (
            "r3gan_paper",
            {"width": 12},
            "twice the channels of every stage must be a multiple of network.group_width, 16",
        ),
        ("r3gan_paper", {"blocks": 0}, "blocks must be a whole number >= 1 and <= 8192; received 0"),
        ("upsampling", {"dropout": 1.0}, "dropout must be a share >= 0 and < 1; received 1"),
        ("upsampling", {"minibatch": "deviation"}, "2 or more otherwise; received group 1, minibatch deviation"),
        ("resnet", {"depth": 3}, "network resnet has the arguments generator_width, discriminator_width"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(name: str, change: dict[str, Any], message: str) -> None:
    description = NETWORKS[name]
    with pytest.raises(ValueError, match=message):
        pair({"name": description["name"], "arguments": description["arguments"] | change})


def first_steps(name: str) -> dict[str, list[float]]:
    """Loss terms and mean weights of three steps in float64."""
    found, rows = players(NETWORKS[name]), []
    for net in (found.generator, found.discriminator, found.average):
        net.to(torch.float64)
    batchnorm = layers.has_batch_statistics(found.discriminator)
    objective = Objective(loss=Relativistic(), gammas={} if batchnorm else {"real": 1.0, "fake": 1.0})
    for step in range(3):
        parts = [[batches.Batch(b.images.double(), b.label, b.z.double(), b.keys)] for b in batch(step)]
        terms = training.discriminator_step(found, objective, parts[0])
        terms |= training.generator_step(found, objective, parts[1])
        training.update_average(found, images=8, images_done=8 * step, halflife=50, ramp=1.0)
        rows.append([terms["loss_d"].item(), terms["loss_g"].item()])
    weights = [sum(p.abs().sum().item() for p in net.parameters()) for net in (found.average, found.discriminator)]
    return {"losses": [value for row in rows for value in row], "weights": weights}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_first_steps_are_those_recorded(name: str) -> None:
    # Recorded by this function; a change of them is a change of the training and needs a reason.
    recorded = json.loads(FIRST_STEPS.read_text())[name]
    found = first_steps(name)
    for key, values in recorded.items():
        assert found[key] == pytest.approx(values, rel=1e-4), key


def test_spectral_norms_are_the_largest_singular_values() -> None:
    torch.manual_seed(0)  # where the two largest are alike, 200 steps are not enough
    generator = torch.Generator().manual_seed(0)
    for layer in (layers.SpectralConv2d(3, 5, 3), layers.SpectralLinear(7, 4), layers.SpectralEmbedding(6, 8)):
        layer.start(generator)
        layer.advance(200)
        largest = torch.linalg.svdvals(layer.weight.flatten(1))[0]
        torch.testing.assert_close(layer.deviation(), largest, rtol=1e-5, atol=0)
    images = torch.randn(2, 3, 8, 8)
    conv = layers.SpectralConv2d(3, 5, 3)
    conv.start(generator)
    conv.advance(200)
    plain = nn.functional.conv2d(images, conv.weight / torch.linalg.svdvals(conv.weight.flatten(1))[0], conv.bias)
    torch.testing.assert_close(conv(images), plain, rtol=1e-4, atol=1e-5)


def test_a_step_of_power_iteration_is_one_a_training_step() -> None:
    found = players(NETWORKS["resnet"])
    before = found.discriminator.score.left.clone()
    with torch.no_grad():
        found.discriminator(torch.randn(2, 1, 8, 8), torch.tensor([0, 1]))
    assert torch.equal(before, found.discriminator.score.left)
    left = found.discriminator.blocks[0].convs[1].left.clone()
    training.discriminator_step(found, Objective(loss=Relativistic()), batch(0)[:1])
    assert not torch.equal(left, found.discriminator.blocks[0].convs[1].left)


def test_batch_normalisation_is_that_of_torch() -> None:
    ours, theirs = layers.BatchNorm(4), nn.BatchNorm2d(4)
    conditional = layers.BatchNorm(4, classes=2)
    for _ in range(3):
        x = torch.randn(6, 4, 3, 3) * 2 + 1
        torch.testing.assert_close(ours(x), theirs(x))
        conditional(x, torch.zeros(6, dtype=torch.int64))
    assert torch.allclose(ours.mean, theirs.running_mean) and torch.allclose(ours.variance, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    torch.testing.assert_close(conditional.eval()(x, torch.zeros(6, dtype=torch.int64)), theirs(x))
    with torch.no_grad():
        conditional.gain[1], conditional.bias[1] = 3.0, -1.0
    mixed = conditional.train()(x, torch.tensor([0, 1] * 3))
    torch.testing.assert_close(mixed[1::2], 3 * theirs.train()(x)[1::2] - 1)


def test_dropout_follows_the_images_and_keeps_the_mean() -> None:
    layer, keys = layers.Dropout(0.25, place=1), torch.arange(4000)
    network = nn.Sequential(layer)
    x = torch.ones(4000, 5, 2, 2)
    with layers.keyed(network, keys):
        whole = network(x)
    with layers.keyed(network, keys[1000:]):
        assert torch.equal(network(x[1000:]), whole[1000:])  # however the batch is cut
    torch.testing.assert_close(whole.unique(), torch.tensor([0.0, 4 / 3]))
    assert (whole[:, :, 0, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert torch.equal(whole[:, :, :1, :1].expand_as(whole), whole)  # whole channels
    assert torch.equal(network.eval()(x), x)


def test_groups_are_compared_inside_and_do_not_know_the_others() -> None:
    deviation, discrimination = layers.MinibatchDeviation(4), layers.MinibatchDiscrimination(6, 4)
    x = torch.randn(8, 6, 2, 2)
    same = x[:1].expand(4, -1, -1, -1)
    found = deviation(torch.cat([x[:4], same]))
    expected = x[:4].std(0, correction=0).mean()
    torch.testing.assert_close(found[:4, 6], expected.expand(4, 2, 2), rtol=1e-4, atol=1e-5)
    assert found[4:, 6].max() < 1e-3  # a group of equal images gives itself away
    flat = torch.cat([x[:4, :, 0, 0], same[:, :, 0, 0]])
    close = discrimination(flat)[:, 6:]
    torch.testing.assert_close(close[4:], torch.full((4, 16), 3.0))  # the other three are at distance 0
    torch.testing.assert_close(discrimination(flat[:4])[:, 6:], close[:4])
    m = discrimination.tensor(flat[:4]).view(4, 16, 5)
    by_hand = sum(torch.exp(-(m[0] - m[j]).abs().sum(1)) for j in (1, 2, 3))
    torch.testing.assert_close(close[0], by_hand)
    with pytest.raises(ValueError, match=r"in groups of 4 \(network.group\), and 6 do not fill such groups"):
        deviation(x[:6])


class OneImageAGroup(nn.Module):
    """A generator that has collapsed batch by batch: each group of four is one real image, and every image has its
    turn, so that no image by itself tells it from the data."""

    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        self.images, self.nothing = images, nn.Parameter(torch.zeros(()))

    def forward(self, z: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        chosen = (z[::4, 0].sigmoid() * len(self.images)).long()
        return self.images[chosen.repeat_interleave(4)] + self.nothing


@pytest.mark.parametrize(("minibatch", "group"), [("none", 1), ("deviation", 4), ("discrimination", 4)])
def test_a_discriminator_that_compares_sees_that_a_group_is_one_image(minibatch: str, group: int) -> None:
    data = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    arguments = NETWORKS["upsampling"]["arguments"] | {"minibatch": minibatch, "group": group}
    _, discriminator = pair({"name": "dcgan", "arguments": arguments}, classes=0)
    found, losses = training.assemble(OneImageAGroup(data), discriminator, lr=5e-3, betas=(0.0, 0.99)), []
    for step in range(100):
        indices, z = batches.draw(0, 2 * step, 16, len(data), 1)
        shown = batches.Batch(data[torch.from_numpy(indices)], None, torch.from_numpy(z))
        terms = training.discriminator_step(found, Objective(loss=Relativistic()), [shown])
        losses.append(terms["loss_d"].item())
    late = sum(losses[-20:]) / 20
    assert late > 0.6 if minibatch == "none" else late < 0.3  # ln 2 = 0.69 is chance


@pytest.mark.parametrize("name", ["r3gan", "r3gan_paper", "upsampling", "resnet"])
def test_bfloat16_trains_beside_float32_with_the_smallest_stage_in_float32(name: str) -> None:
    losses, kinds = {}, set()
    for precision in (None, torch.bfloat16):
        found = players(NETWORKS[name])
        if name.startswith("r3gan"):
            found.generator.stages[0].register_forward_hook(lambda *a: kinds.add(("4x4", a[2].dtype)))
            found.generator.stages[1].register_forward_hook(lambda *a: kinds.add(("8x8", a[2].dtype)))
            found.discriminator.stages[-1].register_forward_hook(lambda *a: kinds.add(("4x4", a[2].dtype)))
        objective = Objective(loss=Relativistic(), gammas={"real": 1.0, "fake": 1.0}, precision=precision)
        rows = []
        for step in range(3):
            first, second = batch(step)
            terms = training.discriminator_step(found, objective, [first])
            terms |= training.generator_step(found, objective, [second])
            rows.append([terms["loss_d"], terms["loss_g"], terms["gradient_real"]])
        losses[precision] = torch.tensor(rows)
        assert all(p.dtype == torch.float32 for p in found.generator.parameters())
    torch.testing.assert_close(losses[torch.bfloat16], losses[None], rtol=0.05, atol=0.05)
    assert not torch.equal(losses[torch.bfloat16], losses[None])
    assert ("4x4", torch.bfloat16) not in kinds
    if name.startswith("r3gan"):
        assert ("8x8", torch.bfloat16) in kinds
