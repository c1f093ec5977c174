"""What the pipeline made, read from its files: the candidate for the registry, with all evidence about it.

The idempotence key identifies the content that matters by ONNX hash and data hash: the same content is registered once.
The evidence (card, verdict, pages) may change while the content does not, so it has a digest of its own.
"""

import dataclasses
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import yaml

from stages.common.files import read_json, sha256_file
from stages.common.summary import read_summary

_UNFIT = re.compile(r"[^\w\-. :/]", re.ASCII)  # MLflow's alphabet for the names of params and metrics
_LONGEST_PARAM = 6000
MEASURING = ("export", "evaluate", "audit")  # stages whose summaries hold measures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A generator with its papers, not yet registered. Digests are SHA-256."""

    name: str
    data: Path
    """The folder that it was read from."""
    onnx: Path
    onnx_sha256: str
    data_hash: str
    data_md5: str
    """DVC's name of the image store, at most 36 characters."""
    params_hash: str
    work_key: str
    """Digest of what the work was given: data, code, params and locks, as recorded in dvc.lock; "none" without one."""
    passed: bool
    registrable: bool
    checks: tuple[dict[str, Any], ...]
    licences: tuple[str, ...]
    """Those that the verdict accepts for training data."""
    arithmetic: str
    """The arithmetic in which parity was measured: "float16", "weights only" or "unknown"."""
    evidence: dict[str, Path]
    """Files to attach, by their path in the registry."""
    metrics: dict[str, float]
    params: dict[str, str]

    @property
    def key(self) -> str:
        """The idempotence key."""
        return f"{self.onnx_sha256}-{self.data_hash}"

    @property
    def evidence_sha256(self) -> str:
        """One digest over names and contents of the evidence.

        The report of validate is left out: it compares with the last promoted data, so every promotion changes it.
        """
        counted = {name: path for name, path in self.evidence.items() if not name.startswith("validate/")}
        digests = {name: sha256_file(path) for name, path in sorted(counted.items())}
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()

    @property
    def failed_checks(self) -> list[str]:
        """Names of the required checks that did not pass."""
        return [check["name"] for check in self.checks if check["required"] and check["status"] != "passed"]


def read_candidate(project: Path) -> Candidate:
    """The candidate in `project`/data. Raises ValueError if files are missing or do not belong together."""
    data = project / "data"
    verdict = read_json(_existing(data / "card" / "verdict.json"))
    onnx = _existing(data / "export" / "generator.onnx")
    if (found := sha256_file(onnx)) != verdict["onnx_sha256"]:
        raise ValueError(
            f"{onnx} has SHA-256 {found}, but the verdict is about {verdict['onnx_sha256']}; run `dvc repro`"
        )
    export = read_summary(data / "export")
    return Candidate(
        name=export.config["name"],
        data=data,
        onnx=onnx,
        onnx_sha256=found,
        data_hash=verdict["data_hash"],
        data_md5=dvc_md5(project / "dvc.lock", "data/ingest") or verdict["data_hash"][:36],
        params_hash=verdict["params_hash"],
        work_key=work_key(project / "dvc.lock"),
        passed=verdict["passed"] is True,
        registrable=verdict["registrable"] is True,
        checks=tuple(verdict["checks"]),
        licences=tuple(verdict.get("licences", ())),
        arithmetic=export.results.get("protocols", {}).get("parity", {}).get("arithmetic", "unknown"),
        evidence=_evidence(data),
        metrics=_metrics(data),
        params=_params(project / "params.yaml"),
    )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path} does not exist; run `dvc repro`")
    return path


def _evidence(data: Path) -> dict[str, Path]:
    """Card and verdict at the top, the other stages' files in folders of their own.

    Left out of the training's files are the weights and the sample grids, of which a long run has hundreds.
    """
    files = {path.relative_to(data / "card").as_posix(): path for path in _below(data / "card")}
    for stage in ("validate", "export", "evaluate", "audit"):
        for path in _below(data / stage):
            files[path.relative_to(data).as_posix()] = path
    kept = [path for path in sorted((data / "train").glob("*")) if path.is_file() and not path.match("samples-*.png")]
    files |= {f"train/{path.name}": path for path in kept}
    return {name: path for name, path in files.items() if path.suffix != ".onnx"}


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def measured(folder: Path) -> dict[str, Any]:
    """The measures by name, from the summaries of MEASURING in `folder`."""
    found: dict[str, Any] = {}
    for stage in MEASURING:
        found |= read_summary(folder / stage).results.get("measures", {})
    return found


def _metrics(data: Path) -> dict[str, float]:
    """Flat numbers: value and interval of every measure of the summaries."""
    found: dict[str, Any] = {}
    for name, measure in measured(data).items():
        found |= {name: measure["value"], f"{name}.low": measure["low"], f"{name}.high": measure["high"]}
    numbers = {_UNFIT.sub("_", name): value for name, value in found.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def _params(path: Path) -> dict[str, str]:
    """params.yaml as dotted names and JSON values; a value too long for the registry is replaced by its digest."""
    flat: dict[str, str] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(inner, f"{name}.{key}" if name else str(key))
            return
        text = value if isinstance(value, str) else json.dumps(value)
        digest = hashlib.sha256(text.encode()).hexdigest()
        flat[_UNFIT.sub("_", name)] = text if len(text) <= _LONGEST_PARAM else f"sha256:{digest}"

    walk(yaml.safe_load(path.read_text(encoding="utf-8")), "")
    return flat


def work_key(lock: Path) -> str:
    """SHA-256 of everything in DVC's lock file that goes into the stages and is made by no stage and no promotion."""
    if not lock.is_file():
        return "none"
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
    made = tuple(item["path"] for stage in stages.values() for item in stage.get("outs", ()))
    made += ("data/baseline.json",)
    given = [
        [name, item["path"], item.get("md5")]
        for name, stage in stages.items()
        for item in stage.get("deps", ())
        if not any(item["path"] == out or item["path"].startswith(f"{out}/") for out in made)
    ]
    settings = {name: stage.get("params") for name, stage in stages.items()}
    return hashlib.sha256(json.dumps([sorted(given), settings], sort_keys=True).encode()).hexdigest()


def dvc_md5(lock: Path, out: str) -> str | None:
    """The MD5 that DVC's lock file records for the output `out`, if it does."""
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {}) if lock.is_file() else {}
    outs = [item for stage in stages.values() for item in stage.get("outs", ())]
    return next((item["md5"] for item in outs if item["path"].rstrip("/") == out and "md5" in item), None)
