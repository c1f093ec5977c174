"""Reference: everything from real images, repeatable, nothing from the wrong split, adopted files by hash only."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gan.draws import SUBSETS, permutation
from gan.features import features, load, save
from gan.metrics import frechet_distance, moments
from stages.common.files import read_json, sha256_file, tree_digests, write_json
from stages.config import load_section
from stages.config.reference import File, Fit, ReferenceConfig, Training
from stages.reference import run
from stages.reference_folder import open_reference
from stages.scoring import SET_METRICS
from stages.store import open_store
from tests.stages.measured_worlds import CONFIG, NAMES, colours, digits, passed_store, reference


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = digits(tmp_path_factory.mktemp("digits"))
    reference(folder)
    return folder


def test_twice_the_same_bytes(world: Path) -> None:
    reference(world, "again")
    assert tree_digests(world / "again") == tree_digests(world / "reference")


def test_numbers_are_those_of_the_images(world: Path) -> None:
    opened = open_reference(world / "reference")
    network, (images, labels) = opened.network(), opened.pictures("heldout")
    hidden, odds = features(network, images)
    assert np.array_equal(hidden, opened.features("heldout")) and len(hidden) == opened.heldout == 135
    share = opened.info["extractor"]["accuracy_heldout"]
    assert share["value"] == (odds.argmax(1) == labels).mean() > 0.9 and share["low"] < share["value"] < share["high"]
    table = np.array(opened.info["confusion"])
    assert table.sum() == 135 and np.array_equal(table.sum(1), np.bincount(labels, minlength=10))
    assert np.trace(table) == round(135 * share["value"])
    stored = np.load(world / "reference" / "moments-train.npz", allow_pickle=False)
    assert stored["cov"] == pytest.approx(moments(opened.features("train"))[1])
    pictures, named = opened.pictures("train")
    whole = open_store(world / "store").splits["train"]
    assert pictures.shape == (100, 8, 8, 1)
    assert np.array_equal(opened.train_labels(), whole.labels) and len(opened.train_labels()) == 495
    for place in (0, 1, 50, 99):  # evenly spread: a store in order of classes shows them all
        assert np.array_equal(pictures[place], whole.all()[place * 495 // 100])
        assert named[place] == whole.labels[place * 495 // 100]


def test_floors_and_baselines_are_what_real_images_reach(world: Path) -> None:
    info = open_reference(world / "reference").info
    assert set(info["floors"]) == set(SET_METRICS)
    train = open_reference(world / "reference").features("train")
    held = open_reference(world / "reference").features("heldout")
    draws = [frechet_distance(held, train[np.random.default_rng(i).permutation(495)[:135]]) for i in range(20)]
    floor = info["floors"]["fid_domain"]
    assert floor["n"] == 135 and floor["draws"] == 4
    assert abs(floor["mean"] - np.mean(draws)) < 3 * np.std(draws)
    assert info["floors"]["coverage_k5"]["mean"] == pytest.approx(0.97, abs=0.05)
    for baseline in info["baselines"].values():
        assert baseline["value"] > 0.9 and sum(row["n"] for row in baseline["per_class"]) == 135
        assert sum(row["right"] for row in baseline["per_class"]) == round(135 * baseline["value"])


def test_a_set_holds_so_many_images_and_never_more(world: Path) -> None:
    """Sets of 128 of the 135 held-out images, evenly spread; classifiers are tested on all of them."""
    info = reference(world, "capped", dataclasses.replace(CONFIG, largest_set=128))
    opened, whole = open_reference(world / "capped"), open_reference(world / "reference")
    assert (whole.set_size, opened.set_size, opened.heldout) == (135, 128, 135)
    real = whole.features("heldout")[np.arange(128) * 135 // 128]
    assert np.array_equal(opened.compared(), real) and np.array_equal(whole.compared(), whole.features("heldout"))
    pool = whole.features("train")
    draws = [pool[permutation(0, SUBSETS, 2**32 + index, len(pool))[:128]] for index in range(4)]
    floor = info["floors"]["fid_domain"]
    assert floor["mean"] == np.mean([frechet_distance(real, draw) for draw in draws]) and floor["n"] == 128
    assert info["baselines"] == whole.info["baselines"] and info["confusion"] == whole.info["confusion"]
    assert (world / "capped" / "heldout_images.npy").read_bytes() == (
        world / "reference" / "heldout_images.npy"
    ).read_bytes()
    with pytest.raises(ValueError, match=r"in a set.*are 127\. Take at most 15 .*a larger reference.largest_set"):
        reference(world, "refused", dataclasses.replace(CONFIG, largest_set=127))


def test_the_extractor_sees_the_split_fit_alone(tmp_path: Path, world: Path) -> None:
    """Other train and held-out images, the same fit images: the same network."""
    folder = digits(tmp_path)
    images = np.load(folder / "store" / "images-00000.npy")
    fit = np.load(folder / "store" / "split-00000.npy") == 1
    np.save(folder / "store" / "images-00000.npy", np.where(fit[:, None, None, None], images, 255 - images))
    reference(folder)
    name = "reference/extractor.safetensors"
    assert sha256_file(folder / name) == sha256_file(world / name)


def test_an_adopted_file_gives_the_same_features_and_another_is_refused(world: Path) -> None:
    path = world / "reference" / "extractor.safetensors"
    file = File(name="file", path=str(path), sha256=sha256_file(path))
    adopted = reference(world, "adopted", dataclasses.replace(CONFIG, extractor=file))
    assert adopted["extractor"]["origin"] == "file" and adopted["extractor"]["sha256"] == file.sha256
    names = ("features-train.npy", "features-heldout.npy", "heldout_images.npy")
    assert all((world / "adopted" / n).read_bytes() == (world / "reference" / n).read_bytes() for n in names)
    for wrong, message in (
        (dataclasses.replace(file, sha256="0" * 64), f"{path} has SHA-256 {file.sha256}.*0000"),
        (dataclasses.replace(file, path="nowhere.safetensors"), f"nowhere.safetensors is not there.*{file.sha256}"),
    ):
        with pytest.raises(ValueError, match=message):
            reference(world, "refused", dataclasses.replace(CONFIG, extractor=wrong))
    assert not (world / "refused").exists()


def test_an_adopted_file_whose_outputs_mean_something_else_is_refused(world: Path, tmp_path: Path) -> None:
    """By the names that it carries, or, in a file of an earlier version, by what it makes of the held-out images."""
    folder = digits(tmp_path / "other")
    described = read_json(folder / "store" / "dataset.json")
    write_json(folder / "store" / "dataset.json", described | {"classes": NAMES[1:] + NAMES[:1]})
    named = world / "reference" / "extractor.safetensors"
    network = load(named)
    assert network.classes == NAMES
    network.classes = []
    save(network, tmp_path / "nameless.safetensors")
    with torch.no_grad():
        for each in (network.head.weight, network.head.bias):
            each.copy_(each.roll(1, 0))
    save(network, tmp_path / "exchanged.safetensors")

    def adopt(place: Path, path: Path) -> dict[str, Any]:
        file = File(name="file", path=str(path), sha256=sha256_file(path))
        return reference(place, path.stem, dataclasses.replace(CONFIG, extractor=file))

    with pytest.raises(
        ValueError, match=r"reads the classes digit 0, digit 1, .*, but these images have digit 1, digit 2"
    ):
        adopt(folder, named)
    with pytest.raises(ValueError, match=r"names no classes, and it reads 0\.. % .*better than guessing \(1.\.. %\)"):
        adopt(world, tmp_path / "exchanged.safetensors")
    assert adopt(world, tmp_path / "nameless.safetensors")["extractor"]["accuracy_heldout"]["value"] > 0.9
    assert not (world / "exchanged").exists()


def test_colour_images_without_labels(tmp_path: Path, world: Path) -> None:
    folder = colours(tmp_path)
    config = dataclasses.replace(CONFIG, extractor=Fit(name="fit", width=7))
    info = reference(folder, config=config)
    assert info["extractor"]["kind"] == "rotation" and "no labels" in info["extractor"]["why"]
    assert info["extractor"]["accuracy_heldout"]["value"] > 0.9
    assert info["extractor"]["guessing"] == 0.25 and info["extractor"]["blind"] is None
    assert info["confusion"] == [] and info["baselines"] == {"cas": None, "label_agreement": None}
    assert load(folder / "reference" / "extractor.safetensors").channels == 3
    path = world / "reference" / "extractor.safetensors"
    other = File(name="file", path=str(path), sha256=sha256_file(path))
    with pytest.raises(ValueError, match="16 features need at least 128 held-out images in a set"):
        reference(folder, "refused", dataclasses.replace(CONFIG, extractor=other))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"extractor": Fit(name="fit", width=17)},
            "17 features need at least 136 held-out .*at most 16 features, or more images",
        ),
        (
            {"training": Training(steps=5, batch=4000, learning_rate=0.1)},
            "reference.training.batch: 4000 .*at least 1000 images, .*split fit; there are 270. Take at most 1083",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(world: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reference(world, "refused", dataclasses.replace(CONFIG, **change))


def test_data_that_did_not_pass_or_are_too_few_are_refused(world: Path, tmp_path: Path) -> None:
    for content in ({"data_hash": "e" * 64, "passed": True}, {"data_hash": "d" * 64, "passed": False}):
        write_json(tmp_path / "passed.json", {"format": 1, **content})
        with pytest.raises(ValueError, match="does not say that the images in"):
            run(CONFIG, images=world / "store", passed=tmp_path / "passed.json", out=tmp_path / "out")
    folder = digits(tmp_path / "small", 60)
    np.save(folder / "store" / "split-00000.npy", np.repeat([0, 1, 2], [31, 13, 16]).astype(np.uint8))
    with pytest.raises(ValueError, match=r"2 train images for each held-out one.*31 and 16: give ingest\.splits"):
        reference(folder)
    with pytest.raises(ValueError, match="64 needs at least 16 images"):  # the floors need no more of a smaller set
        reference(folder, config=dataclasses.replace(CONFIG, largest_set=15))


def test_one_class_is_refused_with_the_setting_that_cures_it(tmp_path: Path) -> None:
    images = np.zeros((100, 8, 8, 1), np.uint8)
    folder = passed_store(tmp_path / "one", images, np.zeros(100, int), ["cats"])
    with pytest.raises(ValueError, match=r"one label, cats, .*set ingest\.source\.labels to none"):
        reference(folder)


def test_the_section_of_params_yaml_is_checked(tmp_path: Path) -> None:
    text = "reference:\n  threads: 1\n  seed: 0\n  extractor: {name: file, path: a, sha256: ABC}\n"
    text += "  training: {steps: 1, batch: 4, learning_rate: 0.1}\n"
    text += "  largest_set: 10\n  floor_draws: 20\n  picture_pool: 10\n  published: []\n"
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"reference.extractor: sha256 must be 64 hexadecimal digits"):
        load_section(ReferenceConfig, tmp_path / "params.yaml", "reference")


def test_an_unfinished_or_altered_folder_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no summary.json"):
        open_reference(tmp_path)
    reference(world, "altered")
    with (world / "altered" / "extractor.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(ValueError, match=r"reference.json names"):
        open_reference(world / "altered").network()
