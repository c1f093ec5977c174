"""What a run says of the images that came, went or changed since the last one."""

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.common.files import tree_digests
from stages.config.ingest import Splits
from stages.ingest._since import tell_changes
from stages.ingest.sources import folder
from stages.state import state_folder
from tests.stages.ingesting import ingest, png

pytestmark = pytest.mark.fast
LABELLED = folder.Config(name="folder", labels="folders", groups="none")


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GANOPS_STATE", str(tmp_path / "state"))
    for place in range(20):
        write(tmp_path / "raw", "bc"[place % 2], place)
    return tmp_path / "raw"


def write(raw: Path, kind: str, place: int) -> None:
    path = raw / kind / f"{place}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(place))


def test_what_changed_is_said_and_not_written(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ingest(raw, source=LABELLED)
    assert "since the last run" not in capsys.readouterr().err
    for place in range(30, 35):
        write(raw, "a", place)  # a class before the others, whose numbers are others now
    (raw / "b" / "0.png").unlink()
    (raw / "b" / "2.png").rename(raw / "c" / "2.png")
    (raw / "b" / "4.png").rename(raw / "b" / "four.png")
    grown = ingest(raw, source=LABELLED)
    assert capsys.readouterr().err.splitlines()[-1] == (
        "ingest: since the last run: 5 added ('a/30.png', 'a/31.png', 'a/32.png', ...), 1 gone ('b/0.png'), "
        "1 with another label ('c/2.png')"
    )
    before = tree_digests(grown.path)
    ingest(raw, "elsewhere", source=LABELLED)
    assert "since the last run" not in capsys.readouterr().err
    assert tree_digests(raw.parent / "elsewhere") == before
    ingest(raw, source=LABELLED)
    assert capsys.readouterr().err.splitlines()[-1] == "ingest: since the last run: the same images"
    ingest(raw, source=LABELLED, splits=Splits(train=0.2, fit=0.2, heldout=0.6))
    assert " in another split ('" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["nothing", "text", "other columns", "no hashes", "half"])
def test_a_damaged_memory_is_passed_over(raw: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    ingest(raw)
    (memory,) = (state_folder() / "ingest-since").iterdir()
    whole = memory.read_bytes()
    if damage == "other columns":
        pq.write_table(pa.table({"a": pa.array([], pa.string())}), memory)
    elif damage == "no hashes":
        pq.write_table(pq.read_table(memory).select(["source", "class", "split"]), memory)
    else:
        memory.write_bytes({"nothing": b"", "text": b"PAR1 nothing", "half": whole[: len(whole) // 2]}[damage])
    write(raw, "b", 50)
    ingest(raw)
    assert "since the last run" not in capsys.readouterr().err and memory.read_bytes() != whole
    ingest(raw)
    assert "since the last run: the same images" in capsys.readouterr().err


def test_many_images_take_little_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """200,000 images, whose hashes and names are 20 MB: about 10 MB."""
    count = 200_000
    digests = np.random.default_rng(0).bytes(32 * count).hex()
    (tmp_path / "state").mkdir()
    (tmp_path / "out").mkdir()
    with pq.ParquetWriter(tmp_path / "out" / "manifest.parquet", pa.schema(
        [(name, pa.string()) for name in ("sha256", "source", "split", "class")]
    )) as file:  # fmt: skip
        for start in range(0, count, 16384):
            rows = range(start, min(start + 16384, count))
            columns = [[digests[64 * row : 64 * row + 64] for row in rows], [f"{row}.png" for row in rows]]
            columns += [["train"] * len(rows), [str(row % 7) for row in rows]]
            file.write_table(pa.table([pa.array(column, pa.string()) for column in columns], file.schema))
    tell_changes(tmp_path / "state", tmp_path / "raw", tmp_path / "out")
    tracemalloc.start()
    held = pa.total_allocated_bytes()
    tell_changes(tmp_path / "state", tmp_path / "raw", tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "the same images" in capsys.readouterr().err
    assert peak < 11_000_000 and pa.total_allocated_bytes() - held < 1_000_000
