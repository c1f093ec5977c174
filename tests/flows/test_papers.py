"""What people and programs that know only MLflow see of a registered generator."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.tracking.evidence import read_candidate
from flows.tracking.papers import card_page, model_description, version_description
from flows.tracking.register import register, run_facts
from flows.tracking.registry import connect

CLIENT = """
import json, sys
import mlflow, mlflow.onnx, mlflow.pyfunc, numpy
mlflow.set_tracking_uri(sys.argv[1])
graph = mlflow.onnx.load_model("models:/tiny@champion").graph
model = mlflow.pyfunc.load_model("models:/tiny@champion")
images = model.predict({"z": numpy.zeros((3, 4), numpy.float32)})["image"]
try:
    model.predict({"z": numpy.zeros((3, 5), numpy.float32)})
    refused = False
except mlflow.exceptions.MlflowException:
    refused = True
pins = [line.split("==")[0] for line in open(mlflow.pyfunc.get_model_dependencies("models:/tiny@champion"))]
about = mlflow.MlflowClient().get_registered_model("tiny").description
told = [[i.name for i in graph.input], list(images.shape), str(images.dtype), refused, sorted(pins), about]
json.dump(told, open(sys.argv[2], "w"))
"""
CARD = (
    """---
license: x
---
# tiny

<script>alert(1)</script> A generator. [x](javascript:alert(1))

![grid](samples.png)

## Intended use

Tests & <b>nothing</b> else.

## Forbidden use

- All else.

## Limits

| a | b |
|---|---|
| 1 | 2 |

## Gate

"""
    + "long " * 2000
)


def test_a_client_that_knows_nothing_of_the_project_loads_and_asks_it(
    built: Callable[..., Path], state: Path, tmp_path: Path
) -> None:
    project = built()
    registry = connect(state, "tiny")
    register(read_candidate(project), registry, run_facts(project, {}))
    registry.point("champion", "1")
    answer, elsewhere = tmp_path / "answer.json", tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-I", "-W", "ignore", "-c", CLIENT, f"sqlite:///{state / 'mlflow.db'}", str(answer)]
    subprocess.run(
        command, cwd=elsewhere, check=True, env={"PATH": "/usr/bin:/bin", "MLFLOW_DISABLE_TELEMETRY": "true"}
    )
    names, shape, kind, refused, pins, about = json.loads(answer.read_text())
    assert (names, shape, kind) == (["z"], [3, 2, 2, 1], "uint8")
    assert refused  # the signature declares the width of a latent
    assert pins == ["mlflow", "numpy", "onnx", "onnxruntime"]
    assert "tiny" in about


@pytest.mark.fast
def test_a_card_with_markup_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    (tmp_path / "MODEL_CARD.md").write_text(CARD)
    (tmp_path / "samples.png").write_bytes(b"\x89PNG")
    page = card_page(tmp_path / "MODEL_CARD.md")
    assert "<script>" not in page
    assert 'href="javascript' not in page
    assert "&lt;script&gt;" in page
    assert "<td>1</td>" in page
    assert 'src="data:image/png;base64,' in page
    assert "license: x" not in page
    assert "default-src 'none'" in page


@pytest.mark.fast
def test_descriptions_come_from_the_card_and_fit(built: Callable[..., Path]) -> None:
    project = built(card__quality=2.0)
    (project / "data" / "card" / "MODEL_CARD.md").write_text(CARD)
    candidate = read_candidate(project)
    model, version = model_description(candidate), version_description(candidate)
    assert "## Intended use" in model
    assert "## Forbidden use" in model
    assert "Limits" not in model
    assert version.startswith("Verdict red (fid|&lt;b&gt;). ONNX ")
    assert "A generator." in version
    assert "## Limits" in version
    assert "## Gate" not in version  # longer than MLflow accepts: only the page has it
    assert max(len(model), len(version)) < 5000
