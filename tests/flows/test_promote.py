"""The alias moves only to a green candidate that is not worse, by steps whose order a crash cannot break."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_helpers import ROOT, aliases, back, night, set_params

from flows.promotion import judge as judging
from flows.promotion.moves import history
from flows.status import status, text
from flows.tracking.registry import Registry, connect
from flows.work.decide import settled
from flows.work.retry import Unavailable


def moves(registry: Registry) -> list[tuple[str, str | None, str]]:
    """Version, champion before and best of every recorded move."""
    return [(move.version, move.before, move.best) for move in history(registry.notes())]


def test_the_first_green_candidate_is_champion(built: Callable[..., Path], state: Path) -> None:
    decision = night(built(), state)
    assert (decision.decision, decision.champion) == ("promoted", "1")
    registry = connect(state, "tiny")
    assert aliases(registry) == {"champion": "1"}
    tags = registry.versions()[0].tags
    assert tags["decision"] == "promoted"
    assert tags["reason"].startswith("first champion")
    assert moves(registry) == [("1", None, "1")]


def test_a_red_candidate_is_registered_without_alias_and_says_so(built: Callable[..., Path], state: Path) -> None:
    decision = night(built(train__quality=0.1), state)
    assert (decision.decision, decision.champion) == ("red", None)
    registry = connect(state, "tiny")
    assert aliases(registry) == {}
    version = registry.versions()[0]
    assert version.tags["verdict"] == "red"
    assert (version.tags["reason"], version.tags["failed"]) == ("the verdict is red: fid|<b>", '["fid|<b>"]')
    assert str(version.description).startswith("Verdict red (fid|&lt;b&gt;)")


def test_worse_stays_behind_better_takes_over_and_previous_is_kept(built: Callable[..., Path], state: Path) -> None:
    night(built(train__quality=2.0), state)
    worse = night(built(train__quality=1.0), state)
    registry = connect(state, "tiny")
    assert (worse.decision, worse.champion) == ("kept", "1")
    assert worse.reason.startswith("compared with version 1: quality differs by -1")
    assert aliases(registry) == {"champion": "1", "challenger": "2"}
    better = night(built(raw="2", train__quality=3.0), state)
    assert (better.decision, better.champion) == ("promoted", "3")
    assert better.reason.startswith(
        "compared with version 1: quality differs by +1; the champion was trained on other data"
    )
    assert aliases(registry) == {"champion": "3", "previous": "1"}
    run_id = str(registry.client.get_model_version("tiny", "3").run_id)
    reports = {
        f"{folder}/{name}" for folder, name in (("compare/champion", "summary.json"), ("serving", "serving.json"))
    }
    found = {
        item.path for report in reports for item in registry.client.list_artifacts(run_id, report.rpartition("/")[0])
    }
    assert reports <= found
    assert moves(registry) == [("1", None, "1"), ("3", "1", "3")]


def test_a_failed_comparison_decides_nothing(built: Callable[..., Path], state: Path) -> None:
    night(built(), state)
    project = built(train__quality=2.0)
    (project / "compare-fails").touch()
    with pytest.raises(ValueError, match="the champion stays: compare: the reference was made by another protocol"):
        night(project, state)
    registry = connect(state, "tiny")
    assert aliases(registry) == {"champion": "1", "challenger": "2"}
    assert "decision" not in registry.versions()[1].tags
    (project / "compare-fails").unlink()
    assert night(project, state).champion == "2"
    assert len(registry.versions()) == 2


def test_a_champion_that_moves_meanwhile_stops_the_promotion(
    built: Callable[..., Path], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night(built(train__quality=1.0), state)
    night(built(train__quality=0.7), state)
    registry, compare = connect(state, "tiny"), judging.compare

    def somebody_interferes(*arguments: Any) -> dict[str, Any]:
        found = compare(*arguments)
        registry.point("champion", "2")
        return found

    monkeypatch.setattr(judging, "compare", somebody_interferes)
    with pytest.raises(ValueError, match="changed from 1 to 2"):
        night(built(train__quality=3.0), state)
    assert aliases(registry)["champion"] == "2"


def test_a_person_who_decides_meanwhile_is_not_overruled(
    built: Callable[..., Path], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night(built(train__quality=1.0), state)
    registry, compare = connect(state, "tiny"), judging.compare
    said = {"approved": False, "approver": "A. Name", "comment": "no", "seen": "x", "time": "now"}

    def somebody_refuses(*arguments: Any) -> dict[str, Any]:
        found = compare(*arguments)
        registry.tag("2", approval=json.dumps(said), decision="refused")
        return found

    project = built(train__quality=3.0)
    with monkeypatch.context() as patched:
        patched.setattr(judging, "compare", somebody_refuses)
        with pytest.raises(ValueError, match="somebody decided about version 2 while it was being judged"):
            night(project, state)
    assert aliases(registry)["champion"] == "1"
    again = night(project, state)
    assert (again.decision, again.champion, again.reason) == ("refused", "1", "A. Name refused it: no")


def test_a_champion_whose_verdict_turns_red_says_so_and_stays(built: Callable[..., Path], state: Path) -> None:
    night(built(), state)
    decision = night(built(card__quality=5.0), state)
    assert decision.decision == "red"
    assert "champion already and stays so" in decision.reason
    assert aliases(connect(state, "tiny")) == {"champion": "1"}


def test_on_the_same_data_being_as_good_is_not_enough(built: Callable[..., Path], state: Path) -> None:
    night(built(), state)
    decision = night(built(train__seed=1), state)
    assert decision.decision == "kept"
    assert decision.reason.endswith(
        "both were trained on the same data, so a new champion must be better in one primary measure"
    )
    other = night(built(raw="2", train__seed=1), state)
    assert (other.decision, other.champion) == ("promoted", "3")


def test_losses_within_the_margin_cannot_add_up(built: Callable[..., Path], state: Path) -> None:
    """Each night is 0.1 worse than the champion, which the margin of 0.15 allows once."""
    decisions = [night(built(raw=f"{n}", train__quality=3 - n / 10), state).decision for n in range(3)]
    assert decisions == ["promoted", "promoted", "kept"]
    registry = connect(state, "tiny")
    assert moves(registry) == [("1", None, "1"), ("2", "1", "1")]
    reason = registry.versions()[2].tags["reason"]
    assert "compared with version 2: quality differs by -0.1" in reason
    assert "compared with the best so far, version 1: quality differs by -0.2" in reason
    better = night(built(raw="9", train__quality=3.5), state)
    assert better.decision == "promoted"
    assert moves(registry)[-1] == ("4", "2", "4")


def serving(**changes: Any) -> dict[str, Any]:
    limits = {"python": None, "minutes": 2, "load_seconds": 60, "latency_ms": 10_000, "size_mb": 1, "levels": 1}
    return {**limits, **changes}


@pytest.mark.parametrize(
    ("limit", "sentence"),
    [
        ({"size_mb": 1e-5}, r"the file has 0\.00\d+ million bytes, but promote\.serving\.size_mb allows 1e-05"),
        (
            {"size_mb": 1e-5, "latency_ms": 1e-9},
            r"the file has .*one image took .* milliseconds, but .*latency_ms allows 1e-09",
        ),
    ],
)
def test_what_cannot_be_served_as_promised_gets_no_alias(
    built: Callable[..., Path], state: Path, limit: dict[str, Any], sentence: str
) -> None:
    project = built(promote__serving=serving(**limit))
    decision = night(project, state)
    assert (decision.decision, decision.champion) == ("unfit", None)
    assert re.search(sentence, decision.reason)
    registry = connect(state, "tiny")
    assert aliases(registry) == {}
    assert re.search(sentence, registry.versions()[0].tags["failed"])
    assert settled(project, state) == f"tiny version 1 holds this result (unfit: {decision.reason}); champion is none"


@pytest.mark.parametrize("limit", ["latency_ms", "load_seconds"])
def test_a_slow_night_is_no_final_word(built: Callable[..., Path], state: Path, limit: str) -> None:
    project = built(promote__serving=serving(**{limit: 1e-9}))
    decision = night(project, state)
    assert (decision.decision, decision.champion) == ("slow", None)
    assert settled(project, state) is None  # the next retrain tests it again


def interpreter(path: Path, does: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("does", "minutes", "sentence"),
    [
        ("kill -9 $$", 2, "version 1 was killed, by a person"),
        ("kill $$", 2, "version 1 was killed, by a person"),
        ("exec sleep 60", 1e-4, r"version 1 did not answer within 0\.0001 minutes"),
    ],
)
def test_a_self_test_that_is_stopped_decides_nothing_and_is_tried_again(
    built: Callable[..., Path], state: Path, tmp_path: Path, does: str, minutes: float, sentence: str
) -> None:
    python = str(interpreter(tmp_path / "python", does))
    with pytest.raises(Unavailable, match=sentence):
        night(built(promote__serving=serving(python=python, minutes=minutes)), state)
    assert "decision" not in connect(state, "tiny").versions()[0].tags


def test_a_relative_interpreter_is_the_one_of_the_folder_that_the_flow_runs_in(
    built: Callable[..., Path], state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deployed run tests in a worktree, where that path names nothing."""
    interpreter(tmp_path / "clone" / "served" / "python", f'exec "{sys.executable}" "$@"')
    project = built(promote__serving=serving(python="served/python"))
    monkeypatch.chdir(tmp_path / "clone")
    assert night(project, state).decision == "promoted"


def test_a_bare_interpreter_is_the_one_that_the_flow_s_commands_find(
    built: Callable[..., Path], state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flow's own environment comes first for them, whatever PATH the flow was started with."""
    name = Path(sys.executable).name
    interpreter(tmp_path / "another" / name, "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'another'}{os.pathsep}{os.environ['PATH']}")
    assert night(built(promote__serving=serving(python=name)), state).decision == "promoted"


def test_a_decision_is_taken_anew_under_new_rules(built: Callable[..., Path], state: Path) -> None:
    project = built(promote__serving=serving(size_mb=1e-5))
    assert night(project, state).decision == "unfit"
    set_params(project, promote__serving=serving())
    assert settled(project, state) is None
    assert night(project, state).champion == "1"
    assert settled(project, state) is not None


def test_images_other_than_the_recorded_ones_are_unfit(built: Callable[..., Path], state: Path) -> None:
    project = built(promote__serving=serving(size_mb=1e-5))
    night(project, state)
    registry = connect(state, "tiny")
    folder = state / "artifacts" / str(registry.versions()[0].run_id) / "artifacts" / "model" / "selftest"
    images = np.load(folder / "images.npy", allow_pickle=False)
    about = json.loads((folder / "selftest.json").read_text())
    moved = images + np.uint8(2)  # 2 levels more, where 1 is allowed; 255 wraps, so that the difference is 253 there
    np.save(folder / "images.npy", moved)
    set_params(project, promote__serving=serving())
    assert "was changed after it was recorded" in night(project, state).reason
    about["images_sha256"] = hashlib.sha256(f"{moved.dtype}{moved.shape}".encode() + moved.tobytes()).hexdigest()
    (folder / "selftest.json").write_text(json.dumps(about))
    decision = night(project, state)
    assert (decision.decision, decision.champion) == ("unfit", None)
    assert re.search(r"self-test images differ by \d+ levels, but promote\.serving\.levels allows 1", decision.reason)


def test_an_environment_that_is_not_there_decides_nothing(built: Callable[..., Path], state: Path) -> None:
    with pytest.raises(ValueError, match=r"promote\.serving\.python must name an interpreter .*; received /no/python"):
        night(built(promote__serving=serving(python="/no/python")), state)
    assert "decision" not in connect(state, "tiny").versions()[0].tags


def test_weights_only_needs_a_recorded_waiver(built: Callable[..., Path], state: Path) -> None:
    project = built(export__arithmetic="weights only")
    decision = night(project, state)
    assert (decision.decision, decision.champion) == ("held", None)
    assert decision.reason.endswith("write down why in promote.waivers: {name: weights_only, reason: ...}")
    set_params(project, promote__waivers=[{"name": "weights_only", "reason": "served on CPUs <b>only</b>"}])
    assert night(project, state).champion == "1"
    registry = connect(state, "tiny")
    assert history(registry.notes())[0].facts["waived"] == {"weights_only": "served on CPUs <b>only</b>"}
    assert "waived   weights_only: served on CPUs <b>only</b>" in text(status(state, "tiny"))


def test_thresholds_looser_than_the_champions_need_a_waiver_for_that_file(
    built: Callable[..., Path], state: Path
) -> None:
    night(built(), state)
    project = built(train__quality=3.0, card__quality=0.4)
    decision = night(project, state)
    assert decision.decision == "held"
    assert "its gate asks less than the champion's: fid|<b> >= 0.4 (it was 0.5)" in decision.reason
    registry = connect(state, "tiny")
    waiver = {"name": "looser_thresholds", "onnx": "0" * 12, "reason": "the old one was wrong"}
    set_params(project, promote__waivers=[waiver])
    assert night(project, state).decision == "held"  # a waiver for another file
    onnx = registry.versions()[1].tags["onnx_sha256"][:12]
    set_params(project, promote__waivers=[{**waiver, "onnx": onnx}])
    assert night(project, state).champion == "2"
    assert json.loads(registry.versions()[1].tags["waived"]) == {"looser_thresholds": "the old one was wrong"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"measure": "easy"},
            "fid|<b> is compared in another way (evaluate easy >= none, it was evaluate fid_domain >= none)",
        ),
        ({"licences": ["cc  by 4.0", "CC BY-NC 4.0"]}, "ingest.licences accepts CC BY-NC 4.0 too"),
    ],
    ids=["measure", "licence"],
)
def test_an_easier_measure_or_licence_needs_a_waiver_unless_the_champion_says_neither(
    built: Callable[..., Path], state: Path, change: dict[str, Any], said: str
) -> None:
    night(built(), state)
    project = built(train__quality=3.0, **{f"card__{key}": value for key, value in change.items()})
    decision = night(project, state)
    assert decision.decision == "held"
    assert f"its gate asks less than the champion's: {said}; to promote it all the same" in decision.reason
    registry = connect(state, "tiny")
    for tag in ("gate", "licences"):  # as for a version whose alias was set by hand
        registry.client.delete_model_version_tag("tiny", "1", tag)
    assert night(project, state).champion == "2"


def test_the_champion_cannot_loosen_its_own_gate(built: Callable[..., Path], state: Path) -> None:
    night(built(), state)
    assert night(built(card__quality=0.1), state).decision == "promoted"  # the champion, with new evidence
    assert night(built(train__quality=3.0), state).decision == "held"


def test_a_champion_deleted_by_hand_is_no_invitation(built: Callable[..., Path], state: Path) -> None:
    night(built(), state)
    night(built(train__quality=2.0), state)
    registry = connect(state, "tiny")
    registry.client.delete_model_version("tiny", "2")
    project = built(train__quality=0.6)
    with pytest.raises(ValueError, match=r"version 2 was champion and was deleted.*python -m flows\.rollback"):
        night(project, state)
    assert aliases(registry) == {"previous": "1"}
    assert back(project, state) == "version 1 of tiny is champion; previous: none"
    assert night(project, state).decision == "kept"


def test_without_a_champion_by_somebodys_will_the_verdict_decides(built: Callable[..., Path], state: Path) -> None:
    night(built(train__quality=2.0), state)
    registry = connect(state, "tiny")
    registry.point("champion", None)
    assert night(built(train__quality=1.0), state).champion == "2"
    assert moves(registry)[-1] == ("2", None, "2")


def test_a_champion_deleted_by_hand_can_be_followed_with_a_waiver(built: Callable[..., Path], state: Path) -> None:
    night(built(), state)
    registry = connect(state, "tiny")
    registry.client.delete_model_version("tiny", "1")
    project = built(train__quality=2.0)
    with pytest.raises(ValueError, match="no_champion"):
        night(project, state)
    onnx = registry.versions()[0].tags["onnx_sha256"]
    waiver = {"name": "no_champion", "onnx": onnx, "reason": "it was deleted by mistake"}
    set_params(project, promote__waivers=[waiver])
    assert night(project, state).champion == "2"


def test_names_with_markup_are_refused_or_escaped(project: Path, state: Path) -> None:
    set_params(project, export__name="<b>' or 1=1")
    with pytest.raises(ValueError, match=r"export\.name must be 1 to 63 letters.*received <b>' or 1=1"):
        back(project, state)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv makes the environment")
def test_the_environment_that_serves_is_the_one_that_is_asked(
    built: Callable[..., Path], state: Path, tmp_path: Path
) -> None:
    """A real environment from requirements/serve-cpu.lock: no mlflow, no torch, no onnx."""
    uv, python = str(shutil.which("uv")), tmp_path / "venv" / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, python.parents[1]], check=True)
    empty = built(promote__serving=serving(python=str(python)))
    with pytest.raises(ValueError, match=r"the serving environment of .* is incomplete: .*No module named 'numpy'"):
        night(empty, state)
    install = [uv, "pip", "install", "--quiet", "--require-hashes", "--python", str(python)]
    subprocess.run([*install, "-r", str(ROOT / "requirements" / "serve-cpu.lock")], check=True)
    assert night(empty, state).champion == "1"
    registry = connect(state, "tiny")
    run_id = str(registry.versions()[0].run_id)
    report = Path(registry.client.download_artifacts(run_id, "serving/serving.json", str(tmp_path)))
    assert json.loads(report.read_text())["max_levels"] == 0
    assert subprocess.run([python, "-c", "import mlflow"], capture_output=True).returncode == 1
