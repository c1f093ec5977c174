"""Processes that decode: how many there are changes no byte, and whatever kills one costs one image at most."""

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from infra.digits import write_digits
from stages.common.files import tree_digests
from tests.stages.ingesting import FOLDERS, SHEET, from_scratch, ingest, png, settings_file, zipped


def test_any_number_of_processes_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "raw"
    write_digits(raw)
    (raw / "3" / "broken.png").write_bytes(png(1)[:-5])
    found = {tuple(from_scratch(raw, monkeypatch, source=FOLDERS, processes=count).items()) for count in (0, 1, 3)}
    assert len(found) == 1


KILLER = """
import os
from PIL import Image
_open = Image.open
def open(file, *args, **named):
    start = file.getvalue() if hasattr(file, "getvalue") else b""
    if start.endswith(b"poison"):
        os.abort()
    return _open(file, *args, **named)
Image.open = open
"""


def test_a_sample_that_kills_its_decoder_is_refused_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for at in range(90):
        (raw / f"{at:03d}.png").write_bytes(png(at) + (b"poison" if at in (7, 89) else b""))
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(KILLER)
    monkeypatch.syspath_prepend(tmp_path / "path")
    result = ingest(raw, processes=2)
    assert {name: reason.split(":")[0] for name, reason in result.refused.items()} == {
        "007.png": "crashed", "089.png": "crashed",
    }  # fmt: skip
    assert result.counts["kept"] == 88


def test_a_decoding_process_is_held_to_its_memory() -> None:
    program = """
        import numpy as np
        from stages.ingest._decode import Rules
        from stages.ingest._worker import limit_memory
        limit_memory(Rules(8, 1, "crop", False, (0, 0, 0), 1000))
        np.empty(2**27)
        try:
            np.empty(3 * 2**28)
        except MemoryError:
            print("held")
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
    )
    assert answer.stdout == "held\n", answer.stderr


def test_a_decoding_process_that_cannot_start_is_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.png").write_bytes(png(1))
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text("import os; os._exit(3)")
    monkeypatch.syspath_prepend(tmp_path / "path")
    with pytest.raises(RuntimeError, match="a decoding process ended with code 3"):
        ingest(raw, processes=1)


def alive(pid: int) -> list[int]:
    """Processes whose parent was `pid`, and who outlived it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TEST_OF_KILLS={pid}\0".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_killed_at_any_moment_the_next_run_ends_with_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_digits(raw)
    (raw / "0" / "more.zip").write_bytes(zipped({f"{at}.png": png(at, 200) for at in range(300)}))
    (tmp_path / "sheet.yaml").write_text(SHEET)
    settings_file(tmp_path / "params.yaml", source=FOLDERS, processes=2, max_refused_share=0.1)
    command = [sys.executable, "-m", "stages.ingest", "--raw", str(raw), "--datasheet", str(tmp_path / "sheet.yaml"),
               "--params", str(tmp_path / "params.yaml"), "--out", str(out)]  # fmt: skip
    mark = os.getpid()
    environment = os.environ | {"GANOPS_STATE": str(tmp_path / "state"), "TEST_OF_KILLS": str(mark)}
    dice, killed, usual = random.Random(1), 0, 0.0
    for _ in range(20):
        start = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=dice.uniform(0.1, 0.9) * usual if usual else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += 1
        else:  # it was done: start from nothing, and remember how long that takes on this machine today
            usual = time.perf_counter() - start
            shutil.rmtree(out)
            shutil.rmtree(tmp_path / "state")
        process.wait()
        for _ in range(600):
            if not (left := alive(mark)):
                break
            time.sleep(0.1)
        assert not left, "decoding processes end with the process that started them"
        if killed == 5:
            break
    assert killed == 5
    assert subprocess.run(command, env=environment, check=False, capture_output=True).returncode == 0
    whole = from_scratch(raw, monkeypatch, source=FOLDERS, processes=2, max_refused_share=0.1)
    assert tree_digests(out) == whole
    assert not list(tmp_path.rglob("*.partial")), "nothing is left lying about"
