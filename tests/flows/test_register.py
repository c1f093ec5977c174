"""Registration is idempotent, whole, and reads back, also after a crash between any two of its steps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flows.approval import waiting
from flows.state import settle
from flows.tracking.evidence import read_candidate
from flows.tracking.register import Registered, git_facts, register, run_facts
from flows.tracking.registry import ONNX, Registry, connect, sentences
from flows.work.shortcut import recorded
from stages.common.files import sha256_file

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


class Crash(BaseException):
    """Stands for the death of the process."""


def once(project: Path, state: Path) -> tuple[Registered, Registry]:
    candidate = read_candidate(project)
    registry = connect(state, candidate.name)
    return register(candidate, registry, run_facts(project, {"train": 1.25})), registry


def crash_at(monkeypatch: pytest.MonkeyPatch, step: str, *, after: bool) -> None:
    """Die before or after the client's next call of `step`."""
    from mlflow import MlflowClient

    whole = getattr(MlflowClient, step)

    def dying(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(MlflowClient, step, whole)
        if after:
            whole(*arguments, **options)
        raise Crash

    monkeypatch.setattr(MlflowClient, step, dying)


def model_folder(state: Path, version: "ModelVersion") -> Path:
    return state / "artifacts" / str(version.run_id) / "artifacts" / "model"


def active_runs(registry: Registry) -> list[Any]:
    return list(registry.client.search_runs([registry.experiment()]))


def test_a_version_holds_the_exact_bytes_and_says_what_it_is(
    built: Callable[..., Path], state: Path, tmp_path: Path
) -> None:
    project = built(train__quality=2.0)
    done, registry = once(project, state)
    assert (done.version, done.new) == ("1", True)
    version = registry.client.get_model_version("tiny", "1")
    onnx = project / "data" / "export" / ONNX
    fetched = registry.fetch(version, tmp_path / "fetched.onnx")
    assert fetched.read_bytes() == onnx.read_bytes()
    verdict = json.loads((project / "data" / "card" / "verdict.json").read_text())
    assert version.tags["onnx_sha256"] == sha256_file(onnx)
    assert version.tags["idempotence_key"] == f"{sha256_file(onnx)}-{verdict['data_hash']}"
    assert version.tags["verdict"] == "passed"
    source = model_folder(state, version)
    attached = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert attached >= {ONNX, "MODEL_CARD.md", "verdict.json", "provenance.json", "run.json"}
    assert attached >= {"evaluate/index.html", "audit/index.html", "evaluate/metrics.json"}
    run = registry.client.get_run(str(version.run_id))
    assert run.info.status == "FINISHED"
    assert run.data.metrics["fid_domain"] == 0.5
    assert run.data.metrics["cas.low"] == 0.96
    assert not [name for name in run.data.metrics if name.endswith(("_low", "_high"))]
    assert "recall_k3" not in run.data.metrics  # null in the summary, so no number here
    assert run.data.params["train.quality"] == "2.0"
    assert run.data.tags["git.commit"] == git_facts(project)["git.commit"]
    assert run.data.tags["git.dirty"] == "true"
    assert run.inputs is not None
    assert run.inputs.dataset_inputs[0].dataset.digest == verdict["data_hash"][:36]
    assert json.loads((source / "run.json").read_text())["stage_seconds"] == {"train": 1.2}


def test_the_grids_of_all_moments_stay_behind(built: Callable[..., Path]) -> None:
    train = built() / "data" / "train"
    (train / "samples-000000.480.png").write_bytes(b"grid")
    (train / "progress.png").write_bytes(b"strip")
    found = {name for name in read_candidate(train.parents[1]).evidence if name.startswith("train/")}
    assert found >= {"train/samples.png", "train/progress.png", "train/curves.csv", "train/summary.json"}
    assert "train/samples-000000.480.png" not in found


def test_twice_registers_one(built: Callable[..., Path], state: Path) -> None:
    project = built()
    once(project, state)
    again, registry = once(project, state)
    assert (again.version, again.new) == ("1", False)
    assert len(registry.versions()) == 1
    assert len(active_runs(registry)) == 1


def test_the_sqlite_shortcut_says_what_mlflow_says(built: Callable[..., Path], state: Path) -> None:
    project = built()
    candidate = read_candidate(project)
    assert recorded(state, "tiny", candidate.key) is None
    _, registry = once(project, state)
    registry.point("champion", "1")
    version = registry.client.get_model_version("tiny", "1")
    extra = {"version": "1", "champion": "1", "source": version.source, "intent": ""}
    assert recorded(state, "tiny", candidate.key) == {**version.tags, **extra}
    registry.client.delete_model_version("tiny", "1")
    assert recorded(state, "tiny", candidate.key) is None


def test_smoke_results_are_refused(built: Callable[..., Path], state: Path) -> None:
    project = built(card__registrable=False)
    with pytest.raises(ValueError, match=r"nothing registered.*registrable"):
        once(project, state)
    assert not connect(state, "tiny").exists()


def test_a_verdict_about_other_bytes_is_refused(built: Callable[..., Path]) -> None:
    project = built()
    (project / "data" / "export" / ONNX).write_bytes(b"other")
    with pytest.raises(ValueError, match=r"generator\.onnx has SHA-256 .* verdict is about"):
        read_candidate(project)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "step",
    ["create_run", "log_batch", "log_artifacts", "set_terminated", "create_registered_model", "create_model_version"],
)
def test_a_crash_between_steps_is_healed_by_the_next_run(
    built: Callable[..., Path], state: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    project = built()
    crash_at(monkeypatch, step, after=after)
    with pytest.raises(Crash):
        once(project, state)
    _, registry = once(project, state)
    versions = registry.versions()
    assert len(versions) == 1
    assert registry.intact(versions[0])
    assert [run.info.run_id for run in active_runs(registry)] == [versions[0].run_id]
    assert active_runs(registry)[0].info.status == "FINISHED"


def damage(state: Path, version: "ModelVersion") -> None:
    (model_folder(state, version) / ONNX).write_bytes(b"half")


def test_a_damaged_version_is_replaced(built: Callable[..., Path], state: Path) -> None:
    project = built()
    _, registry = once(project, state)
    damage(state, registry.versions()[0])
    done, _ = once(project, state)
    assert (done.version, done.new) == ("2", True)
    assert [str(version.version) for version in registry.versions()] == ["2"]
    assert registry.intact(registry.versions()[0])


def test_a_version_whose_bytes_are_gone_is_replaced(built: Callable[..., Path], state: Path) -> None:
    project = built()
    _, registry = once(project, state)
    (model_folder(state, registry.versions()[0]) / ONNX).unlink()
    done, _ = once(project, state)
    assert (done.version, done.new) == ("2", True)


def test_a_version_whose_bytes_cannot_be_read_now_is_not_deleted(
    built: Callable[..., Path], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    project = built()
    _, registry = once(project, state)

    def silent(uri: str, to: Path) -> None:
        raise MlflowException(f"{uri}: Max retries exceeded")

    with monkeypatch.context() as patched:
        patched.setattr("flows.tracking.registry.fetch_file", silent)
        with pytest.raises(ValueError, match="does not answer"), sentences():
            once(project, state)
    assert [str(version.version) for version in registry.versions()] == ["1"]
    assert once(project, state)[0].new is False


def test_a_damaged_champion_is_not_deleted(built: Callable[..., Path], state: Path) -> None:
    project = built()
    _, registry = once(project, state)
    registry.point("champion", "1")
    damage(state, registry.versions()[0])
    with pytest.raises(ValueError, match=r"version 1 of tiny is damaged.*and is champion"):
        once(project, state)
    assert registry.alias("champion") is not None


def test_new_evidence_replaces_the_old_and_asks_for_a_new_decision(built: Callable[..., Path], state: Path) -> None:
    project = built(card__quality=2.0)
    _, registry = once(project, state)
    registry.tag("1", reason="red", decision="red")
    built(card__quality=0.5)
    done, _ = once(project, state)
    assert (done.version, done.new) == ("1", False)
    version = registry.versions()[0]
    assert version.tags["verdict"] == "passed"
    assert "decision" not in version.tags
    verdict = model_folder(state, version) / "verdict.json"
    assert json.loads(verdict.read_text())["passed"] is True
    assert once(project, state)[0].note == "is already registered as version 1; nothing new was registered"


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["log_artifacts", "log_batch", "update_model_version"])
def test_a_version_whose_evidence_is_being_replaced_waits_for_nobody(
    built: Callable[..., Path], state: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    project = built()
    _, registry = once(project, state)
    decided = {"against": "none", "reason": "first champion", "decision": "waiting", "judged_by": "rules"}
    registry.tag("1", **decided)
    built(card__quality=2.0)  # the newest verdict is red
    crash_at(monkeypatch, step, after=after)
    with pytest.raises(Crash):
        once(project, state)
    tags = registry.versions()[0].tags
    assert not {"decision", "judged_by", "evidence_sha256"} & set(tags)
    assert waiting(registry) == []
    built(card__quality=0.5)  # the first evidence again; its files may have been replaced, so all are written again
    assert once(project, state)[0].note == "is already registered as version 1; its evidence changed and was replaced"
    verdict = model_folder(state, registry.versions()[0]) / "verdict.json"
    assert json.loads(verdict.read_text())["passed"] is True


def test_a_registry_that_does_not_answer_is_named_without_its_password(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ValueError) as refusal, sentences():
        connect(settle(), "tiny").exists()
    assert str(refusal.value) == "the registry at http://127.0.0.1:9 does not answer; start it, then run this again"
