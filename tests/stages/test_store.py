"""A store that was cut or edited by hand is refused in words, before anything is learned from it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.common.files import write_array, write_json
from stages.store import open_store

pytestmark = pytest.mark.fast

INFO = {"format": 1, "resolution": 8, "channels": 1, "classes": ["a", "b"], "counts": {"kept": 6}, "data_hash": "x"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_array(tmp_path / "images-00000.npy", np.arange(6 * 64, dtype=np.uint8).reshape(6, 8, 8, 1))
    write_array(tmp_path / "labels-00000.npy", np.array([0, 1, 0, 1, 0, 1]))
    write_array(tmp_path / "split-00000.npy", np.array([0, 0, 1, 1, 2, 2], np.uint8))
    write_json(tmp_path / "dataset.json", INFO)
    return tmp_path


def test_a_sound_store_opens(store: Path) -> None:
    opened = open_store(store)
    assert opened.classes == ["a", "b"] and len(opened.splits["fit"]) == 2
    assert opened.splits["heldout"].all()[1, 7, 7, 0] == (6 * 64 - 1) % 256


def test_a_store_without_labels_opens(store: Path) -> None:
    write_array(store / "labels-00000.npy", np.full(6, -1))
    write_json(store / "dataset.json", INFO | {"classes": []})
    assert (open_store(store).splits["train"].labels == -1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 16}, "are not those that dataset.json describes"),
        ({"channels": 3}, "are not those that dataset.json describes"),
        ({"classes": ["a"]}, "are not those that dataset.json describes"),
        ({"classes": []}, "are not those that dataset.json describes"),
        ({"counts": {"kept": 7}}, "differ in length"),
    ],
)
def test_an_edited_store_is_refused(store: Path, change: dict[str, Any], message: str) -> None:
    write_json(store / "dataset.json", INFO | change)
    with pytest.raises(ValueError, match=message):
        open_store(store)


def test_a_store_with_a_part_missing_is_refused(store: Path) -> None:
    (store / "dataset.json").write_text(json.dumps({key: INFO[key] for key in INFO if key != "counts"}))
    with pytest.raises(ValueError, match=r"dataset.json lacks counts; rerun the stage that writes it"):
        open_store(store)
    write_json(store / "dataset.json", INFO)
    (store / "images-00000.npy").unlink()
    with pytest.raises(ValueError, match=r"holds no images-\*.npy; run ingest again"):
        open_store(store)
