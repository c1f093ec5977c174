"""Rollback by one command: to the previous champion, with a reason, and only to what was champion and can be served."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_helpers import aliases, back, crown, enter, night, set_params

from flows.promotion import serving
from flows.promotion.moves import history
from flows.rollback import main
from flows.state import serialised
from flows.status import status, text
from flows.tracking.registry import ONNX, Registry, connect
from flows.work.decide import settled


@pytest.fixture
def three(built: Callable[..., Path], state: Path) -> tuple[Path, Registry]:
    """A project whose versions 1, 2 and 3 were promoted one after the other."""
    for quality in (1.0, 2.0, 3.0):
        crown(built(train__quality=quality), state)
    return state.parent, connect(state, "tiny")


def test_back_to_previous_and_once_only(three: tuple[Path, Registry], state: Path) -> None:
    project, registry = three
    assert back(project, state, "users\n complained\x1b[2J <b>") == (
        "version 2 of tiny is champion; version 3 is marked rolled_back; previous: version 1"
    )
    assert aliases(registry) == {"champion": "2", "previous": "1"}
    tags = registry.client.get_model_version("tiny", "3").tags
    assert (tags["decision"], tags["rolled_back"]) == ("rolled_back", "users complained [2J <b>")
    move = history(registry.notes())[-1]
    assert (move.kind, move.version, move.before, move.best) == ("rollback", "2", "3", "2")
    again = back(project, state, "once more")
    assert again.startswith(
        "version 2 of tiny is champion again since the rollback from version 3 (users complained [2J <b>)"
    )
    assert aliases(registry) == {"champion": "2", "previous": "1"}


def test_what_was_rolled_back_is_not_promoted_again(three: tuple[Path, Registry], state: Path) -> None:
    project, registry = three
    back(project, state)
    assert settled(project, state) == (
        "tiny version 3 holds this result (rolled back: users complained); champion is version 2"
    )
    set_params(project, compare__margin=0.2)  # other rules: the decision is taken again
    decision = night(project, state)
    assert (decision.decision, decision.champion) == ("rolled_back", "2")
    assert back(project, state, "it was right after all", to="3").startswith("version 3 of tiny is champion")
    assert "rolled_back" not in registry.client.get_model_version("tiny", "3").tags
    assert aliases(registry) == {"champion": "3", "previous": "1"}
    assert registry.client.get_model_version("tiny", "2").tags["decision"] == "rolled_back"


def test_status_tells_the_story(three: tuple[Path, Registry], built: Callable[..., Path], state: Path) -> None:
    back(three[0], state)
    night(built(train__quality=0.1), state)
    found = status(state, "tiny")
    assert (found["champion"], found["previous"], found["best"]) == ("2", "1", "2")
    assert found["since"] == found["moves"][0]["time"]
    assert [(move["kind"], move["version"]) for move in found["moves"]] == [
        ("rollback", "2"), ("promotion", "3"), ("promotion", "2"), ("promotion", "1")
    ]  # fmt: skip
    assert json.dumps(found)
    told = text(found)
    assert told.startswith("tiny: champion version 2; previous 1, challenger none, best 2\n")
    assert f"version 2 (champion) since {found['since'][:19]}Z: promoted, because compared with nobody" in told
    assert f"  run      {found['versions'][2]['run_id']}" in told
    assert (
        "\n  version 4: red, because the verdict is red: fid|<b>\n  version 3: rolled back, because users compl" in told
    )
    assert f"rollbacks, the latest first:\n  {found['since'][:19]}Z from version 3 to 2: users complained" in told


def test_a_deleted_previous_is_named_and_another_can_be_chosen(three: tuple[Path, Registry], state: Path) -> None:
    project, registry = three
    registry.client.delete_model_version("tiny", "2")
    with pytest.raises(ValueError, match=r"previous was version 2, which was deleted; former champions .*: 1"):
        back(project, state)
    with pytest.raises(ValueError, match=r"tiny has no version 2, or it was deleted; former champions .*: 1"):
        back(project, state, to="2")
    assert aliases(registry) == {"champion": "3"}
    assert (
        back(project, state, to="1") == "version 1 of tiny is champion; version 3 is marked rolled_back; previous: none"
    )


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_bytes_that_do_not_verify_are_not_gone_back_to(three: tuple[Path, Registry], state: Path, damage: str) -> None:
    project, registry = three
    run_id = str(registry.client.get_model_version("tiny", "2").run_id)
    onnx = state / "artifacts" / run_id / "artifacts" / "model" / ONNX
    onnx.write_bytes(b"half") if damage == "changed" else onnx.unlink()
    with pytest.raises(ValueError, match=r"version 2 of tiny is damaged.*the champion stays.*can name: 2, 1"):
        back(project, state)
    assert aliases(registry) == {"champion": "3", "previous": "2"}


def test_a_slow_machine_does_not_stop_a_rollback(three: tuple[Path, Registry], state: Path) -> None:
    limits = {"python": None, "minutes": 1e-4, "load_seconds": 1e-9, "latency_ms": 1e-9, "size_mb": 1e-9, "levels": 1}
    set_params(three[0], promote__serving=limits)
    assert back(*(three[0], state)).startswith("version 2 of tiny is champion")


def test_the_lock_of_moves_is_not_held_while_the_version_is_tried(
    three: tuple[Path, Registry], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A promotion can go on meanwhile; then nothing is rolled back."""
    project, registry = three
    check = serving.check

    def somebody_moves(*arguments: Any, **settings: Any) -> Any:
        with serialised(state, seconds=0):
            registry.point("champion", "1")
        return check(*arguments, **settings)

    monkeypatch.setattr(serving, "check", somebody_moves)
    with pytest.raises(ValueError, match="the champion changed from 3 to 1 while version 2 was tested; nothing"):
        back(project, state)
    assert aliases(registry) == {"champion": "1", "previous": "2"} and "intent" not in registry.notes()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--reason", " \t"], "--reason must say why, in words"),
        (["--reason", "no", "--to", "7"], "tiny has no version 7, or it was deleted"),
        (["--reason", "no", "--to", "1' or '1"], "tiny has no version 1' or '1, or it was deleted"),
        (["--reason", "no", "--to", "2"], "version 2 of tiny was never champion, so nothing was moved"),
        (["--reason", "no"], "nothing to go back to: tiny has no version under the alias previous"),
    ],
)
def test_refusals_are_one_sentence(
    built: Callable[..., Path], state: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    crown(built(), state)
    if "2" in options:
        enter(built(train__quality=0.6), state)
    capsys.readouterr()
    assert main(options) == 1
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert told.err.startswith(f"rollback: {sentence}")
    assert aliases(connect(state, "tiny"))["champion"] == "1"


def test_nothing_registered_and_nobody_there(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--reason", "why not"]) == 1
    assert capsys.readouterr().err == "rollback: nothing to go back to: tiny is not registered\n"
    assert not (project / ".ganops" / "mlflow.db").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(["--reason", "why not"]) == 1
    told = capsys.readouterr().err
    assert told == "rollback: the registry at http://127.0.0.1:9 does not answer; start it, then run this again\n"


def test_the_version_that_is_champion_already(three: tuple[Path, Registry], state: Path) -> None:
    assert back(three[0], state, to="3") == "version 3 of tiny is champion already; nothing was done"
    assert len(history(three[1].notes())) == 3


def test_a_record_that_cannot_be_read_is_named(three: tuple[Path, Registry], state: Path) -> None:
    three[1].note("move.2000", '{"format": 2}')
    with pytest.raises(ValueError, match="record of a move that cannot be read"):
        back(three[0], state)


def moved_by_hand(registry: Registry, version: str) -> dict[str, Any]:
    registry.point("champion", version)
    return aliases(registry)


def test_an_alias_moved_by_hand_is_taken_as_it_is(three: tuple[Path, Registry], state: Path) -> None:
    project, registry = three
    assert moved_by_hand(registry, "1") == {"champion": "1", "previous": "2"}
    assert back(project, state).startswith("version 2 of tiny is champion; version 1 is marked rolled_back")
