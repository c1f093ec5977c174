"""Output appears whole or not at all; refusals are one sentence and a code."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from stages.common.command import ResumeLater, WorkSaved, main
from stages.common.files import (
    digest,
    output_folder,
    read_array,
    read_json,
    to_json,
    write_array,
    write_atomically,
    write_blocks,
    write_json,
)
from stages.common.summary import Summary, read_summary, write_summary

pytestmark = pytest.mark.fast


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    size: int


def write_one(config: Settings, *, source: Path, out: Path) -> Summary:
    """Copy a file."""
    with output_folder(out) as work:
        (work / "copy.txt").write_bytes(source.read_bytes())
        if config.size == 13:
            raise ValueError("size must not be 13; received 13")
        if config.size == 28:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(work / "copy.txt"))
        if config.size == 29:
            raise MemoryError("Unable to allocate 7.28 TiB")
        if config.size == 30:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nmore\nlines")
        if config.size == 31:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if config.size == 32:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        if config.size == 75:
            raise ResumeLater("stopped")
        if config.size == 99:
            raise KeyboardInterrupt
        if config.size == 100:
            raise WorkSaved("interrupted; run it again to go on")
        return write_summary(work, stage="one", config=config, inputs={"source": source}, results={"size": config.size})


def call(tmp_path: Path, size: object = 1, *more: str) -> int:
    source, params = tmp_path / "source.txt", tmp_path / "params.yaml"
    source.write_text("words")
    params.write_text(f"one: {{size: {size}}}\n")
    arguments = ["--source", str(source), "--params", str(params), "--out", str(tmp_path / "data" / "one"), *more]
    return main("one", Settings, write_one, inputs={"source": "a file"}, argv=arguments)


def test_a_stage_writes_its_folder_and_its_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(tmp_path) == 0
    out = tmp_path / "data" / "one"
    assert json.loads(capsys.readouterr().out) == {"stage": "one", "summary": str(out / "summary.json")}
    summary = read_summary(out)
    assert summary.outputs == {"copy.txt": digest(tmp_path / "source.txt")} and summary.results == {"size": 1}
    assert read_json(out / "summary.json")["format"] == 1
    assert sorted(path.name for path in out.parent.iterdir()) == ["one"]


@pytest.mark.parametrize(
    ("size", "code", "message"),
    [
        (13, 1, "one: size must not be 13; received 13\n"),
        (28, 1, "No space left on device; free some space and run it again, nothing was written\n"),
        (29, 1, "one: memory ran out (Unable to allocate 7.28 TiB); lower what is large"),
        (30, 1, "one: memory ran out (DefaultCPUAllocator: can't allocate memory); lower what is large"),
        (
            32,
            1,
            "one: memory ran out (CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`); lower",
        ),
        (75, 75, "one: stopped\n"),
        (99, 130, "one: interrupted; nothing was written, run it again\n"),
        (100, 130, "one: interrupted; run it again to go on\n"),
        ("big", 1, "one: one.size must be a whole number; received 'big'\n"),
    ],
)
def test_a_failure_is_one_sentence_and_leaves_the_old_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: object, code: int, message: str
) -> None:
    assert call(tmp_path, 1) == 0
    before = digest(tmp_path / "data" / "one")
    assert call(tmp_path, size) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert digest(tmp_path / "data" / "one") == before
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["one"]


def test_a_mistake_of_ours_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="illegal memory access"):
        call(tmp_path, 31)


def test_what_this_stage_did_not_write_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "data" / "one"
    out.mkdir(parents=True)
    assert call(tmp_path) == 0  # an empty folder may go
    assert call(tmp_path) == 0  # and so may its own results
    write_json(out / "summary.json", {**read_json(out / "summary.json"), "stage": "two"})
    before = digest(out)
    assert call(tmp_path) == 1
    assert "holds the results of two, which would be lost" in capsys.readouterr().err
    assert digest(out) == before
    (out / "summary.json").unlink()
    assert call(tmp_path) == 1
    assert "holds files that no stage wrote" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["copy.txt"]
    for name, message in (("source.txt", "is a file"), ("", "must name a folder of its own")):
        assert call(tmp_path, 1, "--out", str(tmp_path / name) if name else ".") == 1
        assert message in capsys.readouterr().err
    assert (tmp_path / "source.txt").read_text() == "words"


def test_arrays_are_read_back_and_a_cut_one_is_refused_by_name(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3).T
    write_array(tmp_path / "a.npy", values)
    assert np.array_equal(read_array(tmp_path / "a.npy"), values)
    whole = (tmp_path / "a.npy").read_bytes()
    for content in (b"", whole[:20], whole[:-4], b"PK\3\4" + whole, b"words"):
        (tmp_path / "a.npy").write_bytes(content)
        for mapped in (False, True):
            with pytest.raises(ValueError, match=r"a.npy is not a complete array"):
                read_array(tmp_path / "a.npy", mapped=mapped)


def test_arrays_written_whole_or_in_blocks_are_the_bytes_of_numpy_s_own(tmp_path: Path) -> None:
    for values in (np.arange(24, dtype=np.float32).reshape(4, 3, 2).T, np.empty(0, np.int64), np.eye(5, dtype=bool)):
        np.save(tmp_path / "numpy.npy", np.ascontiguousarray(values))
        write_array(tmp_path / "whole.npy", values)
        write_blocks(tmp_path / "blocks.npy", (values[:1], values[1:]), len(values))
        for name in ("whole", "blocks"):
            assert (tmp_path / f"{name}.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()


def test_arrays_are_written_without_a_copy_in_memory(tmp_path: Path) -> None:
    values = np.zeros((512, 1024), np.uint8)
    tracemalloc.start()
    try:
        write_array(tmp_path / "whole.npy", values)
        write_blocks(tmp_path / "blocks.npy", (np.zeros((8, 1024), np.uint8) for _ in range(64)), 512)
        assert tracemalloc.get_traced_memory()[1] < values.nbytes / 2
    finally:
        tracemalloc.stop()


def test_what_stops_a_write_is_said_with_the_file_that_it_cut_short(tmp_path: Path) -> None:
    program = (
        "import pathlib, resource, numpy as np\nfrom stages.common.files import write_array, write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "for write, content in ((write_array, np.zeros(900)), (write_atomically, 'x' * 9000)):\n"
        "    try:\n        write(pathlib.Path('a.npy'), content)\n"
        "    except OSError as error:\n        print(error.filename, error.strerror)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.stdout == "a.npy File too large\n" * 2


def test_wrong_usage_is_code_2_and_a_missing_input_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main("one", Settings, write_one, inputs={"source": "a file"}, argv=["--sauce", "x"])
    assert stop.value.code == 2
    capsys.readouterr()
    (tmp_path / "params.yaml").write_text("one: {size: 1}\n")
    arguments = ["--source", "absent", "--params", str(tmp_path / "params.yaml"), "--out", str(tmp_path / "out")]
    assert main("one", Settings, write_one, inputs={"source": "a file"}, argv=arguments) == 1
    assert "absent does not exist; run the stage before this one" in capsys.readouterr().err


def test_dry_run_prints_the_settings_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(tmp_path, 5, "--dry-run") == 0
    assert json.loads(capsys.readouterr().out) == {"size": 5}
    assert not (tmp_path / "data").exists()


def test_killed_between_the_two_renames_the_old_output_comes_back(tmp_path: Path) -> None:
    out = tmp_path / "one"
    (tmp_path / ".one.previous").mkdir()
    (tmp_path / ".one.previous" / "old.txt").write_text("old")
    with pytest.raises(ValueError, match="no"), output_folder(out):
        raise ValueError("no")
    assert (out / "old.txt").read_text() == "old"


def test_a_process_killed_while_writing_leaves_the_old_output(tmp_path: Path) -> None:
    out = tmp_path / "one"
    out.mkdir()
    (out / "old.txt").write_text("old")
    program = (
        "import sys, time, pathlib\nfrom stages.common.files import output_folder\n"
        f"with output_folder(pathlib.Path({str(out)!r})) as work:\n"
        "    (work / 'new.txt').write_text('new'); print('ready', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.kill()
    assert [path.name for path in out.iterdir()] == ["old.txt"]
    with output_folder(out) as work:
        assert list(work.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"format": 1, "x": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, {"format": 1, "x": float("nan")})
    assert read_json(path) == {"format": 1, "x": 1}
    write_atomically(path, "[1]")
    with pytest.raises(ValueError, match="must be a JSON object with format 1; found 'list'"):
        read_json(path)
    write_atomically(path, to_json({"format": 2}))
    with pytest.raises(ValueError, match="found 2"):
        read_json(path)
    with pytest.raises(ValueError, match=r"a.json lacks stage, inputs; rerun the stage"):
        read_json(path, format=2, needs=("stage", "format", "inputs"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_without_summary_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no summary.json: that stage has not finished"):
        read_summary(tmp_path)


def test_digests_tell_names_and_contents_apart(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "a").write_text("x")
    assert digest(one) == digest(two)
    (two / "a").rename(two / "b")
    assert digest(one) != digest(two)
