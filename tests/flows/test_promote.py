"""The alias moves only to a green candidate that is not worse, in an order that a crash cannot break."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import promote as promotion
from flows.evidence import read_candidate
from flows.promote import Bench, Decision, promote
from flows.register import register, run_facts
from flows.registry import Registry, connect
from flows.state import hold
from flows.status import status, text
from stages.config.promote import PromoteConfig


class Crash(BaseException):
    """Stands for the death of the process."""


def night(project: Path, state: Path) -> Decision:
    """Register what lies in data/ and decide about it."""
    candidate = read_candidate(project)
    registry = connect(state, candidate.name)
    version = register(candidate, registry, run_facts(project, {})).version
    with hold(state) as held:
        config = PromoteConfig(compare_minutes=1)
        bench = Bench(project=project, state=state, held=held, config=config, log=lambda _line: None)
        return promote(candidate, version, registry, bench)


def aliases(registry: Registry) -> dict[str, str]:
    found = {alias: registry.alias(alias) for alias in ("champion", "previous")}
    return {alias: str(version.version) for alias, version in found.items() if version is not None}


def records(state: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (state / "promotions.jsonl").read_text().splitlines()]


def test_the_first_green_candidate_is_champion(built: Callable[..., Path], state: Path) -> None:
    decision = night(built(), state)
    assert (decision.decision, decision.champion) == ("promoted", "1")
    registry = connect(state, "tiny")
    assert aliases(registry) == {"champion": "1"}
    tags = registry.versions()[0].tags
    assert tags["decision"] == "promoted"
    assert tags["reason"].startswith("first champion")
    assert [(line["version"], line["decision"], line["champion_before"]) for line in records(state)] == [
        ("1", "promoted", None)
    ]


def test_a_red_candidate_is_registered_without_alias_and_says_so(built: Callable[..., Path], state: Path) -> None:
    decision = night(built(train__quality=0.1), state)
    assert (decision.decision, decision.champion) == ("red", None)
    registry = connect(state, "tiny")
    assert aliases(registry) == {}
    version = registry.versions()[0]
    assert version.tags["verdict"] == "red"
    assert version.tags["reason"] == "the verdict is red: fid|<b>"
    assert str(version.description).startswith("Verdict red (fid|<b>)")


def test_worse_stays_behind_better_takes_over_and_previous_is_kept(built: Callable[..., Path], state: Path) -> None:
    night(built(train__quality=2.0), state)
    worse = night(built(train__quality=1.0), state)
    registry = connect(state, "tiny")
    assert (worse.decision, worse.champion) == ("kept", "1")
    assert worse.reason == "compared with version 1: quality differs by -1"
    assert aliases(registry) == {"champion": "1"}
    better = night(built(raw="2", train__quality=3.0), state)
    assert (better.decision, better.champion) == ("promoted", "3")
    assert better.reason.startswith("compared with version 1: quality differs by +1; the champion saw other data")
    assert aliases(registry) == {"champion": "3", "previous": "1"}
    run_id = str(registry.client.get_model_version("tiny", "3").run_id)
    assert any(item.path == "compare/summary.json" for item in registry.client.list_artifacts(run_id, "compare"))
    found = status(state, "tiny")
    assert (found["champion"], found["previous"]) == ("3", "1")
    assert [item["decision"] for item in found["versions"]] == ["promoted", "kept", "promoted"]
    assert "version 2: kept\n  because  compared with version 1: quality differs by -1" in text(found)


def test_a_failed_comparison_decides_nothing(built: Callable[..., Path], state: Path) -> None:
    night(built(), state)
    project = built(train__quality=2.0)
    (project / "compare-fails").touch()
    with pytest.raises(ValueError, match="the champion stays: compare: the reference was made by another protocol"):
        night(project, state)
    registry = connect(state, "tiny")
    assert aliases(registry) == {"champion": "1"}
    assert "decision" not in registry.versions()[1].tags
    (project / "compare-fails").unlink()
    assert night(project, state).champion == "2"
    assert len(registry.versions()) == 2


def test_a_champion_that_moves_meanwhile_stops_the_promotion(
    built: Callable[..., Path], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night(built(train__quality=1.0), state)
    night(built(train__quality=0.7), state)
    registry, compare = connect(state, "tiny"), promotion.compare

    def somebody_interferes(*arguments: Any) -> dict[str, Any]:
        found = compare(*arguments)
        registry.point("champion", "2")
        return found

    monkeypatch.setattr(promotion, "compare", somebody_interferes)
    with pytest.raises(ValueError, match="moved from version 1 to 2"):
        night(built(train__quality=3.0), state)
    assert aliases(registry) == {"champion": "2"}


# How often the client sets an alias or a tag when version 2 takes over: reason, previous, champion, decision.
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("step", "call"),
    [
        ("set_model_version_tag", 1),
        ("set_registered_model_alias", 1),
        ("set_registered_model_alias", 2),
        ("set_model_version_tag", 2),
    ],
)
def test_a_crash_between_steps_leaves_old_or_new_and_is_healed(
    built: Callable[..., Path], state: Path, monkeypatch: pytest.MonkeyPatch, step: str, call: int, after: bool
) -> None:
    from mlflow import MlflowClient

    night(built(), state)
    project = built(train__quality=2.0)
    whole, calls = getattr(MlflowClient, step), 0

    def dying(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            raise Crash
        result = whole(*arguments, **options)
        if calls == call:
            raise Crash
        return result

    monkeypatch.setattr(MlflowClient, step, dying)
    with pytest.raises(Crash):
        night(project, state)
    monkeypatch.setattr(MlflowClient, step, whole)
    registry = connect(state, "tiny")
    assert aliases(registry)["champion"] in {"1", "2"}
    decision = night(project, state)
    assert (decision.decision, decision.champion) == ("promoted", "2")
    assert decision.reason == "compared with version 1: quality differs by +1"
    assert aliases(registry) == {"champion": "2", "previous": "1"}
    assert len(registry.versions()) == 2
    assert [line["version"] for line in records(state)] == ["1", "2"]
    assert {version.tags["decision"] for version in registry.versions()} == {"promoted"}


def test_a_champion_whose_verdict_turns_red_says_so_and_stays(built: Callable[..., Path], state: Path) -> None:
    night(built(), state)
    decision = night(built(card__quality=5.0), state)
    assert decision.decision == "red"
    assert "champion already and stays so" in decision.reason
    assert aliases(connect(state, "tiny")) == {"champion": "1"}
