"""Raw data as others hand them out: names, folders and members that are not those of the format's own description."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.ingest.sources import idx
from tests.stages.ingesting import ingest, labels, noise, zipped

pytestmark = pytest.mark.fast


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


# ---- the MNIST family


IDX = idx.Config(name="idx", labels=True, classes=(), transposed=False)


def idx_file(values: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def idx_pair(raw: Path, images: str, digits: str) -> None:
    for name, values in ((images, noise(4, 8, 8)), (digits, np.arange(4, dtype=np.uint8) % 2)):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(idx_file(values))


@pytest.mark.parametrize("end", ["images-idx3-ubyte", "images.idx3-ubyte"])
@pytest.mark.parametrize("other", ["labels-idx1-ubyte", "labels.idx1-ubyte"])
@pytest.mark.parametrize("folder", ["", "own/"])
def test_idx_files_as_kaggle_names_them(raw: Path, end: str, other: str, folder: str) -> None:
    """A dot stands for a dash, and each file lies in a folder of its own name."""
    above = {name: f"train-{name}/" if folder else "" for name in (end, other)}
    idx_pair(raw, f"{above[end]}train-{end}", f"{above[other]}train-{other}")
    result = ingest(raw, source=IDX)
    assert list(labels(result).values()) == ["0", "1", "0", "1"] and not result.refused


def test_the_name_of_a_folder_makes_no_idx_file(raw: Path) -> None:
    """A text in a folder of that name stopped the run, and labels in an archive were passed over."""
    idx_pair(raw, "a-images-idx3-ubyte", "a-labels-idx1-ubyte")
    (raw / "x-images-idx3-ubyte").mkdir()
    (raw / "x-images-idx3-ubyte" / "README.txt").write_text("hello")
    (raw / "b.zip").write_bytes(zipped({"b-labels-idx1-ubyte": idx_file(np.zeros(4, np.uint8))}))
    wrong = "wrong type: no IDX file by its name"
    refused: dict[str, Any] = ingest(raw, source=IDX).refused
    assert refused == {"x-images-idx3-ubyte/README.txt": wrong, "b.zip/b-labels-idx1-ubyte": wrong}


def test_labels_beside_the_raw_folder_are_not_taken(tmp_path: Path) -> None:
    idx_pair(tmp_path, "a-images-idx3-ubyte/a-images-idx3-ubyte", "a-labels-idx1-ubyte/a-labels-idx1-ubyte")
    with pytest.raises(ValueError, match="a-labels-idx1-ubyte does not exist; put it beside the images"):
        ingest(tmp_path / "a-images-idx3-ubyte", source=IDX)
