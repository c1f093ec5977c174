"""Reference, evaluate and audit hold a few batches of images at once, whatever their number, by numpy's own account."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from consumer import Generator
from gan.features.domain import DomainNetwork, Recipe, features, fit, save
from gan.memorization import fingerprints
from stages.audit._sides import side
from stages.common.files import sha256_file, write_json
from stages.drawn import drawn
from stages.evaluate._cas import cas
from stages.evaluate._latent import walk
from stages.reference._work import _write_pictures
from stages.reference_folder import Reference, open_reference
from stages.scoring import generated_sets
from stages.store import open_store
from tests.stages.measured_worlds import NAMES, stored
from tests.stages.stored_digits import write_store

SIDE, COUNT, BATCH, PIECE = 128, 900, 4, 2**19  # pixels, images, images a batch, bytes
IMAGE = SIDE * SIDE * 3
TRAIN, HELD, SAMPLES = 400, 300, 1200  # of the store, and of those that a classifier learns from


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """900 images of 48 KiB, 400 of them to train on and 300 held out; a generator; what reference says of them."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("memory")
    labels = np.arange(COUNT) % 10
    images = rng.integers(0, 256, (COUNT, 4, 4, 3), np.uint8).repeat(SIDE // 4, axis=1).repeat(SIDE // 4, axis=2)
    splits = np.searchsorted([TRAIN, COUNT - HELD], np.arange(COUNT), side="right")
    store = write_store(folder / "store", images, labels, splits, NAMES)
    stored(folder, "generator", np.stack([images[labels == label][:3] for label in range(10)]))
    recipe = {"width": 16, "steps": 4, "batch": 4, "learning_rate": 0.002}
    network = fit(images[:64], labels[:64], classes=10, recipe=Recipe(**recipe), seed=0)
    known = folder / "reference"
    known.mkdir()
    save(network, known / "extractor.safetensors")
    np.save(known / "features-heldout.npy", features(network, store.splits["heldout"])[0])
    np.save(known / "heldout_images.npy", images[-HELD:])
    np.save(known / "heldout_labels.npy", labels[-HELD:])
    about = {
        "format": 1, "data_hash": store.info["data_hash"], "classes": NAMES, "recipe": recipe, "seed": 0, "floors": {},
        "extractor": {"sha256": sha256_file(known / "extractor.safetensors"), **network.settings},
        "counts": {"train": SAMPLES, "heldout": HELD}, "set_size": HELD,
        "baselines": {
            "cas": {"value": 1.0, "low": 0.9, "n": HELD, "mean": 1.0, "sd": 0.0, "per_class": [{"n": HELD // 10}] * 10},
        },
    }  # fmt: skip
    write_json(known / "reference.json", about)
    write_json(known / "summary.json", {"format": 1})
    return folder


@pytest.fixture
def opened(world: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Generator, Reference, DomainNetwork]:
    """Batches and blocks as much smaller than the real ones as these sets are."""
    for name in ("stages.drawn.BATCH", "stages.audit._sides.BATCH", "stages.evaluate._latent.BATCH"):
        monkeypatch.setattr(name, BATCH)
    monkeypatch.setattr("gan.features.domain._CHUNK", BATCH)
    monkeypatch.setattr("gan.memorization._BLOCK_BYTES", PIECE)
    monkeypatch.setattr("gan.attributes._CHUNK", PIECE // 16)
    reference = open_reference(world / "reference")
    return Generator(world / "generator.onnx", providers=["CPUExecutionProvider"]), reference, reference.network()


def peak(work: Callable[[], object]) -> float:
    """Most that numpy and Python held at once beyond what they held before, in images."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / IMAGE
    finally:
        tracemalloc.stop()


def test_reference_writes_its_pictures_in_pieces(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.reference._extractor._LEAST", BATCH)
    monkeypatch.setattr("stages.reference._extractor._CHUNK", PIECE)
    store = open_store(world / "store")
    assert peak(lambda: _write_pictures(tmp_path, store, picture_pool=TRAIN)) < HELD / 4
    for name in ("train", "heldout"):
        assert np.array_equal(np.load(tmp_path / f"{name}_images.npy"), store.splits[name].all())
        assert np.array_equal(np.load(tmp_path / f"{name}_labels.npy"), store.splits[name].labels)


def test_sets_and_walks_hold_some_batches_of_images(opened: tuple[Generator, Reference, DomainNetwork]) -> None:
    generator, reference, network = opened
    real = reference.features("heldout")
    assert peak(lambda: generated_sets(generator, network, real, sets=2, seed=1)) < HELD / 2
    sets = generated_sets(generator, network, real, sets=1, seed=1)
    assert peak(lambda: walk(generator, network, real, sets, shown=[0, 1], seed=1)) < HELD / 2


def test_a_classifier_learns_from_samples_on_the_disk(
    opened: tuple[Generator, Reference, DomainNetwork], tmp_path: Path
) -> None:
    generator, reference, _ = opened
    assert peak(lambda: cas(generator, reference, seed=1, start=0, folder=tmp_path)) < SAMPLES / 2
    assert not list(tmp_path.iterdir())


def test_the_sides_of_the_audit_hold_some_batches(
    world: Path, opened: tuple[Generator, Reference, DomainNetwork], tmp_path: Path
) -> None:
    train = open_store(world / "store").splits["train"]
    assert peak(lambda: side(*drawn(opened[0], SAMPLES, seed=1, folder=tmp_path))) < SAMPLES / 4
    assert peak(lambda: (side(train, train.labels), fingerprints(train))) < TRAIN / 4
