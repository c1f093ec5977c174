"""Parts of the page that are arithmetic: walks on the sphere, curves as pictures, drops of shares, optional inputs."""

import math
from pathlib import Path

import numpy as np
import pytest

from stages.common.summary import measure
from stages.evaluate._classes import distances, drop_interval, share
from stages.evaluate._curves import read_curves
from stages.evaluate._latent import slerp
from stages.evaluate._page import _row, row_key
from stages.evaluate._population import population
from stages.reference_folder import Reference
from stages.scoring import Sets

pytestmark = pytest.mark.fast
ROWS = Path(__file__).with_name("curves.csv")


def test_a_walk_keeps_its_ends_and_its_distance_from_the_middle() -> None:
    rng = np.random.default_rng(0)
    start, end = rng.normal(size=(2, 64)).astype(np.float32)
    assert slerp(start, end, 0) == pytest.approx(start, abs=1e-6) and slerp(start, end, 1) == pytest.approx(
        end, abs=1e-6
    )
    a, b = start / np.linalg.norm(start), end / np.linalg.norm(end)
    angles = []
    for t in np.linspace(0, 1, 9):
        point = slerp(a, b, t)
        assert np.linalg.norm(point) == pytest.approx(1, abs=1e-6)
        angles.append(math.acos(min(1, point @ a)))
    assert np.diff(angles) == pytest.approx(np.full(8, angles[-1] / 8), abs=1e-4), "equal steps"
    middle = (start + end) / 2  # the straight line is shorter than any latent
    assert np.linalg.norm(slerp(start, end, 0.5)) > 1.2 * np.linalg.norm(middle)


def test_a_walk_to_the_same_or_the_opposite_latent_is_a_line() -> None:
    start = np.ones(4, np.float32)
    assert slerp(start, start, 0.3) == pytest.approx(start)
    assert slerp(start, 2 * start, 0.5) == pytest.approx(1.5 * start)
    assert slerp(start, -start, 0.5) == pytest.approx(np.zeros(4), abs=1e-6)
    assert np.isfinite(slerp(np.zeros(4), start, 0.5)).all()


def test_curves_pair_the_sides_and_name_their_ends() -> None:
    found = {each["title"]: each for each in read_curves(ROWS)}
    assert list(found) == ["loss d", "logit", "gradient", "loss g"]
    assert [line["side"] for line in found["logit"]["lines"]] == ["real", "fake"]
    assert [line["side"] for line in found["loss d"]["lines"]] == ["one"]
    assert all(each["axis"] == "kimg" and each["start"] == "1.28" and each["end"] == "51.2" for each in found.values())


def test_points_lie_where_the_numbers_are(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("step,a\n0,0\n5,1\n10,2\n")
    (found,) = read_curves(tmp_path / "c.csv")
    points = [tuple(map(float, each.split())) for each in found["lines"][0]["path"].removeprefix("M").split("L")]
    assert [x for x, _ in points] == [0, 150, 300]
    ys = [y for _, y in points]
    assert ys[0] > ys[1] > ys[2] and ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2) and ys[1] == 55
    assert (found["low"], found["high"]) == ("0", "2")


def test_rows_that_a_grid_can_only_number_have_a_key() -> None:
    assert row_key(["cats", "dogs"]) == row_key([]) == ""
    assert row_key(["\u732b", "dogs"]) == "1: \u732b, 2: dogs"


def test_long_curves_are_thinned_and_flat_ones_drawn(tmp_path: Path) -> None:
    lines = "\n".join(f"{step},{step % 2},5" for step in range(5000))
    (tmp_path / "c.csv").write_text(f"step,a,b\n{lines}\n")
    a, b = read_curves(tmp_path / "c.csv")
    assert a["lines"][0]["path"].count("L") == 299 and b["lines"][0]["path"].count("L") == 299
    (tmp_path / "c.csv").write_text("kimg,a\n1,7\n")
    (one,) = read_curves(tmp_path / "c.csv")
    assert one["lines"][0]["path"] == "M150.0 55.0L150.0 55.0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "distinct column names"),
        ("step,a\n", "at least one line of numbers"),
        ("step,step\n1,2\n", "distinct column names"),
        ("epoch,a\n1,2\n", "column kimg or step; it has epoch, a"),
        ("step,a\n1,2\n2,x\n", "line 3"),
        ("step,a\n1,nan\n", "2 finite numbers per line; line 2"),
        ("step,a\n1,2,3\n", "line 2"),
        ("step,a\n1,\xff\n", "not a CSV file"),
    ],
)
def test_a_file_of_no_curves_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "c.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        read_curves(tmp_path / "c.csv")


def test_population_values_of_one_feature_and_eight_images_say_why_there_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 1)).astype(np.float32)
    monkeypatch.setattr(Reference, "features", lambda self, split: rows[:8])
    sets = Sets(8, {}, None, np.zeros(40, np.int64), rows)
    found = population(Reference(Path(), {"extractor": {}}), sets, seed=0)
    assert found["fid_domain"]["value"] is None and found["kid_domain"]["value"] is None
    reason = "8 held-out images are fewer than 32, eight for each of 1 features and 32 at least"
    assert found["fid_domain"]["reason"] == reason


def test_the_interval_of_a_drop_covers() -> None:
    """Newcombe's interval at the sizes of classes, 25 and 30 images: 2,000 draws a cell, far from and near to 1."""
    rng = np.random.default_rng(0)
    for before, after, most in ((0.98, 0.95, 1.0), (0.95, 0.6, 0.98), (0.7, 0.4, 0.98), (1.0, 0.9, 1.0)):
        hits = 0
        for _ in range(2000):
            a, b = (share(int(rng.binomial(n, p)), n) for n, p in ((25, before), (30, after)))
            assert a is not None and b is not None
            drop, low, high = drop_interval(a, b)
            assert low <= drop <= high
            hits += low <= before - after <= high
        assert 0.93 <= hits / 2000 <= most, (before, after, hits)  # too wide where nothing is ever wrong
    assert share(0, 0) is None


def test_distances_of_a_class_have_a_floor_where_train_images_suffice() -> None:
    rng = np.random.default_rng(0)
    real, fake, pool = (rng.normal(size=(n, 4)).astype(np.float32) for n in (20, 130, 60))
    found = distances(real, fake, pool, seed=0, label=1)
    for name in ("energy", "kernel", "frechet"):  # 20 images are more than two for each of 4 features
        each = found[name]
        assert each["low"] < each["value"] < each["high"] and (each["n"], each["sets"]) == (20, 6)
        assert abs(each["value"] - each["reference"]["mean"]) < 4 * each["reference"]["sd"]
        assert each["no_reference"] is None
    few = distances(real, fake, pool[:39], seed=0, label=1)["energy"]  # draws of 20 would share half of them
    assert few["reference"] is None and few["value"] == found["energy"]["value"]
    assert few["no_reference"] == "39 train images of this class are fewer than 40, 2 for each held-out one"
    assert found == distances(real, fake, pool, seed=0, label=1) != distances(real, fake, pool, seed=0, label=2)


@pytest.mark.parametrize(
    ("real", "fake", "reason"),
    [
        (7, 100, "7 held-out images of this class are fewer than 8"),
        (20, 59, "59 generated images of this class make 2 sets of 20"),
        (20, 0, "0 generated images"),
        (0, 50, "0 held-out images"),
    ],
)
def test_a_class_with_too_few_images_says_so(real: int, fake: int, reason: str) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 4)).astype(np.float32)
    for found in distances(rows[:real], rows[:fake], rows, seed=0, label=0).values():
        assert found["value"] is None and reason in found["reason"]
    constant = distances(np.ones((20, 4), np.float32), rows, rows, seed=0, label=0)
    assert "the same features" in constant["energy"]["reason"]


@pytest.mark.parametrize(
    ("name", "real", "sd", "ends", "standing"),
    [
        ("label_agreement", 1.0, 0.0, (0.9965, 0.9990), "level"),  # 263 of 263 do not say that all are right
        ("coverage_k5", 1.0, 0.0, (0.9965, 0.9990), "level"),
        ("cas", 1.0, 0.0, (0.951, 0.984), "behind"),
        ("recall_k3", 0.85, 0.02, (0.80, 0.809), "behind"),  # far from 0 and 1 the deviations decide
        ("recall_k3", 0.85, 0.02, (0.80, 0.811), "level"),
        ("fid_domain", 1.1, 0.2, (1.51, 1.6), "behind"),
        ("kid_domain", 0.0, 0.05, (0.09, 0.2), "level"),
    ],
)
def test_the_band_of_a_share_near_1_has_a_width(
    name: str, real: float, sd: float, ends: tuple[float, float], standing: str
) -> None:
    reference = {"mean": real, "sd": sd}
    found = _row(name, measure(sum(ends) / 2, *ends, n_real=263, n_fake=5260, protocol=name, reference=reference))
    assert found["standing"] == standing and found["plot"]["band_width"] > 1
    assert found["plot"]["band"] <= found["plot"]["mean"]
