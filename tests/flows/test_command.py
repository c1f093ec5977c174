"""How commands end: one sentence and an exit code, whatever stops them."""

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flows.command import command
from flows.state import settle
from flows.upkeep.holdings import open_cache, open_repo
from flows.work.decide import decide
from flows.work.process import dvc_sentence

ROOT = Path(__file__).parents[2]
COMMANDS = [
    ("status",),
    ("rollback", "--reason", "why"),
    ("recheck",),
    ("approval",),
    ("backup", "save", "somewhere"),
]


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.fast
def test_a_stopped_command_says_so_and_cleans_up(capsys: pytest.CaptureFixture[str]) -> None:
    cleaned = []

    def stopped(number: signal.Signals) -> int:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            cleaned.append(number)
        return 0

    assert command("backup", lambda: stopped(signal.SIGINT)) == 130
    assert command("backup", lambda: stopped(signal.SIGTERM)) == 143
    assert cleaned == [signal.SIGINT, signal.SIGTERM]
    assert capsys.readouterr().err == "backup: stopped; run it again to go on\n" * 2


@pytest.mark.fast
def test_ctrl_c_while_an_import_makes_a_dataclass_has_the_same_exit_code(tmp_path: Path) -> None:
    """Python would end by the signal itself there, though the interrupt was caught."""
    (tmp_path / "busy.py").write_text(
        "import sys\n"
        "from flows.command import command\n"
        "text = 'import os, signal; os.kill(os.getpid(), signal.SIGINT); [None for _ in range(9)]'\n"
        "sys.exit(command('busy', lambda: exec(text) or 0))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    done = subprocess.run([sys.executable, "-m", "busy"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "busy: stopped; run it again to go on\n")


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_params_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    main = importlib.import_module(f"flows.{words[0]}").main
    assert main(words[1:]) == 1
    told = f"{words[0]}: {tmp_path} holds no params.yaml; run this in the project's folder\n"
    assert capsys.readouterr().err == told
    Path("params.yaml").write_text("export: {name: [tiny")
    assert main(words[1:]) == 1
    told = capsys.readouterr().err
    assert "params.yaml is not valid YAML: while parsing" in told and told.count("\n") == 1


def test_a_retrain_names_what_was_edited_by_hand(project: Path) -> None:
    lock = {"schema": "2.0", "stages": {"ingest": {"cmd": "x", "outs": [{"path": "a", "md5": "b", "nfiles": "many"}]}}}
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    with pytest.raises(ValueError, match=r"dvc\.lock is not what DVC wrote"):
        decide(project, settle())
    Path("params.yaml").write_text("export: [")
    with pytest.raises(ValueError, match=r"params\.yaml is not valid YAML"):
        decide(project, settle())


@pytest.mark.fast
def test_the_line_that_dvc_marks_is_its_sentence() -> None:
    told = "WARNING: x\nERROR: config file error: no remote\nSetup default remote with\n    dvc remote default NAME\n"
    assert dvc_sentence(told) == "config file error: no remote"
    assert dvc_sentence("only this\n") == "only this"


@pytest.mark.parametrize("content", ['[{"relpath": "a", "sha1": "b"}]', "[", "7"])
def test_a_damaged_list_in_the_cache_is_named_not_passed_over(project: Path, content: str) -> None:
    with open_repo(project) as repo:
        path = Path(repo.cache.local.path) / "ab" / "cd.dir"
        path.parent.mkdir(parents=True)
        path.write_text(content)
        with pytest.raises(ValueError, match=r"cd\.dir in DVC's cache is not a list of files"):
            open_cache(repo)
        path.write_text('[{"relpath": "a", "md5": "b"}]')
        assert open_cache(repo).folders[0].files == {"a": "b"}
