"""Published extractors in the reference: features computed once, found again by content, read back whole."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan.metrics import moments
from stages.common.files import tree_digests
from stages.config import load_section
from stages.config.reference import Fit, PublishedExtractor, ReferenceConfig, Training
from stages.reference_folder import open_reference
from stages.store import open_store
from tests.gan.random_networks import inception_file, sha256
from tests.stages.measured_worlds import CONFIG, digits, reference

PROJECT = Path(__file__).parents[2]
KEY = "inception_tf-legacy_tf"
FILES = {f"{kind}-{split}" for kind in ("features", "probabilities", "moments") for split in ("train", "heldout")}


@dataclasses.dataclass
class World:
    folder: Path
    config: ReferenceConfig
    info: dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("state")
        patch.setenv("GANOPS_STATE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, state: Path) -> World:
    """60 digits, 33 of them train and 9 held out, by a random Inception network whose file lies in the state folder."""
    folder = digits(tmp_path_factory.mktemp("digits"), 60)
    (state / "weights").mkdir()
    path = inception_file(state / "weights" / "inception.pth")
    entry = PublishedExtractor(name="inception_tf", resize="legacy_tf", weights=path.name, sha256=sha256(path))
    config = dataclasses.replace(
        CONFIG, extractor=Fit(name="fit", width=1), published=(entry,),
        training=Training(steps=20, batch=32, learning_rate=0.002),
    )  # fmt: skip
    return World(folder, config, reference(folder, config=config))


def test_what_is_kept_is_what_the_extractor_says_of_the_images(world: World) -> None:
    opened = open_reference(world.folder / "reference")
    entry = world.config.published[0]
    about = {"name": "inception_tf", "resize": "legacy_tf", "sha256": entry.sha256, "width": 2048, "device": "cpu"}
    assert world.info["published"] == opened.published() == [about]
    extractor = opened.open_published(KEY)
    assert (extractor.key, extractor.sha256, extractor.width) == (KEY, entry.sha256, 2048)
    splits = open_store(world.folder / "store").splits
    for name, count in (("train", 33), ("heldout", 9)):
        kept, odds = opened.features(name, KEY), opened.probabilities(name, KEY)
        assert kept.shape == (count, 2048) and kept.dtype == np.float32 and not kept.flags.writeable
        some = extractor(splits[name].take(np.array([0, count - 1])))  # in a smaller batch
        assert kept[[0, -1]] == pytest.approx(some[0], abs=1e-4) and odds[[0, -1]] == pytest.approx(some[1], abs=1e-4)
        mean, covariance = opened.moments(name, KEY)
        assert np.cov(kept, rowvar=False) == pytest.approx(covariance, abs=1e-6)
        assert mean == pytest.approx(kept.mean(axis=0, dtype=np.float64))
    assert {path.stem for path in (world.folder / "reference" / "published" / KEY).iterdir()} == FILES
    domain = opened.moments("train")
    assert domain[1] == pytest.approx(moments(opened.features("train"))[1])


def test_features_are_found_again_by_content(world: World, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree_digests(state / "features")
    assert len({name.split("/")[0] for name in before}) == 2  # train and heldout

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the network ran again")

    monkeypatch.setattr("gan.features.published.Published.__call__", never)
    reference(world.folder, "again", world.config)
    assert tree_digests(world.folder / "again") == tree_digests(world.folder / "reference")
    other = dataclasses.replace(world.config, threads=2)
    with pytest.raises(AssertionError, match="ran again"):  # another thread count: other last bits
        reference(world.folder, "other", other)


def test_what_a_crash_left_is_made_again(world: World, state: Path) -> None:
    expected = tree_digests(world.folder / "reference")
    folders = sorted(path.parent for path in (state / "features").rglob("about.json"))
    cut, unfinished = folders[0] / "features.npy", folders[1] / "about.json"
    cut.write_bytes(cut.read_bytes()[:5000])
    unfinished.unlink()
    reference(world.folder, "mended", world.config)
    assert tree_digests(world.folder / "mended") == expected
    assert all((folder / "about.json").is_file() for folder in folders)


def test_without_entries_nothing_changes_but_the_empty_list(world: World) -> None:
    info = reference(world.folder, "plain", dataclasses.replace(world.config, published=()))
    assert info["published"] == [] and open_reference(world.folder / "plain").published() == []
    assert {key: value for key, value in info.items() if key != "published"} == {
        key: value for key, value in world.info.items() if key != "published"
    }
    assert not (world.folder / "plain" / "published").exists()


def test_what_the_reference_lacks_is_refused_by_name(world: World, state: Path) -> None:
    opened = open_reference(world.folder / "reference")
    message = r"no features of vgg16-clean; it holds domain, inception_tf-legacy_tf.*weights vgg16 --resize clean`"
    for ask in (opened.features, opened.probabilities, opened.moments):
        with pytest.raises(ValueError, match=message):
            ask("train", "vgg16-clean")
    with pytest.raises(ValueError, match=message):
        opened.open_published("vgg16-clean")
    away = state / "weights" / "inception.pth"
    away.rename(away.with_suffix(".away"))
    try:
        for ask_file in (lambda: opened.open_published(KEY), lambda: reference(world.folder, "none", world.config)):
            with pytest.raises(ValueError, match=r"nothing is downloaded here. Run `python -m stages.reference.weigh"):
                ask_file()
        away.write_bytes(b"something else")
        with pytest.raises(ValueError, match=f"but {world.config.published[0].sha256} is asked for"):
            reference(world.folder, "none", world.config)
    finally:
        away.with_suffix(".away").replace(away)


def test_settings_are_checked(tmp_path: Path) -> None:
    good = f"{{name: vgg16, resize: clean, weights: a.pth, sha256: {'a' * 64}}}"
    for entries, message in (
        (good.replace("vgg16", "vgg"), r"published\[0\].name must be one of inception_tf, vgg16.*did you mean `vgg16`"),
        (good.replace("clean", "bilinear"), r"published\[0\].resize must be one of legacy_tf, clean, pil_bicubic"),
        (good.replace("a" * 64, "ABC"), "sha256 must be 64 hexadecimal digits"),
        (f"{good}, {good}", "vgg16-clean is named twice"),
    ):
        text = (PROJECT / "params.yaml").read_text()
        start = text.index("  published: []")
        (tmp_path / "params.yaml").write_text(text[:start] + f"  published: [{entries}]" + text[start + 15 :])
        with pytest.raises(ValueError, match=message):
            load_section(ReferenceConfig, tmp_path / "params.yaml", "reference")


@pytest.mark.slow
def test_two_processes_write_the_same_folder_and_one_speaks(tmp_path: Path, world: World, state: Path) -> None:
    """The stage as a user starts it, with more images than a batch; its modules are those that dvc.yaml names."""
    folder = digits(tmp_path / "more", 130)
    config = world.config.published[0]
    text = (PROJECT / "params.yaml").read_text()
    entry = f"published: [{{name: {config.name}, resize: {config.resize}, weights: W, sha256: {config.sha256}}}]"
    text = text.replace("published: []", entry.replace("W", config.weights), 1)
    text = (
        text.replace("width: 32", "width: 2").replace("steps: 1000 ", "steps: 20 ").replace("batch: 64 ", "batch: 8 ")
    )
    (tmp_path / "params.yaml").write_text(text)
    paths = ["--images", folder / "store", "--passed", folder / "passed.json", "--params", tmp_path / "params.yaml"]
    digests = []
    for processes in (1, 2):
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if processes == 2 else []
        command = [sys.executable, *start, "-m", "stages.reference", *paths, "--out", tmp_path / str(processes)]
        env = {**os.environ, "GANOPS_STATE": str(tmp_path / "state"), "PYTHONPATH": str(PROJECT)}
        shutil.rmtree(tmp_path / "state", ignore_errors=True)
        shutil.copytree(state / "weights", tmp_path / "state" / "weights")
        ran = subprocess.run([*map(str, command)], env=env, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.count("summary.json") == 1
        digests.append(tree_digests(tmp_path / str(processes)))
    assert digests[0] == digests[1] and f"published/{KEY}/features-train.npy" in digests[0]
