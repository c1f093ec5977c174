"""Stages of a tiny pipeline that write what the rooms expect of one another, in milliseconds: `tiny_stages.py STAGE`.

The generator is a real ONNX file with its `quality` (params `train.quality`) in its metadata, where the tiny
`stages.compare` of the test project reads it. `train.act` makes the trainer fail, ask to be resumed, be preempted once,
kill itself or dvc, nap for some seconds, sleep until stopped, or wait for a word.
"""

import dataclasses
import hashlib
import json
import os
import signal
import struct
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from stages.common.files import digest, output_folder, sha256_file, to_json, write_json
from stages.common.summary import write_summary
from stages.generator_folder import input_digest

STEPS = range(20, 120, 20)  # of the tiny training, as in its log
SLEEPS = {"nap": 8.0, "sleep": 600.0}  # seconds that a training takes
PICTURE = b"\x89PNG\r\n\x1a\n"  # without pixels


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
    if os.environ.get("TINY_NO_TRAINING"):
        raise ValueError("this machine does not train")
    if act == "fail":
        raise ValueError("the loss is not finite at step 7; lower train.rate")
    if act == "resume":
        _resume(data)
    if act in ("trainer dies", "dvc dies"):
        _die(data.parent, act)
    if act in ("preempted", "waits"):
        globals()[f"_{act}"](Path(os.environ["GANOPS_STATE"]))
    if act in SLEEPS:
        _sleep(data.parent, SLEEPS[act])
    rows = [{"step": float(step), "kimg": step / 1000, "loss_d": 1 / step, "loss_g": 2 / step} for step in STEPS]
    _log(params["train"], json.loads((data / "ingest" / "dataset.json").read_text())["data_hash"], rows)
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    (work / "curves.csv").write_text("\n".join(lines) + "\n")
    (work / "samples.png").write_bytes(PICTURE)
    (work / "generator").mkdir()
    about = {"format": 1, "architecture": {}, "ancestry": [], "quality": params["train"]["quality"]}
    write_json(work / "generator" / "generator.json", about)
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    for side in ("generator", "discriminator"):
        content = len(header).to_bytes(8, "little") + header + struct.pack("<f", params["train"]["quality"])
        (work / "generator" / f"{side}.safetensors").write_bytes(content)
    (work / "weights.txt").write_text(json.dumps(params["train"]) + (data / "ingest" / "dataset.json").read_text())


def _log(section: dict[str, Any], data_hash: str, rows: list[dict[str, float]]) -> None:
    """What the real trainer leaves in its state folder while it runs, and which work that is."""
    if "GANOPS_STATE" not in os.environ:
        return
    folder = Path(os.environ["GANOPS_STATE"]) / "train" / hashlib.sha256(str([section, data_hash]).encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "trajectory.json", {"format": 1, "data_hash": data_hash, "settings": section})
    with (folder / "log.jsonl").open("a") as log:
        for row in rows:
            print(json.dumps({"time": time.time(), **row, "images_per_second": 10.0}), file=log, flush=True)


def _resume(data: Path) -> None:
    """The first time ask to be started again; the second time somebody adds data while this trains."""
    saved = data.parent / "saved"
    if not saved.exists():
        saved.write_text("checkpoint")
        print("train: saved at 1 kimg; resume me", flush=True)
        sys.exit(75)
    (data / "raw" / "two.txt").write_text("2")


def _preempted(state: Path) -> None:
    """The first time on this machine ask to be started again."""
    if not (state / "saved").exists():
        (state / "saved").write_text("checkpoint")
        print("train: saved at 1 kimg; resume me", flush=True)
        sys.exit(75)


def _waits(state: Path) -> None:
    """Until somebody writes `go`, or this is stopped."""
    (state / "trainer.pid").write_text(str(os.getpid()))
    while not (state / "go").exists():
        time.sleep(0.1)


def _die(project: Path, act: str) -> None:
    """The first time kill this process, or the `dvc repro` above it."""
    import psutil

    if not (project / "saved").exists():
        (project / "saved").write_text("checkpoint")
        above = [process for process in psutil.Process().parents() if process.cmdline()[1:4] == ["-m", "dvc", "repro"]]
        (above[0] if act == "dvc dies" else psutil.Process()).kill()
        time.sleep(60)


def _sleep(project: Path, seconds: float) -> None:
    def save(_number: int, _frame: FrameType | None) -> None:
        (project / "saved").write_text("checkpoint")
        sys.exit(75)

    signal.signal(signal.SIGTERM, save)
    (project / "trainer.pid").write_text(str(os.getpid()))
    time.sleep(seconds)


def _export(params: dict[str, Any], data: Path, work: Path) -> dict[str, Any]:
    import onnx  # here, so that the other stages start at once
    from onnx import TensorProto, helper

    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4])
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 2, 2, 1])
    nodes = [
        helper.make_node("Mul", ["z", "scale"], ["wide"]),
        helper.make_node("Clip", ["wide", "least", "most"], ["levels"]),
        helper.make_node("Cast", ["levels"], ["flat"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["flat", "shape"], ["image"]),
    ]
    constants = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [100.0]),
        helper.make_tensor("least", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("most", TensorProto.FLOAT, [], [255.0]),
        helper.make_tensor("shape", TensorProto.INT64, [4], [-1, 2, 2, 1]),
    ]
    graph = helper.make_graph(nodes, "tiny", [z], [image], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    weights = hashlib.sha256((data / "train" / "weights.txt").read_bytes()).hexdigest()
    about = {"format": "1", "name": "tiny", "classes": "[]", "prior": "[]", "resolution": "2", "channels": "1"}
    about |= {"z_dim": "4", "data_hash": json.loads((data / "ingest" / "dataset.json").read_text())["data_hash"]}
    about |= {"input_digest": input_digest(data / "train" / "generator")}
    helper.set_model_props(model, {**about, "quality": str(params["train"]["quality"]), "weights": weights})
    onnx.save(model, str(work / "generator.onnx"))
    protocols = {"parity": {"arithmetic": params["export"]["arithmetic"]}}
    return {"measures": {"parity_max_levels": _measure(0.0)}, "protocols": protocols}


def _evaluate(params: dict[str, Any], data: Path, work: Path) -> dict[str, Any]:
    fid = 1 / params["train"]["quality"]
    (work / "metrics.json").write_text(to_json({"fid_domain": fid}))
    (work / "index.html").write_text("<p>pictures</p>\n")
    unknown = {**_measure(0.5), "value": None, "reason": "too few"}
    return {"measures": {"cas": _measure(0.96), "fid_domain": _measure(fid), "recall_k3": unknown}}


def _audit(params: dict[str, Any], data: Path, work: Path) -> dict[str, Any]:
    (work / "index.html").write_text("<p>audit</p>\n")
    return {"measures": {"memorization_p": _measure(0.4)}}


def _reference(params: dict[str, Any], data: Path, work: Path) -> None:
    raw = (data / "raw" / "one.txt").read_text()
    (work / "floors.txt").write_text(f"{raw if raw.isdecimal() else 1}\n")  # how hard the data are
    data_hash = json.loads((data / "ingest" / "dataset.json").read_text())["data_hash"]
    write_json(work / "reference.json", {"format": 1, "data_hash": data_hash, "classes": []})


def _card(params: dict[str, Any], data: Path, work: Path) -> None:
    quality, limit = params["train"]["quality"], params["card"]["quality"]
    check = {"name": "fid|<b>", "value": quality, "low": quality, "high": quality, "required": True, "reason": None}
    rule = {"op": ">=", "threshold": limit, "relative_to": "none"}
    check |= {"status": "passed" if quality >= limit else "failed", "rule": rule, "source": "evaluate", "protocol": "p"}
    check |= {"measure": params["card"].get("measure", "fid_domain")}
    verdict = {
        "passed": quality >= limit,
        "registrable": params["card"]["registrable"],
        "onnx_sha256": sha256_file(data / "export" / "generator.onnx"),
        "data_hash": json.loads((data / "ingest" / "dataset.json").read_text())["data_hash"],
        "params_hash": "0" * 64,
        "licences": params["card"].get("licences", ["CC BY 4.0"]),
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
