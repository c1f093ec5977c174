"""Groups from folders: the folder of a person is never divided between splits, whatever class it lies in."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stages.common.files import read_json, tree_digests
from stages.ingest.sources import folder, manifest
from stages.validate import run as validate
from tests.stages.ingesting import Result, from_scratch, ingest, labels, png, tarred, zipped
from tests.stages.validating import CONFIG

pytestmark = pytest.mark.fast
GROUPED = folder.Config(name="folder", labels="folders", groups="folders")
UNLABELLED = folder.Config(name="folder", labels="none", groups="folders")


def people(count: int = 12) -> dict[str, bytes]:
    """Five pictures each, in two classes, some deeper than others."""
    return {
        f"{kind}/p{person:02d}/{'later/' * (at > 2)}{at}.png": png(1000 * person + 10 * at + len(kind))
        for kind in ("ill", "healthy") for person in range(count) for at in range(5)
    }  # fmt: skip


def laid(raw: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(content)
    return raw


def groups(result: Result) -> dict[str, str]:
    return {row["source"]: row["group"] for row in result.rows}


def sides(result: Result) -> dict[str, set[str]]:
    """Splits of each group."""
    found: dict[str, set[str]] = {}
    for row in result.rows:
        found.setdefault(row["group"], set()).add(row["split"])
    return found


def test_the_folder_below_the_class_is_the_group_in_all_classes(tmp_path: Path) -> None:
    files = people()
    result = ingest(laid(tmp_path / "raw", files), source=GROUPED)
    assert labels(result) == {name: name.split("/")[0] for name in files}
    assert groups(result) == {name: name.split("/")[1] for name in files} and result.info["grouped"]
    assert len(sides(result)) == 12 and all(len(where) == 1 for where in sides(result).values())
    assert len(set.union(*sides(result).values())) == 3
    without = ingest(tmp_path / "raw", "without", source=folder.Config(name="folder", labels="folders", groups="none"))
    assert "group" not in without.rows[0] and not without.info["grouped"]
    assert {row["sha256"] for row in without.rows} == {row["sha256"] for row in result.rows}


def test_without_labels_the_first_folder_is_the_group(tmp_path: Path) -> None:
    files = {name.partition("/")[2]: content for name, content in people().items() if name.startswith("ill/")}
    result = ingest(laid(tmp_path / "raw", files), source=UNLABELLED)
    assert groups(result) == {name: name.split("/")[0] for name in files}
    assert all(len(where) == 1 for where in sides(result).values())


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives_of_folders_give_the_same_groups(tmp_path: Path, kind: str) -> None:
    def packed(files: dict[str, bytes]) -> bytes:
        return zipped(files) if kind == "zip" else tarred(files, "w:gz" if kind == "tar.gz" else "w")

    files = people()
    plain = ingest(laid(tmp_path / "plain" / "raw", files), source=GROUPED)
    ill = {name.partition("/")[2]: content for name, content in files.items() if name.startswith("ill/")}
    healthy = {name: content for name, content in files.items() if name.startswith("healthy/")}
    raw = laid(tmp_path / "raw", {f"ill/all.{kind}": packed(ill), f"more.{kind}": packed(healthy)})
    result = ingest(raw, source=GROUPED)
    assert {(row["sha256"], row["group"], row["split"], row["class"]) for row in result.rows} == {
        (row["sha256"], row["group"], row["split"], row["class"]) for row in plain.rows
    }


def test_a_manifest_that_names_the_same_groups_gives_the_same_splits(tmp_path: Path) -> None:
    files = people()
    result = ingest(laid(tmp_path / "raw", files), source=GROUPED)
    (tmp_path / "raw" / "list.csv").write_text("file,who\n" + "".join(f"{n},{n.split('/')[1]}\n" for n in files))
    settings: Any = {"file": "list.csv", "images": ".", "path": "file", "label": None, "group": "who"}
    table = manifest.Config(name="manifest", attributes=(), unlisted="refuse", **settings)
    told = ingest(tmp_path / "raw", "told", source=table)
    assert {row["source"]: row["split"] for row in told.rows} == {row["source"]: row["split"] for row in result.rows}


@pytest.mark.parametrize("source", [GROUPED, UNLABELLED], ids=["labels", "no labels"])
def test_an_image_in_no_group_is_refused(tmp_path: Path, source: folder.Config) -> None:
    files = people(3)
    loose = ["ill/loose.png", "healthy/day.zip/1.png"] if source is GROUPED else ["loose.png", "day.zip/1.png"]
    for at, name in enumerate(loose):
        archive, _, member = name.partition(".zip/")
        files[f"{archive}.zip" if member else name] = zipped({member: png(at)}) if member else png(at)
    result = ingest(laid(tmp_path / "raw", files), source=source)
    assert set(result.refused) == set(loose)
    assert set(result.refused.values()) == {
        "no group: lies beside the group folders (ingest.source.groups), not in one"
    }


def test_where_no_image_lies_in_a_group_that_is_told(tmp_path: Path) -> None:
    raw = laid(
        tmp_path / "raw", {f"{kind}/{at}.png": png(at + len(kind)) for kind in ("ill", "healthy") for at in (1,)}
    )
    with pytest.raises(
        ValueError, match=r"none is left: 2 x no group, such as 'healthy/1.png' \(no group: lies beside"
    ):
        ingest(raw, source=GROUPED)


def test_a_class_of_which_no_image_has_a_group_is_named(tmp_path: Path) -> None:
    raw = laid(tmp_path / "raw", people(3) | {"all.zip": zipped({"rare/1.png": png(1)})})
    with pytest.raises(ValueError, match="no image of class 'rare' could be kept"):
        ingest(raw, source=GROUPED)


def test_accents_are_one_name_however_they_are_written(tmp_path: Path) -> None:
    """Archives made on other systems write them in two characters."""
    files = {"ill/Ren\N{LATIN SMALL LETTER E WITH ACUTE}/1.png": png(1)}
    files["healthy/more.zip"] = zipped({"Rene\N{COMBINING ACUTE ACCENT}/1.png": png(2)})
    result = ingest(laid(tmp_path / "raw", files), source=GROUPED)
    assert set(groups(result).values()) == {"Ren\N{LATIN SMALL LETTER E WITH ACUTE}"}


@pytest.mark.parametrize("source", [GROUPED, UNLABELLED], ids=["labels", "no labels"])
def test_folders_of_splits_are_no_groups(tmp_path: Path, source: folder.Config) -> None:
    above = ("ill/", "healthy/") if source is GROUPED else ("",)
    files = {f"{one}{side}/{at}.png": png(at) for one in above for at, side in enumerate(("train", "Test"))}
    with pytest.raises(
        ValueError, match=r"the group folders of .* are called Test, train, which are splits; .*by cont"
    ):
        ingest(laid(tmp_path / "raw", files), source=source)


def test_a_store_that_grew_is_the_one_from_scratch_and_nobody_changed_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = people()
    first = ingest(laid(tmp_path / "raw", people(8)), source=GROUPED)
    before = sides(first)
    again = ingest(laid(tmp_path / "raw", files), source=GROUPED)
    assert again.counts["kept"] == 120 and before.items() <= sides(again).items()
    assert tree_digests(again.path) == from_scratch(tmp_path / "raw", monkeypatch, source=GROUPED)


def test_a_group_on_two_sides_fails_validation(tmp_path: Path) -> None:
    result = ingest(laid(tmp_path / "raw", people(40)), source=GROUPED)
    limits: dict[str, Any] = {"min_images": 400, "limits": (), "min_level_range": 1}
    settings = type(CONFIG)(**{**vars(CONFIG), **limits, "warn": ("near_splits", "near_duplicates", "drift")})
    validate(settings, images=result.path, out=tmp_path / "out")
    found = {one["name"]: one["passed"] for one in read_json(tmp_path / "out" / "expectations.json")["expectations"]}
    assert found["groups_disjoint"]
    table = pd.read_parquet(result.path / "manifest.parquet")
    table.loc[table["class"] == "ill", "group"] = table["group"].iloc[0]
    table.to_parquet(result.path / "manifest.parquet", index=False)
    with pytest.raises(ValueError, match="expectations failed: groups_disjoint"):
        validate(settings, images=result.path, out=tmp_path / "out")
