"""`python -m consumer` as a person or a script meets it."""

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from consumer import Generator
from consumer.__main__ import main

pytestmark = pytest.mark.fast

FILE = Path(__file__).with_name("fixtures") / "generator-format-1.onnx"


def test_a_grid_and_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new folder" / "grid.png"
    assert main(["--model", str(FILE), "--count", "5", "--seed", "3", "--out", str(out)]) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report.pop("seconds") < 10
    assert report == {
        "name": "fixture",
        "model": str(FILE),
        "sha256": Generator(FILE).sha256,
        "provider": Generator(FILE).provider,
        "count": 5,
        "out": str(out),
        "files": 1,
    }
    assert said.err.count("\n") == 1 and report["provider"] in said.err
    with Image.open(out) as picture:
        assert picture.size == (3 * 68 + 4, 2 * 68 + 4) and picture.mode == "RGB" and picture.info == {}
    assert [path.name for path in out.parent.iterdir()] == ["grid.png"]


def test_the_same_request_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        assert main(["--model", str(FILE), "--count", "9", "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_an_array_and_a_folder_hold_the_images_themselves(tmp_path: Path) -> None:
    request = ["--model", str(FILE), "--count", "4", "--seed", "2", "--start", "6", "--label", "dog", "--out"]
    assert main([*request, str(tmp_path / "images.npy")]) == 0
    images = np.load(tmp_path / "images.npy", allow_pickle=False)
    np.testing.assert_array_equal(images, Generator(FILE).generate(4, 2, "dog", start=6))
    assert main([*request, f"{tmp_path}/single/"]) == 0
    files = sorted((tmp_path / "single").iterdir())
    assert [path.name for path in files] == [f"fixture-2-{index:06d}.png" for index in range(6, 10)]
    for path, image in zip(files, images, strict=True):
        with Image.open(path) as stored:
            np.testing.assert_array_equal(np.asarray(stored), image)


@pytest.mark.parametrize(("label", "meant"), [("1", 2), ("0", 0), ("2", 2), ("cat", 0)])
def test_a_label_is_a_name_first_and_an_index_second(tmp_path: Path, label: str, meant: int) -> None:
    out = tmp_path / "images.npy"
    assert main(["--model", str(FILE), "--count", "3", "--label", label, "--out", str(out)]) == 0
    np.testing.assert_array_equal(np.load(out), Generator(FILE).generate(3, 0, meant))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"--label": "bird"}, "label must be one of the classes cat, dog, 1, or an index from 0 to 2; received 'bird'"),
        ({"--label": "7"}, "received 7"),
        ({"--label": "-1"}, "received -1"),
        ({"--label": "²"}, "received '²'"),
        ({"--seed": "-1"}, "seed must lie in [0, 2**64); received -1"),
        ({"--start": "-1"}, "received count 2, start -1"),
        ({"--count": "1000000000000000"}, "1000000000000000 images do not fit into memory; draw fewer at a time"),
        ({"--count": "1" + "0" * 20}, "count, start and their sum must lie in [0, 2**63)"),
        ({"--model": "absent.onnx"}, "absent.onnx: No such file or directory"),
        ({"--model": str(FILE.parent)}, "Is a directory"),
        ({"--model": __file__}, "is not an ONNX file"),
        (
            {"--model": "models:/digits"},
            "is written models:/NAME@ALIAS or models:/NAME/VERSION; received models:/digits",
        ),
        ({"--out": f"{__file__}/grid.png"}, "File exists"),
        ({"--out": "/proc/grid.png"}, "/proc"),
        ({"--count": "30000", "--out": "grid.png"}, "a grid of 30000 images would be"),
    ],
)
def test_a_refusal_is_one_sentence_and_leaves_what_was_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("grid.png").write_text("was here")
    request = {"--model": str(FILE), "--count": "2", "--out": "grid.png", **changes}
    assert main([f"{key}={value}" for key, value in request.items()]) == 1
    said = capsys.readouterr()
    assert said.out == "" and "Traceback" not in said.err
    assert sentence in said.err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"] and Path("grid.png").read_text() == "was here"


@pytest.mark.parametrize(
    "request_line",
    ["", "--model m.onnx", "--model m --out grid.gif", "--model m --out g.png --count 0", "--modle m --out g.png"],
)
def test_wrong_usage_is_code_2(request_line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(request_line.split())
    assert stop.value.code == 2 and "usage:" in capsys.readouterr().err


def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path: Path) -> None:
    out = tmp_path / "images.npy"
    out.write_text("was here")
    command = [sys.executable, "-m", "consumer", "--model", str(FILE), "--count", "2000", "--out", str(out)]
    limit = 100_000  # bytes a file may have; the array needs 384,000
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1 and done.stdout == "" and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"consumer: {out}: ")
    assert out.read_text() == "was here" and list(tmp_path.iterdir()) == [out]


def test_ctrl_c_ends_with_one_line_and_no_leftovers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "consumer", "--model", str(FILE), "--count", "3000000", "--out", "images.npy"]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment) as process:
        assert process.stderr is not None
        assert "runs on" in process.stderr.readline()  # it draws now
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130 and rest == "consumer: interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_the_first_image_comes_within_two_seconds(tmp_path: Path) -> None:
    """From a cold start, the best of three; on a slow or busy machine within four times what the libraries take."""
    image = ["-m", "consumer", "--model", str(FILE), "--count", "1", "--out", str(tmp_path / "one.png")]
    libraries = ["-c", "import numpy, onnxruntime"]
    seconds = []
    for _ in range(3):
        for arguments in (image, libraries):
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            seconds.append(time.perf_counter() - began)
    assert min(seconds[::2]) < max(2, 4 * min(seconds[1::2]))
