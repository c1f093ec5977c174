"""`MODEL_CARD.md` in the Hugging Face layout, from the evidence and the verdict.

Sections after Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019). Numbers come from summaries alone.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from stages.card.evidence import Evidence
from stages.card.text import code, number, plain, slug, yaml_header

_KNOWN_LICENCES = {
    "apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "openrail",
}  # fmt: skip
_TEMPLATE = Path(__file__).with_name("model_card.md.j2")


def model_card(evidence: Evidence, verdict: Mapping[str, Any], measures: Mapping[str, Mapping[str, Any]]) -> str:
    """The card's text. `measures` maps stages to their `measures` and `protocols`."""
    generator, sheet = evidence.generator, _datasheet(evidence)
    training = evidence.results("train") if evidence.trained else {}
    environment = jinja2.Environment(
        finalize=plain,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": code, "number": number}
    text = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        header=yaml_header(_header(generator, evidence, measures)),
        generator=generator,
        intended_use=sheet.pop("intended_use", "Not stated: the datasheet names none."),
        datasheet=sheet,
        uses=", ".join(evidence.uses),
        erased=evidence.results("ingest").get("erased") or [],
        counts=evidence.results("ingest").get("counts") or {},
        verdict=verdict,
        evaluation=_rows(measures, "evaluate"),
        audit=_rows(measures, "audit"),
        export=_rows(measures, "export"),
        protocols=_protocols(measures),
        findings=evidence.results("audit").get("findings") or [],
        training=_flat(evidence.config("train")) if evidence.trained else {},
        training_results=_flat({key: value for key, value in training.items() if key != "ancestry"}),
        ancestry=[_words(entry) for entry in training.get("ancestry") or []],
        trained=evidence.trained,
        grouped=evidence.grouped,
        others_images=evidence.others_images,
        extractor=evidence.config("reference").get("extractor", {}).get("name"),
        learnt=evidence.results("reference").get("extractor") or {},
        artefacts=_artefacts(evidence),
        picture=sample_grid(evidence) is not None,
        row_key=evidence.results("evaluate").get("row_key"),
    )
    return str(text)


def sample_grid(evidence: Evidence) -> Path | None:
    """The grid of samples to show: evaluate's, drawn by the ONNX file, else that of training, else None."""
    candidates = [("evaluate", "generated.png")] + [("train", "samples.png")] * evidence.trained
    for stage, name in candidates:
        if stage in evidence.summaries and name in evidence.summaries[stage].outputs:
            return evidence.listed(stage, name)
    return None


def _datasheet(evidence: Evidence) -> dict[str, str]:
    return _words({key: value for key, value in evidence.datasheet.items() if value})


def _words(fields: Mapping[str, Any]) -> dict[str, str]:
    """Fields as text, lists with commas."""
    return {key: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for key, value in fields.items()}


def _header(
    generator: Mapping[str, Any], evidence: Evidence, measures: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    licence, data = slug(generator["licence"]), _datasheet(evidence).get("name", "training data")
    fields: dict[str, Any] = {"license": licence}
    if licence not in _KNOWN_LICENCES:
        fields = {"license": "other", "license_name": licence}
    metrics = [
        {"type": name, "value": measure["value"], "name": f"{name} ({stage}, protocol {measure.get('protocol')})"}
        for stage in ("evaluate", "audit")
        for name, measure in measures.get(stage, {}).get("measures", {}).items()
        if measure.get("value") is not None
    ]
    result = {
        "task": {"type": "unconditional-image-generation"},
        "dataset": {"type": slug(data), "name": data},
        "metrics": metrics,
    }
    return fields | {
        "library_name": "onnxruntime",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["gan", "onnx", "fp16", "image-generation", "synthetic-data"],
        "datasets": [slug(data)],
        "model-index": [{"name": generator["name"], "results": [result] if metrics else []}],
    }


def _rows(measures: Mapping[str, Mapping[str, Any]], stage: str) -> list[dict[str, Any]]:
    """Table rows of a stage: its measures with name, in the order of the summary."""
    keys = ("value", "low", "high", "n_real", "n_fake", "protocol", "reference", "reason")
    empty = dict.fromkeys(keys)
    return [{**empty, **measure, "name": name} for name, measure in measures.get(stage, {}).get("measures", {}).items()]


def _protocols(measures: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"stage": stage, "key": key, "fields": _flat(protocol)}
        for stage, found in sorted(measures.items())
        for key, protocol in sorted(found["protocols"].items())
    ]


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names with short text values; long lists by their length."""
    flat: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            text = number(item) if isinstance(item, float) else item if isinstance(item, str) else json.dumps(item)
            flat[f"{prefix}{key}"] = f"{len(item)} entries" if isinstance(item, list) and len(text) > 300 else text
    return flat


def _artefacts(evidence: Evidence) -> Sequence[tuple[str, str]]:
    """(path, SHA-256) of the files that a reader may have; the data hash stands for those of ingest."""
    return [
        (f"{stage}/{path}", sha256)
        for stage, summary in evidence.summaries.items()
        if stage != "ingest"
        for path, sha256 in sorted(summary.outputs.items())
    ]
