"""An image that was erased never comes back: not under another name, not in an archive, not by a remembered run."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.common.files import read_json, sha256_file
from stages.ingest import run
from stages.ingest._erased import read_tombstones
from tests.stages.ingesting import CONFIG, SHEET, png, zipped

pytestmark = pytest.mark.fast


def tombstones(path: Path, *digests: str) -> Path:
    images = [{"sha256": digest, "date": "2026-11-22", "reason": "asked for, by post"} for digest in digests]
    path.write_text(json.dumps({"format": 1, "images": images}))
    return path


def test_erased_content_is_refused_with_its_reason(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for place in range(6):
        (raw / f"{place}.png").write_bytes(png(place))
    (raw / "more.zip").write_bytes(zipped({"inside.png": png(2)}))
    (tmp_path / "sheet.yaml").write_text(SHEET)
    digest = sha256_file(raw / "2.png")

    def ingest(erased: Path | None) -> dict[str, Any]:
        summary = run(CONFIG, raw=raw, datasheet=tmp_path / "sheet.yaml", erased=erased, out=tmp_path / "store")
        return summary.results

    assert ingest(None)["counts"]["kept"] == 6
    assert ingest(tombstones(tmp_path / "erased.json"))["counts"]["kept"] == 6
    results = ingest(tombstones(tmp_path / "erased.json", digest))
    assert results["counts"] == {"read": 7, "kept": 5, "duplicates": 0, "refused": 2} | {
        name: results["counts"][name] for name in ("train", "fit", "heldout")
    }
    lines = (tmp_path / "store" / "quarantine.csv").read_text().splitlines()[1:]
    reason = '"erased: 2026-11-22, asked for, by post"'
    assert lines == [f"2.png,{reason},{digest},", f"more.zip/inside.png,{reason},{digest},"]
    assert results["erased"] == read_json(tmp_path / "erased.json")["images"]
    first = {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir() if path.suffix == ".npy"}
    (raw / "2.png").unlink()
    (raw / "more.zip").unlink()
    assert ingest(tombstones(tmp_path / "erased.json", digest))["counts"]["refused"] == 0
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir() if path.suffix == ".npy"}


@pytest.mark.parametrize("entry", [{"sha256": "ab", "date": "x", "reason": "y"}, {"sha256": "a" * 64}, 7])
def test_a_tombstone_says_what_when_and_why(tmp_path: Path, entry: Any) -> None:
    (tmp_path / "erased.json").write_text(json.dumps({"format": 1, "images": [entry]}))
    with pytest.raises(ValueError, match="must give sha256, date and reason"):
        read_tombstones(tmp_path / "erased.json")
