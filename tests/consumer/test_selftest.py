"""The self-test says what a file does where it is served, and needs nothing but numpy and onnxruntime."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from consumer.selftest import COUNT, SEED, main, measure

pytestmark = pytest.mark.fast
FILE = Path(__file__).with_name("fixtures") / "generator-format-1.onnx"


def test_recorded_images_are_found_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(FILE), "--record", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["max_levels"] is None
    assert np.load(tmp_path / "images.npy", allow_pickle=False).shape[0] == COUNT
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["--model", str(FILE), "--record", str(tmp_path), "--expect", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["max_levels"], found["size_bytes"]) == (0, FILE.stat().st_size)
    assert found["load_seconds"] > 0 and found["latency_ms"] > 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"onnx_sha256": "0" * 64}, "of another ONNX file"),
        ({"seed": SEED + 1}, "of another ONNX file"),
        ({"format": 2}, "or format"),
    ],
)
def test_images_of_another_file_are_refused(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    measure(FILE, record=tmp_path)
    about = tmp_path / "selftest.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | change))
    with pytest.raises(ValueError, match=sentence):
        measure(FILE, expect=tmp_path)


def test_images_that_were_changed_are_refused(tmp_path: Path) -> None:
    measure(FILE, record=tmp_path)
    np.save(tmp_path / "images.npy", np.zeros((COUNT, 8, 8, 1), np.uint8))
    with pytest.raises(ValueError, match="was changed after it was recorded"):
        measure(FILE, expect=tmp_path)


def test_a_file_that_is_no_generator_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = shutil.copy(__file__, tmp_path / "generator.onnx")
    assert main(["--model", str(broken)]) == 1
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith(f"selftest: {broken} cannot be used: it is not an ONNX file")
    assert main(["--model", str(FILE), "--expect", str(tmp_path)]) == 1
