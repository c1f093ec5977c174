"""What cells and fields say: missing ones, bytes, decimals, spaces, whatever the source."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from stages.ingest._sample import in_order
from stages.ingest.sources import arrays, idx, manifest, parquet, webdataset
from tests.stages.ingesting import Result, ingest, labels, noise, png, tarred

pytestmark = pytest.mark.fast
NAN = math.nan


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def listed(raw: Path, columns: dict[str, Any], suffix: str = "parquet", **changes: Any) -> Result:
    """Pictures in files, and what a manifest says of them."""
    count = len(next(iter(columns.values())))
    for at in range(count):
        (raw / f"{at}.png").write_bytes(png(at))
    table = pa.table({"file": [f"{at}.png" for at in range(count)], **columns})
    if suffix == "parquet":
        pq.write_table(table, raw / "list.parquet")
    else:
        lines = [",".join(map(str, row.values())) for row in table.to_pylist()]
        (raw / f"list.{suffix}").write_text("\n".join([",".join(table.column_names), *lines]) + "\n")
    settings = {"name": "manifest", "file": f"list.{suffix}", "images": ".", "path": "file", "label": "kind",
                "group": None, "attributes": (), "unlisted": "refuse"}  # fmt: skip
    return ingest(raw, source=manifest.Config(**(settings | changes)))


def embedded(raw: Path, columns: dict[str, Any], **changes: Any) -> Result:
    """The same in one Parquet file of pictures."""
    count = len(next(iter(columns.values())))
    pq.write_table(pa.table({"image": pa.array([png(at) for at in range(count)]), **columns}), raw / "a.parquet")
    settings = {"name": "parquet", "image": "image", "label": "kind", "group": None, "attributes": ()}
    return ingest(raw, source=parquet.Config(**(settings | changes)))


def idx_file(values: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


BOTH = pytest.mark.parametrize("made", [listed, embedded])


@BOTH
def test_nan_is_no_class_no_group_and_no_value(raw: Path, made: Any) -> None:
    """It was the class 'nan', and one giant group of all whose person is not known."""
    columns = {"kind": [0.0, 1.0, NAN, 10.0, 2.0, 1.0], "who": [1.0, 2.0, 3.0, NAN, NAN, 1.0], "age": [NAN] * 6}
    result = made(raw, columns, group="who", attributes=("age",))
    assert [reason.split(":")[0] for reason in result.refused.values()] == ["no label", "no group", "no group"]
    assert [(row["class"], row["group"], row["age"]) for row in result.rows] == [
        ("0", "1", ""), ("1", "2", ""), ("1", "1", "")
    ]  # fmt: skip


@BOTH
def test_whole_floats_are_numbers_and_in_their_order(raw: Path, made: Any) -> None:
    """pandas writes whole numbers with missing values as floats; as words 10.0 came before 2.0."""
    assert made(raw, {"kind": [10.0, 2.0, 0.0]}).info["classes"] == ["0", "2", "10"]


def test_decimals_are_ordered_by_value() -> None:
    assert in_order(["10", "-1.5", "2.25", "-10"]) == ["-10", "-1.5", "2.25", "10"]
    assert in_order(["10", "9", "x"]) == ["10", "9", "x"]


@BOTH
def test_binary_columns_are_text(raw: Path, made: Any) -> None:
    """Spark and fastparquet write them; the classes were called b'cat' and b'dog'."""
    kinds = pa.array([b"cat", b"dog", "größe".encode(), b"\xff", b"cat"], pa.binary())
    result = made(raw, {"kind": kinds})
    assert result.info["classes"] == ["cat", "dog", "größe"]
    assert list(result.refused.values()) == ["name: a column holds bytes that are not UTF-8 text"]


def test_a_binary_column_of_file_names(raw: Path) -> None:
    names = pa.array([b"0.png", b"1.png", b"\xff.png"], pa.binary())
    result = listed(raw, {"kind": ["a", "b", "b"], "binary": names}, path="binary")
    assert labels(result) == {"0.png": "a", "1.png": "b"}
    assert result.refused == {
        "2.png": "unlisted: list.parquet does not name it",
        "list.parquet": "name: a column holds bytes that are not UTF-8 text",
    }


@BOTH
def test_spaces_around_a_text_are_none_of_it(raw: Path, made: Any) -> None:
    result = made(raw, {"kind": ["cat", "cat ", "dog", "\tdog\n", "  "]})
    assert result.info["classes"] == ["cat", "dog"] and result.counts["kept"] == 4


def test_nan_written_out_in_csv_says_nothing_either(raw: Path) -> None:
    columns = {"kind": ["1", "2", "nan", "2.0", "NaN", "1"], "who": ["p", "p", "p", "q", "q", "nan"]}
    result = listed(raw, columns, "csv", group="who")
    assert labels(result) == {"0.png": "1", "1.png": "2", "3.png": "2"}
    assert sorted(result.refused) == ["2.png", "4.png", "5.png"]


def test_decimals_beside_words_are_two_ways_of_labelling(raw: Path) -> None:
    with pytest.raises(ValueError, match=r"mixes numbers such as '1\.5' and words such as 'cat'"):
        listed(raw, {"kind": ["1.5", "cat", "dog"]}, "csv")


def test_null_and_nan_in_json_are_like_a_missing_field(raw: Path) -> None:
    """A missing one was empty, null was the text 'None', as a value."""
    said = [{"kind": 1.0, "lens": None}, {"kind": 2, "lens": " x "}, {"kind": NAN}, {"kind": None}, {"kind": 1}]
    files: dict[str, bytes] = {}
    for at, fields in enumerate(said):
        files |= {f"{at}.png": png(at), f"{at}.json": json.dumps(fields).encode()}
    (raw / "s.tar").write_bytes(tarred(files))
    settings = {
        "name": "webdataset",
        "label": "kind",
        "group": None,
        "attributes": ("lens",),
        "classes": (),
        "image": (),
    }
    result = ingest(raw, source=webdataset.Config(**settings))
    assert [(row["class"], row["lens"]) for row in result.rows] == [("1", ""), ("2", "x"), ("1", "")]
    assert set(result.refused) == {"s.tar/2.png", "s.tar/3.png"}


def test_nan_among_texts_of_an_array_is_no_label(raw: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
    np.savez(raw / "a.npz", x=x, y=np.array(["cat", "dog ", NAN]))
    result = ingest(raw, source=arrays.Config(name="arrays", images="x", labels="y", classes=()))
    assert labels(result) == {"a.npz/000000": "cat", "a.npz/000001": "dog"}
    assert result.refused == {"a.npz/000002": "no label: an empty text"}


@pytest.mark.parametrize("name", ["kind", "image"])
def test_two_columns_of_one_name_in_a_parquet_file(raw: Path, name: str) -> None:
    """It ended in a traceback."""
    names = ["image", "kind", name]
    columns = [pa.array([png(0), png(1)]), pa.array(["a", "b"]), pa.array(["a", "b"])]
    pq.write_table(pa.Table.from_arrays(columns, names=names), raw / "a.parquet")
    settings = {"name": "parquet", "image": "image", "label": "kind", "group": None, "attributes": ()}
    with pytest.raises(ValueError, match=f"has several columns '{name}', which ingest.source names"):
        ingest(raw, source=parquet.Config(**settings))


@pytest.mark.parametrize("kind", ["manifest", "parquet", "webdataset", "arrays", "idx"])
def test_one_class_is_none_whatever_the_source(raw: Path, kind: str) -> None:
    """Two sources said so, the others left it to a later stage."""
    sentence = "all images are of one class, '7', but labels need two or more; set ingest.source.label"
    with pytest.raises(ValueError, match=sentence):
        if kind in ("manifest", "parquet"):
            {"manifest": listed, "parquet": embedded}[kind](raw, {"kind": [7, 7, 7]})
        elif kind == "webdataset":
            (raw / "s.tar").write_bytes(tarred({"a.png": png(1), "a.cls": b"7", "b.png": png(2), "b.cls": b"7"}))
            settings = {
                "name": "webdataset",
                "label": "cls",
                "group": None,
                "attributes": (),
                "classes": (),
                "image": (),
            }
            ingest(raw, source=webdataset.Config(**settings))
        elif kind == "arrays":
            np.savez(raw / "a.npz", x=noise(3, 8, 8), y=np.full(3, 7))
            ingest(raw, source=arrays.Config(name="arrays", images="x", labels="y", classes=()))
        else:
            (raw / "a-images-idx3-ubyte").write_bytes(idx_file(noise(3, 8, 8)))
            (raw / "a-labels-idx1-ubyte").write_bytes(idx_file(np.full(3, 7, np.uint8)))
            ingest(raw, source=idx.Config(name="idx", labels=True, classes=(), transposed=False))
