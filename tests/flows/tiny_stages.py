"""Stages of a tiny pipeline that write what the rooms promise one another, in milliseconds: `tiny_stages.py STAGE`.

The generator is a real ONNX file whose `quality` (params `train.quality`) stands in its metadata, where the
tiny `stages.compare` of the test project finds it again. `train.act` makes the trainer fail, or sleep until stopped.
"""

import dataclasses
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from stages.common.files import digest, output_folder, sha256_file, to_json, write_json
from stages.common.summary import write_summary


@dataclasses.dataclass(frozen=True)
class Config:
    name: str


def build(stage: str, project: Path) -> None:
    """Write data/STAGE of `project`."""
    params: dict[str, Any] = yaml.safe_load((project / "params.yaml").read_text())
    data = project / "data"
    with output_folder(data / stage) as work:
        results: dict[str, Any] = globals()[f"_{stage}"](params, data, work) or {}
        write_summary(work, stage=stage, config=Config(params["export"]["name"]), inputs={}, results=results)


def _ingest(params: dict[str, Any], data: Path, work: Path) -> None:
    write_json(work / "dataset.json", {"format": 1, "data_hash": digest(data / "raw")})


def _train(params: dict[str, Any], data: Path, work: Path) -> None:
    act = params["train"]["act"]
    print("train: 1 kimg, 10 images/s", flush=True)
    if act == "fail":
        raise ValueError("the loss is not finite at step 7; lower train.rate")
    if act == "sleep":
        _sleep(data.parent)
    (work / "weights.txt").write_text(json.dumps(params["train"]) + (data / "ingest" / "dataset.json").read_text())


def _sleep(project: Path) -> None:
    def save(_number: int, _frame: FrameType | None) -> None:
        (project / "saved").write_text("checkpoint")
        sys.exit(75)

    signal.signal(signal.SIGTERM, save)
    (project / "trainer.pid").write_text(str(os.getpid()))
    time.sleep(600)


def _export(params: dict[str, Any], data: Path, work: Path) -> dict[str, Any]:
    import onnx  # here, so that the other stages start at once
    from onnx import TensorProto, helper

    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph([helper.make_node("Identity", ["z"], ["image"])], "tiny", [z], [image])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    weights = hashlib.sha256((data / "train" / "weights.txt").read_bytes()).hexdigest()
    helper.set_model_props(model, {"quality": str(params["train"]["quality"]), "weights": weights})
    onnx.save(model, str(work / "generator.onnx"))
    return {"measures": {"parity_max_levels": _measure(0.0)}}


def _evaluate(params: dict[str, Any], data: Path, work: Path) -> dict[str, Any]:
    (work / "metrics.json").write_text(to_json({"fid_domain": 1 / params["train"]["quality"]}))
    (work / "index.html").write_text("<p>pictures</p>\n")
    return {"measures": {"cas": _measure(0.96), "recall_k3": {**_measure(0.5), "value": None, "reason": "too few"}}}


def _audit(params: dict[str, Any], data: Path, work: Path) -> dict[str, Any]:
    (work / "index.html").write_text("<p>audit</p>\n")
    return {"measures": {"memorization_p": _measure(0.4)}}


def _reference(params: dict[str, Any], data: Path, work: Path) -> None:
    (work / "floors.txt").write_text("1\n")


def _card(params: dict[str, Any], data: Path, work: Path) -> None:
    quality, limit = params["train"]["quality"], params["card"]["quality"]
    check = {"name": "fid|<b>", "value": quality, "low": quality, "high": quality, "required": True, "reason": None}
    rule = {"op": ">=", "threshold": limit, "relative_to": "none"}
    check |= {"status": "passed" if quality >= limit else "failed", "rule": rule, "source": "evaluate", "protocol": "p"}
    verdict = {
        "passed": quality >= limit,
        "registrable": params["card"]["registrable"],
        "onnx_sha256": sha256_file(data / "export" / "generator.onnx"),
        "data_hash": json.loads((data / "ingest" / "dataset.json").read_text())["data_hash"],
        "params_hash": "0" * 64,
    }
    write_json(work / "verdict.json", {"format": 1, **verdict, "checks": [check]})
    write_json(work / "provenance.json", {"format": 1})
    (work / "MODEL_CARD.md").write_text("# tiny\n")


def _measure(value: float) -> dict[str, Any]:
    sizes = {"n_real": 9, "n_fake": 9, "protocol": "p", "reference": None, "reason": None}
    return {"value": value, "low": value, "high": value, **sizes}


if __name__ == "__main__":
    try:
        build(sys.argv[1], Path.cwd())
    except ValueError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
