"""An image that was erased never comes back: not under another name, not in an archive, not by a remembered run."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest

from stages.common.files import read_json, sha256_file
from stages.ingest import run
from stages.ingest._erased import read_tombstones
from tests.stages.ingesting import CONFIG, SHEET, noise, png, zipped

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
    (entry,) = results["erased"]
    (tmp_path / "more.json").write_text(json.dumps({"format": 1, "images": [{**entry, "containers": ["0" * 32]}]}))
    assert ingest(tmp_path / "more.json")["erased"] == [entry], "what an erasure keeps for itself makes no other store"
    first = {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir() if path.suffix == ".npy"}
    (raw / "2.png").unlink()
    (raw / "more.zip").unlink()
    assert ingest(tombstones(tmp_path / "erased.json", digest))["counts"]["refused"] == 0
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir() if path.suffix == ".npy"}


@pytest.mark.parametrize("processes", [0, 1])
def test_pixels_of_erased_content_are_not_even_kept_for_later(
    tmp_path: Path, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were decoded into the state folder, as often as the file came back; without the tombstone it is an image."""
    raw, state = tmp_path / "raw", tmp_path / "state"
    monkeypatch.setenv("GANOPS_STATE", str(state))
    raw.mkdir()
    for place in range(6):
        (raw / f"{place}.png").write_bytes(png(place))
    (tmp_path / "sheet.yaml").write_text(SHEET)
    config = dataclasses.replace(CONFIG, processes=processes)
    for erased in (tombstones(tmp_path / "erased.json", sha256_file(raw / "2.png")), None):
        time.sleep(0.15)  # so that the times of the files are believed
        out = tmp_path / f"store {erased is None}"
        counts = run(config, raw=raw, datasheet=tmp_path / "sheet.yaml", erased=erased, out=out).results["counts"]
        assert counts["refused"] == (erased is not None)
        kept = b"".join(path.read_bytes() for path in state.rglob("*.pixels"))
        assert (noise(8, 8, seed=2).tobytes() in kept) == (erased is None) and noise(8, 8, seed=3).tobytes() in kept


@pytest.mark.parametrize("entry", [{"sha256": "ab", "date": "x", "reason": "y"}, {"sha256": "a" * 64}, 7])
def test_a_tombstone_says_what_when_and_why(tmp_path: Path, entry: Any) -> None:
    (tmp_path / "erased.json").write_text(json.dumps({"format": 1, "images": [entry]}))
    with pytest.raises(ValueError, match="must give sha256, date and reason"):
        read_tombstones(tmp_path / "erased.json")
