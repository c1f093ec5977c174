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
from PIL import Image

from infra.digits import write_digits
from stages.common.command import main
from stages.common.files import read_json, tree_digests
from stages.config.ingest import IngestConfig, Splits
from stages.config.validate import ValidateConfig
from stages.ingest import run as ingest
from stages.validate import run

CONFIG = ValidateConfig(
    min_images=1000, min_images_per_class=10, min_class_balance=0.5, max_split_deviation=5.0, min_level_range=16,
    min_mean_level=10.0, max_mean_level=245.0,
)  # fmt: skip
INGEST = IngestConfig(
    source="folder", labels="folders", resolution=8, channels=1, splits=Splits(train=0.55, fit=0.3, heldout=0.15),
    max_refused_share=0.05, max_pixels=10_000_000, shard_images=4096,
)  # fmt: skip
SHEET = "name: digits <b>&\nsource: the tests\nlicence: CC BY 4.0\nlegal_basis: as published\n"


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


def failed(out: Path) -> set[str]:
    return {entry["name"] for entry in read_json(out / "expectations.json")["expectations"] if not entry["passed"]}


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
        {"exposure", "not_constant"},
    ),
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
    "nothing at all": (no_rows, {"row_count", "class_counts", "class_balance", "exposure"}),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_fails_the_expectation_meant_for_it(store: Path, tmp_path: Path, defect: str) -> None:
    spoil, expected = DEFECTS[defect]
    spoil(store)
    with pytest.raises(ValueError, match="expectations failed: "):
        run(CONFIG, images=store, out=tmp_path / "out")
    assert failed(tmp_path / "out") == expected
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["expectations.json", "report.html"]


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
    ],
)
def test_every_setting_has_an_effect(digits: Path, tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        run(dataclasses.replace(CONFIG, **changes), images=digits, out=tmp_path / "out")
    assert failed(tmp_path / "out") == {expected}


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
    assert len(page.loads) == 10 and all(load.startswith("data:image/png;base64,") for load in page.loads)
    assert not re.search(r"url\(|@import", text)
    assert "&lt;script&gt;alert(1)" in text and "&lt;img src=x onerror" in text and "digits &lt;b&gt;&amp;" in text
    assert str(tmp_path) not in text


def test_a_red_run_takes_an_earlier_permission_away(digits: Path, store: Path, tmp_path: Path) -> None:
    run(CONFIG, images=digits, out=tmp_path / "out")
    assert (tmp_path / "out" / "passed.json").exists()
    put_array("images", 3, 77)(store)
    with pytest.raises(ValueError, match="1 of 22 expectations failed: not_constant"):
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
    assert said.err.startswith("validate: 1 of 22 expectations failed: not_constant; first: brightest less darkest")
    assert said.err.strip().endswith(f"see {tmp_path / 'out' / 'report.html'}")


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_without_labels(tmp_path: Path, channels: int) -> None:
    (tmp_path / "raw").mkdir()
    generator = np.random.default_rng(0)
    for index in range(80):
        pixels = generator.integers(0, 256, (20, 16 + index % 3, 3)).astype(np.uint8)
        picture = Image.fromarray(pixels)
        (picture if channels == 3 else picture.convert("L")).save(tmp_path / "raw" / f"{index}.png")
    (tmp_path / "sheet.yaml").write_text(SHEET)
    config = dataclasses.replace(INGEST, labels="none", resolution=16, channels=3 if channels == 3 else 1)
    ingest(config, raw=tmp_path / "raw", datasheet=tmp_path / "sheet.yaml", out=tmp_path / "store")
    limits = dataclasses.replace(CONFIG, min_images=80, min_images_per_class=4)
    run(limits, images=tmp_path / "store", out=tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert "does not apply: the images carry no labels" in text
    assert text.count("data:image/png") >= 2


def test_a_folder_that_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with pytest.raises(ValueError, match="has not finished"):
        run(CONFIG, images=tmp_path / "store", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
