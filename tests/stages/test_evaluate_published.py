"""Named protocols end to end: a random Inception network in the reference, images through the ONNX file, numbers."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from consumer import Generator
from gan.metrics import energy_distance, inception_score, kernel_distance, kernel_distance_full, precision_recall
from gan.metrics.protocols import PROTOCOLS
from stages.common.files import tree_digests
from stages.config.evaluate import EvaluateConfig, PublishedNumbers
from stages.config.reference import Fit, PublishedExtractor, Training
from stages.evaluate import run
from stages.evaluate._published import START
from stages.reference_folder import open_reference
from tests.gan.random_networks import inception_file, sha256
from tests.stages.measured_worlds import CONFIG, digits, reference, stored

PROJECT = Path(__file__).parents[2]
KEY = "inception_tf-legacy_tf"
PLAIN = ("kid_inception_tf_heldout", "energy_inception_tf_heldout", "pr_k3_inception_tf_heldout",
         "fid_inception_tf_heldout", "fid50k_inception_tf_train", "pr50k_k3_inception_tf_train")  # fmt: skip
CUT = {  # names of papers at counts that a test can pay for
    "is10k_inception_tf": {"n_fake": 20, "score_splits": 2},
    "kid10k_inception_tf_train": {"n_fake": 20, "subsets": 4, "subset_size": 12},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 digits, 66 of them train and 18 held out, and a generator of the train ones."""
    folder = digits(tmp_path_factory.mktemp("published"), 120)
    path = inception_file(folder / "inception.pth")
    entry = PublishedExtractor(name="inception_tf", resize="legacy_tf", weights=str(path), sha256=sha256(path))
    recipe = Training(steps=60, batch=32, learning_rate=0.002)
    reference(
        folder,
        config=dataclasses.replace(CONFIG, extractor=Fit(name="fit", width=2), published=(entry,), training=recipe),
    )
    images, labels, splits = (np.load(folder / "store" / f"{n}-00000.npy") for n in ("images", "labels", "split"))
    found = [images[(labels == label) & (splits == 0)] for label in range(10)]
    stored(folder, "generator", np.stack([each[np.arange(5) % len(each)] for each in found]))
    return folder


def evaluate(world: Path, name: str, *protocols: str, sets: int) -> dict[str, Any]:
    config = EvaluateConfig(
        threads=1,
        seed=11,
        sets=3,
        smallest_set=8,
        columns=6,
        published=PublishedNumbers(protocols=protocols, sets=sets),
    )
    run(config, onnx=world / "generator.onnx", reference=world / "reference", out=world / name)
    return json.loads((world / name / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def thrice(world: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name, changes in CUT.items():
            patch.setitem(PROTOCOLS, name, dataclasses.replace(PROTOCOLS[name], **changes))
        return evaluate(world, "thrice", *PLAIN, *CUT, sets=3)


def test_the_numbers_are_the_metrics_of_the_extractor_s_features(world: Path, thrice: dict[str, Any]) -> None:
    """The second of three sets of 20 images, by hand; a protocol that takes fewer takes the first ones."""
    opened = open_reference(world / "reference")
    extractor, generator = opened.open_published(KEY), Generator(world / "generator.onnx")
    real, train = opened.features("heldout", KEY), opened.features("train", KEY)
    fake, odds = extractor(generator.draw(20, 11, start=START + 20)[0])
    assert odds is not None
    precision, recall = precision_recall(real, fake[:18], k=3)
    values = {
        "kid": kernel_distance_full(real, fake[:18]), "energy": energy_distance(real, fake[:18]),
        "precision": precision, "recall": recall, "is": inception_score(odds, splits=2)[0],
        "kid_subsets": kernel_distance(train, fake, subsets=4, subset_size=12, seed=11, first=4)[0],
    }  # fmt: skip
    names = {
        "kid": "kid_inception_tf_heldout", "energy": "energy_inception_tf_heldout",
        "precision": "pr_k3_inception_tf_heldout_precision", "recall": "pr_k3_inception_tf_heldout_recall",
        "is": "is10k_inception_tf", "kid_subsets": "kid10k_inception_tf_train",
    }  # fmt: skip
    for short, name in names.items():
        found = thrice["measures"][name]
        assert len(thrice["sets"][name]) == 3 and thrice["sets"][name][1] == pytest.approx(values[short], rel=1e-9)
        assert found["value"] == pytest.approx(np.mean(thrice["sets"][name]), rel=1e-12)
        assert found["low"] <= found["value"] <= found["high"] and found["reason"] is None
        assert found["n_fake"] == (20 if short in ("is", "kid_subsets") else 18)
    assert thrice["measures"]["is10k_inception_tf"]["n_real"] == 0


def test_the_floor_is_real_images_in_their_place(world: Path, thrice: dict[str, Any]) -> None:
    """18 train images for the generated ones; nothing where the other split holds fewer, or nothing is compared."""
    measures = thrice["measures"]
    assert measures["kid10k_inception_tf_train"]["reference"] is None  # 20 generated, 18 held out
    assert measures["is10k_inception_tf"]["reference"] is None
    floor = measures["energy_inception_tf_heldout"]["reference"]
    opened = open_reference(world / "reference")
    spread = [
        energy_distance(opened.features("heldout", KEY), opened.features("train", KEY)[order[:18]])
        for order in (np.random.default_rng(i).permutation(66) for i in range(40))
    ]
    assert floor["sd"] is None and min(spread) <= floor["mean"] <= max(spread)


def test_protocols_say_everything(world: Path, thrice: dict[str, Any]) -> None:
    found = thrice["protocols"]["kid10k_inception_tf_train"]
    assert found["extractor"] == "inception_tf" and found["resize"] == "legacy_tf" and found["n_real"] == 66
    assert found["extractor_sha256"] == sha256(world / "inception.pth") and found["extractor_width"] == 2048
    assert found["subsets"] == "4 of 12, without replacement in each" and found["splits"] == "train against generated"
    assert found["subset_draws"] == "4 i and on, of set i"
    assert "subset_draws" not in thrice["protocols"]["kid_inception_tf_heldout"]
    assert found["sets"] == 3 and "Student t over 3" in found["interval"] and found["seed"] == 11
    assert thrice["protocols"]["is10k_inception_tf"]["score_splits"] == 2
    page = (world / "thrice" / "index.html").read_text()
    for name in ("kid_inception_tf_heldout", "pr_k3_inception_tf_heldout_recall"):
        assert f"<code>{name}</code>" in page


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fid_inception_tf_heldout", "at least 4096 images on each side, 2 for each of 2048 features; there are 18"),
        ("fid50k_inception_tf_train", "at least 4096 images on each side, 2 for each of 2048 features; there are 66"),
        ("pr50k_k3_inception_tf_train_recall", "takes 50000 images of train; there are 66"),
    ],
)
def test_too_few_images_have_no_number_and_the_bound_is_said(thrice: dict[str, Any], name: str, reason: str) -> None:
    found = thrice["measures"][name]
    assert found["value"] is None and found["low"] is None and reason in found["reason"]


def test_fewer_than_three_sets_have_a_value_and_no_interval(world: Path) -> None:
    found = evaluate(world, "once", "energy_inception_tf_heldout", sets=1)
    measure = found["measures"]["energy_inception_tf_heldout"]
    assert measure["value"] is not None and measure["low"] is None and measure["high"] is None
    assert "1 generated sets" in measure["reason"] and "to 3 or more" in measure["reason"]
    assert found["protocols"]["energy_inception_tf_heldout"]["interval"] is None  # so the gate refuses it
    flat = json.loads((world / "once" / "metrics.json").read_text())
    assert "energy_inception_tf_heldout" in flat and "energy_inception_tf_heldout_low" not in flat


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fid50k_inception_tf_trian", "is not a protocol; did you mean fid50k_inception_tf_train"),
        ("fd50k_dinov2_vitl14_train", "needs dinov2_vitl14-pil_bicubic in reference.published.*made with inception_tf"),
        ("fid50k_inception_clean_train", "needs inception_tf-clean in .*weights inception_tf --resize clean`"),
        ("fid_domain", "is reported in any case"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(world: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(world, "refused", name, sets=1)
    assert not (world / "refused").exists()


@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one(world: Path, tmp_path: Path) -> None:
    settings = {
        "threads": 1, "seed": 11, "sets": 3, "smallest_set": 8, "columns": 6,
        "published": {"protocols": ["kid_inception_tf_heldout"], "sets": 1},
    }  # fmt: skip
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"evaluate": settings}))
    arguments = ["-m", "stages.evaluate", "--onnx", world / "generator.onnx", "--reference", world / "reference",
                 "--params", tmp_path / "params.yaml", "--out"]  # fmt: skip
    for count in (1, 2):
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if count == 2 else []
        command = [sys.executable, *start, *map(str, arguments), str(tmp_path / str(count))]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count('"stage": "evaluate"') == 1
    assert tree_digests(tmp_path / "1") == tree_digests(tmp_path / "2")
