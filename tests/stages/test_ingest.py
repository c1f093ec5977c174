"""The store that ingest writes: pixels, labels, splits, duplicates, shards, and the same bytes every time."""

import csv
import dataclasses
import hashlib
import os
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from gan.attributes import bins, measure
from stages.common.files import read_json, tree_digests
from stages.common.summary import Summary
from stages.config.ingest import IngestConfig, Splits
from stages.ingest import _again, _tree, run
from stages.ingest._copies import split_of
from stages.ingest._write import shard_ends
from stages.ingest.sources import folder
from stages.store import SPLITS, open_store
from tests.stages import ingesting
from tests.stages.ingesting import SHEET

pytestmark = pytest.mark.fast

CONFIG = ingesting.config(source=folder.Config(name="folder", labels="folders", groups="none"), max_refused_share=0.05)


def config(**changes: Any) -> IngestConfig:
    return dataclasses.replace(CONFIG, **changes)


def picture(seed: int, size: tuple[int, int] = (8, 8), channels: int = 1) -> Image.Image:
    """A random PNG picture; `size` is (width, height)."""
    shape = (size[1], size[0]) if channels == 1 else (size[1], size[0], channels)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two classes of 40 pictures."""
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "raw" / name).mkdir(parents=True)
        for index in range(40):
            picture(100 * label + index).save(tmp_path / "raw" / name / f"{index:02d}.png")
    (tmp_path / "sheet.yaml").write_text(SHEET)
    return tmp_path / "raw"


def ingest(raw: Path, out: str = "store", **changes: Any) -> tuple[Summary, Path]:
    target = raw.parent / out
    return run(config(**changes), raw=raw, datasheet=raw.parent / "sheet.yaml", out=target), target


@pytest.mark.parametrize("out", ["raw", "raw/store", "."])
def test_store_and_raw_data_do_not_lie_in_one_another(raw: Path, out: str) -> None:
    """The next run took the store for raw data; where it was to hold them, they were deleted."""
    before = tree_digests(raw)
    with pytest.raises(ValueError, match="lies inside the other; write the store to a folder of its own"):
        ingest(raw, out)
    assert tree_digests(raw) == before


def test_files_from_the_future_are_found_again(
    raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were read and hashed anew by every run: a clock that was wrong once, or time zones in an archive."""
    for path in raw.rglob("*.png"):
        os.utime(path, (time.time() + 36_000,) * 2)
    monkeypatch.setattr(_again, "_SETTLED_NS", 10**8)
    time.sleep(0.15)
    _, store = ingest(raw)
    ingest(raw)
    assert "nothing changed" in capsys.readouterr().err
    monkeypatch.setattr(_tree, "read", None)  # no content is read
    assert tree_digests(ingest(raw, "other")[1]) == tree_digests(store)


def manifest(store: Path) -> list[dict[str, Any]]:
    return pq.read_table(store / "manifest.parquet").to_pylist()


def pairs(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row[:2] for row in csv.reader(file)][1:]


def stored(path: Path) -> tuple[list[NDArray[np.uint8]], list[int], list[str]]:
    """All images, labels and split names in store order."""
    store = open_store(path)
    total = sum(len(split) for split in store.splits.values())
    images, labels, sides = {}, {}, {}
    for name, split in store.splits.items():
        for place, row in enumerate(split.rows):
            images[row], labels[row], sides[row] = split.take(np.array([place]))[0], split.labels[place], name
    return [images[i] for i in range(total)], [labels[i] for i in range(total)], [sides[i] for i in range(total)]


def test_store_and_manifest_say_the_same_as_the_files(raw: Path) -> None:
    summary, out = ingest(raw)
    rows = manifest(out)
    assert [row["source"] for row in rows] == [f"{name}/{i:02d}.png" for name in ("cat", "dog") for i in range(40)]
    images, labels, sides = stored(out)
    for row, image, label, side in zip(rows, images, labels, sides, strict=True):
        content = (raw / row["source"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
        assert (row["label"], row["class"]) == (label, row["source"].split("/")[0])
        assert label == ("cat", "dog").index(row["class"])
        assert row["split"] == side
        np.testing.assert_array_equal(image[..., 0], np.asarray(Image.open(raw / row["source"])))
        for name, index in measure(image[None]).items():
            assert row[name] == bins(1)[name][index[0]]
    info = read_json(out / "dataset.json")
    assert info["counts"] == {"read": 80, "kept": 80, "duplicates": 0, "refused": 0, **Counter(sides)}
    assert (info["classes"], info["resolution"], info["channels"]) == (["cat", "dog"], 8, 1)
    assert info["datasheet"]["licence"] == "CC0"
    assert summary.results["data_hash"] == info["data_hash"]


def test_a_second_run_writes_the_same_bytes(raw: Path) -> None:
    _, first = ingest(raw, "a")
    for path in sorted(raw.rglob("*.png"), reverse=True):  # other times, other order in the folder
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    _, second = ingest(raw, "b")
    assert tree_digests(first) == tree_digests(second)


def digests(texts: list[str]) -> NDArray[np.void]:
    return np.frombuffer(bytes.fromhex("".join(texts)), "V32")


def test_split_is_a_pure_function_of_the_content_hash() -> None:
    splits = Splits(train=0.5, fit=0.3, heldout=0.2)
    for start, side in (
        ("0", "train"),
        ("7ff", "train"),
        ("8", "fit"),
        ("cccc", "fit"),
        ("cccd", "heldout"),
        ("f", "heldout"),
    ):
        assert SPLITS[split_of(digests([start.ljust(64, "0")]), splits)[0]] == side
    hashes = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(4000)]
    shares = np.bincount(split_of(digests(hashes), splits)) / 4000
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=4 * (0.25 / 4000) ** 0.5)


def test_no_image_changes_sides_when_others_come_and_go(raw: Path) -> None:
    _, out = ingest(raw, "a")
    before = {row["sha256"]: row["split"] for row in manifest(out)}
    for index in range(0, 40, 3):
        (raw / "cat" / f"{index:02d}.png").unlink()
    (raw / "bird").mkdir()
    for index in range(30):
        picture(5000 + index).save(raw / "bird" / f"{index}.png")
    _, out = ingest(raw, "b")
    after = {row["sha256"]: row["split"] for row in manifest(out)}
    common = before.keys() & after.keys()
    assert len(common) == 80 - 14
    assert all(before[sha] == after[sha] for sha in common)


def cuts(hashes: list[str]) -> set[str]:
    """The hashes that end a shard."""
    return {hashes[end - 1] for end in shard_ends(digests(hashes), 64)}


def test_appending_leaves_most_shards_alone() -> None:
    hashes = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(5000)]
    sizes = np.diff([0, *shard_ends(digests(hashes), 64)])
    assert sizes[:-1].min() >= 16 and sizes.max() <= 256 and 40 < sizes.mean() < 120
    assert cuts(hashes) - {hashes[-1]} <= cuts([*hashes, *(h[::-1] for h in hashes[:100])])
    inserted = hashes[:1000] + [h[::-1] for h in hashes[:37]] + hashes[1000:]
    assert len(cuts(hashes) - cuts(inserted)) <= 3


def test_shards_before_an_appended_image_keep_their_bytes(raw: Path) -> None:
    _, out = ingest(raw, "a")
    before = tree_digests(out)
    picture(9999).save(raw / "dog" / "zz.png")
    _, out = ingest(raw, "b")
    after = tree_digests(out)
    shards = sorted(name for name in before if name.startswith(("images", "labels", "split")))
    assert len(shards) >= 6
    assert [name for name in shards if before[name] != after[name]] == [
        name for name in shards if name.split("-")[1] == shards[-1].split("-")[1]
    ]


def test_exact_duplicates_are_removed_whether_bytes_or_pixels_agree(raw: Path) -> None:
    (raw / "cat" / "copy.png").write_bytes((raw / "cat" / "05.png").read_bytes())
    Image.open(raw / "cat" / "07.png").save(raw / "cat" / "again.png", compress_level=0)
    _, out = ingest(raw)
    counts = read_json(out / "dataset.json")["counts"]
    assert (counts["read"], counts["kept"], counts["duplicates"]) == (82, 80, 2)
    copies = pairs(out / "duplicates.csv")
    assert ["cat/copy.png", "cat/05.png"] in copies
    assert {"cat/07.png", "cat/again.png"} in [set(pair) for pair in copies]


def test_of_equal_pictures_on_two_sides_the_one_further_from_training_stays(raw: Path) -> None:
    for index in range(40):
        Image.open(raw / "cat" / f"{index:02d}.png").save(raw / "cat" / f"z{index:02d}.png", compress_level=0)
    sides = {}
    for path in (raw / "cat").iterdir():
        sides[path.name] = split_of(digests([hashlib.sha256(path.read_bytes()).hexdigest()]), CONFIG.splits)[0]
    _, out = ingest(raw)
    kept = {row["source"] for row in manifest(out)}
    straddling = 0
    for index in range(40):
        first, second = f"{index:02d}.png", f"z{index:02d}.png"
        straddling += sides[first] != sides[second]
        wanted = second if sides[second] > sides[first] else first
        assert f"cat/{wanted}" in kept
    assert straddling > 5
    assert len(kept) == 80


def test_the_same_picture_in_two_classes_is_refused_in_both(raw: Path) -> None:
    (raw / "dog" / "x.png").write_bytes((raw / "cat" / "03.png").read_bytes())
    _, out = ingest(raw)
    refused = dict(pairs(out / "quarantine.csv"))
    assert set(refused) == {"cat/03.png", "dog/x.png"}
    assert "dog/x.png" in refused["cat/03.png"] and "cat/03.png" in refused["dog/x.png"]


def test_without_labels(raw: Path) -> None:
    picture(7777).save(raw / "loose.png")
    _, out = ingest(raw, source=folder.Config(name="folder", labels="none", groups="none"))
    info = read_json(out / "dataset.json")
    assert info["classes"] == [] and info["counts"]["kept"] == 81
    assert set(stored(out)[1]) == {-1}
    assert {row["class"] for row in manifest(out)} == {""}


def test_mixed_sizes_are_cropped_and_scaled_and_the_right_size_is_untouched(raw: Path) -> None:
    wide = np.full((16, 40), 10, np.uint8)
    wide[:, 12:28] = 200  # exactly the central square
    Image.fromarray(wide).save(raw / "cat" / "wide.png")
    Image.fromarray(np.where(wide == 200, 150, 10).astype(np.uint8).T).save(raw / "dog" / "high.jpg", quality=100)
    _, out = ingest(raw, resolution=8)
    rows = {row["source"]: (row, image) for row, image in zip(manifest(out), stored(out)[0], strict=True)}
    row, image = rows["cat/wide.png"]
    assert (row["width"], row["height"]) == (40, 16)
    assert set(np.unique(image)) == {200}
    row, image = rows["dog/high.jpg"]
    assert (row["width"], row["height"]) == (16, 40)
    assert abs(image.astype(int) - 150).max() <= 3


def test_colour_store_repeats_grey_and_keeps_colour(raw: Path) -> None:
    picture(1, channels=3).save(raw / "cat" / "colour.png")
    _, out = ingest(raw, channels=3)
    rows = {row["source"]: image for row, image in zip(manifest(out), stored(out)[0], strict=True)}
    np.testing.assert_array_equal(rows["cat/colour.png"], np.asarray(Image.open(raw / "cat" / "colour.png")))
    np.testing.assert_array_equal(rows["cat/00.png"], np.asarray(Image.open(raw / "cat" / "00.png").convert("RGB")))
    assert list(read_json(out / "dataset.json")["attributes"]) == ["brightness", "saturation"]


def test_photographs_stand_upright(raw: Path) -> None:
    pixels = np.zeros((16, 32), np.uint8)
    pixels[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save(raw / "cat" / "photo.jpg", quality=95, exif=exif)
    _, out = ingest(raw)
    rows = {row["source"]: (row, image) for row, image in zip(manifest(out), stored(out)[0], strict=True)}
    row, image = rows["cat/photo.jpg"]
    assert (row["width"], row["height"]) == (16, 32)
    assert image[:3].min() > 200 and image[-3:].max() < 50  # left half has become the upper half


def test_any_file_name_works(raw: Path) -> None:
    odd = ["a b.png", "new\nline.png", 'quo"te, comma.png', "größe-图.png", "=1+1.png", "-rf.png"]
    for place, name in enumerate(odd):
        picture(800 + place).save(raw / "cat" / name)
    broken = os.fsdecode(b"bytes-\xff\xfe.png")
    picture(900).save(raw / "cat" / "plain.png")
    (raw / "cat" / "plain.png").rename(raw / "cat" / broken)
    (raw / "dog" / "bad\n,name.png").write_text("no image")
    _, out = ingest(raw)
    sources = {row["source"] for row in manifest(out)}
    assert {f"cat/{name}" for name in odd} <= sources
    assert "cat/bytes-\\xff\\xfe.png" in sources
    assert [source for source, _ in pairs(out / "quarantine.csv")] == ["dog/bad\n,name.png"]


def test_a_class_may_have_any_name_and_hidden_files_are_no_files(raw: Path) -> None:
    (raw / "cat").rename(raw / "crème brûlée\n2")
    for name in (".gitkeep", ".gitignore", "dog/.DS_Store", "dog/.hidden.png"):
        (raw / name).write_text("not for you")
    (raw / ".cache").mkdir()
    (raw / ".cache" / "thing.png").write_text("not for you")
    _, out = ingest(raw)
    info = read_json(out / "dataset.json")
    assert info["classes"] == ["crème brûlée\n2", "dog"]
    assert (info["counts"]["read"], info["counts"]["refused"]) == (80, 0)


def test_what_was_there_stays_when_ingest_fails(raw: Path) -> None:
    _, out = ingest(raw)
    before = tree_digests(out)
    for index in range(20):
        (raw / "cat" / f"bad{index}.png").write_text("text")
    said = r"20 of 100 files .* are refused \(20.0%\), more than ingest.max_refused_share .* are listed in (\S+);"
    with pytest.raises(ValueError, match=said) as raised:
        ingest(raw)
    told = Path(re.search(said, str(raised.value))[1])
    assert len(told.read_text().splitlines()) == 21 and "near_duplicates" not in str(raised.value)
    assert tree_digests(out) == before
    assert sorted(path.name for path in Path(out).parent.iterdir()) == ["raw", "sheet.yaml", "store"]
    for path in (raw / "cat").glob("bad*"):
        path.unlink()
    ingest(raw)
    assert not told.exists(), "what no longer is so is not told"
