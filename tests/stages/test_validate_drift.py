"""Drift: the law of the test, its false alarms counted by simulation, and real stores compared with a baseline."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from infra.digits import write_digits
from stages.common.files import read_json
from stages.config.ingest import NearDuplicates, Splits
from stages.config.validate import Drift, ValidateConfig
from stages.ingest import run as ingest
from stages.ingest.sources import folder
from stages.validate import run
from stages.validate._drift import Moved, compare, homogeneity, join
from stages.validate._drift_checks import drift_checks
from stages.validate._measures import measure, names
from stages.validate._profile import binned, bins_of, edges
from tests.stages import ingesting

DRIFT = Drift(false_alarms=0.01, min_moved=0.05)
CONFIG = ValidateConfig(
    min_images=100, min_images_per_class=1, min_class_balance=0.0, max_split_deviation=50.0, min_level_range=16,
    min_mean_level=10.0, max_mean_level=245.0, limits=(), max_near_duplicates=1.0, drift=DRIFT, warn=(),
)  # fmt: skip
INGEST = ingesting.config(
    source=folder.Config(name="folder", labels="folders", groups="none"),
    splits=Splits(train=0.55, fit=0.3, heldout=0.15),
    max_refused_share=0.05, shard_images=4096, near_duplicates=NearDuplicates(distance=7, levels=4.0),
)  # fmt: skip
GRID = (0.0, 64.0, 64, "linear")


def drawn(shares: NDArray[np.float64], sizes: tuple[int, int], dice: np.random.Generator) -> list[dict[str, object]]:
    """Two profiles of 20 columns each, all of one distribution."""
    return [
        {
            "images": size, "resolution": 8, "channels": 1,
            "columns": {
                str(n): {"grid": list(GRID), "counts": dice.multinomial(size, shares).tolist()} for n in range(20)
            },
        }
        for size in sizes
    ]  # fmt: skip


def profiled(counts: NDArray[np.int64], images: int, words: dict[str, int] | None = None) -> dict[str, object]:
    """A profile of one column of numbers, or of `words`."""
    column = {"counts": words} if words is not None else {"grid": list(GRID), "counts": counts.tolist()}
    return {"images": images, "resolution": 8, "channels": 1, "columns": {"x": column}}


@pytest.mark.fast
@pytest.mark.parametrize("words", [False, True])
def test_images_without_a_value_are_a_bin_of_their_own(words: bool) -> None:
    """Both sides empty was an error, and one side empty never alarmed."""
    full, none = np.full(64, 10), np.zeros(64, int)
    some = {"a": 500, "b": 140} if words else None
    empty: dict[str, int] | None = {} if words else None
    (neither,) = compare(profiled(none, 640, empty), profiled(none, 640, empty), DRIFT)[0]
    assert neither.p == 1 and not neither.alarm and neither.labels == ["(no value)"] and neither.now == [1.0]
    (gone,) = compare(profiled(full, 640, some), profiled(none, 640, empty), DRIFT)[0]
    assert gone.alarm and gone.moved == 1 and gone.groups[gone.grown] == [None]
    (half,) = compare(profiled(full, 640, some), profiled(full, 1280, some), DRIFT)[0]
    assert half.alarm and half.moved == pytest.approx(0.5) and half.labels[half.grown] == "(no value)"
    (few,) = compare(profiled(full, 640, some), profiled(full, 650, some), DRIFT)[0]
    assert not few.alarm and few.groups[-1] != [None], "ten expected, or nothing can be tested"
    assert compare(profiled(none, 3, empty), profiled(none, 4, empty), DRIFT)[0][0].labels == ["(no value)"]


@pytest.mark.fast
def test_the_p_value_is_that_of_scipy() -> None:
    counts = np.array([[12, 30, 44], [25, 28, 31]])
    assert homogeneity(counts) == pytest.approx(chi2_contingency(counts, correction=False).pvalue, rel=1e-12)
    assert homogeneity(np.array([[5], [9]])) == 1.0
    assert homogeneity(np.array([[0, 0], [4, 5]])) == 1.0


@pytest.mark.fast
@pytest.mark.parametrize(("sizes", "skew"), [((1797, 1797), 0.0), ((60, 50_000), 0.15), ((100_000, 300), 0.05)])
def test_false_alarms_stay_at_the_stated_rate(sizes: tuple[int, int], skew: float) -> None:
    """300 comparisons of 20 unchanged columns at the level 0.05, whatever the sizes and the shape."""
    dice = np.random.default_rng(7)
    shares = np.exp(-skew * np.arange(64))
    config = Drift(false_alarms=0.05, min_moved=0.0)
    alarms = 0
    for _ in range(300):
        one, two = drawn(shares / shares.sum(), sizes, dice)
        moved, _ = compare(one, two, config)
        alarms += any(one.alarm for one in moved)
    # Three standard deviations of a binomial share of 300 around the level; benchmarks/validation.py counts more.
    assert abs(alarms / 300 - 0.05) < 3 * (0.05 * 0.95 / 300) ** 0.5


@pytest.mark.fast
def test_with_many_images_a_real_difference_alarms_only_where_it_is_large() -> None:
    before = np.full(64, 1_000_000 // 64)
    slight, large = before.copy(), before.copy()
    slight[:32] += 300
    slight[32:] -= 300
    large[:32] += 3000
    large[32:] -= 3000

    def moved(now: NDArray[np.int64]) -> Moved:
        return compare(profiled(before, int(before.sum())), profiled(now, int(now.sum())), DRIFT)[0][0]

    assert moved(slight).p < 1e-9 and not moved(slight).alarm and moved(slight).moved == pytest.approx(0.0096, rel=0.01)
    assert moved(large).alarm and moved(large).moved == pytest.approx(0.096, rel=0.01)


@pytest.mark.fast
def test_bins_are_joined_until_both_sides_hold_enough() -> None:
    counts = np.array([[100, 0, 3, 500, 0, 0, 2], [90, 1, 2, 480, 0, 1, 0]])
    groups = join(counts)
    assert [place for group in groups for place in group] == list(range(7))
    joined = [counts[:, group].sum() for group in groups]
    assert min(joined) >= counts.sum() / 16 and len(groups) == 2


@pytest.mark.fast
def test_values_outside_a_grid_count_in_its_ends() -> None:
    values = np.array([-5.0, 0.0, 0.99, 63.5, 64.0, 1e9, np.nan])
    counts = binned({"grid": GRID}, values)["counts"]
    assert sum(counts) == 6 and counts[0] == 3 and counts[63] == 3
    assert bins_of(edges((1.0, 16.0, 4, "log")), np.array([1.0, 2.0, 5.0, 15.9])).tolist() == [0, 1, 2, 3]
    assert edges((1.0, 16.0, 4, "log")) == pytest.approx([1, 2, 4, 8, 16])


@pytest.mark.fast
@pytest.mark.parametrize("channels", [1, 3])
def test_measures_by_hand(channels: int) -> None:
    flat = np.full((1, 16, 16, channels), 100, np.uint8)
    board = np.indices((16, 16)).sum(axis=0) % 2 * 200
    checks = np.repeat(board[None, :, :, None], channels, axis=3).astype(np.uint8)
    slope = np.repeat((np.arange(16) * 8)[None, None, :, None], 16, axis=1).repeat(channels, axis=3).astype(np.uint8)
    found = measure(np.concatenate([flat, checks, slope]))
    assert set(found) == set(names(channels))
    assert found["brightness"] == pytest.approx([100, 100, 60], abs=1e-3)
    assert found["contrast"] == pytest.approx([0, 100, slope.std()], abs=1e-3)
    assert found["level_range"].tolist() == [0, 200, 120]
    assert found["sharpness"] == pytest.approx([0, 800, 0], abs=1e-3)
    assert abs(found["pattern_10"][2]) > 20 and abs(found["pattern_01"][2]) < 1e-3
    if channels == 3:
        red = np.zeros((1, 8, 8, 3), np.uint8)
        red[..., 0] = 255
        assert measure(red)["saturation"].tolist() == [1.0]
        assert measure(red)["brightness"] == pytest.approx([255 * 0.299], abs=1e-3)
    alone = measure(checks)
    assert all(alone[name][0] == found[name][1] for name in found), "a measure never depends on the neighbours"


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of two halves of the digits, and of one half changed."""
    home = tmp_path_factory.mktemp("worlds")
    write_digits(home / "raw")
    (home / "sheet.yaml").write_text(ingesting.SHEET)
    for half in (0, 1):
        for path in sorted((home / "raw").glob("*/*.png"))[half::2]:
            target = home / f"raw{half}" / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        ingest(INGEST, raw=home / f"raw{half}", datasheet=home / "sheet.yaml", out=home / f"half{half}")
    return home


def baseline(worlds: Path, out: Path) -> Path:
    """What a promotion does: copy the profile of the data."""
    run(CONFIG, images=worlds / "half0", out=out / "first")
    return Path(shutil.copy(out / "first" / "profile.json", out / "baseline.json"))


def spoiled(worlds: Path, out: Path) -> Path:
    """The other half, 25 levels brighter, and its nines called eights."""
    store = Path(shutil.copytree(worlds / "half1", out / "store"))
    images, labels = np.load(store / "images-00000.npy"), np.load(store / "labels-00000.npy")
    np.save(store / "images-00000.npy", np.minimum(images.astype(int) + 25, 255).astype(np.uint8))
    np.save(store / "labels-00000.npy", np.where(labels == 9, 8, labels))
    frame = pd.read_parquet(store / "manifest.parquet")
    frame["label"] = frame["label"].where(frame["label"] != 9, 8)
    frame["class"] = frame["class"].where(frame["class"] != "9", "8")
    frame.to_parquet(store / "manifest.parquet", index=False)
    return store


def drifted(out: Path) -> set[str]:
    found = read_json(out / "expectations.json")["expectations"]
    return {entry["name"] for entry in found if not entry["passed"] and entry["group"] == "drift"}


def test_more_of_the_same_is_no_drift(worlds: Path, tmp_path: Path) -> None:
    summary = run(CONFIG, images=worlds / "half1", baseline=baseline(worlds, tmp_path), out=tmp_path / "out")
    assert drifted(tmp_path / "out") == set()
    assert summary.results["baseline"] == read_json(worlds / "half0" / "dataset.json")["data_hash"]
    assert "Against the baseline" in (tmp_path / "out" / "report.html").read_text()


def test_other_data_alarm_column_by_column_and_show_their_pictures(worlds: Path, tmp_path: Path) -> None:
    reference, store = baseline(worlds, tmp_path), spoiled(worlds, tmp_path)
    with pytest.raises(ValueError, match="drift_measured_brightness"):
        run(CONFIG, images=store, baseline=reference, out=tmp_path / "out")
    found = drifted(tmp_path / "out")
    assert {"drift_class", "drift_measured_brightness"} <= found
    assert not found & {"same_columns", "drift_width", "drift_height", "drift_measured_pattern_10"}
    entries = {entry["name"]: entry for entry in read_json(tmp_path / "out" / "expectations.json")["expectations"]}
    assert "; 8 went from 9" in entries["drift_class"]["found"]
    labels = np.load(store / "labels-00000.npy")
    assert set(labels[entries["drift_class"]["rows"]]) == {8}
    warned = run(dataclasses.replace(CONFIG, warn=("drift", "class_counts", "class_balance")), images=store,
                 baseline=reference, out=tmp_path / "warned")  # fmt: skip
    assert set(warned.results["warnings"]) == found | {"class_counts"}


def test_other_columns_and_other_pixels_are_drift(worlds: Path, tmp_path: Path) -> None:
    reference = baseline(worlds, tmp_path)
    content = json.loads(reference.read_text())
    content["columns"]["age"] = {"counts": {"old": 5}}
    content["resolution"] = 16
    reference.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="same_columns"):
        run(CONFIG, images=worlds / "half1", baseline=reference, out=tmp_path / "out")
    entries = read_json(tmp_path / "out" / "expectations.json")["expectations"]
    (entry,) = [entry for entry in entries if entry["name"] == "same_columns"]
    assert entry["found"].startswith("differ: resolution, age, ") and "aspect" not in entry["found"]
    assert "brightness of the pixels" in entry["found"] and drifted(tmp_path / "out") == {"same_columns"}


def test_an_attribute_may_be_called_columns() -> None:
    """Its check was that of the columns, and its drift lost without a word."""
    before, now = (
        {"images": 1000, "resolution": 8, "channels": 1, "columns": {"columns": {"counts": {value: 1000}}}}
        for value in ("Doric", "Ionic")
    )
    checks, table = drift_checks(*compare(before, now, CONFIG.drift), before, now, CONFIG.drift)
    assert [check.name for check in checks] == list(table) == ["drift_columns", "same_columns"]
    assert table.to_numpy().tolist() == [[1, 0]]


def test_values_that_went_away_are_drift_and_their_images_shown(worlds: Path, tmp_path: Path) -> None:
    """A number that the datasheet declares: known of half of the images before, of none now; one that it does not
    declare: higher now, and in no baseline of an older format; and too many names."""
    stores = []
    for half in (0, 1):
        store = Path(shutil.copytree(worlds / f"half{half}", tmp_path / f"store{half}"))
        frame = pd.read_parquet(store / "manifest.parquet")
        known = np.arange(len(frame)) % 2 == half
        said = [
            [str(at % 7) if yes and not half else "" for at, yes in enumerate(known)],
            (f"n{at}" for at in range(len(frame))),
        ]
        said.append(f"{0.1 * at + 30 * half:.1f}" for at in range(len(frame)))
        frame.assign(**dict(zip(("age", "name", "reading"), map(list, said), strict=True))).to_parquet(
            store / "manifest.parquet", index=False
        )
        info = json.loads((store / "dataset.json").read_text())
        info["declared"] = {"age": [], "name": [], "reading": []}
        info["datasheet"]["declares"] = {"attributes": {"age": {"min": "0", "max": "9"}}}
        (store / "dataset.json").write_text(json.dumps(info))
        stores.append(store)
    config = dataclasses.replace(CONFIG, warn=("drift", "age_declared"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("stages.validate._profile.MOST", 500)
        run(config, images=stores[0], out=tmp_path / "first")
        run(config, images=stores[1], baseline=tmp_path / "first" / "profile.json", out=tmp_path / "out")
        older = read_json(tmp_path / "first" / "profile.json", format=2) | {"format": 1}
        del older["columns"]["reading"]
        (tmp_path / "older.json").write_text(json.dumps(older))
        run(config, images=stores[1], baseline=tmp_path / "older.json", out=tmp_path / "under an older one")
    assert drifted(tmp_path / "out") == {"drift_age", "drift_reading"}
    assert drifted(tmp_path / "under an older one") == {"drift_age"}
    older_report = (tmp_path / "under an older one" / "report.html").read_text()
    assert "drift_reading" in older_report and "format 1, which leaves out numbers of more than 1,000" in older_report
    entries = {entry["name"]: entry for entry in read_json(tmp_path / "out" / "expectations.json")["expectations"]}
    assert entries["drift_age"]["found"].endswith("(no value) went from 49.9 to 100.0 %")
    assert entries["drift_age"]["rows"] == list(range(10))
    report = (tmp_path / "out" / "report.html").read_text()
    assert (
        "format 1" not in report
        and "drift_name" in report
        and "not compared: more than 1,000 different texts" in report
    )


def test_before_the_first_promotion_nothing_is_compared(worlds: Path, tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "data" / "baseline.json"
    if read_json(shipped)["data_hash"] is None:
        run(CONFIG, images=worlds / "half0", baseline=shipped, out=tmp_path / "out")
        assert "No run has been promoted yet" in (tmp_path / "out" / "report.html").read_text()
    (tmp_path / "baseline.json").write_text('{"format": 1, "data_hash": "ab"}')
    with pytest.raises(ValueError, match="lacks images, resolution, channels, columns"):
        run(CONFIG, images=worlds / "half0", baseline=tmp_path / "baseline.json", out=tmp_path / "b")


def test_a_profile_is_small_and_a_function_of_the_data_alone(worlds: Path, tmp_path: Path) -> None:
    first = baseline(worlds, tmp_path)
    run(CONFIG, images=worlds / "half0", baseline=first, out=tmp_path / "again")
    assert first.read_bytes() == (tmp_path / "again" / "profile.json").read_bytes()
    assert len(first.read_bytes()) < 50_000
    content = read_json(first, format=2)
    assert content["data_hash"] == read_json(worlds / "half0" / "dataset.json")["data_hash"]
    assert all(sum(_counts(column)) == content["images"] for column in content["columns"].values())


def _counts(column: dict[str, object]) -> list[int]:
    counts = column["counts"]
    return list(counts.values()) if isinstance(counts, dict) else list(counts)  # type: ignore[call-overload]
