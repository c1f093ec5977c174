"""The audit on generators whose truth is known: stored digits behind the ONNX interface."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gan.attributes import bins
from stages.audit import run
from stages.audit._copies import copies
from stages.audit._labels import agreement
from stages.audit._refused import NONE, nearest_refused
from stages.audit._shares import shares
from stages.audit._sides import Side
from stages.common.files import read_json, write_json
from stages.config import build
from stages.config.audit import AuditConfig
from stages.config.ingest import NearDuplicates
from stages.store import Store
from tests.stages import ingesting
from tests.stages.stored_digits import SAMPLES, SEED, World, digits_world, write_reference, write_store

CONFIG = AuditConfig(
    threads=1, seed=SEED, samples=SAMPLES, min_group=15, quality_images=500, controls=5000, alpha=0.01,
    planted_share=0.02, resamples=300, pairs=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return digits_world(tmp_path_factory.mktemp("world"))


def audit(world: World, name: str, images: np.ndarray, config: AuditConfig = CONFIG) -> dict[str, Any]:
    out = world.folder / f"audit-{name}"
    run(config, onnx=world.export(name, images), reference=world.folder / "reference", images=world.store.path, out=out)
    return json.loads((out / "audit.json").read_text())


def measures(report: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    return lambda name: report["measures"][name]


def test_unseen_real_images_pass_everything(world: World) -> None:
    report = audit(world, "unseen", world.by_label(world.unseen, world.unseen_labels))
    found = measures(report)
    assert found("memorization_p")["value"] > 0.01
    assert report["memorization"]["planted"]["p"] < 0.01
    assert not any(cell["differs"] for row in report["shares"]["rows"] for cell in row["cells"])
    for name in ("share_tv_ink", "share_tv_slant", "share_tv_aspect", "share_tv_class"):
        measure = found(name)
        assert measure["low"] <= measure["reference"]["mean"] + 3 * measure["reference"]["sd"]
        assert measure["high"] < 0.2
    assert found("label_agreement_worst_class")["value"] > 0.8
    assert found("precision_k3_worst_class")["value"] > 0.6
    assert report["protocols"].keys() >= {measure["protocol"] for measure in report["measures"].values()}


def test_two_percent_of_copies_are_found_and_shown(world: World) -> None:
    images = world.by_label(world.unseen, world.unseen_labels).copy()
    train = world.store.splits["train"].all()
    images[100:106] = train[:6]
    report = audit(world, "copies", images)
    assert report["measures"]["memorization_p"]["value"] < 0.01
    assert report["memorization"]["exact_copies"] == 6
    pairs = report["memorization"]["closest"]
    assert {(pair["image"], pair["train"]) for pair in pairs} == {(100 + i, i) for i in range(6)}
    assert "copying found" in report["findings"][0] and "no copying" not in report["findings"][0]


def test_a_missing_class_is_seen_in_labels_and_corrected_shares_but_is_no_copying(world: World) -> None:
    images = world.by_label(world.unseen, world.unseen_labels).copy()
    asked, eights = world.by_label(world.unseen_labels, world.unseen_labels), world.unseen[world.unseen_labels == 8]
    images[asked == 3] = eights[np.arange((asked == 3).sum()) % len(eights)]  # whoever asks for a 3 gets an 8
    report = audit(world, "missing", images)
    worst = report["measures"]["label_agreement_worst_class"]
    assert worst["value"] < 0.1 and worst["high"] < 0.4
    row = report["labels"]["rows"][3]
    assert row["mistaken_for"] == "digit 8" and row["agreement"]["value"] == worst["value"]
    tv = report["measures"]["share_tv_class"]
    assert tv["value"] > tv["reference"]["mean"] + 2 * tv["reference"]["sd"] and 0 < tv["low"] < 0.1 < tv["high"]
    shares = {row["class"]: row["corrected"] for row in report["labels"]["shares"]["rows"]}
    assert shares["digit 3"]["high"] < 0.02 and shares["digit 8"]["low"] > 0.12
    assert report["measures"]["memorization_p"]["value"] > 0.01


def test_a_planted_shift_of_an_attribute_is_found_in_its_cells(world: World) -> None:
    from gan.attributes import measure

    images = world.by_label(world.unseen, world.unseen_labels).copy()
    heavy = np.flatnonzero(measure(world.unseen)["ink"] == 2)
    light = np.flatnonzero(measure(images)["ink"] == 0)
    images[light] = world.unseen[heavy[np.arange(len(light)) % len(heavy)]]  # no light images at all
    report = audit(world, "heavy", images)
    row = next(row for row in report["shares"]["rows"] if row["attribute"] == "ink" and row["family"] == "all")
    cells = {cell["bin"]: cell for cell in row["cells"]}
    assert cells["light"]["fake"]["value"] == 0 and cells["light"]["ratio"] == 0 and cells["light"]["differs"]
    assert cells["heavy"]["difference"]["low"] > 0 and cells["heavy"]["ratio"] > 1
    tv = report["measures"]["share_tv_ink"]
    assert tv["low"] > tv["reference"]["mean"] + 3 * tv["reference"]["sd"]


@pytest.mark.parametrize("biased", [False, True])
def test_shares_are_those_of_the_classes_as_served(biased: bool) -> None:
    """Two classes that come 2:1 in training and 1:1 in service, and ink that depends on the class: against training as
    it is, every perfect generator would show other ink. `biased` ones draw the ink of the first class alone."""
    rng, ink = np.random.default_rng(0), np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    config, blank = dataclasses.replace(CONFIG, alpha=0.05), np.zeros((2000, 8, 8, 1), np.uint8)

    def drawn(count: int, odds: list[float], ink: np.ndarray) -> Side:
        labels = rng.choice(2, count, p=odds)
        found = (rng.random(count)[:, None] > ink[labels].cumsum(1)).sum(1)
        return Side(
            blank[:count], labels, {"ink": found, "slant": np.zeros(count, int), "aspect": np.zeros(count, int)}
        )

    red = 0
    for _ in range(40):
        real, fake = drawn(900, [2 / 3, 1 / 3], ink), drawn(2000, [0.5, 0.5], ink[[0, 0]] if biased else ink)
        rows = shares(config, real, fake, ["a", "b"], [0.5, 0.5])["rows"]
        row = next(row for row in rows if row["family"] == "all" and row["attribute"] == "ink")
        cell, variation = row["cells"][0], row["variation"]
        assert 500 < row["n_real"] < 700 and row["n_fake"] == 2000
        assert cell["real"]["value"] == pytest.approx(0.4, abs=0.07) and cell["training"] == pytest.approx(
            0.5, abs=0.06
        )
        assert (variation["low"] > variation["floor_mean"] + 3 * variation["floor_sd"]) == biased
        red += any(cell["differs"] for row in rows for cell in row["cells"])
    assert red == 40 if biased else red <= 6  # of 40 at a level of .05


def test_a_class_that_is_served_and_never_was_in_training_leaves_nothing_to_compare() -> None:
    sides = [Side(np.zeros((100, 8, 8, 1), np.uint8), np.arange(100) % n, dict.fromkeys(bins(1), np.zeros(100, int)))
             for n in (1, 2)]  # fmt: skip
    row = shares(CONFIG, *sides, ["a", "b"], [0.5, 0.5])["rows"][0]
    assert row["status"] == "not_assessed" and "0 real and 100 generated images" in row["reason"]


def test_small_groups_are_named_as_not_assessed_and_never_dropped(world: World) -> None:
    config = dataclasses.replace(CONFIG, min_group=32)
    report = audit(world, "small", world.by_label(world.unseen, world.unseen_labels), config)
    rows = [row for row in report["shares"]["rows"] if row["family"] == "class"]
    assert len(rows) == 3 * 10
    small = [row for row in rows if row["n_fake"] < 32]
    assert small and all(row["status"] == "not_assessed" and "audit.min_group" in row["reason"] for row in small)
    worst = report["measures"]["label_agreement_worst_class"]
    assert worst["value"] is None and "audit.min_group" in worst["reason"]
    assert (
        f"set audit.samples to {math.ceil(64 / min(report['generator']['prior']))} or more (it is 300)"
        in worst["reason"]
    )


@pytest.mark.parametrize(
    ("prior", "advice"),
    [
        ([1 / 60] * 60, "set audit.samples to 1800 or more (it is 300)"),
        ([0.98, 0.02], "set audit.samples to 1500 or more (it is 300)"),
        ([0.5, 0.5], "set audit.samples to 301 or more (it is 300)"),
        ([1.0, 0.0], "the serving prior leaves out a class"),
    ],
)
def test_a_class_that_came_too_seldom_names_the_samples_that_would_do(prior: list[float], advice: str) -> None:
    labels = np.zeros(300, np.int64)  # of the last class comes none
    classes = [f"class {place}" for place in range(len(prior))]
    found = agreement(CONFIG, labels, labels, np.eye(len(prior), dtype=np.int64), prior, classes)
    assert found[-1]["reason"] == f"0 generated images, audit.min_group asks for 15: {advice}"


@pytest.mark.parametrize("setting", ["quality_images", "min_group"])
def test_groups_too_small_for_five_neighbours_are_refused_before_anything_is_drawn(setting: str) -> None:
    with pytest.raises(ValueError, match=rf"audit\.{setting} must be a number >= 6.*; received 5"):
        build(AuditConfig, dataclasses.asdict(CONFIG) | {setting: 5}, "audit")


def test_the_smallest_groups_that_are_allowed_can_be_assessed(world: World) -> None:
    config = dataclasses.replace(CONFIG, quality_images=6, min_group=6)
    report = audit(world, "least", world.by_label(world.unseen, world.unseen_labels), config)
    assert {row["images"] for row in report["quality"]["rows"]} == {6}


def test_a_test_without_power_is_not_assessed(world: World) -> None:
    config = dataclasses.replace(CONFIG, planted_share=0.003)
    report = audit(world, "weak", world.by_label(world.unseen, world.unseen_labels), config)
    measure = report["measures"]["memorization_p"]
    assert measure["value"] is None and "planted training copies" in measure["reason"]


FEW = "188 unseen real images are too few, whatever audit.samples is; 281 are enough: "


@pytest.mark.parametrize(
    ("controls", "most", "advice", "cured"),
    [
        (188, 10_000, FEW + "add images, give fit or heldout a larger share in ingest.splits", (2000, 281)),
        (188, 188, FEW + "set audit.controls to 281 or more", (2000, 281)),
        (276, 10_000, "set audit.samples to 2650 or more (it is 2000)", (2650, 276)),
    ],
)
def test_copies_that_would_not_be_found_come_with_what_would_find_them(
    controls: int, most: int, advice: str, cured: tuple[int, int]
) -> None:
    """Generated images are farther from training than all unseen ones; training images are fewer than the copies."""
    rng = np.random.default_rng(0)
    train = rng.integers(100, 156, (30, 8, 8, 1), dtype=np.uint8)

    def found(samples: int, unseen: int) -> dict[str, Any]:
        config = dataclasses.replace(CONFIG, samples=samples, controls=most)
        fake, real = (
            rng.choice(np.array([low, 255 - low], np.uint8), (count, 8, 8, 1))
            for low, count in ((0, samples), (20, unseen))
        )
        return copies(config, fake, train, real, np.full(unseen, NONE))

    assert found(2000, controls)["status"] == "not_assessed" and advice in found(2000, controls)["reason"]
    assert found(*cured)["status"] == "assessed"


def test_a_collapsed_generator_against_few_controls_is_not_assessed() -> None:
    """One image, a thousand times: planted copies would be found, but it alone can be nothing that the test sees."""
    rng = np.random.default_rng(0)
    train, controls, one = (rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8) for n in (200, 150, 1))
    found = copies(CONFIG, np.repeat(one, 1000, axis=0), train, controls, np.full(150, NONE))
    assert found["planted"]["p"] < CONFIG.alpha and found["fakes"] == 1 and found["detectable_share"] is None
    assert found["status"] == "not_assessed" and found["reason"].startswith("1 different generated images against 150")


def test_among_grouped_images_copies_are_not_tested_for_and_the_pairs_stay_on_the_page(
    world: World, tmp_path: Path
) -> None:
    """Controls show persons that training never saw; a perfect generator draws those that it saw, and copies none."""
    store = Path(shutil.copytree(world.store.path, tmp_path / "store"))
    write_json(store / "dataset.json", world.store.info | {"grouped": True})
    images = world.by_label(world.unseen, world.unseen_labels).copy()
    images[100:106] = world.store.splits["train"].all()[:6]
    run(CONFIG, onnx=world.export("grouped", images), reference=world.folder / "reference", images=store,
        out=tmp_path / "out")  # fmt: skip
    report, results = (read_json(tmp_path / "out" / name) for name in ("audit.json", "summary.json"))
    found = report["measures"]["memorization_p"]
    assert found["value"] is None and "training never saw" in found["reason"] and results["results"]["grouped"]
    assert "not tested for" in report["findings"][0] and "copying found" not in report["findings"][0]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "not tested for" in page and "Bonferroni" not in page and "0.0 levels" in page


@dataclasses.dataclass
class Scenes:
    """Pictures of scenes, a little different each time: two of one scene are near duplicates, as in a series."""

    rng: np.random.Generator
    scenes: np.ndarray

    def draw(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        which = self.rng.integers(0, len(self.scenes), count)
        shaken = self.scenes[which] + self.rng.integers(-6, 7, (count, 8, 8, 1))
        return which, shaken.astype(np.uint8)

    def ingested(self, folder: Path) -> Store:
        """2,000 of them as ingest leaves them: of one scene on two sides those nearer to training are refused."""
        which, images = self.draw(2000)
        side, kept = self.rng.choice(3, 2000, p=[0.55, 0.3, 0.15]), np.ones(2000, bool)
        taken: dict[int, tuple[int, int]] = {}  # by what stayed: least distance, and what was refused at it
        for lost in np.concatenate([np.flatnonzero(side == code) for code in (1, 0)]):
            partners = np.flatnonzero((which == which[lost]) & (side > side[lost]) & kept)
            kept[lost] = not len(partners)
            squared = np.square(images[partners].astype(int) - images[lost]).sum((1, 2, 3))
            for partner, each in zip(partners, squared, strict=True) if side[lost] == 0 else ():
                taken[partner] = min(taken.get(partner, (each, lost)), (each, lost))
        store = write_store(folder, images[kept], np.full(kept.sum(), -1), side[kept], [])
        sources = pa.table({"source": [f"{place}.png" for place in np.flatnonzero(kept)]})
        pq.write_table(sources, folder / "manifest.parquet")
        (folder / "near_refused.csv").write_text(
            "refused,split,kept,squared_distance\n"
            + "".join(f"{lost}.png,train,{kept}.png,{each}\n" for kept, (each, lost) in taken.items())
        )
        return store


def test_refused_near_duplicates_make_no_copier_of_a_generator_that_draws_afresh(tmp_path: Path) -> None:
    """Fresh draws come near to training images and controls never do, because ingest saw to that: the distances that
    it took away are given back. Without them eight in ten perfect generators were called copying ones."""
    blamed, acquitted = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        world = Scenes(rng, rng.integers(20, 230, (20_000, 8, 8, 1)))
        store, (_, fresh) = world.ingested(tmp_path / str(seed)), world.draw(1000)
        train, unseen = store.splits["train"].all(), [store.splits[name] for name in ("heldout", "fit")]
        controls = np.concatenate([part.all() for part in unseen])
        refused = nearest_refused(store.path, np.concatenate([part.rows for part in unseen]))
        blamed.append(copies(CONFIG, fresh, train, controls, np.full(len(controls), NONE))["p"])
        found = copies(CONFIG, fresh, train, controls, refused)
        assert found["status"] == "assessed" and found["controls_near_refused"] == (refused < NONE).sum() > 0
        acquitted.append(found["p"])
    assert np.mean(np.array(blamed) < 0.01) > 0.5 and min(acquitted) > 0.01
    fresh[:20] = train[:20]
    assert copies(CONFIG, fresh, train, controls, refused)["p"] < 0.01


def test_the_distances_are_those_that_ingest_wrote_down(tmp_path: Path) -> None:
    """Series of three pictures of a scene, ingested: each that stayed has the least distance to one refused for it."""
    (tmp_path / "raw").mkdir()
    rough = np.random.default_rng(0).integers(40, 200, (40, 6, 6)).astype(np.uint8)
    for number, picture in enumerate(rough):
        large = np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BICUBIC))
        for shot in range(3):
            Image.fromarray(large + np.uint8(shot)).save(tmp_path / "raw" / f"{number},{shot}.png")
    stored = ingesting.ingest(
        tmp_path / "raw", resolution=64, near_duplicates=NearDuplicates(distance=7, levels=4.0), shard_images=16
    )  # fmt: skip
    table = stored.table("near_refused.csv")
    listed = {kept: int(squared) for _, _, kept, squared in table}
    assert {split for _, split, *_ in table} == {"train"}  # what was refused for fit would not have been seen
    assert len(listed) == len(table) < len([1 for reason in stored.refused.values() if "near duplicate" in reason])
    found = nearest_refused(stored.path, np.arange(len(stored.rows)))
    wanted = [listed.get(row["source"], NONE) for row in stored.rows]
    assert found.tolist() == wanted and {64 * 64, 4 * 64 * 64, NONE} == set(wanted)


def test_features_that_show_nothing_leave_labels_and_quality_unassessed(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.folder / "reference", tmp_path / "reference")
    info = read_json(tmp_path / "reference" / "reference.json")
    about = info["extractor"] | {"blind": "it guesses"}
    write_json(tmp_path / "reference" / "reference.json", info | {"extractor": about})
    images = world.by_label(world.unseen, world.unseen_labels)
    found = measures(audit(dataclasses.replace(world, folder=tmp_path), "blind", images))
    for name in ("label_agreement_worst_class", "share_tv_class", "precision_k3_worst_class", "coverage_k5_worst_class",
                 "precision_k3_worst_attribute", "coverage_k5_worst_attribute"):  # fmt: skip
        assert (found(name)["value"], found(name)["reason"]) == (None, "it guesses")
    assert found("memorization_p")["value"] is not None and found("share_tv_ink")["value"] is not None


def test_a_store_that_does_not_say_what_was_refused_is_made_anew(world: World, tmp_path: Path) -> None:
    store = Path(shutil.copytree(world.store.path, tmp_path / "store"))
    (store / "near_refused.csv").unlink()
    with pytest.raises(ValueError, match=r"near_refused\.csv is missing.*run `python -m stages\.ingest` again"):
        run(CONFIG, onnx=world.export("old", world.unseen), reference=world.folder / "reference", images=store,
            out=tmp_path / "out")  # fmt: skip


def test_the_same_inputs_give_the_same_bytes_and_the_page_is_closed_and_escaped(world: World) -> None:
    images = world.by_label(world.unseen, world.unseen_labels)
    folders = [world.folder / name for name in ("audit-again", "audit-twice")]
    onnx = world.export("again", images)
    for folder in folders:
        run(CONFIG, onnx=onnx, reference=world.folder / "reference", images=world.store.path, out=folder)
    names = sorted(path.name for path in folders[0].iterdir())
    assert names == ["audit.json", "closest.png", "index.html", "summary.json"]
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    page = (folders[0] / "index.html").read_text()
    assert "<b>nine" not in page and "&lt;b&gt;nine &amp; *more*" in page
    assert "http://" not in page and "https://" not in page and "<script" not in page


def test_colour_without_labels(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (900, 8, 8, 3), dtype=np.uint8)
    splits = np.repeat([0, 1, 2], [300, 200, 100])
    store = write_store(tmp_path / "store", images[:600], np.full(600, -1), splits, [])
    write_reference(tmp_path / "reference", store)
    config = dataclasses.replace(CONFIG, planted_share=0.03)  # 300 controls find nine copies, not six
    report = audit(World(tmp_path, store, images[600:], np.zeros(0)), "colour", images[600:], config)
    assert report["measures"]["memorization_p"]["value"] > 0.01
    assert {"share_tv_brightness", "share_tv_saturation"} <= report["measures"].keys()
    assert "label_agreement_worst_class" not in report["measures"]
    assert report["labels"]["reason"] == "the images carry no labels"


def test_files_of_different_runs_are_refused(world: World, tmp_path: Path) -> None:
    onnx = world.export("other", world.unseen)
    other = write_store(tmp_path / "store", world.unseen, world.unseen_labels, np.zeros(300), list("abcdefghij"))
    with pytest.raises(ValueError, match=r"do not belong together: classes"):
        run(CONFIG, onnx=onnx, reference=world.folder / "reference", images=other.path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
