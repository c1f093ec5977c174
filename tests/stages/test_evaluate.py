"""Evaluate on generators whose truth is known: stored digits behind the ONNX interface, by the real exporter."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from consumer import Generator
from stages.common.files import tree_digests
from stages.config.evaluate import EvaluateConfig
from stages.config.reference import Fit, ReferenceConfig, Training
from stages.evaluate import run
from stages.evaluate._classes import LEAST
from stages.reference_folder import Reference
from stages.scoring import SET_METRICS
from tests.stages.browser import CHROMIUM, tab
from tests.stages.measured_worlds import CONFIG as LEARNT
from tests.stages.measured_worlds import NAMES, POOL, colours, digits, passed_store, reference, stored

CONFIG = EvaluateConfig(threads=1, seed=11, sets=6, smallest_set=100, columns=6)
REFERENCE = ReferenceConfig(
    threads=1, seed=0, extractor=Fit(name="fit", width=16), largest_set=1000, floor_draws=6, picture_pool=60,
    training=Training(steps=300, batch=64, learning_rate=0.002),
)  # fmt: skip


CURVES = Path(__file__).with_name("curves.csv")  # 40 rows as train writes them


def evaluate(folder: Path, onnx: Path, config: EvaluateConfig = CONFIG, curves: Path | None = None) -> dict[str, Any]:
    run(config, onnx=onnx, reference=folder / "reference", out=folder / onnx.stem, curves=curves)
    return json.loads((folder / onnx.stem / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = digits(tmp_path_factory.mktemp("evaluate"))
    reference(folder, config=REFERENCE)
    return folder


@pytest.fixture(scope="module")
def pixels(world: Path) -> np.ndarray:
    """Train images by class: uint8 [10, POOL, 8, 8, 1]."""
    images, labels, splits = (np.load(world / "store" / f"{n}-00000.npy") for n in ("images", "labels", "split"))
    found = [images[(labels == label) & (splits == 0)] for label in range(10)]
    return np.stack([each[np.arange(POOL) % len(each)] for each in found])


@pytest.fixture(scope="module")
def real(world: Path, pixels: np.ndarray) -> dict[str, Any]:
    return evaluate(world, stored(world, "real", pixels), curves=CURVES)


def test_real_images_reach_what_real_images_reach(real: dict[str, Any]) -> None:
    measures = real["measures"]
    for name in SET_METRICS:
        found = measures[name]
        assert found["low"] <= found["value"] <= found["high"] and found["n_real"] == found["n_fake"] == 135
        assert found["reference"] == {key: real["floors"][name][key] for key in ("mean", "sd")}
    floor = measures["fid_domain"]["reference"]
    assert measures["fid_domain"]["value"] < 2 * floor["mean"]
    assert measures["coverage_k5"]["value"] > 0.9 and measures["precision_k3"]["value"] > 0.8
    assert measures["label_agreement"]["value"] > 0.93 and measures["label_agreement"]["n_fake"] == 810
    assert measures["cas"]["value"] > 0.9 and measures["cas"]["n_fake"] == 495
    assert real["notes"] == []


def test_every_measure_names_a_whole_protocol(real: dict[str, Any], world: Path) -> None:
    keys = {"metric", "n_real", "n_fake", "interval", "estimand", "resize", "splits", "arithmetic", "reference"}
    for found in real["measures"].values():
        assert keys <= set(real["protocols"][found["protocol"]])
    sha = json.loads((world / "reference" / "reference.json").read_text())["extractor"]["sha256"]
    assert {real["protocols"][name]["extractor_sha256"] for name in SET_METRICS} == {sha}
    flat = json.loads((world / "real" / "metrics.json").read_text())
    assert flat["fid_domain"] == real["measures"]["fid_domain"]["value"]
    assert all(isinstance(value, float) for value in flat.values()) and len(flat) == 3 * len(real["measures"])
    summary = json.loads((world / "real" / "summary.json").read_text())
    assert summary["results"]["measures"] == real["measures"]
    assert summary["results"]["row_key"] == ""  # each row of the grid bears the name of its class


def test_twice_the_same_bytes(world: Path, real: dict[str, Any]) -> None:
    run(CONFIG, onnx=world / "real.onnx", reference=world / "reference", out=world / "again", curves=CURVES)
    assert tree_digests(world / "again") == tree_digests(world / "real")


def test_population_values_stand_beside_and_gate_nothing(real: dict[str, Any], world: Path) -> None:
    found = real["population"]
    assert set(found) == {"fid_domain", "kid_domain"} and not set(found) & {"population"}
    for name, each in found.items():
        assert each["low"] < each["value"] < each["high"] and (each["n_real"], each["n_fake"]) == (135, 810)
        # At N the Fréchet distance is biased upwards; what endless sets would give is below it.
        assert name != "fid_domain" or each["value"] < real["measures"][name]["value"]
    flat = json.loads((world / "real" / "metrics.json").read_text())
    assert not [name for name in flat if "population" in name]


def test_every_class_has_distances_at_its_own_size(real: dict[str, Any], world: Path) -> None:
    """Real images of a class lie where real images of the class lie, however few pictures the reference keeps."""
    labels = np.load(world / "reference" / "heldout_labels.npy")
    assert len(real["per_class"]) == 10
    for label, row in enumerate(real["per_class"]):
        for name in ("energy", "kernel"):
            found = row["distances"][name]
            assert found["n"] == (labels == label).sum()
            if found["n"] < LEAST:
                assert found["value"] is None and f"{found['n']} held-out images of this class" in found["reason"]
                continue
            assert found["low"] < found["value"] < found["high"] and found["sets"] >= 3 and found["reason"] is None
            assert found["low"] < found["reference"]["mean"] + 3 * found["reference"]["sd"]
        refused = row["distances"]["frechet"]
        assert refused["value"] is None and "fewer than" in refused["reason"]
        assert row["cas_drop_low"] <= row["cas_drop"] <= row["cas_drop_high"]
        assert row["cas_drop_low"] >= -1 and row["cas_drop_high"] <= 1


def test_the_sweep_starts_at_the_first_set_and_realism_sorts_it(real: dict[str, Any]) -> None:
    first, *rest = real["truncation"]
    assert first["psi"] == 1 and [row["psi"] for row in rest] == sorted((row["psi"] for row in rest), reverse=True)
    for name in ("precision_k3", "recall_k3", "density_k5", "coverage_k5"):
        assert first[name] == real["sets"][name][0]
    best, worst = ([each["score"] for each in real["realism"][side]] for side in ("best", "worst"))
    assert best == sorted(best, reverse=True) and worst == sorted(worst)
    assert worst[-1] < real["realism"]["median"] < best[-1]


def test_sets_are_as_large_as_the_reference_says(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """128 images where 135 are held out: in every number of sets, in what is drawn, and class by class."""
    reference(world, "capped", dataclasses.replace(REFERENCE, largest_set=128))
    drawn = []

    class Counted(Generator):
        def draw(self, count: int, *args: Any, **kwargs: Any) -> Any:
            drawn.append(count)
            return super().draw(count, *args, **kwargs)

    monkeypatch.setattr("stages.evaluate._work.Generator", Counted)
    run(CONFIG, onnx=world / "real.onnx", reference=world / "capped", out=world / "of-128")
    found = json.loads((world / "of-128" / "evaluation.json").read_text())
    assert sum(drawn) == CONFIG.sets * 128 + 495 + 128  # sets, samples for the classifier, the first set for pictures
    for name in SET_METRICS:
        assert found["measures"][name]["n_real"] == found["measures"][name]["n_fake"] == 128
        assert "128 of the 135 held-out images" in found["protocols"][name]["estimand"]
    agreement = found["measures"]["label_agreement"]
    assert (agreement["n_real"], agreement["n_fake"]) == (135, 768)
    assert found["measures"]["cas"]["n_real"] == found["population"]["kid_domain"]["n_real"] == 135
    assert sum(row["distances"]["energy"]["n"] for row in found["per_class"]) == 128
    assert found["truncation"][0]["precision_k3"] == found["sets"]["precision_k3"][0]
    assert "against 128 of 135 held-out real images" in (world / "of-128" / "index.html").read_text()


def test_sets_are_independent_draws(real: dict[str, Any]) -> None:
    assert all(len(set(real["sets"][name])) == CONFIG.sets for name in ("fid_domain", "kid_domain"))


def test_permuted_labels_are_seen_by_the_labels_alone(world: Path, pixels: np.ndarray, real: dict[str, Any]) -> None:
    found = evaluate(world, stored(world, "permuted", np.roll(pixels, 1, axis=0)))
    assert found["measures"]["label_agreement"]["high"] < 0.1 and found["measures"]["cas"]["high"] < 0.2
    for name in ("fid_domain", "coverage_k5", "precision_k3"):
        low, high = (real["measures"][name][end] for end in ("low", "high"))
        assert low - (high - low) <= found["measures"][name]["value"] <= high + (high - low)
    assert {row["mistaken_for"] for row in found["per_class"]} == set(NAMES)


def test_one_image_a_class_has_fidelity_and_no_variety(world: Path, pixels: np.ndarray, real: dict[str, Any]) -> None:
    """Images of the middle of each class, so that fidelity is not in doubt."""
    flat = pixels.reshape(10, POOL, -1).astype(float)
    middle = ((flat - flat.mean(axis=1, keepdims=True)) ** 2).sum(-1).argmin(1)
    single = np.repeat(pixels[np.arange(10), middle][:, None], POOL, axis=1)
    found = evaluate(world, stored(world, "single", single))["measures"]
    assert found["label_agreement"]["value"] > 0.85 and found["precision_k3"]["value"] > 0.8
    assert found["recall_k3"]["high"] < 0.3 and found["coverage_k5"]["high"] < 0.6
    assert found["fid_domain"]["low"] > 2 * real["measures"]["fid_domain"]["high"]
    assert found["cas"]["high"] < real["measures"]["cas"]["low"]


def test_a_class_that_never_comes_is_named(world: Path, pixels: np.ndarray) -> None:
    missing = pixels.copy()
    missing[8] = pixels[3]
    found = evaluate(world, stored(world, "missing", missing))
    row = found["per_class"][8]
    assert row["agreement"]["high"] < 0.3 and row["mistaken_for"] == NAMES[3] and row["cas_drop"] > 0.5
    assert row["cas_drop_low"] > 0.3
    for name in ("energy", "kernel"):
        lost, kept = row["distances"][name], found["per_class"][0]["distances"][name]
        assert lost["low"] > lost["reference"]["mean"] + 5 * lost["reference"]["sd"] and lost["low"] > kept["high"]
    assert found["per_class"][0]["agreement"]["value"] > 0.9


def test_noise_is_far_from_everything(world: Path, pixels: np.ndarray) -> None:
    noise = np.random.default_rng(0).integers(0, 256, pixels.shape).astype(np.uint8)
    found = evaluate(world, stored(world, "noise", noise))["measures"]
    floors = {name: found[name]["reference"]["mean"] for name in SET_METRICS}
    assert found["precision_k3"]["high"] < floors["precision_k3"] and found["coverage_k5"]["high"] < 0.6
    assert found["density_k5"]["high"] < 0.6 * floors["density_k5"]
    assert found["fid_domain"]["low"] > 5 * found["fid_domain"]["reference"]["mean"]
    energy = found["energy_domain"]
    assert energy["low"] > energy["reference"]["mean"] + 10 * energy["reference"]["sd"]


def test_a_generator_without_labels_has_no_label_measures_and_says_why(
    world: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever name the consumer lets pass: on the page it is text, not markup."""

    class Renamed(Generator):
        def __init__(self, path: Path, **settings: Any) -> None:
            super().__init__(path, **settings)
            self.name = "<script>alert(1)</script>"

    monkeypatch.setattr("stages.evaluate._work.Generator", Renamed)
    onnx = stored(world, "unlabelled", pixels.reshape(1, -1, 8, 8, 1))
    found = evaluate(world, onnx)["measures"]
    text = (world / "unlabelled" / "index.html").read_text()
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text
    lead = text.split('<p class="lead">')[1].split("</p>")[0]
    assert " assessed measures are " in lead and "1 (the generator or the real images carry no labels), 1 (" in lead
    for name in ("cas", "label_agreement"):
        assert found[name]["value"] is None and "label" in found[name]["reason"]
    assert found["fid_domain"]["value"] < 2 * found["fid_domain"]["reference"]["mean"]


def test_colour_images_without_labels_and_too_few_of_them(tmp_path: Path) -> None:
    folder = colours(tmp_path)
    recipe = Training(steps=60, batch=32, learning_rate=0.002)
    config = ReferenceConfig(
        threads=1,
        seed=0,
        extractor=Fit(name="fit", width=7),
        largest_set=1000,
        floor_draws=3,
        picture_pool=50,
        training=recipe,
    )
    reference(folder, config=config)
    images = np.load(folder / "store" / "images-00000.npy")
    found = evaluate(folder, stored(folder, "few", images[None, :200]))
    assert all(found["measures"][name]["value"] is None for name in SET_METRICS)
    assert (
        "60 held-out images in a set are fewer than evaluate.smallest_set, 100"
        in found["measures"]["fid_domain"]["reason"]
    )
    enough = EvaluateConfig(threads=1, seed=1, sets=3, smallest_set=60, columns=6)
    found = evaluate(folder, stored(folder, "colour", images[None, :200]), enough)
    assert found["measures"]["fid_domain"]["value"] is not None
    for name in ("precision_k3", "recall_k3", "coverage_k5"):  # near 1, where an uncut interval would pass it
        assert 0 <= found["measures"][name]["low"] <= found["measures"][name]["high"] <= 1
    page = (folder / "few" / "index.html").read_text()
    assert "Not assessed: 60 held-out images in a set are fewer than" in page
    assert (
        "No measure could be compared with what real images reach; could not be assessed: 7 (60 held-out images in a "
        "set are fewer than evaluate.smallest_set, 100), 1 (the generator or the real images carry no labels), 1 ("
    ) in page


@pytest.mark.parametrize("classes", [[], ["a", "b"]])
def test_an_extractor_at_chance_leaves_every_measure_on_it_unassessed(
    tmp_path: Path, classes: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Noise has no upright side, and labels by a coin show in no pixel: nothing can be learned from either."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (900, 8, 8, 1), dtype=np.uint8)
    labels = rng.integers(0, 2, 900) if classes else np.full(900, -1)
    folder = passed_store(tmp_path, images, labels, classes)
    recipe = Training(steps=30, batch=32, learning_rate=0.002)
    about = reference(folder, config=dataclasses.replace(LEARNT, training=recipe))["extractor"]
    assert about["accuracy_heldout"]["low"] < about["guessing"] and about["blind"] in caplog.text
    pool = np.stack([images[:POOL]] * max(1, len(classes)))
    report = evaluate(folder, stored(folder, "drawn", pool, classes=classes))
    for name, found in report["measures"].items():
        assert found["value"] is None, name
        assert "guessing" in found["reason"] or "no labels" in found["reason"]
    assert all(each["value"] is None and "guessing" in each["reason"] for each in report["population"].values())
    page = (folder / "drawn" / "index.html").read_text()
    assert '<p class="warn">The domain extractor is not shown to have learned anything' in page
    assert "(as said below)" in page


def test_labels_served_in_other_shares_are_said_beside_what_shows_them(world: Path, pixels: np.ndarray) -> None:
    """A perfect generator that serves one class nine times as often as the others is far from the held-out images."""
    prior = [0.5] + [0.5 / 9] * 9
    report = evaluate(world, stored(world, "uneven", pixels, prior=prior))
    (note,) = report["notes"]
    assert note.startswith("labels are served in other shares than the held-out images have (total variation 0.4")
    for name, found in report["measures"].items():
        assert found["value"] is not None and found["reason"] == (None if name in ("label_agreement", "cas") else note)
    page = (world / "uneven" / "index.html").read_text()
    assert page.count("abels are served in other shares") == 1 and "Not assessed" not in page.split("Class by class")[0]


@pytest.mark.parametrize(
    ("shares", "count", "said"),
    [([0.5, 0.5], 6000, False), ([2 / 3, 1 / 3], 6000, True), ([0.52, 0.48], 6000, False), ([0.6, 0.4], 60, False)],
)
def test_other_shares_are_said_beyond_chance_and_a_little(
    shares: list[float], count: int, said: bool, tmp_path: Path
) -> None:
    opened = Reference(tmp_path, {"classes": ["a", "b"]})
    ones = round(count * shares[1])
    np.save(tmp_path / "heldout_labels.npy", np.repeat([0, 1], [count - ones, ones]))
    np.save(tmp_path / "heldout_images.npy", np.zeros((1, 8, 8, 1), np.uint8))
    assert (opened.served_otherwise([0.5, 0.5]) is not None) == said
    assert opened.served_otherwise([]) is None


def test_the_page_opens_alone(world: Path, real: dict[str, Any]) -> None:
    text = (world / "real" / "index.html").read_text()
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", text) and "http" not in re.sub(r"data:\S+", "", text)
    assert "<script" not in text and "@import" not in text and text.count("data:image/png;base64,") > 30
    for name in ("real", "generated", "best", "worst", "interpolations", "truncation", "nearest"):
        with Image.open(world / "real" / f"{name}.png") as picture:
            assert picture.width > 300
    for name in NAMES:
        assert f"<b>{name}</b>" in text
    assert f"{100 * real['measures']['label_agreement']['value']:.1f} %" in text


def test_a_generator_of_other_images_is_refused(world: Path, pixels: np.ndarray) -> None:
    other = stored(world, "other", np.repeat(pixels, 3, axis=-1))
    with pytest.raises(ValueError, match=r"do not belong together: channels 3 against 1; run"):
        run(CONFIG, onnx=other, reference=world / "reference", out=world / "refused")
    assert not (world / "refused").exists()


def test_a_reference_older_than_a_metric_is_refused(world: Path, real: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(world / "reference", tmp_path / "reference")
    content = json.loads((tmp_path / "reference" / "reference.json").read_text())
    del content["floors"]["energy_domain"]
    (tmp_path / "reference" / "reference.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"no floors of energy_domain; .*run `python -m stages.reference` again"):
        run(CONFIG, onnx=world / "real.onnx", reference=tmp_path / "reference", out=tmp_path / "out")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_fits_the_window_and_asks_for_nothing(
    world: Path, real: dict[str, Any], tmp_path: Path, width: int
) -> None:
    path = world / "real" / "index.html"
    with tab(tmp_path) as page:
        page.shape(width, 900, dark=width < 600)
        page.open(path)
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.run("[...document.images].every(each => each.complete && each.naturalWidth > 0)")
        assert page.run("document.querySelectorAll('.curves svg').length") == 4
        assert page.requests == [path.resolve().as_uri()] and not page.faults
