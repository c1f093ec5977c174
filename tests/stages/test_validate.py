"""Validation of real stores: green as they come from ingest, red by exactly the expectation that a defect breaks."""

import dataclasses
import html.parser
import json
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from infra.digits import write_digits
from stages.common.command import main
from stages.common.files import read_json, tree_digests
from stages.config import build
from stages.config.validate import Limits, ValidateConfig
from stages.ingest import run as ingest
from stages.validate import run
from stages.validate._frames import read_frames
from stages.validate._run import breaking, run_checks
from stages.validate._suite import checks
from tests.stages.browser import CHROMIUM, tab
from tests.stages.validating import CONFIG, INGEST, SHEET, declare, limit


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image store of the default digits, with one refused file of a hostile name."""
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder / "raw")
    (folder / "raw" / "3" / "<img src=x onerror=alert(1)>\n.png").write_text("no picture")
    (folder / "sheet.yaml").write_text(SHEET)
    ingest(INGEST, raw=folder / "raw", datasheet=folder / "sheet.yaml", out=folder / "store")
    return folder / "store"


@pytest.fixture
def store(digits: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(digits, tmp_path / "store"))


def failed(out: Path, severity: str = "critical") -> set[str]:
    entries = read_json(out / "expectations.json")["expectations"]
    return {entry["name"] for entry in entries if not entry["passed"] and entry["severity"] == severity}


def change_manifest(store: Path, change: Callable[[pd.DataFrame], pd.DataFrame | None]) -> None:
    frame = pd.read_parquet(store / "manifest.parquet")
    changed = change(frame)
    (frame if changed is None else changed).to_parquet(store / "manifest.parquet", index=False)


def change_array(store: Path, kind: str, change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any] | None]) -> None:
    values = np.load(store / f"{kind}-00000.npy")
    changed = change(values)
    np.save(store / f"{kind}-00000.npy", values if changed is None else changed)


def put(values: Any, where: Any, value: Any) -> None:
    values[where] = value


def put_field(row: int, column: str, value: Any) -> Callable[[Path], None]:
    def spoil(store: Path) -> None:
        change_manifest(store, lambda frame: put(frame.loc, (row, column), value))

    return spoil


def put_array(kind: str, where: Any, value: Any) -> Callable[[Path], None]:
    def spoil(store: Path) -> None:
        change_array(store, kind, lambda values: put(values, where, value))

    return spoil


def across_splits(store: Path) -> None:
    """Give a held-out image the pixels of a training image."""
    split = pd.read_parquet(store / "manifest.parquet")["split"]
    source, target = split.eq("train").idxmax(), split.eq("heldout").idxmax()
    change_array(store, "images", lambda images: put(images, target, images[source]))


def within_split(store: Path) -> None:
    rows = np.flatnonzero(pd.read_parquet(store / "manifest.parquet")["split"].eq("train"))
    change_array(store, "images", lambda images: put(images, rows[0], images[rows[1]]))


def move_class(store: Path) -> None:
    """Call nearly all fours fives, in the manifest and beside the pixels."""
    frame = pd.read_parquet(store / "manifest.parquet")
    rows = np.flatnonzero(frame["label"].eq(4))[:-5]
    change_array(store, "labels", lambda labels: put(labels, rows, 5))
    change_manifest(store, lambda table: table.assign(label=frame["label"].where(~frame.index.isin(rows), 5)))


def all_one_split(store: Path) -> None:
    change_array(store, "split", lambda codes: np.where(codes == 2, 0, codes).astype(np.uint8))
    change_manifest(store, lambda frame: frame.assign(split=frame["split"].replace("heldout", "train")))


def other_split(store: Path) -> None:
    change_array(store, "split", lambda codes: put(codes, 0, (codes[0] + 1) % 3))


def shorter_manifest(store: Path) -> None:
    change_manifest(store, lambda frame: frame.iloc[:-1])


def near(other_side: bool) -> Callable[[Path], None]:
    """Say of half of the images that they are near duplicates: of one on their own side, or of one on another."""

    def spoil(store: Path) -> None:
        frame = pd.read_parquet(store / "manifest.parquet")
        of = frame[frame["split"] == "train"]["source"].iloc[0]
        rows = frame[(frame["split"] == "train") != other_side]["source"].iloc[1:]
        rows.to_frame().assign(near=of).to_csv(store / "near_duplicates.csv", index=False)

    return spoil


def groups(across: bool) -> Callable[[Path], None]:
    """Give the images groups: one a split, or one over all."""

    def spoil(store: Path) -> None:
        change_manifest(store, lambda frame: frame.assign(group="one" if across else "of " + frame["split"]))
        info = json.loads((store / "dataset.json").read_text())
        (store / "dataset.json").write_text(json.dumps({**info, "grouped": True}))

    return spoil


def blur(store: Path) -> None:
    """All pictures flat but for a slope: no edge is left."""
    slope = np.add.outer(np.arange(8) * 20, np.arange(8) * 8).astype(np.uint8)[None, :, :, None]
    change_array(
        store, "images", lambda images: (slope + np.arange(len(images))[:, None, None, None] % 40).astype("u1")
    )


def no_rows(store: Path) -> None:
    """An empty store: Great Expectations alone lets every column expectation on an empty table pass."""
    change_manifest(store, lambda frame: frame.iloc[:0])
    for kind in ("images", "labels", "split"):
        change_array(store, kind, lambda values: values[:0])
    info = json.loads((store / "dataset.json").read_text())
    info["counts"]["kept"] = 0
    (store / "dataset.json").write_text(json.dumps(info))


DEFECTS: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "a constant image": (put_array("images", 3, 77), {"not_constant"}),
    "a black data set": (
        lambda store: change_array(store, "images", lambda images: images // 16),
        {"exposure", "not_constant", "brightness"},
    ),
    "near-constant images": (
        lambda store: change_array(store, "images", lambda images: images // 60 + 100),
        {"not_constant", "contrast"},
    ),
    "blurred images": (blur, {"sharpness", "pictures_distinct", "splits_disjoint"}),
    "a near duplicate on another side": (near(True), {"near_splits"}),
    "a group on two sides": (groups(True), {"groups_disjoint"}),
    "other classes than declared": (declare(classes=["0", "1"]), {"declared_classes"}),
    "fewer images than declared": (declare(images={"min": "1798"}), {"declared_images"}),
    "wider files than declared": (declare(width={"max": "7"}), {"declared_width"}),
    "an undeclared value": (declare(attributes={"ink": {"values": ["light", "heavy"]}}), {"ink_declared"}),
    "words where numbers are declared": (declare(attributes={"ink": {"min": "0"}}), {"ink_declared"}),
    "a declared attribute that is missing": (declare(attributes={"age": {"min": "0", "max": "9"}}), {"age_declared"}),
    "a picture in two splits": (across_splits, {"splits_disjoint", "pictures_distinct"}),
    "a picture twice in a split": (within_split, {"pictures_distinct"}),
    "a column is missing": (
        lambda store: change_manifest(store, lambda frame: frame.drop(columns="slant")),
        {"schema", "complete", "slant_known"},
    ),
    "a column too many": (lambda store: change_manifest(store, lambda frame: frame.assign(extra=1)), {"schema"}),
    "an empty field": (put_field(5, "sha256", None), {"complete"}),
    "no hash": (put_field(5, "sha256", "0123"), {"hashes"}),
    "an unknown bin": (put_field(5, "ink", "purple"), {"ink_known"}),
    "an unknown class": (put_field(5, "class", "eleven"), {"classes_known"}),
    "another label in the manifest": (put_field(0, "label", 9), {"labels_stored"}),
    "a label outside the classes": (put_field(0, "label", 10), {"labels_stored", "labels_known"}),
    "another split in the manifest": (other_split, {"splits_stored"}),
    "a file narrower than the store": (put_field(5, "width", 7), {"widths"}),
    "a class all but gone": (move_class, {"class_counts", "class_balance"}),
    "no held-out images": (all_one_split, {"split_shares", "class_counts"}),
    "a manifest shorter than the store": (shorter_manifest, {"complete", "labels_stored", "splits_stored"}),
    "nothing at all": (no_rows, set()),
}


def agree(store: Path, out: Path) -> None:
    """The rows that the report shows are those that Great Expectations counted."""
    frames, found = read_frames(store), read_json(out / "expectations.json")["expectations"]
    for check, entry in zip(checks(CONFIG, frames), found, strict=True):
        if not entry["passed"] and "rows break it" in entry["found"]:
            rows = breaking(getattr(frames, entry["table"]), check.expectation)
            assert entry["found"].startswith(f"{rows.sum():,} of {len(rows):,} rows break it") and rows.any()


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_fails_the_expectation_meant_for_it(store: Path, tmp_path: Path, defect: str) -> None:
    spoil, expected = DEFECTS[defect]
    spoil(store)
    with pytest.raises(ValueError, match="expectations failed: "):
        run(CONFIG, images=store, out=tmp_path / "out")
    red = failed(tmp_path / "out")
    assert red == expected or (defect == "nothing at all" and len(red) == 28 - len({"split_shares", "near_duplicates"}))
    agree(store, tmp_path / "out")
    names = ["expectations.json", "profile.json", "report.html"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert "pictures that " in (tmp_path / "out" / "report.html").read_text() or expected <= WITHOUT_PICTURES


WITHOUT_PICTURES = {"schema", "complete", "slant_known", "declared_classes", "declared_images", "age_declared"}


def test_what_holds_of_groups_and_declared_schemas_passes(store: Path, tmp_path: Path) -> None:
    groups(False)(store)
    near(False)(store)
    declare(
        images={"min": "1797", "max": "1797"}, classes=list("0123456789"), width={"min": "8", "max": "8"},
        attributes={"ink": {"values": ["light", "medium", "heavy"]}},
    )(store)  # fmt: skip
    summary = run(CONFIG, images=store, out=tmp_path / "out")
    assert summary.results["warnings"] == ["near_duplicates"]
    assert summary.results["expectations"] == 28 + 1 + 4
    text = (tmp_path / "out" / "report.html").read_text()
    assert "What warns" in text and "What failed" not in text
    assert "SHA-256 of its group's name" in text and "groups: 1 in train, 1 in fit, 1 in heldout" in text
    assert "<td>internal, research, commercial, publication</td>" in text
    assert "width: (min: 8; max: 8); attributes: (ink: (values: light, medium, heavy))" in text


def test_warnings_are_those_that_the_settings_name(store: Path, tmp_path: Path) -> None:
    put_array("images", 3, 77)(store)
    only_warns = dataclasses.replace(CONFIG, warn=("pictures",))
    assert run(only_warns, images=store, out=tmp_path / "out").results["warnings"] == ["not_constant"]
    assert failed(tmp_path / "out") == set()
    assert failed(tmp_path / "out", "warning") == {"not_constant"}
    with pytest.raises(ValueError, match=r"validate\.warn names 'not_constnt'.*did you mean `not_constant`"):
        run(dataclasses.replace(CONFIG, warn=("not_constnt",)), images=store, out=tmp_path / "out")


def test_a_suite_without_expectations_is_no_success(digits: Path) -> None:
    with pytest.raises(ValueError, match="unchecked data never pass"):
        run_checks(read_frames(digits), [], {}, pd.DataFrame())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"min_images": 1798}, "row_count"),
        ({"min_images_per_class": 40}, "class_counts"),
        ({"min_class_balance": 0.99}, "class_balance"),
        ({"max_split_deviation": 0.01}, "split_shares"),
        ({"min_level_range": 255}, "not_constant"),
        ({"min_mean_level": 100.0}, "exposure"),
        ({"max_mean_level": 50.0}, "exposure"),
        ({"limits": limit("aspect", max=0.9)}, "aspect"),
        ({"limits": limit("width", min=9.0)}, "width"),
        ({"limits": limit("height", max=7.0)}, "height"),
        ({"limits": limit("brightness", max=70.0, mostly=0.9)}, "brightness"),
        ({"limits": limit("contrast", min=90.0, mostly=0.9)}, "contrast"),
        ({"limits": limit("sharpness", min=300.0)}, "sharpness"),
    ],
)
def test_every_setting_has_an_effect(digits: Path, tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        run(dataclasses.replace(CONFIG, **changes), images=digits, out=tmp_path / "out")
    assert failed(tmp_path / "out") == {expected}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"min": None, "max": None}, "must be a number, or the limit does nothing"),
        ({"min": 3.0, "max": 2.0}, "must be at most max; received 3 and 2"),
        ({"measure": "beauty"}, "must be one of width, height"),
    ],
)
def test_limits_that_say_nothing_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(Limits, {"measure": "aspect", "min": 1, "max": None, "mostly": 1, **changes}, "validate.limits[0]")
    with pytest.raises(ValueError, match="limits must name each measure once"):
        dataclasses.replace(CONFIG, limits=CONFIG.limits[:1] * 2)


def test_the_digits_pass_offline_and_the_same_bytes_come_out_twice(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("validation reaches for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    summary = run(CONFIG, images=digits, out=tmp_path / "a")
    run(CONFIG, images=digits, out=tmp_path / "b")
    assert tree_digests(tmp_path / "a") == tree_digests(tmp_path / "b")
    data_hash = read_json(digits / "dataset.json")["data_hash"]
    assert json.loads((tmp_path / "a" / "passed.json").read_text()) == {
        "format": 1,
        "data_hash": data_hash,
        "passed": True,
    }
    assert summary.results["expectations"] == len(read_json(tmp_path / "a" / "expectations.json")["expectations"]) > 15


class _Page(html.parser.HTMLParser):
    """Collects the tags of a page, and whatever makes a browser load something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "onerror")]


def test_the_report_is_one_page_that_loads_nothing_and_trusts_no_name(store: Path, tmp_path: Path) -> None:
    put_field(5, "class", "</td><script>alert(1)</script>")(store)
    with pytest.raises(ValueError, match="classes_known"):
        run(CONFIG, images=store, out=tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    page = _Page()
    page.feed(text)
    assert "script" not in page.tags and "link" not in page.tags
    assert len(page.loads) == 11 and all(load.startswith("data:image/png;base64,") for load in page.loads)
    assert not re.search(r"url\(|@import", text)
    assert "&lt;script&gt;alert(1)" in text and "&lt;img src=x onerror" in text and "digits &lt;b&gt;&amp;" in text
    assert str(tmp_path) not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; apt-get install chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_pictures_and_asks_nobody(store: Path, tmp_path: Path, width: int) -> None:
    put_array("images", 3, 77)(store)
    near(False)(store)
    with pytest.raises(ValueError, match="not_constant"):
        run(CONFIG, images=store, out=tmp_path / "out")
    with tab(tmp_path / "browser") as page:
        page.shape(width, 900)
        page.open(tmp_path / "out" / "report.html")
        assert page.requests == [(tmp_path / "out" / "report.html").as_uri()] and not page.faults
        shown = page.run("[...document.images].map(one => one.naturalWidth > 0 && one.width > 0)")
        assert len(shown) == 12 and all(shown)
        assert page.run("document.body.scrollWidth") <= width, "nothing is wider than the window"
        assert page.run("document.body.scrollHeight") < 12_000, "no column is squeezed to a letter a line"
        headings = page.run("[...document.querySelectorAll('h2')].map(one => one.textContent)")
        assert headings[:2] == ["What failed", "What warns"]


def test_a_red_run_takes_an_earlier_permission_away(digits: Path, store: Path, tmp_path: Path) -> None:
    run(CONFIG, images=digits, out=tmp_path / "out")
    assert (tmp_path / "out" / "passed.json").exists()
    put_array("images", 3, 77)(store)
    with pytest.raises(ValueError, match="1 of 28 expectations failed: not_constant"):
        run(CONFIG, images=store, out=tmp_path / "out")
    assert not (tmp_path / "out" / "passed.json").exists()
    assert not (tmp_path / "out" / "summary.json").exists()
    assert "What failed" in (tmp_path / "out" / "report.html").read_text()


def test_the_command_ends_with_one_sentence(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_array("images", 3, 77)(store)
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump({"validate": dataclasses.asdict(CONFIG)}))
    arguments = ["--images", str(store), "--params", str(params), "--out", str(tmp_path / "out")]
    assert main("validate", ValidateConfig, run, inputs={"images": ""}, argv=arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("validate: 1 of 28 expectations failed: not_constant; first: brightest less darkest")
    assert said.err.strip().endswith(f"see {tmp_path / 'out' / 'report.html'}")
