"""The summaries that a verdict rests on: read, checked to belong together, and the rights to the data judged."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from stages.common.files import read_json, sha256_file
from stages.common.summary import Summary, measure, read_summary
from stages.config.ingest import same_licence

ONNX = "generator.onnx"
RIGHTS_PROTOCOL = {
    "estimand": "1 where the datasheet names an accepted licence and a legal basis, else 0",
    "interval": "none: a decision, not an estimate",
    "n_real": 0,
    "n_fake": 0,
}


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Summaries by stage, the folders they came from, and the digest of each summary file and of `passed.json`."""

    summaries: dict[str, Summary]
    folders: dict[str, Path]
    digests: dict[str, str]
    data_hash: str

    @property
    def onnx_sha256(self) -> str:
        """Digest of the ONNX file that export wrote and the other stages measured."""
        return self.summaries["export"].outputs[ONNX]

    @property
    def generator(self) -> dict[str, Any]:
        """As export describes it: name, licence, classes (none: it takes no label), resolution, channels, z_dim."""
        return dict(self.results("export")["generator"])

    @property
    def datasheet(self) -> dict[str, Any]:
        """The datasheet of the data, as ingest's summary gives it."""
        return dict(self.results("ingest").get("datasheet") or {})

    @property
    def uses(self) -> list[str]:
        """What data and generator are used for, as `ingest.use` declares it."""
        return list(self.config("ingest").get("use") or [])

    @property
    def licences(self) -> list[str]:
        """Licences of data that ingest accepts for `uses`."""
        return list(self.config("ingest").get("licences") or [])

    def listed(self, stage: str, name: str) -> Path:
        """A file in a stage's folder. Raises ValueError if it is not the one that the stage's summary lists."""
        path = self.folders[stage] / name
        if not path.is_file() or sha256_file(path) != self.summaries[stage].outputs.get(name):
            raise ValueError(f"{path} is not the file that {stage}/summary.json lists; run `dvc repro`")
        return path

    def folder_digest(self, stage: str, below: str = "") -> str:
        """What `stages.common.files.digest` gives for the stage's folder, or for the folder `below` in it."""
        files = dict(self.summaries[stage].outputs)
        if below:
            files = {path.removeprefix(f"{below}/"): sha for path, sha in files.items() if path.startswith(f"{below}/")}
        else:
            files["summary.json"] = self.digests[stage]
        ordered = {path: files[path] for path in sorted(files, key=PurePosixPath)}
        return hashlib.sha256(json.dumps(ordered).encode()).hexdigest()

    @property
    def trained(self) -> bool:
        """Whether the training whose summary was given made the exported generator: it can also come from elsewhere."""
        given = "train" in self.summaries
        return given and self.summaries["export"].inputs.get("generator") == self.folder_digest("train", "generator")

    @property
    def others_images(self) -> bool:
        """Whether the generator's training started from networks that had seen images other than its own."""
        ancestry = self.results("train").get("ancestry") or []
        return self.trained and any("init" in entry and entry.get("data_hash") != self.data_hash for entry in ancestry)

    @property
    def grouped(self) -> bool:
        """Whether the audit found the images in groups, among which copies cannot be tested for."""
        return bool(self.results("audit").get("grouped"))

    def config(self, stage: str) -> dict[str, Any]:
        """Settings of a stage; empty if its summary was not given."""
        return self.summaries[stage].config if stage in self.summaries else {}

    def results(self, stage: str) -> dict[str, Any]:
        """Results of a stage; empty if its summary was not given."""
        return self.summaries[stage].results if stage in self.summaries else {}


def read_evidence(folders: Sequence[Path], passed: Path) -> Evidence:
    """Read all summaries. Raises ValueError if they do not describe one run on the data that passed validate."""
    summaries: dict[str, Summary] = {}
    places: dict[str, Path] = {}
    for folder in folders:
        summary = read_summary(folder)
        if summary.stage in summaries:
            raise ValueError(f"two summaries of stage {summary.stage} were given: {places[summary.stage]} and {folder}")
        summaries[summary.stage], places[summary.stage] = summary, folder
    for stage in ("ingest", "export"):
        if stage not in summaries:
            raise ValueError(f"--summaries must name the folder of {stage}; received {', '.join(map(str, folders))}")
    if ONNX not in summaries["export"].outputs or "generator" not in summaries["export"].results:
        raise ValueError(
            f"{places['export']}/summary.json lists no {ONNX}, or does not say what it draws; run `python -m "
            "stages.export` again"
        )
    verdict = read_json(passed)
    if verdict.get("passed") is not True:
        raise ValueError(f"{passed} does not say that the data passed validation; run `python -m stages.validate`")
    digests = {stage: sha256_file(folder / "summary.json") for stage, folder in places.items()}
    evidence = Evidence(summaries, places, {**digests, "validate": sha256_file(passed)}, str(verdict.get("data_hash")))
    _check_data(evidence, passed)
    _check_inputs(evidence)
    _check_extractor(evidence)
    return evidence


def _check_data(evidence: Evidence, passed: Path) -> None:
    """Raise ValueError if a stage used other data than those that passed, or does not name its data though it must."""
    for stage, summary in evidence.summaries.items():
        stated = summary.results.get("data_hash")
        if stated is None and stage in ("ingest", "export", "evaluate", "audit"):
            raise ValueError(
                f"{evidence.folders[stage]}/summary.json names no data_hash; run `python -m stages.{stage}`"
            )
        if stated is not None and stated != evidence.data_hash:
            raise ValueError(
                f"{stage} used data other than those that {passed} passed: data_hash {str(stated)[:12]} against "
                f"{evidence.data_hash[:12]}; run `dvc repro`"
            )


def _check_inputs(evidence: Evidence) -> None:
    """Raise ValueError unless what was measured is what ships, and all of it was measured against one reference."""
    references = {}
    for stage in ("evaluate", "audit"):
        if stage not in evidence.summaries:
            continue
        inputs = evidence.summaries[stage].inputs
        if inputs.get("onnx") != evidence.onnx_sha256:
            raise ValueError(
                f"{stage} measured an ONNX file other than the one that export wrote: "
                f"{str(inputs.get('onnx'))[:12]} against {evidence.onnx_sha256[:12]}; run `dvc repro`"
            )
        references[stage] = inputs.get("reference")
    if len(set(references.values())) > 1:
        raise ValueError("evaluate and audit were measured against different references; run `dvc repro`")
    if "reference" in evidence.summaries:
        for stage, found in references.items():
            if found != evidence.folder_digest("reference"):
                raise ValueError(f"{stage} was measured against a reference other than the one given; run `dvc repro`")


def _check_extractor(evidence: Evidence) -> None:
    """Raise ValueError if one extractor and resize has two hashes: numbers of two networks never share a name."""
    seen: dict[tuple[Any, Any], tuple[str, str]] = {}
    for stage, summary in evidence.summaries.items():
        for key, protocol in summary.results.get("protocols", {}).items():
            if sha256 := protocol.get("extractor_sha256"):
                what, here = (protocol.get("extractor"), protocol.get("resize")), f"{stage} ({key})"
                known, where = seen.setdefault(what, (sha256, here))
                if known != sha256:
                    raise ValueError(
                        f"protocols name different feature extractors: {where} and {here}; run `dvc repro`"
                    )


def judge_rights(datasheet: Mapping[str, Any], licences: Sequence[str], uses: Sequence[str]) -> dict[str, Any]:
    """The measure `data_rights`: 1 if the licence is among `licences` and a legal basis is stated, else 0.

    `uses` are those of `ingest.use`, for which the licences are accepted; ingest checks them against the datasheet.
    """
    licence, basis = (" ".join(str(datasheet.get(key) or "").split()) for key in ("licence", "legal_basis"))
    wrong = []
    if not licence:
        wrong.append("the datasheet names no licence")
    elif same_licence(licence) not in map(same_licence, licences):
        wrong.append(
            f"the licence {licence!r} is not among ingest.licences, those accepted for the uses in ingest.use "
            f"({', '.join(uses) or 'none'})"
        )
    if not basis:
        wrong.append("the datasheet names no legal basis")
    value, reason = 0.0 if wrong else 1.0, "; ".join(wrong) or None
    return measure(value, None, None, n_real=0, n_fake=0, protocol="data_rights", reason=reason)


def measured(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """Measures and protocols per stage, with the rights to the data added to those of ingest."""
    found = {
        stage: {"measures": dict(s.results.get("measures", {})), "protocols": dict(s.results.get("protocols", {}))}
        for stage, s in evidence.summaries.items()
    }
    found["ingest"]["measures"]["data_rights"] = judge_rights(evidence.datasheet, evidence.licences, evidence.uses)
    found["ingest"]["protocols"]["data_rights"] = RIGHTS_PROTOCOL
    return found


def params_hash(configs: Mapping[str, Any]) -> str:
    """SHA-256 over the resolved settings of all stages, as JSON with sorted keys."""
    text = json.dumps(configs, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
