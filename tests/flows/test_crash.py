"""Promotion and rollback, killed before each of their writes, raced, and watched: real processes, real MLflow."""

import json
import random
import re
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_helpers import Runner, aliases, back, crown, enter

from flows.promotion.moves import history
from flows.state import hold
from flows.tracking.registry import connect

_QUERIES = (
    "SELECT alias, version FROM registered_model_aliases ORDER BY alias",
    "SELECT version, current_stage, run_id FROM model_versions ORDER BY version",
    "SELECT version, key, value FROM model_version_tags ORDER BY version, key",
    "SELECT value FROM registered_model_tags ORDER BY key",
)
REFUSED = re.compile(r"the champion changed from|has been moving the champion since|nothing to go back to|is at work")


def snapshot(state: Path) -> list[list[Any]]:
    """Aliases, versions, tags and records of the registry, without times and process numbers."""
    with sqlite3.connect(state / "mlflow.db") as database:
        rows = [[list(row) for row in database.execute(query)] for query in _QUERIES]
    varying = re.compile(r'"(time|process)": [^,}]+')
    rows[3] = [[varying.sub("", value) for value in row] for row in rows[3]]
    return rows


def champion(state: Path) -> str:
    with sqlite3.connect(state / "mlflow.db") as database:
        return str(
            database.execute("SELECT version FROM registered_model_aliases WHERE alias = 'champion'").fetchone()[0]
        )


def killed(runner: Runner, project: Path, state: Path, act: dict[str, Any], every: int) -> list[str]:
    """Kill `act` before every `every`-th of its writes, then run it again; who was champion after each kill.

    After the second run the registry is the same as after a run that nobody killed.
    """
    before = shutil.copy(state / "mlflow.db", project / "before.db")
    ((code, answer),) = runner(project, act)
    assert code == 0, answer
    whole, champions = snapshot(state), []
    for write in range(answer["writes"], 0, -every):
        shutil.copy(before, state / "mlflow.db")
        assert runner(project, {**act, "die_at": write}) == [(-9, None)]
        champions.append(champion(state))
        ((code, again),) = runner(project, act)
        assert code == 0, again
        assert snapshot(state) == whole, f"killed before write {write}"
    return champions


ALL = pytest.param(1, id="all", marks=pytest.mark.slow)


@pytest.mark.parametrize("every", [pytest.param(5, id="some"), ALL])
def test_a_promotion_killed_anywhere_is_finished_by_the_next_run(
    runner: Runner, built: Callable[..., Path], state: Path, every: int
) -> None:
    crown(built(), state)
    project = built(train__quality=2.0)
    enter(project, state)
    champions = killed(runner, project, state, {"what": "night"}, every)
    assert len(champions) >= 14 // every
    assert champions == sorted(champions, reverse=True)  # from the last write to the first: the new one, then the old
    assert set(champions) == {"1", "2"}


@pytest.mark.parametrize("every", [pytest.param(3, id="some"), ALL])
def test_a_rollback_killed_anywhere_is_finished_by_the_next_run(
    runner: Runner, built: Callable[..., Path], state: Path, every: int
) -> None:
    crown(built(), state)
    project = built(train__quality=2.0)
    crown(project, state)
    champions = killed(runner, project, state, {"what": "rollback", "reason": "users complained"}, every)
    assert len(champions) >= 6 // every
    assert champions == sorted(champions)
    assert set(champions) == {"1", "2"}


def test_two_promotions_at_once_are_serialised(runner: Runner, built: Callable[..., Path], state: Path) -> None:
    """Two working copies with one registry judge at once: one moves the alias, the other finds that it moved."""
    crown(built(), state)
    (state.parents[1] / "meeting").mkdir()
    acts = []
    for quality in (2.0, 3.0):
        copy = shutil.copytree(built(train__quality=quality), state.parents[1] / f"copy-{quality}", symlinks=True)
        enter(copy, state)
        (copy / "meeting").symlink_to(state.parents[1] / "meeting")
        acts.append({"what": "night", "folder": str(copy), "registry": str(state / "mlflow.db")})
    answers = runner(state.parent, *acts)
    assert sorted(code for code, _ in answers) == [0, 1], answers
    refused, promoted = (next(answer for code, answer in answers if code == wanted) for wanted in (1, 0))
    assert "the champion changed from 1 to" in refused or "has been moving the champion" in refused
    registry = connect(state, "tiny")
    assert aliases(registry)["champion"] == promoted["champion"]
    assert aliases(registry)["previous"] == "1"
    assert len(history(registry.notes())) == 2


MANY = pytest.param(40, id="many", marks=pytest.mark.slow)


@pytest.mark.parametrize("rounds", [pytest.param(2, id="few"), MANY])
def test_promotions_and_rollbacks_raced_and_killed_at_random(
    runner: Runner, built: Callable[..., Path], state: Path, rounds: int
) -> None:
    """Three working copies at one registry, three acts at once, two of them killed within seconds, again and again."""
    crown(built(), state)
    acts = []
    for quality in (1.5, 2.0, 3.0):
        copy = shutil.copytree(built(train__quality=quality), state.parents[1] / f"copy-{quality}", symlinks=True)
        acts.append({"folder": str(copy), "registry": str(state / "mlflow.db")})
    dice, deaths = random.Random(rounds), 0
    for _ in range(rounds):
        wanted = [
            {**where, **({"what": "night"} if dice.random() < 0.7 else {"what": "rollback", "reason": "diced"})}
            for where in acts
        ]
        for one in dice.sample(wanted, 2):
            one["die_after"] = dice.uniform(0, 4)
        for code, answer in runner(state.parent, *wanted):
            assert code in (0, 1, -signal.SIGKILL), answer
            assert code != 1 or REFUSED.search(answer), answer
            deaths += code < 0
        assert champion(state) in {str(version.version) for version in connect(state, "tiny").versions()}
    assert deaths >= max(1, rounds // 4)  # the others had ended before the kill
    for where in acts:  # in the morning: each once more, undisturbed
        ((code, answer),) = runner(state.parent, {**where, "what": "night"})
        assert code == 0, answer
    registry = connect(state, "tiny")
    versions = {str(version.version): version for version in registry.versions()}
    assert len(versions) == 4 == len({version.tags["onnx_sha256"] for version in versions.values()})
    assert all(version.tags["judged_by"] and registry.intact(version) for version in versions.values())
    notes, found = registry.notes(), aliases(registry)
    assert "intent" not in notes
    assert history(notes)[-1].version == found["champion"] != found.get("previous")
    assert "rolled_back" not in versions[found["champion"]].tags
    runs = registry.client.search_runs([registry.experiment()])
    assert {run.info.status for run in runs} == {"FINISHED"} and len(runs) == 4


def test_a_reader_never_sees_an_error_or_mixed_files(runner: Runner, built: Callable[..., Path], state: Path) -> None:
    for quality in (1.0, 2.0, 3.0):
        project = built(train__quality=quality)
        crown(project, state)
    moving, polled = runner(project, {"what": "moves", "count": 100}, {"what": "poll"})
    assert moving == (0, 100), moving
    assert polled[0] == 0, polled[1]
    assert polled[1]["polls"] >= 20
    assert polled[1]["versions"] >= 2


def test_a_rollback_does_not_wait_for_a_training(built: Callable[..., Path], state: Path) -> None:
    crown(built(), state)
    project = built(train__quality=2.0)
    crown(project, state)
    with hold(state):  # a retrain is under way
        assert back(project, state).startswith("version 1 of tiny is champion")


def test_a_move_of_another_machine_is_respected(built: Callable[..., Path], state: Path) -> None:
    crown(built(), state)
    project = built(train__quality=2.0)
    crown(project, state)
    registry = connect(state, "tiny")
    record = max(key for key in registry.notes() if key.startswith("move."))
    stranger = {**json.loads(registry.notes()[record]), "host": "elsewhere"}
    registry.note("intent", json.dumps(stranger))
    with pytest.raises(ValueError, match=r"on elsewhere has been moving the champion since .*; run it again when"):
        back(project, state)
    assert aliases(registry) == {"champion": "2", "previous": "1"}
    registry.note("intent", json.dumps({**stranger, "time": "2020-01-01T00:00:00.000000Z"}))
    assert back(project, state).startswith("version 1 of tiny is champion")
    assert "intent" not in registry.notes()
