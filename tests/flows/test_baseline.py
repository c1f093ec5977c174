"""After a promotion the drift baseline is the promoted data, and nothing is stale. Real DVC."""

import json
from pathlib import Path

import pytest
import yaml
from tiny_helpers import night, repro, set_params

from flows.tracking.evidence import read_candidate
from flows.work.decide import decide, settled

VALIDATE = """
import json
from pathlib import Path
data = Path("data")
out = data / "validate"
out.mkdir(exist_ok=True)
now = {"format": 1, "data_hash": json.loads((data / "ingest" / "dataset.json").read_text())["data_hash"]}
before = json.loads((data / "baseline.json").read_text())
(out / "profile.json").write_text(json.dumps(now))
(out / "report.html").write_text("no drift" if before["data_hash"] in (None, now["data_hash"]) else "drift")
(out / "passed.json").write_text(json.dumps({"format": 1, "passed": True, **now}))
"""


@pytest.fixture
def validated(project: Path) -> Path:
    """The project with a stage validate, which train waits for."""
    (project / "tiny_validate.py").write_text(VALIDATE)
    (project / "data" / "baseline.json").write_text('{"format": 1, "data_hash": null}')
    pipeline = yaml.safe_load((project / "dvc.yaml").read_text())
    deps = ["data/ingest", "data/baseline.json"]
    pipeline["stages"]["validate"] = {"cmd": "python tiny_validate.py", "deps": deps, "outs": ["data/validate"]}
    pipeline["stages"]["train"]["deps"].append("data/validate/passed.json")
    (project / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    return project


def test_a_promotion_moves_the_baseline_and_leaves_nothing_stale(validated: Path, state: Path) -> None:
    baseline = validated / "data" / "baseline.json"
    repro(validated)
    assert night(validated, state).decision == "promoted"
    first = json.loads((validated / "data" / "ingest" / "dataset.json").read_text())["data_hash"]
    assert json.loads(baseline.read_text())["data_hash"] == first
    assert decide(validated, state).stale == {}
    assert settled(validated, state) is not None
    key = read_candidate(validated).work_key

    (validated / "data" / "raw" / "one.txt").write_text("2")  # other data, and a worse generator
    set_params(validated, train__quality=0.6)
    repro(validated)
    assert (validated / "data" / "validate" / "report.html").read_text() == "drift"
    assert night(validated, state).decision == "kept"
    assert json.loads(baseline.read_text())["data_hash"] == first
    assert decide(validated, state).done is not None

    set_params(validated, train__quality=3.0)
    repro(validated)
    assert night(validated, state).decision == "promoted"
    assert json.loads(baseline.read_text())["data_hash"] != first
    assert (validated / "data" / "validate" / "report.html").read_text() == "no drift"
    done = decide(validated, state)
    assert done.stale == {} and done.done is not None
    assert read_candidate(validated).work_key != key  # other data and params; the baseline by itself changes no key
