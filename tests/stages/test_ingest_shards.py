"""Raw data as data sets are published: Parquet in the layout of Hugging Face, and WebDataset."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.ingest.sources import parquet, webdataset
from tests.stages.ingesting import a_webdataset, ingest, labels, noise, png, same, tarred

pytestmark = pytest.mark.fast


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


# ---- Parquet in the layout of Hugging Face


def hugging_face(path: Path, seeds: range, names: list[str] | None, **more: list[Any]) -> None:
    cells = [{"bytes": png(seed), "path": f"{seed}.png"} for seed in seeds]
    image = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.table({"image": image, "label": [seed % 3 for seed in seeds], **more})
    if names:
        label = {"names": names, "_type": "ClassLabel"}
        about = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    pq.write_table(table, path, row_group_size=7)


def a_parquet(**changes: Any) -> parquet.Config:
    return parquet.Config(
        **({"name": "parquet", "image": "image", "label": "label", "group": None, "attributes": ()} | changes)
    )


@pytest.mark.parametrize("names", [["zebra", "ant", "bee"], None], ids=["named", "numbers"])
def test_parquet_with_embedded_images(raw: Path, names: list[str] | None) -> None:
    (raw / "data").mkdir()
    hugging_face(raw / "data" / "train-00000-of-00002.parquet", range(20), names)
    hugging_face(raw / "data" / "train-00001-of-00002.parquet", range(20, 30), names)
    result = ingest(raw, source=a_parquet())
    assert result.counts["kept"] == 30
    assert result.info["classes"] == (names or ["0", "1", "2"])
    assert same(result, "data/train-00001-of-00002.parquet/000003", noise(8, 8, seed=23))
    assert [row["class"] for row in result.rows] == [result.info["classes"][at % 3] for at in range(30)]


def test_parquet_cells_that_hold_no_image(raw: Path) -> None:
    who = [f"p{at % 5}" for at in range(19)] + [None]
    hugging_face(raw / "a.parquet", range(20), None, who=who)
    table = pq.read_table(raw / "a.parquet")
    cells = table.column("image").to_pylist()
    cells[3], cells[4], cells[5] = None, {"bytes": None, "path": "x.png"}, {"bytes": b"text", "path": None}
    kinds = table.column("label").to_pylist()
    kinds[6] = None
    image = pa.array(cells, table.schema.field("image").type)
    pq.write_table(table.set_column(0, "image", image).set_column(1, "label", [kinds]), raw / "a.parquet")
    result = ingest(raw, source=a_parquet(group="who", attributes=("who",)))
    reasons = {name: reason.split(":")[0] for name, reason in result.refused.items()}
    assert reasons == {
        "a.parquet/000003": "no image", "a.parquet/000004": "no image", "a.parquet/000005": "wrong type",
        "a.parquet/000006": "no label", "a.parquet/000019": "no group",
    }  # fmt: skip
    assert result.rows[0]["group"] == "p0" == result.rows[0]["who"]


def test_parquet_files_of_which_one_names_its_classes(raw: Path) -> None:
    """Numbers of one file and names of the other are no common classes, whichever is read first."""
    for first, second in ((None, ["cat", "dog", "cow"]), (["cat", "dog", "cow"], None)):
        hugging_face(raw / "a.parquet", range(6), first)
        hugging_face(raw / "b.parquet", range(6, 12), second)
        with pytest.raises(ValueError, match=r"Parquet files name different classes \(b\.parquet"):
            ingest(raw, source=a_parquet())


def test_parquet_cells_of_text_that_is_none(raw: Path) -> None:
    """One name in Latin-1 lost the whole run."""

    def texts(*values: bytes) -> pa.Array:
        ends = np.cumsum([0, *map(len, values)]).astype(np.int32)
        return pa.StringArray.from_buffers(len(values), pa.py_buffer(ends.tobytes()), pa.py_buffer(b"".join(values)))

    cells = pa.array([png(at) for at in range(4)], pa.binary())
    image = pa.StructArray.from_arrays([cells, texts(b"a.png", b"caf\xe9.png", b"c.png", b"d.png")], ["bytes", "path"])
    pq.write_table(pa.table({"image": image, "label": texts(b"x", b"y", b"\xe9", b"y")}), raw / "a.parquet")
    result = ingest(raw, source=a_parquet())
    assert result.refused == {
        "a.parquet/000001": "name: the path in the cell is not UTF-8 text",
        "a.parquet/000002": "name: a column holds bytes that are not UTF-8 text",
    }
    assert labels(result) == {"a.parquet/000000": "x", "a.parquet/000003": "y"}


# ---- WebDataset


def shard(path: Path, seeds: range, **options: Any) -> None:
    files: dict[str, bytes] = {}
    for seed in seeds:
        files[f"{seed:06d}.png"] = png(seed)
        files[f"{seed:06d}.cls"] = str(seed % 3).encode()
        files[f"{seed:06d}.json"] = json.dumps({"kind": "abc"[seed % 3], "who": seed // 4, "lens": 1.5}).encode()
    path.write_bytes(tarred(files, **options))


def test_webdataset(raw: Path) -> None:
    shard(raw / "shard-000000.tar", range(10))
    shard(raw / "shard-000001.tar", range(10, 20))
    shard(raw / "shard-000002.tar.gz", range(20, 24), mode="w:gz")
    result = ingest(raw, source=a_webdataset(classes=("x", "y", "z")))
    assert [row["class"] for row in result.rows] == ["xyz"[at % 3] for at in range(24)]
    assert same(result, "shard-000001.tar/000013.png", noise(8, 8, seed=13))
    by_field = ingest(raw, "fields", source=a_webdataset(label="kind", group="who", attributes=("lens",)))
    assert by_field.info["classes"] == ["a", "b", "c"] and by_field.info["declared"] == {"lens": ["1.5"]}
    assert len({(row["group"], row["split"]) for row in by_field.rows}) == 6


def test_webdataset_samples_that_are_not_whole(raw: Path) -> None:
    files = {"a.png": png(1), "a.cls": b"1", "b.png": png(2), "c.cls": b"1", "d.png": png(3), "d.jpg": b"x",
             "d.cls": b"1", "e.png": png(4), "e.cls": b"9", "f.png": png(5), "f.cls": b"\xff", "g.PNG": png(6),
             "g.cls": b"0", "h.png": png(8), "h.PNG": png(9), "h.cls": b"1", "i.png": png(10),
             "i.cls": b" "}  # fmt: skip
    (raw / "s.tar").write_bytes(tarred(files))
    (raw / "loose.png").write_bytes(png(7))
    result = ingest(raw, source=a_webdataset(classes=("no", "yes")))
    assert set(labels(result)) == {"s.tar/a.png", "s.tar/g.PNG", "s.tar/h.PNG"}
    reasons = {name: reason.split(":")[0] for name, reason in result.refused.items()}
    assert reasons == {
        "s.tar/b.png": "no label", "s.tar/c.cls": "no image", "s.tar/d.cls": "several images", "s.tar/e.png": "label",
        "s.tar/f.png": "label", "loose.png": "wrong type", "s.tar/h.png": "twice", "s.tar/i.png": "no label",
    }  # fmt: skip


def test_webdataset_samples_without_the_fields_asked_for(raw: Path) -> None:
    files = {"a.png": png(1), "a.cls": b"0", "a.json": b'{"who": 1}', "b.png": png(2), "b.cls": b"1"}
    (raw / "s.tar").write_bytes(tarred(files | {"c.png": png(3), "c.cls": b"1", "c.json": b'{"who": 2}'}))
    result = ingest(raw, source=a_webdataset(group="who"))
    assert result.refused == {"s.tar/b.png": "no fields: the sample has no .json member"}


def test_webdataset_fields_nested_without_end(raw: Path) -> None:
    files = {"a.png": png(1), "a.json": b"[" * 100_000, "b.png": png(2), "b.json": b'{"kind": "x"}'}
    (raw / "s.tar").write_bytes(tarred(files | {"c.png": png(3), "c.json": b'{"kind": "y"}'}))
    result = ingest(raw, source=a_webdataset(label="kind"))
    assert result.refused == {"s.tar/a.png": "label: the .json member is not JSON"}


def test_a_class_that_is_no_text_is_one_refusal(raw: Path) -> None:
    """JSON may name half of a surrogate pair; nothing could be written down under it, and the whole run ended."""
    said = {"a": "x", "b": "y", "c": "\ud83d"}
    files = {f"{name}.json": json.dumps({"kind": kind}).encode() for name, kind in said.items()}
    (raw / "s.tar").write_bytes(tarred(files | {f"{name}.png": png(at) for at, name in enumerate(said)}))
    result = ingest(raw, source=a_webdataset(label="kind"))
    assert result.info["classes"] == ["x", "y"]
    assert result.refused == {"s.tar/c.png": "label: '\\ud83d' is not text: it holds half a surrogate pair"}


def test_a_compressed_shard_is_listed_in_one_pass(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard(raw / "a.tar.gz", range(50), mode="w:gz")
    shard(raw / "b.tar.gz", range(50, 60), mode="w:gz")
    passes, whole = [], webdataset._tree.read
    monkeypatch.setattr(
        webdataset._tree, "read", lambda root, unit, *more: passes.append(unit) or whole(root, unit, *more)
    )
    found = webdataset.listing(a_webdataset(label="kind", group="who"), raw)
    assert len(found) == 60 and passes == [b"a.tar.gz", b"b.tar.gz"]
