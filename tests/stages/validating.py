"""Settings and datasheet of the tests that validate stores."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.config import build
from stages.config.ingest import NearDuplicates, Splits
from stages.config.validate import Drift, Limits, ValidateConfig
from stages.ingest.sources import folder
from tests.stages import ingesting

CONFIG = ValidateConfig(
    min_images=1000, min_images_per_class=10, min_class_balance=0.5, max_split_deviation=5.0, min_level_range=16,
    min_mean_level=10.0, max_mean_level=245.0,
    limits=(
        Limits(measure="aspect", min=0.25, max=4.0, mostly=0.99),
        Limits(measure="brightness", min=5.0, max=250.0, mostly=0.99),
        Limits(measure="contrast", min=4.0, max=None, mostly=0.99),
        Limits(measure="sharpness", min=1.0, max=None, mostly=0.99),
    ),
    max_near_duplicates=0.2, drift=Drift(false_alarms=0.01, min_moved=0.05), warn=("drift", "near_duplicates"),
)  # fmt: skip
INGEST = ingesting.config(
    source=folder.Config(name="folder", labels="folders", groups="none"),
    splits=Splits(train=0.55, fit=0.3, heldout=0.15),
    max_refused_share=0.05, shard_images=4096, near_duplicates=NearDuplicates(distance=7, levels=4.0),
)  # fmt: skip
SHEET = ingesting.SHEET.replace("test pictures", "digits <b>&")


def limit(measure: str, **changes: Any) -> tuple[Limits, ...]:
    """The limits of CONFIG with one of them changed, or added."""
    kept = tuple(old for old in CONFIG.limits if old.measure != measure)
    return (*kept, build(Limits, {"measure": measure, "min": None, "max": None, "mostly": 1.0, **changes}, "limit"))


def declare(**declares: Any) -> Callable[[Path], None]:
    """Let the datasheet declare something, in text as ingest writes it."""

    def spoil(store: Path) -> None:
        info = json.loads((store / "dataset.json").read_text())
        info["datasheet"]["declares"] = declares
        (store / "dataset.json").write_text(json.dumps(info))

    return spoil
