"""What params.yaml can choose for a training: each option trains and is felt, what makes no sense is refused, and every
network ends as an ONNX file."""

import dataclasses
import importlib
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from consumer import Generator
from gan import batches, pixels, training
from stages.config import FileOf, build, load_section
from stages.config.export import ExportConfig
from stages.config.train import TrainConfig
from stages.export import run as export
from stages.store import open_store
from stages.train import run
from stages.train._feed import Feed
from stages.train._loop import Run
from stages.train._objective import halflife, objective, set_rates
from stages.train._processes import Processes
from tests.stages.small_training import small

PROJECT = Path(__file__).parents[2]
ALONE = Processes()
DCGAN = {"name": "dcgan", "form": "upsampling", "width": 8, "embedding": 4, "norm": "none", "dropout": 0.0,
         "minibatch": "none", "group": 1}  # fmt: skip
NETWORKS: dict[str, dict[str, Any]] = {
    "r3gan_paper": {
        "name": "r3gan_paper", "width": 16, "full_to": 8, "blocks": 1, "group_width": 16, "embedding": 4,
        "projection": 8,
    },
    "upsampling": DCGAN,
    "transposed": DCGAN | {"form": "transposed", "norm": "spectral"},
    "resnet": {"name": "resnet", "generator_width": 8, "discriminator_width": 8},
}  # fmt: skip
FADING = {"name": "scheduled", "transforms": ["flip", "shift", "zoom"], "strength": 0.6, "strength_final": 0.1}
ADAPTIVE = {"name": "adaptive", "transforms": ["shift", "cutout"], "target": -0.9, "ramp_kimg": 0.5, "limit": 0.8}
OPTIMIZERS = {
    "generator": {"name": "adamw", "factor": 0.5, "weight_decay": 0.01},
    "discriminator": {"name": "rmsprop", "factor": 2.0},
}  # fmt: skip
GP = [{"name": "wgan_gp", "gamma": 10.0, "gamma_final": 10.0}]
TARGETS = {"real_target": 0.9, "fake_target": 0.1}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """40 train images of three unequal classes, 16x16, with a verdict beside them."""
    folder = tmp_path / "ingest"
    folder.mkdir()
    rng = np.random.default_rng(0)
    labels = np.array([0] * 25 + [1] * 14 + [2])
    images = rng.integers(0, 60, (40, 8, 8, 1)).astype(np.uint8)
    for label in range(3):
        images[labels == label, :, 2 * label : 2 * label + 3] += 180
    np.save(folder / "images-00000.npy", images)
    np.save(folder / "labels-00000.npy", labels)
    np.save(folder / "split-00000.npy", np.zeros(40, np.uint8))
    info = {
        "format": 1, "resolution": 8, "channels": 1, "classes": ["a", "b", "c"], "attributes": {},
        "counts": {"kept": 40}, "data_hash": "h", "datasheet": {"name": "bars", "licence": "CC0-1.0"},
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(info))
    (tmp_path / "passed.json").write_text(json.dumps({"format": 1, "data_hash": "h", "passed": True}))
    return folder


def config(**changes: Any) -> TrainConfig:
    short = {"total_kimg": 0.192, "burn_in_kimg": 0.192, "snapshot_kimg": 0.192}  # 12 steps, a checkpoint at 10
    return build(TrainConfig, small(**short | changes), "train")


def trained(config: TrainConfig, store: Path, state: Path) -> Run:
    state.mkdir(exist_ok=True)
    found = Run(config, open_store(store), state, ALONE)
    found.to_the_end()
    return found


def weights(found: Run) -> torch.Tensor:
    players = found.players
    return torch.cat(
        [p.detach().flatten() for net in (players.average, players.discriminator) for p in net.parameters()]
    )


OPTIONS: dict[str, dict[str, Any]] = {
    "augmentation": {"augmentation": FADING},
    "other transforms": {"augmentation": FADING | {"transforms": ["turn", "rotation", "colour", "cutout"]}},
    "variations": {"variations": {"flip": True, "rotation": 10.0, "zoom": 0.1}},
    "balance": {"balance": "classes"},
    "generator_batch": {"generator_batch": "shared"},
    "label_noise": {"label_noise": 0.2},
    "instance_noise": {"instance_noise": 0.3},
    "gradient_clip": {"gradient_clip": 0.01},
    "precision": {"precision": "bfloat16"},
    "optimizers": {"optimizers": OPTIMIZERS},
    "exchanged optimizers": {
        "optimizers": {"generator": OPTIMIZERS["discriminator"], "discriminator": OPTIMIZERS["generator"]}
    },
    "beta1": {"beta1": 0.5},
    "beta2_final": {"beta2_final": 0.9},
    "ema_halflife_start_kimg": {"ema_halflife_start_kimg": 0.001},
    "wgan_gp": {"loss": {"name": "wasserstein"}, "penalties": GP},
    "smoothing": {"loss": {"name": "non_saturating", "real_target": 0.9, "fake_target": 0.0}},
    "r1": {"penalties": [{"name": "r1", "gamma": 1.0, "gamma_final": 0.1}]},
    "no penalties": {"penalties": []},
}
STABILISERS: dict[str, dict[str, Any]] = {
    "none": {"network": DCGAN},
    "spectral": {"network": DCGAN | {"norm": "spectral"}},
    "batch": {"network": DCGAN | {"norm": "batch"}, "penalties": []},
    "dropout": {"network": DCGAN | {"dropout": 0.3}},
    "deviation": {"network": DCGAN | {"minibatch": "deviation", "group": 4}},
    "discrimination": {"network": DCGAN | {"minibatch": "discrimination", "group": 4}},
}
BOUNDED: dict[str, dict[str, Any]] = {
    loss: {"loss": {"name": loss} | settings, "network": NETWORKS["resnet"], "penalties": []}
    for loss, settings in {"hinge": {}, "minimax": TARGETS, "wasserstein": {}}.items()
}


@pytest.mark.parametrize("options", [{"plain": {}} | OPTIONS, STABILISERS], ids=["options", "stabilisers"])
def test_every_option_trains_and_is_felt(store: Path, tmp_path: Path, options: dict[str, dict[str, Any]]) -> None:
    seen: list[torch.Tensor] = []
    for name, option in options.items():
        found = weights(trained(config(**option), store, tmp_path / name))
        assert found.isfinite().all(), name
        same = [other for other in seen if len(other) == len(found)]
        assert all(not torch.equal(found, other) for other in same), f"{name} changes nothing"
        seen.append(found)


ALL_AT_ONCE: dict[str, Any] = {
    "network": DCGAN | {"norm": "spectral", "dropout": 0.2, "minibatch": "deviation", "group": 4},
    "loss": {"name": "least_squares"} | TARGETS,
    "penalties": [{"name": "r1", "gamma": 1.0, "gamma_final": 0.1}],
    "augmentation": ADAPTIVE,
    "variations": {"flip": True, "rotation": 5.0, "zoom": 0.1},
    "balance": "classes",
    "label_noise": 0.1,
    "instance_noise": 0.2,
    "gradient_clip": 1.0,
    "optimizers": OPTIMIZERS,
    "beta2_final": 0.9,
}


RANDOM: dict[str, dict[str, Any]] = {
    "r1": {},
    "wgan_gp": {"network": DCGAN | {"dropout": 0.2}, "penalties": GP},
    "three updates": {  # 12 steps, a checkpoint at 10
        "discriminator_steps": 3, "total_kimg": 0.576, "checkpoint_kimg": 0.48,
        "augmentation": ADAPTIVE | {"ramp_kimg": 1.5},
    },
}  # fmt: skip


@pytest.mark.parametrize("changes", RANDOM.values(), ids=RANDOM)
def test_a_run_with_everything_random_goes_on_with_the_same_bytes(
    store: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    whole = trained(config(**ALL_AT_ONCE | changes), store, tmp_path / "whole")
    for checkpoint in (tmp_path / "whole").glob("checkpoint-*-000000012-*"):
        checkpoint.unlink()
    strength = whole.players.strength.item()
    torch.manual_seed(99)  # nothing may come from torch's own numbers
    again = Run(config(**ALL_AT_ONCE | changes), open_store(store), tmp_path / "whole", ALONE)
    assert again.step == 10 and 0 < again.players.strength < strength
    again.to_the_end()
    assert torch.equal(weights(again), weights(whole)) and again.players.strength == strength
    assert [row["augmentation"] for row in again.rows] == [row["augmentation"] for row in whole.rows]


@pytest.mark.parametrize(
    ("of_its_own", "loss"), [(True, "relativistic"), (True, "hinge"), (False, "relativistic")],
    ids=["fresh", "fresh, no real images", "shared"],
)  # fmt: skip
def test_the_discriminator_is_updated_on_batches_of_their_own(
    store: Path, tmp_path: Path, of_its_own: bool, loss: str
) -> None:
    """By hand: three batches for it, each with new singular vectors, the fourth or the third for the generator."""
    changes = {"discriminator_steps": 3, "total_kimg": 0.15, "network": NETWORKS["resnet"], "penalties": []}
    changes |= {"generator_batch": "fresh" if of_its_own else "shared", "loss": {"name": loss}}
    chosen = config(**changes)
    found = trained(chosen, store, tmp_path / "run")
    assert (found.steps, found.images, found.interval("checkpoint_kimg")) == (3, 144, 3)
    assert found.rows[-1]["step"] == 3 and found.rows[-1]["kimg"] == 0.144

    if of_its_own:  # images are read only for those who look at them
        assert len(found.feed._prepare(3)[0]) == (16 if loss == "relativistic" else 0)
    players, split = found.fresh(), open_store(store).splits["train"]
    count = 3 + of_its_own
    for number in range(3 * count):
        indices, z = batches.draw(3, number, 16, 40, 6)
        images = torch.from_numpy(pixels.to_float(split.take(indices))).contiguous(memory_format=torch.channels_last)
        keys = torch.from_numpy(batches.draw_keys(3, number, 16))
        batch = batches.Batch(images, torch.from_numpy(split.labels[indices]), torch.from_numpy(z), keys)
        done = number // count * 48
        set_rates(chosen, players, done)
        if number % count < 3:
            training.discriminator_step(players, objective(chosen, done), [batch])
        if number % count == count - 1:
            training.generator_step(players, objective(chosen, done), [batch])
            training.update_average(
                players, images=48, images_done=done, halflife=halflife(chosen, done), ramp=chosen.ema_ramp
            )
    nets = [(getattr(players, side), getattr(found.players, side)) for side in ("average", "discriminator")]
    for expected, reached in nets:
        # Images made once move the generator's running means once: those differ here, the weights may not.
        same = expected.state_dict() if of_its_own else dict(expected.named_parameters())
        for name, tensor in same.items():
            assert torch.equal(tensor, reached.state_dict()[name]), name


def test_numbers_drawn_for_many_batches_at_once_are_those_of_each(store: Path) -> None:
    second, split = Processes(1, 2), open_store(store).splits["train"]
    feed = Feed(config(), split, second, labelled=True)
    for seed, number in ((3, 0), (3, 15), (3, 16), (3, 100), (4, 100), (3, 15)):
        feed.reseed(seed)
        indices, z = batches.draw(seed, number, 16, 40, 6, own=slice(8, 16))
        keys = batches.draw_keys(seed, number, 16, own=slice(8, 16))
        for found, expected in zip(feed._drawn(number), (indices, z, keys), strict=True):
            np.testing.assert_array_equal(found, expected)
    feed.close()


def test_schedules_count_images(store: Path) -> None:
    chosen = config(augmentation=FADING, instance_noise=0.4, penalties=GP, burn_in_kimg=0.1, total_kimg=1.0)
    start, half, end = (objective(chosen, done) for done in (0, 50, 100))
    assert [o.strength for o in (start, half, end)] == pytest.approx([0.6, 0.35, 0.1])
    assert [o.instance_noise for o in (start, half, end)] == pytest.approx([0.4, 0.2, 0.0])
    assert start.gammas == {"between": 10.0}
    fading = objective(config(augmentation=FADING | {"strength_final": 0.0}, burn_in_kimg=0.1), 100)
    assert fading.transforms == ()  # nothing is computed where nothing is changed


@pytest.mark.parametrize("loss", BOUNDED)
def test_losses_train_with_a_bounded_discriminator(store: Path, tmp_path: Path, loss: str) -> None:
    found = trained(config(**BOUNDED[loss]), store, tmp_path / loss)
    assert weights(found).isfinite().all() and found.rows[-1]["loss_d"] != 0


def test_a_batch_in_parts_is_the_whole_batch(store: Path, tmp_path: Path) -> None:
    whole, parts = (trained(config(parts=parts), store, tmp_path / str(parts)) for parts in (1, 4))
    found, expected = (list(run.players.generator.parameters()) for run in (parts, whole))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert parts.rows[-1]["loss_d"] == pytest.approx(whole.rows[-1]["loss_d"], rel=1e-3)


@pytest.mark.parametrize("name", ["r3gan", *NETWORKS])
def test_every_network_trains_on_larger_colour_images_without_classes(store: Path, tmp_path: Path, name: str) -> None:
    images = np.load(store / "images-00000.npy").repeat(2, axis=1).repeat(2, axis=2).repeat(3, axis=3)
    np.save(store / "images-00000.npy", images)
    np.save(store / "labels-00000.npy", np.full(40, -1))
    info = json.loads((store / "dataset.json").read_text())
    info |= {"resolution": 16, "channels": 3, "classes": []}
    (store / "dataset.json").write_text(json.dumps(info))
    network = NETWORKS.get(name, small()["network"] | {"widths": [8, 4, 4], "blocks": [1, 0, 0]})
    found = trained(config(network=network), store, tmp_path / name)
    assert weights(found).isfinite().all()
    start = weights(Run(config(network=network, seed=3), open_store(store), tmp_path / "none", ALONE))
    assert not torch.equal(weights(found), start)


def offered(kind: Any, where: str = "train") -> Iterator[tuple[str, str]]:
    """Every (setting, choice) that a section can name: those of `Literal`s, through unions and files of packages."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        yield from ((where, choice) for choice in arguments)
    elif origin is typing.Annotated and isinstance(arguments[1], FileOf):
        folder = Path(str(importlib.import_module(arguments[1].package).__file__)).parent
        for file in folder.glob("[!_]*.py"):
            yield from offered(importlib.import_module(f"{arguments[1].package}.{file.stem}").Config, where)
    elif dataclasses.is_dataclass(kind):
        for name, hint in typing.get_type_hints(kind, include_extras=True).items():
            yield from offered(hint, f"{where}.{name}")
    else:
        for argument in arguments:
            yield from offered(argument, where)


def chosen(value: Any, where: str = "train") -> Iterator[tuple[str, Any]]:
    """Every (setting, value) of a section."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from chosen(getattr(value, field.name), f"{where}.{field.name}")
    elif isinstance(value, tuple):
        for item in value:
            yield from chosen(item, where)
    else:
        yield where, value


@pytest.mark.fast
def test_whatever_can_be_chosen_is_trained_by_a_test_of_this_file() -> None:
    every: list[dict[str, Any]] = [{"network": network} for network in NETWORKS.values()]
    sections = [{}, ALL_AT_ONCE, *OPTIONS.values(), *STABILISERS.values(), *BOUNDED.values(), *every]
    trained_here = {pair for changes in sections for pair in chosen(config(**changes))}
    elsewhere = {
        ("train.precision", "float16"),  # refused
        ("train.init.name", "weights"),  # test_train_ancestry.py
        *((where, choice) for where, choice in offered(TrainConfig) if where.startswith("train.selection")),  # _control
    }
    assert len(elsewhere) > 5 and ("train.network.minibatch", "discrimination") in trained_here
    assert set(offered(TrainConfig)) - trained_here - elsewhere == set()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_ends_as_onnx(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))
    chosen = config(network=NETWORKS[name])
    run(chosen, images=store, passed=tmp_path / "passed.json", out=tmp_path / "train")
    described = json.loads((tmp_path / "train" / "generator" / "generator.json").read_text())["architecture"]
    assert {"name": described["name"], **described["arguments"]} == NETWORKS[name]
    settings = yaml.safe_load((PROJECT / "params.yaml").read_text())["export"] | {"parity_images": 16, "batch": 8}
    exporting = build(ExportConfig, settings, "export")
    measures = export(exporting, generator=tmp_path / "train" / "generator", out=tmp_path / "export").results[
        "measures"
    ]
    assert measures["overflow"]["value"] == 0
    images = Generator(tmp_path / "export" / "generator.onnx").generate(count=5, seed=1)
    assert images.shape == (5, 8, 8, 1) and images.std() > 0


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "penalty and batch norm": (
        {"network": DCGAN | {"norm": "batch"}},
        r"train: penalties \(r1, r2\) need a discriminator without batch normalisation",
    ),
    "two aims of a gradient": (
        {"penalties": [*GP, {"name": "r1", "gamma": 1.0, "gamma_final": 1.0}]},
        "must not pull gradients to 0",
    ),
    "unbounded": ({"loss": {"name": "wasserstein"}, "penalties": []}, "wasserstein has no lower bound"),
    "unbounded by one layer": (
        {
            "loss": {"name": "wasserstein"},
            "penalties": [],
            "network": DCGAN | {"norm": "spectral", "minibatch": "discrimination", "group": 4},
        },
        "wasserstein has no lower bound .* or use spectral norms without minibatch discrimination, which has none",
    ),
    "gradients of a group": (
        {"network": DCGAN | {"minibatch": "deviation", "group": 4}, "penalties": GP},
        r"penalties \(wgan_gp\) need .* one image at a time: in groups of 4 .* no image has a gradient of its own",
    ),
    "nothing to learn": (
        {"loss": {"name": "least_squares", "real_target": 0.5, "fake_target": 0.5}},
        r"train.loss: real_target must be larger than fake_target: .*; received 0.5 and 0.5",
    ),
    "backwards": (
        {"loss": {"name": "minimax", "real_target": 0.0, "fake_target": 1.0}},
        r"train.loss: real_target must be larger than fake_target: .*; received 0 and 1",
    ),
    "no whole step": (
        {"discriminator_steps": 13},
        "total_kimg must hold at least one step, batch times discriminator_steps; received 0.192 for 208 images",
    ),
    "half precision": (
        {"precision": "float16"},
        "float16 would need loss scaling, which is not implemented; use bfloat16",
    ),
    "parts": ({"network": NETWORKS["resnet"], "parts": 2}, "parts must be 1 for network resnet: its batch statistics"),
    "parts of one batch": ({"generator_batch": "shared", "parts": 2}, "parts must be 1 with generator_batch shared"),
    "rmsprop": ({"optimizers": OPTIMIZERS, "beta1": 0.5}, "rmsprop keeps no mean of gradients: beta1 must be 0"),
    "no level": ({"augmentation": ADAPTIVE}, "loss relativistic leaves their level open; use scheduled"),
    "no level of a critic": (
        {"augmentation": ADAPTIVE, "loss": {"name": "wasserstein"}, "penalties": GP},
        "loss wasserstein leaves their level open; use scheduled",
    ),
    "no transform": ({"augmentation": FADING | {"transforms": []}}, "transforms must name a transform"),
    "leaking": ({"augmentation": FADING | {"strength": 0.9}}, r"augmentation.strength must be a number .*<= 0.8"),
    "no such network": ({"network": {"name": "r3gam"}}, r"train.network.name must be one of .*did you mean `r3gan`"),
    "no such loss": ({"loss": {"name": "hing"}}, r"train.loss.name must be one of .*did you mean `hinge`"),
    "no targets": ({"loss": {"name": "hinge", "real_target": 0.9}}, "train.loss.real_target is not a setting"),
    "too smooth": (
        {"loss": {"name": "minimax", "real_target": 1.5, "fake_target": 0.0}},
        r"train.loss: real_target must be a share >= 0 and <= 1; received 1.5",
    ),
    "a width of nothing": (
        {"network": NETWORKS["resnet"] | {"generator_width": 0}},
        "train.network: generator_width must",
    ),
}


@pytest.mark.fast
@pytest.mark.parametrize("name", REFUSED)
def test_senseless_combinations_are_refused_with_the_reason(name: str) -> None:
    changes, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_what_the_data_do_not_allow_is_refused(store: Path, tmp_path: Path) -> None:
    info = json.loads((store / "dataset.json").read_text())
    (store / "dataset.json").write_text(json.dumps(info | {"classes": []}))
    np.save(store / "labels-00000.npy", np.full(40, -1))
    with pytest.raises(ValueError, match="balance classes needs images with classes, and these have none"):
        Run(config(balance="classes"), open_store(store), tmp_path, ALONE)
    grouped = DCGAN | {"minibatch": "discrimination", "group": 3}
    with pytest.raises(ValueError, match=r"a multiple of train.network.group images, 3; received 16, which gives 16"):
        Run(config(network=grouped), open_store(store), tmp_path, ALONE)
    wide = {"name": "r3gan", "widths": [8, 4, 4], "blocks": [0, 0, 0], "embedding": 4, "projection": 8}
    with pytest.raises(ValueError, match=r"one entry per stage from 4x4 to 8x8 \(2\); received 3 and 3"):
        Run(config(network=wide), open_store(store), tmp_path, ALONE)


@pytest.mark.fast
def test_the_default_section_names_files(tmp_path: Path) -> None:
    default = load_section(TrainConfig, PROJECT / "params.yaml", "train")
    assert type(default.network).__module__ == "gan.networks.r3gan"
    assert type(default.loss).__module__ == "gan.losses.relativistic"


@pytest.mark.fast
def test_the_recipes_of_the_docs_are_sound() -> None:
    text = (PROJECT / "docs" / "recipes.md").read_text(encoding="utf-8")
    default = yaml.safe_load((PROJECT / "params.yaml").read_text())["train"]
    short = text.split("```yaml\n")[1].split("```")[0]
    for changes in [yaml.safe_load(line) for line in short.splitlines()]:
        found = build(TrainConfig, default | changes, "train")
        assert found.network.name == changes["network"]["name"]
