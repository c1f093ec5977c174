"""A candidate's papers for people and programs that know only MLflow: card as a page, descriptions, ONNX flavor.

Text from the card is data: whatever looks like HTML in it is shown, not interpreted.
"""

import base64
import html
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from flows.tracking.evidence import Candidate
from flows.tracking.registry import ONNX

CARD, CARD_PAGE = "MODEL_CARD.md", "MODEL_CARD.html"
_LONGEST = 4_800  # characters; MLflow takes 5,000
_PACKAGES = ("mlflow", "numpy", "onnx")
_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}table{border-collapse:collapse}"
    "td,th{border:1px solid #bbb;padding:.2rem .6rem;text-align:left}img{image-rendering:pixelated;max-width:100%}"
    "pre,code{background:#f4f4f4}"
)


def card_page(card: Path) -> str:
    """The card as one HTML page that opens without a network: pictures inside, no scripts, HTML in the text escaped."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    body = re.sub(
        r'<img src="([^"/\\]+\.png)"', lambda m: _inside(card.parent / m[1], m[0]), reader.render(_body(card))
    )
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
    return f"<!doctype html>\n<html lang=en>{head}<title>Model card</title><style>{_STYLE}</style>\n{body}</html>\n"


def _inside(picture: Path, tag: str) -> str:
    if not picture.is_file():
        return tag
    return f'<img src="data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"'


def _body(card: Path) -> str:
    """The card without its YAML head."""
    return re.sub(r"\A---\n.*?\n---\n", "", card.read_text(encoding="utf-8"), flags=re.DOTALL).strip()


def model_description(candidate: Candidate) -> str:
    """What the card says about the model, whatever the version: its intended use, its forbidden use, its risks."""
    parts = _sections(candidate.evidence[CARD])
    told = [
        f"**{html.escape(candidate.name)}**: generators made by ganops; serve the version under the alias `champion`."
    ]
    told += [parts[title] for title in ("Intended use", "Forbidden use", "Ethics and risks") if title in parts]
    return _cut(told)


def version_description(candidate: Candidate) -> str:
    """Verdict and digests in one line, then the card's own words: what the model is, its gate, its limits."""
    failed = ", ".join(candidate.failed_checks)
    verdict = "green" if candidate.passed else f"red ({html.escape(failed)})"
    digests = f"ONNX {candidate.onnx_sha256[:12]}, data {candidate.data_hash[:12]}"
    parts = _sections(candidate.evidence[CARD])
    told = [f"Verdict {verdict}. {digests}. The whole card: {CARD_PAGE}."]
    return _cut(told + [parts[title] for title in ("", "Limits", "Gate") if title in parts])


def _sections(card: Path) -> dict[str, str]:
    """The card's second-level sections by title ("" for what precedes the first), without pictures."""
    text = re.sub(r"^!\[.*\]\(.*\)$", "", _body(card), flags=re.MULTILINE)
    pieces = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    found = {"": re.sub(r"\A# .*\n?", "", pieces[0])}
    found |= {title.strip(): f"## {title}\n{body}" for title, body in zip(pieces[1::2], pieces[2::2], strict=True)}
    return {
        title: html.escape(re.sub(r"\n{3,}", "\n\n", body).strip(), quote=False)
        for title, body in found.items()
        if body.strip()
    }


def _cut(parts: list[str]) -> str:
    """As many of the parts, in order, as fit into a description."""
    told = ""
    for part in parts:
        if len(told) + len(part) + 2 <= _LONGEST:
            told += f"{part}\n\n"
    return told.strip()


def write_flavor(folder: Path, run_id: str, artifact_path: str) -> None:
    """Make `folder`, which holds the ONNX file, a model of MLflow's ONNX flavor (and pyfunc) around the same bytes.

    The file itself is not touched. Requirements are few and pinned to the flow's own versions.
    """
    import onnxruntime
    from mlflow import pyfunc
    from mlflow.models import Model

    model = Model(artifact_path=artifact_path, run_id=run_id, signature=signature(folder / ONNX))
    pyfunc.add_to_model(model, loader_module="mlflow.onnx", data=ONNX, python_env="python_env.yaml")
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    model.add_flavor("onnx", onnx_version=version("onnx"), data=ONNX, providers=providers, onnx_session_options=None)
    model.model_size_bytes = (folder / ONNX).stat().st_size
    model.save(str(folder / "MLmodel"))
    pins = "".join(f"{name}=={version(name)}\n" for name in _PACKAGES)
    pins += f"onnxruntime=={onnxruntime.__version__}\n"  # the package installed here may be onnxruntime-gpu
    (folder / "requirements.txt").write_text(pins, encoding="utf-8")
    python = ".".join(map(str, sys.version_info[:3]))
    environment = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(yaml.safe_dump(environment), encoding="utf-8")


def signature(onnx: Path) -> Any:
    """Names, types and shapes of inputs and outputs, as the file itself declares them; -1 stands for any number."""
    import numpy as np
    import onnxruntime
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])

    def schema(arguments: Any) -> Schema:
        kinds = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
        found: list[Any] = []
        for item in arguments:
            kind = kinds.get(item.type) or re.sub(r"tensor\((.*)\)", r"\1", item.type)
            shape = tuple(size if isinstance(size, int) else -1 for size in item.shape)
            found.append(TensorSpec(np.dtype(kind), shape, item.name))
        return Schema(found)

    return ModelSignature(inputs=schema(session.get_inputs()), outputs=schema(session.get_outputs()))
