"""Nothing that the flows start outlives them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_helpers import alive, gone

from flows.work.process import last_sentence, leashed

pytestmark = pytest.mark.fast

STUBBORN = (
    "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)
LEASH = Path(__file__).parents[2] / "flows" / "work" / "leash.py"


def test_exit_code_and_lines_pass_through(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        command = ["sh", "-c", "echo one; echo two >&2; exit 7"]
        with leashed(command, cwd=tmp_path, held=lock.fileno()) as process:
            assert process.stdout is not None
            assert process.stdout.read().split() == ["one", "two"]
            assert process.wait() == 7


def test_leaving_the_block_ends_a_grandchild_whose_parent_has_died(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        command = ["sh", "-c", "sleep 60 & echo $!; sleep 60 & wait"]
        with leashed(command, cwd=tmp_path, held=lock.fileno()) as process:
            assert process.stdout is not None
            grandchild = int(process.stdout.readline())
            assert alive(grandchild)
        assert not alive(grandchild)


def test_a_command_that_ends_leaves_nothing_running(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        command = ["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"]
        with leashed(command, cwd=tmp_path, held=lock.fileno()) as process:
            assert process.stdout is not None
            left = int(process.stdout.readline())
            assert process.wait() == 0
        assert not alive(left)


def test_a_stubborn_command_is_killed_after_its_grace() -> None:
    command = [sys.executable, "-I", "-S", str(LEASH), "0.5", sys.executable, "-c", STUBBORN]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, start_new_session=True, **pipes) as leash:  # type: ignore[call-overload]
        leash.stdout.readline()
        began = time.monotonic()
        leash.stdin.close()
        assert leash.wait(10) == -signal.SIGKILL
        assert 0.4 < time.monotonic() - began < 5


LAUNCHER = """
import sys
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
elastic_launch(
    LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=2, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
                 max_restarts=0, monitor_interval=0.1), sys.executable
)("-c", sys.argv[1])
"""


def test_processes_of_torchs_launcher_that_do_not_end_are_killed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have sessions of their own, and torch gives them half a minute, longer than the leash."""
    monkeypatch.setattr("flows.work.process.STOP_SECONDS", 6.0)
    worker = STUBBORN.replace("'ready'", "'ready', os.getpid()").replace("import ", "import os,")
    with (tmp_path / "lock").open("w") as lock:
        command = [sys.executable, "-W", "ignore", "-c", LAUNCHER, worker]
        with leashed(command, cwd=tmp_path, held=lock.fileno()) as process:
            assert process.stdout is not None and process.stdin is not None
            lines = (line.split() for line in process.stdout)
            ready = [int(next(words[-1] for words in lines if "ready" in words)) for _ in range(2)]
            process.stdin.close()
            assert process.wait(20) == 143  # the launcher ended its processes and itself
        assert not any(alive(one) for one in ready)


@pytest.mark.parametrize("stubborn", [False, True])
def test_orphans_in_sessions_of_their_own_are_asked_and_then_killed(tmp_path: Path, stubborn: bool) -> None:
    """As torch's processes are, once their launcher is gone: killed for memory, say."""
    saves = "trap 'echo saved; exit' TERM; echo $$; for i in $(seq 200); do sleep 0.1; done"
    worker = ["sh", "-c", saves.replace("echo saved; exit", "") if stubborn else saves]
    code = f"import subprocess; subprocess.Popen({worker!r}, start_new_session=True)"
    command = [sys.executable, "-I", "-S", str(LEASH), "1", sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as leash:  # type: ignore[call-overload]
        began = time.monotonic()
        orphan, *said = leash.stdout.read().split()
        assert said == ([] if stubborn else ["saved"])
        assert leash.wait(10) == (-signal.SIGKILL if stubborn else 0)
    assert gone(int(orphan)) and time.monotonic() - began < 10


def test_timeout_stops_the_command(tmp_path: Path) -> None:
    with (
        (tmp_path / "lock").open("w") as lock,
        leashed(["sleep", "60"], cwd=tmp_path, held=lock.fileno(), timeout=0.3) as process,
    ):
        assert process.wait(10) == 143


def test_sigkill_of_the_owner_ends_the_command(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from flows.work.process import leashed\n"
        "with open('lock', 'w') as lock, leashed(['sh', '-c', 'echo $$; exec sleep 60'], cwd=Path('.'),"
        " held=lock.fileno()) as p:\n  print(p.stdout.readline(), flush=True); p.wait()"
    )
    environment = {**os.environ, "PYTHONPATH": str(LEASH.parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment
    ) as owner:
        assert owner.stdout is not None
        sleeper = int(owner.stdout.readline())
        assert alive(sleeper)
        owner.kill()
    assert gone(sleeper)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (
            ["train: no images", "ERROR: failed to reproduce 'train': failed to run: x, exited with 1"],
            "train: no images",
        ),
        (["> cmd", "ERROR: failed to reproduce 'b': output 'b' does not exist"], "output 'b' does not exist"),
        (["ERROR: you are not inside of a DVC repository"], "you are not inside of a DVC repository"),
        (["ERROR: unexpected error - no", "", "Having any troubles? Hit us up at"], "unexpected error - no"),
        (
            ["expected int, in stages, line 6", "    5 │   deps:  ", "    6 │   - path"],
            "expected int, in stages, line 6",
        ),
        ([], "it said nothing"),
    ],
)
def test_last_sentence(lines: list[str], sentence: str) -> None:
    assert last_sentence(lines).endswith(sentence)
