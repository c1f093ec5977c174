"""Candidate against champion: the decision by hand-made scores, and two real files scored anew."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.promotions import FLOORS as MEASURED_FLOORS
from benchmarks.promotions import MEASURED, nights
from stages.common.files import read_json, write_json
from stages.compare import run
from stages.compare._decide import differences, judge
from stages.config import load_section
from stages.config.compare import CompareConfig, Margin
from stages.reference_folder import Reference
from tests.stages.stored_digits import SAMPLES, World, digits_world, write_store

FLOORS = {"fid_domain": {"mean": 2.0, "sd": 0.5}, "kid_domain": {"mean": -0.1, "sd": 0.05}}


def decide(name: str, gains: list[float], margin: float, relative_to: str = "none") -> tuple[bool, str]:
    """Judge a candidate whose scores differ from the champion's by `gains`."""
    champion = [1.0, 2.0, 3.0, 4.0]
    candidate = [score + gain for score, gain in zip(champion, gains, strict=True)]
    rule = Margin(measure=name, margin=margin, relative_to=relative_to)  # type: ignore[arg-type]
    found = judge(differences({name: candidate}, {name: champion}, [rule], FLOORS), {})
    return found["not_worse"], found["reason"]


@pytest.mark.fast
@pytest.mark.parametrize(
    ("name", "gains", "margin", "relative_to", "not_worse"),
    [
        ("fid_domain", [0.0] * 4, 0.0, "none", True),  # the same file again
        ("fid_domain", [0.1] * 4, 0.11, "none", True),  # a little worse, surely within the margin
        ("fid_domain", [0.1] * 4, 0.09, "none", False),
        ("fid_domain", [-0.5] * 4, 0.0, "none", True),  # smaller distances are better
        ("fid_domain", [0.1] * 4, 0.06, "ratio", True),  # 0.1 / 2.0
        ("fid_domain", [0.1] * 4, 0.04, "ratio", False),
        ("kid_domain", [0.1] * 4, 2.1, "deviations", True),  # 0.1 / 0.05
        ("kid_domain", [0.1] * 4, 1.9, "deviations", False),
        ("coverage_k5", [-0.1] * 4, 0.11, "none", True),  # larger shares are better
        ("coverage_k5", [-0.1] * 4, 0.09, "none", False),
        ("coverage_k5", [0.3] * 4, 0.0, "none", True),
        ("coverage_k5", [1.0, -1.0, 1.0, -1.0], 0.5, "none", False),  # equal on average, but not shown to be
    ],
)
def test_not_worse(name: str, gains: list[float], margin: float, relative_to: str, not_worse: bool) -> None:
    found, reason = decide(name, gains, margin, relative_to)
    assert found is not_worse
    assert reason.startswith("not worse" if not_worse else "worse") and name in reason


@pytest.mark.fast
def test_pairing_takes_out_what_both_generators_share() -> None:
    """The scores spread over 1 to 4 and the difference not at all: unpaired, no margin below 3 could hold."""
    assert decide("fid_domain", [0.01] * 4, 0.02)[0]


@pytest.mark.fast
def test_a_margin_without_a_floor_fails_and_says_so() -> None:
    scores = {"precision_k3": [0.5, 0.6, 0.7]}
    rule = Margin(measure="precision_k3", margin=1.0, relative_to="ratio")
    found = judge(differences(scores, scores, [rule], {}), {})
    assert not found["not_worse"] and "no floor" in found["reason"]


@pytest.mark.fast
def test_comparing_nothing_is_no_pass() -> None:
    scores = {"precision_k3": [0.5, 0.6, 0.7]}
    found = judge(differences(scores, scores, [], {}), {"label_agreement": "no labels"})
    assert not found["not_worse"] and "no labels" in found["reason"]


def superior(gains: dict[str, list[float]], primary: list[str]) -> dict[str, Any]:
    """Judge a candidate by several measures, all with wide margins, whose scores differ from the champion's."""
    champion = {name: [1.0, 2.0, 3.0, 4.0] for name in gains}
    candidate = {name: [s + g for s, g in zip(champion[name], gains[name], strict=True)] for name in gains}
    margins = [Margin(measure=name, margin=9.0, relative_to="none") for name in gains]
    return judge(differences(candidate, champion, margins, FLOORS, primary), {})


@pytest.mark.fast
def test_better_is_shown_by_the_interval_in_the_direction_of_the_measure() -> None:
    surely, hardly = [0.2, 0.3, 0.2, 0.3], [0.9, -0.8, 0.9, -0.8]
    for name, sign in (("coverage_k5", 1), ("fid_domain", -1)):
        assert superior({name: [sign * g for g in surely]}, [name])["better"] == [name]
        assert superior({name: [-sign * g for g in surely]}, [name])["better"] == []
        assert superior({name: [sign * g for g in hardly]}, [name])["better"] == []
    assert superior({"coverage_k5": surely}, [])["better"] == []  # not a primary measure
    assert superior({"fid_domain": [0.0] * 4}, ["fid_domain"])["better"] == []  # the same file again


@pytest.mark.fast
def test_the_level_is_shared_out_over_the_primary_measures() -> None:
    """Student's t of these gains is 3.55: beyond 3.18 (one of 40 by chance), within 4.18 (one of 80)."""
    gains = [0.1, 0.2, 0.3, 0.2]
    shifted = [g - 0.055 for g in gains]
    assert superior({"coverage_k5": shifted}, ["coverage_k5"])["better"] == ["coverage_k5"]
    two = superior({"coverage_k5": shifted, "fid_domain": [0.0] * 4}, ["coverage_k5", "fid_domain"])
    assert two["better"] == []


@pytest.mark.fast
def test_ahead_is_better_somewhere_and_behind_nowhere() -> None:
    better = [0.2, 0.3, 0.2, 0.3]
    assert superior({"coverage_k5": better, "fid_domain": [0.0] * 4}, ["coverage_k5"])["ahead"]
    assert not superior({"coverage_k5": better, "fid_domain": [0.01] * 4}, ["coverage_k5"])[
        "ahead"
    ]  # within its margin
    assert not superior({"coverage_k5": [0.0] * 4}, ["coverage_k5"])["ahead"]


@pytest.mark.fast
@pytest.mark.parametrize("primary", [(), ("recall_k3",), ("fid_domain", "fid_domain")])
def test_primary_measures_have_a_margin(primary: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="primary must name measures of margins, each once"):
        dataclasses.replace(CONFIG, primary=primary)


@pytest.mark.fast
def test_chance_promotes_seldom_and_small_losses_cannot_add_up() -> None:
    """The simulation behind docs/promotions.md, 200 nights: at one in forty, 13 promotions come about once in 1,000."""
    config = load_section(CompareConfig, Path(__file__).parents[2] / "params.yaml", "compare")
    assert sum(night.promoted for night in nights(config, count=200, seed=1, fresh=True)) < 13
    begin = MEASURED["fid_domain"][0]
    lost = {
        best: [n.champion[0] for n in nights(config, count=200, seed=1, same_data=False, drift=0.1, keep_best=best)][-1]
        for best in (True, False)
    }
    margin = next(m.margin for m in config.margins if m.measure == "fid_domain") * MEASURED_FLOORS["fid_domain"]["mean"]
    assert lost[True] - begin < margin < lost[False] - begin


CONFIG = CompareConfig(
    threads=1,
    seed=7,
    sets=3,
    margins=(
        Margin(measure="fid_domain", margin=0.25, relative_to="ratio"),
        Margin(measure="coverage_k5", margin=0.05, relative_to="none"),
        Margin(measure="label_agreement", margin=0.02, relative_to="none"),
    ),
    primary=("fid_domain", "coverage_k5"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return digits_world(tmp_path_factory.mktemp("compared"))


def test_real_images_against_themselves_and_against_one_image_per_class(world: World) -> None:
    good = world.export("good", world.by_label(world.unseen, world.unseen_labels))
    first = [int(np.flatnonzero(world.unseen_labels == label)[0]) for label in range(10)]
    bad = world.export("bad", world.by_label(world.unseen[first], np.arange(10)))
    reference = world.folder / "reference"
    same = run(CONFIG, candidate=good, champion=good, reference=reference, out=world.folder / "same")
    assert (same.results["not_worse"], same.results["better"], same.results["same_data"]) == (True, [], True)
    assert all(row["value"] == row["low"] == row["high"] == 0 for row in same.results["differences"].values())
    worse = run(CONFIG, candidate=bad, champion=good, reference=reference, out=world.folder / "worse").results
    assert worse["not_worse"] is False
    assert worse["differences"]["fid_domain"]["status"] == worse["differences"]["coverage_k5"]["status"] == "failed"
    better = run(CONFIG, candidate=good, champion=bad, reference=reference, out=world.folder / "better").results
    # Not ahead perhaps: ten real images have no misread label among them, three hundred may.
    assert (better["not_worse"], better["better"]) == (True, ["fid_domain", "coverage_k5"])
    assert better["differences"]["fid_domain"]["value"] == -worse["differences"]["fid_domain"]["value"]
    written = json.loads((world.folder / "better" / "summary.json").read_text())
    assert written["results"]["reason"] == better["reason"] and written["stage"] == "compare"
    again = run(CONFIG, candidate=good, champion=bad, reference=reference, out=world.folder / "again")
    assert again.outputs == json.loads((world.folder / "better" / "summary.json").read_text())["outputs"]


def test_both_meet_the_held_out_images_of_a_set(world: World, tmp_path: Path) -> None:
    real = world.export("real", world.by_label(world.unseen, world.unseen_labels))
    shutil.copytree(world.folder / "reference", tmp_path / "reference")
    about = read_json(tmp_path / "reference" / "reference.json")
    write_json(tmp_path / "reference" / "reference.json", about | {"set_size": 100})
    found = run(
        CONFIG, candidate=real, champion=real, reference=tmp_path / "reference", out=tmp_path / "out"
    ).results  # fmt: skip
    counts = {key: found["protocols"]["fid_domain"][key] for key in ("n_real", "n_fake", "sets")}
    assert found["not_worse"] and counts == {"n_real": 100, "n_fake": 100, "sets": 3}
    assert found["protocols"]["label_agreement"]["n_fake"] == 300


def test_on_features_that_show_nothing_nobody_is_not_worse(world: World, tmp_path: Path) -> None:
    good = world.export("blind", world.by_label(world.unseen, world.unseen_labels))
    reference = shutil.copytree(world.folder / "reference", tmp_path / "reference")
    info = read_json(reference / "reference.json")
    write_json(reference / "reference.json", info | {"extractor": info["extractor"] | {"blind": "it guesses"}})
    found = run(CONFIG, candidate=good, champion=good, reference=reference, out=tmp_path / "out").results
    assert (found["not_worse"], found["differences"]) == (False, {})
    assert found["reason"] == "nothing was compared: it guesses"


def test_labels_served_in_other_shares_are_part_of_the_reason(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reference, "served_otherwise", lambda self, prior: f"served as {prior[0]:.2f} of a digit")
    good = world.export("served", world.by_label(world.unseen, world.unseen_labels))
    found = run(CONFIG, candidate=good, champion=good, reference=world.folder / "reference", out=tmp_path / "out")
    assert found.results["not_worse"] and found.results["reason"].count("; served as 0.") == 1


def test_other_classes_are_refused(world: World, tmp_path: Path) -> None:
    mine = world.export("mine", world.unseen)
    store = write_store(tmp_path / "store", world.unseen, world.unseen_labels % 2, np.arange(300) % 3, ["even", "odd"])
    theirs = dataclasses.replace(world, folder=tmp_path, store=store).export("theirs", world.unseen[:SAMPLES])
    with pytest.raises(ValueError, match="their classes differ"):
        run(CONFIG, candidate=mine, champion=theirs, reference=world.folder / "reference", out=tmp_path / "out")
    with pytest.raises(ValueError, match="does not fit the reference: classes"):
        run(CONFIG, candidate=theirs, champion=theirs, reference=world.folder / "reference", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
