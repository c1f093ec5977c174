"""What validate says where Great Expectations has no words for it."""

from pathlib import Path

import pytest

from stages.common.files import read_json
from stages.config.validate import Drift, ValidateConfig
from stages.ingest.sources import folder
from stages.validate import run
from tests.stages.ingesting import SHEET, ingest, png

CONFIG = ValidateConfig(
    min_images=1, min_images_per_class=1, min_class_balance=0.0, max_split_deviation=50.0, min_level_range=16,
    min_mean_level=10.0, max_mean_level=245.0, limits=(), max_near_duplicates=1.0,
    drift=Drift(false_alarms=0.01, min_moved=0.05), warn=("declared_classes", "class_counts"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "declared", "found"),
    [
        ("folders", "[a, z]", "missing: z; not declared: b"),
        ("folders", "[b, a]", "all agree"),
        ("folders", "[a]", "not declared: b"),
        ("none", "[a, b]", "missing: a, b"),
    ],
)
def test_classes_that_are_not_as_declared_are_named(tmp_path: Path, labels: str, declared: str, found: str) -> None:
    for place in range(40):
        path = tmp_path / "raw" / "ab"[place % 2] / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(place))
    (tmp_path / "sheet.yaml").write_text(f"{SHEET}declares: {{classes: {declared}}}\n")
    store = ingest(tmp_path / "raw", source=folder.Config(name="folder", labels=labels, groups="none")).path
    run(CONFIG, images=store, out=tmp_path / "out")
    entries = {entry["name"]: entry for entry in read_json(tmp_path / "out" / "expectations.json")["expectations"]}
    assert entries["declared_classes"]["found"] == found
    assert entries["declared_classes"]["passed"] == (found == "all agree")
