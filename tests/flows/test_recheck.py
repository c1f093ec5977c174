"""The champion checked again: on other data, with damaged bytes, by command and as a flow on a real server."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_helpers import bench_of, crown

from flows.promotion.fitness import scored
from flows.recheck import ALARM, EVENT, main
from flows.state import hold
from flows.status import status, text
from flows.tracking.registry import ONNX, Registry, connect
from tests.stages.measured_worlds import digits, reference, stored

ROOT = Path(__file__).parents[2]


def model_file(state: Path, registry: Registry, name: str) -> Path:
    version = registry.alias("champion")
    assert version is not None
    return state / "artifacts" / str(version.run_id) / "artifacts" / "model" / name


@pytest.fixture
def crowned(built: Callable[..., Path], state: Path) -> tuple[Path, Registry]:
    project = built()
    crown(project, state)
    return project, connect(state, "tiny")


def test_fine_then_harder_data_raise_an_alarm_that_prefect_hears(
    crowned: tuple[Path, Registry], state: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from prefect.client.orchestration import get_client

    project, registry = crowned
    assert main([]) == 0
    assert "is intact and still passes its checks on today's data" in capsys.readouterr().out
    assert "  checked  " in text(status(state, "tiny")) and "fine" in text(status(state, "tiny"))
    (project / "data" / "raw" / "one.txt").write_text("7")  # the content of tiny data says how hard they are
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    assert main([]) == ALARM
    assert "ALARM: champion tiny version 1: distance: the" in capsys.readouterr().out
    assert registry.number("champion") == "1"  # nothing is moved
    assert "ALARM: distance" in text(status(state, "tiny"))
    told = json.loads(registry.alias("champion").tags["rechecked"])  # type: ignore[union-attr]
    assert len(told["failed"]) == 1
    deadline, events = time.monotonic() + 60, []
    with get_client(sync_client=True) as client:
        while not events and time.monotonic() < deadline:
            answer = client._client.post("/events/filter", json={"filter": {"event": {"name": [EVENT]}}})
            events = answer.json()["events"]
            time.sleep(0.3)
    assert events[0]["resource"]["prefect.resource.id"] == "ganops.model.tiny"


def test_a_champion_that_somebody_deleted_is_an_alarm(
    crowned: tuple[Path, Registry], state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crowned[1].client.delete_model_version("tiny", "1")
    assert main([]) == ALARM
    assert capsys.readouterr().out == (
        "ALARM: champion tiny version 1: it was deleted from the registry, and nothing is champion\n"
    )


@pytest.mark.parametrize("damage", ["bytes", "gone", "signature"])
def test_damage_is_an_alarm(crowned: tuple[Path, Registry], state: Path, damage: str, capsys: Any) -> None:
    _, registry = crowned
    file = model_file(state, registry, "MLmodel" if damage == "signature" else ONNX)
    if damage == "gone":
        file.unlink()
    else:
        content = file.read_text() if damage == "signature" else "half"
        file.write_text(content.replace("float32", "float64"))
    assert main([]) == ALARM
    said = capsys.readouterr().out
    assert said.startswith("ALARM: champion tiny version 1: its ")
    assert ("signature" if damage == "signature" else "registered bytes") in said


def test_what_cannot_be_checked_is_no_alarm(
    crowned: tuple[Path, Registry], state: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, registry = crowned
    with hold(state):
        assert main([]) == 1
    assert "another retrain holds" in capsys.readouterr().err
    (project / "data" / "raw" / "one.txt").unlink()
    (project / "data" / "raw").rmdir()
    assert main([]) == 1
    assert "no reference could be made from today's data" in capsys.readouterr().err
    registry.point("champion", None)  # somebody removed it on purpose: not a loss
    assert main([]) == 0
    assert "tiny has no champion" in capsys.readouterr().out
    assert os.environ["MLFLOW_TRACKING_URI"].startswith("sqlite")


def test_what_takes_too_long_says_so(
    crowned: tuple[Path, Registry], state: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that is stopped says nothing itself."""
    project, _ = crowned
    monkeypatch.setattr("flows.recheck.HOURS", 0.05 / 3600)
    assert main([]) == 1
    assert "reading today's data took over 1.38889e-05 hours" in capsys.readouterr().err
    monkeypatch.setattr("flows.promotion.fitness.HOURS", 0.05 / 3600)
    with (state / "lock").open("w") as lock, pytest.raises(ValueError, match="scoring the champion took longer than"):
        scored(state, bench_of(project, state, lock.fileno()))


def test_the_real_evaluate_scores_a_champion_of_older_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The champion names other data than today's reference; it is scored all the same, and told what it fails."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    today = digits(tmp_path / "data")
    reference(today)
    images, labels = (np.load(today / "store" / f"{name}-00000.npy") for name in ("images", "labels"))
    stored(tmp_path, "generator", np.stack([images[labels == label][:45] for label in range(10)]), data_hash="e" * 64)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["evaluate"] |= {"sets": 3, "smallest_set": 20}
    for check in params["card"]["checks"]:
        check["threshold"] = 2.0 if check["name"] == "coverage" else check["threshold"]  # coverage cannot exceed 1
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    with (tmp_path / "lock").open("w") as lock:
        failed, measures, data_hash = scored(tmp_path, bench_of(tmp_path, tmp_path, lock.fileno()))
    assert data_hash == "d" * 64
    assert [line for line in failed if line.startswith("coverage: the lower end of the interval is")]
    assert measures["coverage_k5"] is not None and measures["fid_domain"] is not None
