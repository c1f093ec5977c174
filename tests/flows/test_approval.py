"""A person's approval: what was shown is what is promoted, and who approved is recorded; with a real Prefect server."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_helpers import aliases, back, crown, enter, night, set_params
from tiny_world import commit

from flows.approval import Answer, Request, carry_out, main, request
from flows.promotion.moves import history
from flows.state import serialised
from flows.status import status, text
from flows.tracking.registry import Registry, connect
from flows.work.decide import settled
from flows.work.testbench import rules_sha256

ROOT = Path(__file__).parents[2]
ASK = {"required": True, "hours": 1}
YES = Answer(approved=True, approver="A. Person", comment="looks good to me")
NO = Answer(approved=False, approver="A. Person", comment="stripes in the sevens")


def asked_for(registry: Registry, version: str | None = None) -> Request | None:
    """What the command in the project's folder asks."""
    return request(registry, rules_sha256(Path("params.yaml")), version)


def answered(state: Path, registry: Registry, seen: Any, answer: Answer) -> str:
    with serialised(state):
        return carry_out(registry, seen, answer, lambda _line: None)


def decision(registry: Registry, version: str) -> str:
    return str(registry.client.get_model_version("tiny", version).tags["decision"])


@pytest.fixture
def waiting(built: Callable[..., Path], state: Path) -> tuple[Path, Registry]:
    """Version 1 is champion, version 2 has earned to be and waits."""
    crown(built(), state)
    project = built(train__quality=2.0, promote__approval=ASK)
    found = night(project, state)
    assert (found.decision, found.champion) == ("waiting", "1")
    return project, connect(state, "tiny")


def test_approved_is_promoted_with_the_name_and_the_comment(waiting: tuple[Path, Registry], state: Path) -> None:
    project, registry = waiting
    assert aliases(registry) == {"champion": "1", "challenger": "2"}
    told = settled(project, state)
    assert told is not None and "(waiting:" in told  # a retrain with nothing new does not judge it again
    asked = asked_for(registry)
    assert asked is not None
    assert (asked.version, asked.champion, asked.stale) == ("2", "1", None)
    assert "compared with version 1" in asked.text() and "| fid\\_domain | 0.5 | 0.5 to 0.5 |" in asked.text()
    assert "version 2 of tiny is champion" in answered(state, registry, asked, YES)
    assert aliases(registry) == {"champion": "2", "previous": "1"}
    approval = history(registry.notes())[-1].facts["approval"]
    assert (approval["approver"], approval["comment"], approval["seen"]) == (YES.approver, YES.comment, asked.seen)
    assert "approved by A. Person: looks good to me" in text(status(state, "tiny"))
    assert asked_for(registry) is None
    assert settled(project, state) is not None


def test_refused_stays_without_alias_even_when_nobody_asks_any_more(
    waiting: tuple[Path, Registry], state: Path
) -> None:
    project, registry = waiting
    answered(state, registry, asked_for(registry), NO)
    assert aliases(registry) == {"champion": "1"}
    version = registry.client.get_model_version("tiny", "2")
    assert version.tags["decision"] == "refused"
    assert version.tags["reason"] == "A. Person refused it: stripes in the sevens"
    assert settled(project, state) is not None
    set_params(project, promote__approval={"required": False, "hours": 1})
    assert night(project, state).decision == "refused"
    assert aliases(registry) == {"champion": "1"}


def test_the_form_shows_the_evaluation_that_stands_now(waiting: tuple[Path, Registry], state: Path) -> None:
    project, registry = waiting
    path = project / "data" / "evaluate" / "summary.json"
    summary = json.loads(path.read_text())
    summary["results"]["measures"]["fid_domain"] |= {"value": 0.75, "low": 0.7, "high": 0.8}
    summary["results"]["measures"]["cas"] |= {"value": None, "low": None, "high": None}
    path.write_text(json.dumps(summary))
    assert night(project, state).decision == "waiting"
    asked = asked_for(registry)
    assert asked is not None and asked.version == "2"
    assert "| fid\\_domain | 0.75 | 0.7 to 0.8 |" in asked.text() and "| cas | - | - |" in asked.text()
    run = registry.client.get_run(str(registry.client.get_model_version("tiny", "2").run_id))
    assert run.data.metrics["fid_domain"] == 0.75


@pytest.mark.parametrize("change", ["evidence", "champion"])
def test_an_answer_to_what_was_shown_is_none_to_what_stands_now(
    waiting: tuple[Path, Registry], state: Path, built: Callable[..., Path], change: str
) -> None:
    project, registry = waiting
    asked = asked_for(registry)
    if change == "evidence":
        (project / "data" / "card" / "MODEL_CARD.md").write_text("# another card\n")
        assert night(project, state).decision == "waiting"
    else:
        crown(built(train__quality=1.5), state)
    with pytest.raises(ValueError, match="changed since the evidence was shown"):
        answered(state, registry, asked, YES)
    assert aliases(registry)["champion"] == ("3" if change == "champion" else "1")
    now = asked_for(registry)
    if change == "champion":
        assert now is None  # version 2 is older than the champion, so nobody can approve it
    else:
        assert now is not None and now.seen != asked.seen and now.version == "2"


def test_each_version_that_waits_can_be_answered_and_one_that_does_not_is_named(
    waiting: tuple[Path, Registry], state: Path, built: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, registry = waiting
    assert night(built(train__quality=3.0), state).decision == "waiting"
    words = ["--by", "A. Person", "--comment", "stripes in the sevens"]
    assert main(["--refuse", "7", *words]) == 1
    assert "version 7 does not wait for an answer; waiting: 2, 3" in capsys.readouterr().err
    assert main([]) == 0
    assert "## Promote tiny version 3?" in capsys.readouterr().out
    assert main(["--refuse", "2", *words]) == 0
    assert (decision(registry, "2"), decision(registry, "3")) == ("refused", "waiting")


def test_nothing_is_approved_under_rules_that_changed_meanwhile(waiting: tuple[Path, Registry], state: Path) -> None:
    project, registry = waiting
    set_params(project, compare__margin=0.01)
    asked = asked_for(registry)
    assert asked is not None and asked.stale is not None
    with pytest.raises(
        ValueError, match=r"section `compare` or `promote` of params\.yaml has changed.*next retrain judges it"
    ):
        answered(state, registry, asked, YES)
    assert night(project, state).decision == "waiting"
    assert "is champion" in answered(state, registry, asked_for(registry), YES)


class Crash(BaseException):
    """Stands for the death of the process."""


def refuse_and_die(state: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """Refuse version 2 and die before the tag `at` is written."""
    from mlflow import MlflowClient

    whole = MlflowClient.set_model_version_tag

    def dying(client: MlflowClient, name: str, version: str, key: str, value: str) -> None:
        if key == at:
            raise Crash
        whole(client, name, version, key, value)

    asked = asked_for(registry)
    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr(MlflowClient, "set_model_version_tag", dying)
        answered(state, registry, asked, NO)
    assert decision(registry, "2") == "waiting"


def test_a_refusal_that_died_on_the_way_is_not_offered_again_and_the_next_retrain_finishes_it(
    waiting: tuple[Path, Registry], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, registry = waiting
    refuse_and_die(state, registry, monkeypatch, "reason")
    assert asked_for(registry) is None
    assert settled(project, state) is None  # something is left to do
    assert night(project, state).decision == "refused"
    assert aliases(registry) == {"champion": "1"}
    assert settled(project, state) is not None


@pytest.mark.parametrize("at", ["reason", "decision"])
def test_a_refusal_that_died_on_the_way_can_be_repeated_and_nobody_can_approve_any_more(
    waiting: tuple[Path, Registry], state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any, at: str,
    built: Callable[..., Path],
) -> None:  # fmt: skip
    _, registry = waiting
    refuse_and_die(state, registry, monkeypatch, at)
    if at == "decision":
        night(built(train__quality=3.0), state)  # another version waits, so no retrain comes back to this one
    words = ["--by", "B. Person", "--comment", "as said"]
    assert main(["--approve", "2", *words]) == 1
    assert "cannot be approved: A. Person refused it: stripes in the sevens; " in capsys.readouterr().err
    assert main(["--refuse", "2", *words]) == 0
    assert decision(registry, "2") == "refused"
    assert aliases(registry) == {"champion": "1", **({"challenger": "3"} if at == "decision" else {})}


def test_an_answer_to_a_form_shown_before_a_refusal_that_died_is_void(
    waiting: tuple[Path, Registry], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, registry = waiting
    shown = asked_for(registry)
    refuse_and_die(state, registry, monkeypatch, "reason")
    with pytest.raises(ValueError, match=r"cannot be approved: A\. Person refused it"):
        answered(state, registry, shown, YES)
    assert aliases(registry)["champion"] == "1"


def test_a_version_whose_files_are_gone_is_shown_and_refused(
    waiting: tuple[Path, Registry], state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, registry = waiting
    version = registry.client.get_model_version("tiny", "2")
    shutil.rmtree(state / "artifacts" / str(version.run_id) / "artifacts")
    assert main([]) == 0
    told = capsys.readouterr().out
    assert "## Promote tiny version 2?" in told and "| the files cannot be read | - | - |" in told
    words = ["--by", "A. Person", "--comment", "its files are gone"]
    assert main(["--approve", "2", *words]) == 1
    assert "version 2 is damaged" in capsys.readouterr().err
    monkeypatch.setattr("flows.approval.evidence", lambda *_: pytest.fail("an answer needs no evidence"))
    assert main(["--refuse", "2", *words]) == 0
    assert decision(registry, "2") == "refused"


def test_a_decision_that_is_not_complete_cannot_be_approved(waiting: tuple[Path, Registry], state: Path) -> None:
    _, registry = waiting
    registry.client.delete_model_version_tag("tiny", "2", "judged_by")  # as if the retrain had died before writing it
    with pytest.raises(ValueError, match=r"approved: its decision is not complete; the next retrain completes it$"):
        answered(state, registry, asked_for(registry), YES)


def test_after_a_rollback_the_next_retrain_judges_anew(waiting: tuple[Path, Registry], state: Path, built: Any) -> None:
    project, registry = waiting
    answered(state, registry, asked_for(registry), YES)
    built(train__quality=4.0)
    assert night(project, state).decision == "waiting"
    back(project, state)
    asked = asked_for(registry)
    assert asked is not None and asked.stale is not None
    with pytest.raises(ValueError, match=r"judged against champion 2, but the champion is now 1; the next retrain"):
        answered(state, registry, asked, YES)
    assert settled(project, state) is None  # something is left to do
    assert night(project, state).decision == "waiting"
    assert "is champion" in answered(state, registry, asked_for(registry), YES)


@pytest.mark.usefixtures("waiting")
def test_the_command_shows_and_answers(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "## Promote tiny version 2?" in capsys.readouterr().out
    assert main(["--approve", "2", "--by", "A. Person"]) == 1
    assert "needs the approver's name (--by) and a comment (--comment)" in capsys.readouterr().err
    assert main(["--approve", "7", "--by", "A. Person", "--comment", "fine"]) == 1
    assert "version 7 does not wait for an answer; waiting: 2" in capsys.readouterr().err
    assert main(["--approve", "2", "--by", "A. Person", "--comment", "fine"]) == 0
    assert "version 2 of tiny is champion, approved by A. Person" in capsys.readouterr().out
    assert main([]) == 0
    assert "no version of tiny waits" in capsys.readouterr().out


def test_the_flow_goes_by_the_newest_commit_whatever_the_working_copy_says(
    waiting: tuple[Path, Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import ask

    project, registry = waiting
    commit(project, "rules")
    set_params(project, promote__approval={"required": True, "hours": 9}, export__name="other")
    said = SimpleNamespace(decision="refuse", approver="A. Person", comment="stripes in the sevens")
    asked: dict[str, Any] = {}

    def answer(**options: Any) -> SimpleNamespace:
        asked.update(options)
        return said

    monkeypatch.setattr(ask, "suspend_flow_run", answer)
    monkeypatch.setattr(ask, "get_run_logger", logging.getLogger)
    assert ask._approve() is None
    assert asked["timeout"] == 3600
    assert decision(registry, "2") == "refused"
    (project / "params.yaml").write_text("promote: {\n")
    number = commit(project, "broken")[:8]
    with pytest.raises(ValueError, match=f"^params.yaml of commit {number} is not valid YAML"):
        ask._approve()


@pytest.mark.slow  # three processes that import Prefect and MLflow
def test_the_flow_asks_on_prefect_s_page_and_again_where_the_evidence_changed(
    waiting: tuple[Path, Registry], state: Path, built: Callable[..., Path], prefect_api: str
) -> None:
    """Suspended, resumed with an answer after something changed: asked again; answered again: promoted."""
    from prefect.client.orchestration import get_client
    from prefect.flow_runs import resume_flow_run

    from flows.ask import start

    project, registry = waiting
    commit(project, "rules")  # the flow reads the rules of the branch
    said: list[str] = []
    start("2", said.append)
    assert "python -m flows.approval --approve 2 --by NAME" in said[0]  # nothing is deployed yet
    with get_client(sync_client=True) as client:
        client_flow = client.create_flow_from_name("approve")
        deployment = client.create_deployment(
            client_flow, "promote", entrypoint="flows/ask.py:approve", path=str(project)
        )
        start("2", said.append)
        (run,) = (found for found in client.read_flow_runs() if found.deployment_id == deployment)
        assert said[1].endswith(f"answer on the page of Prefect's run {run.name}")

        def execute() -> Any:
            command = [sys.executable, "-W", "ignore", "-m", "prefect", "flow-run", "execute", str(run.id)]
            environment = {**os.environ, "PREFECT_API_URL": prefect_api, "PYTHONPATH": str(project)}
            subprocess.run(command, cwd=project, env=environment, check=True, stdout=subprocess.DEVNULL)
            return client.read_flow_run(run.id).state

        suspended = execute()
        assert suspended.name == "Suspended"
        form = client.read_flow_run_input(run.id, suspended.state_details.run_input_keyset["description"])
        assert "Promote tiny version 2?" in form and "compared with version 1" in form
        enter(built(train__quality=3.0), state)
        assert night(project, state).decision == "waiting"  # version 3, while the form waits
        answer = {"decision": "approve", "approver": "A. Person", "comment": "looks good"}
        resume_flow_run(run.id, run_input=answer)
        again = execute()
        assert again.name == "Suspended"
        assert aliases(registry)["champion"] == "1"
        form = client.read_flow_run_input(run.id, again.state_details.run_input_keyset["description"])
        assert "Promote tiny version 3?" in form
        resume_flow_run(run.id, run_input=answer)
        assert execute().name == "Completed"
    assert aliases(registry)["champion"] == "3"
    assert json.loads(registry.client.get_model_version("tiny", "3").tags["approval"])["approver"] == "A. Person"
