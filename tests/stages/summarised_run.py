"""One run of the pipeline as the card sees it: small summaries of the released format, all of them good."""

import hashlib
import json
from pathlib import Path
from typing import Any

from stages.card import run
from stages.common.files import sha256_file, write_json
from stages.config import build
from stages.config.card import CardConfig

DATA, ONNX, EXTRACTOR = "d" * 64, "0" * 64, "e" * 64
MEASURES = {
    "evaluate": {"fid_domain": 1.0, "precision_k3": 0.9, "coverage_k5": 0.9, "label_agreement": 0.98, "cas": 0.97},
    "audit": {"memorization_p": 0.4},
    "export": {"parity_max_levels": 1.0},
}
CHECKS = [
    ("distance", "evaluate", "fid_domain", "<=", 2.0),
    ("fidelity", "evaluate", "precision_k3", ">=", 0.5),
    ("coverage", "evaluate", "coverage_k5", ">=", 0.5),
    ("labels", "evaluate", "label_agreement", ">=", 0.9),
    ("cas", "evaluate", "cas", ">=", 0.9),
    ("memorization", "audit", "memorization_p", ">=", 0.01),
    ("parity", "export", "parity_max_levels", "<=", 2.0),
    ("rights", "ingest", "data_rights", ">=", 1.0),
]
DATASHEET = {
    "name": "UCI digits", "licence": "CC BY 4.0", "legal_basis": "open data", "source": "scikit-learn",
    "intended_use": "Tests.",
}  # fmt: skip
PNG = b"\x89PNG picture"


def section(**changes: Any) -> dict[str, Any]:
    keys = ("name", "source", "measure", "op", "threshold")
    checks = [{**dict(zip(keys, row, strict=True)), "relative_to": "none", "required": True} for row in CHECKS]
    return {"registrable": True, "checks": checks, **changes}


def config(**changes: Any) -> CardConfig:
    return build(CardConfig, section(**changes), "card")


class Run:
    """The summaries of one run below a folder; change `summaries`, then `write`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.passed = folder, folder / "validate" / "passed.json"
        self.summaries: dict[str, dict[str, Any]] = {
            stage: {"format": 1, "stage": stage, "inputs": {}, "outputs": {}, "config": {"threads": 1}, "results": {}}
            for stage in ("ingest", "reference", "train", "export", "evaluate", "audit")
        }
        for stage, values in MEASURES.items():
            results = self.summaries[stage]["results"]
            results["protocols"] = {"p": {"n_real": 10, "n_fake": 10, "extractor_sha256": EXTRACTOR}}
            results["measures"] = {
                name: {
                    "value": value, "low": value, "high": value, "n_real": 10, "n_fake": 10, "protocol": "p",
                    "reference": {"mean": value, "sd": 0.1}, "reason": None,
                }
                for name, value in values.items()
            }  # fmt: skip
        ingest, export, audit = (self.summaries[stage] for stage in ("ingest", "export", "audit"))
        ingest["config"] |= {"use": ["research"], "licences": ["CC BY 4.0"]}
        ingest["results"] = {"data_hash": DATA, "counts": {"kept": 30}, "datasheet": dict(DATASHEET)}
        for stage in ("export", "evaluate", "audit"):
            self.summaries[stage]["results"]["data_hash"] = DATA
        export["outputs"] = {"generator.onnx": ONNX}
        self.summaries["evaluate"]["outputs"] = {"generated.png": hashlib.sha256(PNG).hexdigest()}
        self.summaries["train"]["results"] = {"steps": 2000}
        self.generator = {
            "name": "digits",
            "licence": "CC BY 4.0",
            "classes": ["a", "b"],
            "resolution": 8,
            "channels": 1,
        }
        export["results"]["generator"] = {**self.generator, "z_dim": 32}
        audit["results"]["findings"] = ["No copying found."]
        self.summaries["reference"]["config"]["extractor"] = {"name": "fit", "width": 32}

    def write(self) -> "Run":
        for stage, summary in self.summaries.items():
            (self.folder / stage).mkdir(parents=True, exist_ok=True)
            if stage in ("evaluate", "audit"):
                files = {**self.summaries["reference"]["outputs"]}
                files["summary.json"] = sha256_file(self.folder / "reference" / "summary.json")
                read = {"onnx": ONNX, "reference": hashlib.sha256(json.dumps(files).encode()).hexdigest()}
                summary["inputs"] = read | summary["inputs"]
            write_json(self.folder / stage / "summary.json", summary)
        self.passed.parent.mkdir(exist_ok=True)
        write_json(self.passed, {"format": 1, "data_hash": DATA, "passed": True})
        (self.folder / "evaluate" / "generated.png").write_bytes(PNG)
        return self

    def train(self, **results: Any) -> None:
        """Make the exported generator one of this training."""
        files = {"generator.json": "1" * 64, "generator.safetensors": "2" * 64}
        train = self.summaries["train"]
        train["outputs"] = {**{f"generator/{name}": sha for name, sha in files.items()}, "curves.csv": "3"}
        train["config"] = {"loss": {"name": "relativistic"}}
        train["results"] |= results
        self.summaries["export"]["inputs"]["generator"] = hashlib.sha256(json.dumps(files).encode()).hexdigest()

    def card(self, settings: CardConfig | None = None, *, out: str = "card") -> dict[str, Any]:
        folders = [self.folder / stage for stage in self.summaries]
        run(settings or config(), summaries=folders, passed=self.passed, out=self.folder / out)
        return json.loads((self.folder / out / "verdict.json").read_text())

    def text(self, *, out: str = "card") -> str:
        return (self.folder / out / "MODEL_CARD.md").read_text()
