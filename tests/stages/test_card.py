"""Verdict, model card and provenance from small summaries of the released format."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gan.metrics.protocols import PROTOCOLS, named
from stages.card import run
from stages.card.evidence import judge_rights
from stages.card.text import code, plain, slug
from stages.common.files import sha256_file, write_json
from stages.config import build
from stages.config.card import CardConfig

pytestmark = pytest.mark.fast

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
DATASHEET = {"name": "UCI digits", "licence": "CC BY 4.0", "legal_basis": "open data", "source": "scikit-learn"}
PNG = b"\x89PNG picture"


def section(**changes: Any) -> dict[str, Any]:
    keys = ("name", "source", "measure", "op", "threshold")
    checks = [{**dict(zip(keys, row, strict=True)), "relative_to": "none", "required": True} for row in CHECKS]
    return {"registrable": True, "licences": ["CC BY 4.0"], "intended_use": "Tests.", "checks": checks, **changes}


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


@pytest.fixture
def made(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_all_good_is_green_and_complete(made: Run) -> None:
    verdict = made.write().card()
    assert list(verdict) == [
        "format", "passed", "registrable", "onnx_sha256", "data_hash", "params_hash", "licences", "checks",
    ]  # fmt: skip
    assert (verdict["passed"], verdict["registrable"], verdict["format"]) == (True, True, 1)
    assert (verdict["onnx_sha256"], verdict["data_hash"]) == (ONNX, DATA)
    assert [(line["name"], line["source"], line["measure"]) for line in verdict["checks"]] == [
        row[:3] for row in CHECKS
    ]
    assert verdict["licences"] == ["CC BY 4.0"]
    names = sorted(path.name for path in (made.folder / "card").iterdir())
    assert names == ["MODEL_CARD.md", "provenance.json", "samples.png", "summary.json", "verdict.json"]


@pytest.mark.parametrize(
    ("stage", "measure", "worse", "check"),
    [
        ("evaluate", "fid_domain", {"high": 3.0}, "distance"),
        ("audit", "memorization_p", {"value": 0.001, "low": None, "high": None}, "memorization"),
        ("evaluate", "cas", {"value": None, "low": None, "high": None, "reason": "a class has no samples"}, "cas"),
    ],
)
def test_one_bad_measure_turns_its_check_red_and_no_other(
    made: Run, stage: str, measure: str, worse: dict[str, Any], check: str
) -> None:
    made.summaries[stage]["results"]["measures"][measure] |= worse
    verdict = made.write().card()
    assert verdict["passed"] is False
    assert [line["name"] for line in verdict["checks"] if line["status"] != "passed"] == [check]
    assert "The gate is red" in made.text()


def test_a_cut_configuration_can_be_green_but_not_registrable(made: Run) -> None:
    verdict = made.write().card(config(registrable=False))
    assert verdict["passed"] and not verdict["registrable"]
    assert "may not be registered" in made.text()


def test_the_card_tells_what_was_erased_and_lists_are_words(made: Run) -> None:
    results = made.summaries["ingest"]["results"]
    results["datasheet"]["allowed_use"] = ["research", "publication"]
    results["erased"] = [{"sha256": "ab" * 32, "date": "2026-11-22", "reason": "asked for | by *post*"}]
    made.write().card()
    text = made.text()
    assert "| allowed\\_use | research, publication |" in text
    assert "| `abababababab` | 2026-11-22 | asked for \\| by \\*post\\* |" in text
    results["erased"] = []
    made.write().card()
    assert "Erased on request" in text and "Erased on request" not in made.text()


@pytest.mark.parametrize(
    ("datasheet", "value", "word"),
    [
        (DATASHEET, 1.0, None),
        ({**DATASHEET, "licence": "cc by  4.0"}, 1.0, None),
        (
            {**DATASHEET, "licence": "CC BY-NC 4.0"},
            0.0,
            "card.licences, which are accepted for what ingest.use says (internal)",
        ),
        ({**DATASHEET, "licence": ""}, 0.0, "no licence"),
        ({**DATASHEET, "legal_basis": None}, 0.0, "no legal basis"),
        ({}, 0.0, "no licence"),
    ],
)
def test_rights(datasheet: dict[str, Any], value: float, word: str | None) -> None:
    found = judge_rights(datasheet, ["CC BY 4.0"], ["internal"])
    assert found["value"] == value
    assert (found["reason"] is None) if word is None else (word in found["reason"])


def test_a_non_commercial_licence_can_be_accepted_for_a_declared_use_that_the_card_prints(made: Run) -> None:
    made.summaries["ingest"]["config"] = {"use": ["internal", "research"]}
    made.summaries["ingest"]["results"]["datasheet"]["licence"] = "CC BY-NC 4.0"
    assert made.write().card(config(licences=["CC BY-NC 4.0"]))["passed"]
    assert "| used for, as declared in ingest.use | internal, research |" in made.text()


def test_a_licence_that_is_not_accepted_is_red_and_says_which(made: Run) -> None:
    made.summaries["ingest"]["results"]["datasheet"]["licence"] = "research only"
    line = made.write().card()["checks"][-1]
    assert line["status"] == "failed" and "research only" in line["reason"]


def test_images_without_labels_can_pass_without_label_checks(made: Run) -> None:
    made.summaries["export"]["results"]["generator"]["classes"] = []
    for name in ("label_agreement", "cas"):
        made.summaries["evaluate"]["results"]["measures"][name] |= {"value": None, "reason": "no labels"}
    verdict = made.write().card()
    assert verdict["passed"]
    assert [line["name"] for line in verdict["checks"] if not line["required"]] == ["labels", "cas"]


@pytest.mark.parametrize("kind", ["fid_domain", "precision_k3", "coverage_k5", "label_agreement", "cas",
                                  "memorization_p", "parity_max_levels", "data_rights"])  # fmt: skip
@pytest.mark.parametrize("how", ["absent", "not required"])
def test_a_gate_that_leaves_out_a_kind_is_refused(kind: str, how: str) -> None:
    checks = section()["checks"]
    left = [check for check in checks if check["measure"] != kind]
    if how == "not required":
        left = [check | {"required": check["measure"] != kind} for check in checks]
    with pytest.raises(ValueError, match="must hold a required check of"):
        config(checks=left)


def test_a_gate_cannot_ask_for_copies_among_grouped_images_and_the_card_says_so(made: Run) -> None:
    made.summaries["audit"]["results"]["measures"]["memorization_p"] |= {"value": None, "reason": "groups"}
    verdict = made.write().card()
    assert not verdict["passed"] and "Copies of training images were not tested for" not in made.text()
    made.summaries["audit"]["results"]["grouped"] = True
    verdict = made.write().card()
    (line,) = (line for line in verdict["checks"] if not line["required"])
    assert verdict["passed"] and (line["name"], line["status"]) == ("memorization", "not_assessed")
    assert "copies could not be tested for" in line["reason"]
    assert "**Copies of training images were not tested for**" in made.text() and "search for copies" not in made.text()


def test_measures_of_published_protocols_are_of_the_kinds_that_they_measure() -> None:
    """On unlabelled data without an upright side they alone can stand for distance, fidelity and coverage."""
    kinds = {"frechet": "distance", "kernel": "distance", "precision": "fidelity", "density": "fidelity",
             "recall": "coverage", "coverage": "coverage"}  # fmt: skip
    checks = section()["checks"]
    for protocol in PROTOCOLS.values():
        for name in protocol.measures:
            what = (
                name.rsplit("_", 1)[1] if protocol.kind in ("precision_recall", "density_coverage") else protocol.kind
            )
            check = build(CardConfig, section(checks=[*checks, checks[0] | {"name": "own", "measure": name}]), "card")
            expected = {"label_agreement": "label agreement", "cas": "classification accuracy score"} | kinds
            assert check.checks[-1].kind == expected.get(what), name
    names = (
        "fd_dinov2_vitb14_heldout",
        "pr_k3_dinov2_vitb14_heldout_precision",
        "dc_k5_dinov2_vitb14_heldout_coverage",
    )
    config(checks=[check | {"measure": name} for check, name in zip(checks, names, strict=False)] + checks[3:])


def test_a_note_beside_a_value_stands_once_in_the_table_and_explains_a_red_line(made: Run) -> None:
    found = made.summaries["evaluate"]["results"]["measures"]
    for name in ("fid_domain", "precision_k3"):
        found[name]["reason"] = "labels are served in other shares"
    found["fid_domain"]["high"] = 3.0
    lines = {line["name"]: line["reason"] for line in made.write().card()["checks"]}
    assert lines["distance"].startswith("labels are served in other shares (the upper end")
    assert "other shares" not in lines["fidelity"] and made.text().count("| | labels are served in other shares |") == 1


def test_the_card_says_what_the_extractor_learned(made: Run) -> None:
    made.write().card()
    assert "domain extractor is" not in made.text()
    about = {"kind": "rotation", "accuracy_heldout": {"value": 0.2512, "low": 0.22, "high": 0.28}, "guessing": 0.25}
    for blind, kind in ((None, "classifier"), ("it guesses", "rotation")):
        made.summaries["reference"]["results"]["extractor"] = about | {"blind": blind, "kind": kind}
        made.summaries["evaluate"]["inputs"], made.summaries["audit"]["inputs"] = {}, {}
        made.write().card()
        text = made.text()
        assert "25.1 % (22.0 % to 28.0 %) of the held-out images right; guessing reads 25.0 %." in text
        assert ("learned the classes" in text) == (kind == "classifier")
        assert ("no measure on\nits features means anything" in text) == (blind is not None)


def test_two_checks_of_one_name_are_refused() -> None:
    checks = section()["checks"]
    with pytest.raises(ValueError, match="stands there twice"):
        config(checks=[*checks, checks[0]])


@pytest.mark.parametrize(
    ("stage", "part", "change", "message"),
    [
        ("evaluate", "inputs", {"onnx": "1" * 64}, "evaluate measured another ONNX file"),
        ("audit", "inputs", {"onnx": "1" * 64}, "audit measured another ONNX file"),
        ("audit", "inputs", {"reference": "1" * 64}, "different references"),
        ("ingest", "results", {"data_hash": "1" * 64}, "ingest worked on other data"),
        ("export", "results", {"data_hash": "1" * 64}, "export worked on other data"),
        ("evaluate", "results", {"data_hash": "1" * 64}, "evaluate worked on other data"),
        ("ingest", "results", {"data_hash": None}, "ingest/summary.json names no data_hash"),
        ("export", "results", {"data_hash": None}, "export/summary.json names no data_hash"),
        ("evaluate", "results", {"data_hash": None}, "evaluate/summary.json names no data_hash"),
        ("export", "outputs", {"generator.onnx": "1" * 64}, "evaluate measured another ONNX file"),
        ("audit", "results", {"protocols": {"p": {"extractor_sha256": "1" * 64}}}, "different feature extractors"),
    ],
)
def test_summaries_of_different_runs_are_refused(
    made: Run, stage: str, part: str, change: dict[str, Any], message: str
) -> None:
    made.summaries[stage][part] |= change
    made.write()
    with pytest.raises(ValueError, match=message):
        made.card()
    assert not (made.folder / "card").exists()


def test_published_networks_stand_beside_the_domain_extractor_each_with_one_hash(made: Run) -> None:
    results = made.summaries["evaluate"]["results"]
    published = ("fid50k_inception_tf_train", "is50k_inception_tf", "kid_inception_tf_heldout")
    results["protocols"] |= {
        "fid_domain": {**named("fid_domain").as_record(), "extractor_sha256": EXTRACTOR},
        **{name: {**named(name).as_record(), "extractor_sha256": "f" * 64} for name in published},
    }
    results["measures"]["fid50k_inception_tf_train"] = {
        **results["measures"]["fid_domain"], "protocol": "fid50k_inception_tf_train",
    }  # fmt: skip
    assert made.write().card()["passed"] and "fid50k_inception_tf_train" in made.text()
    results["protocols"]["is50k_inception_tf"]["extractor_sha256"] = "a" * 64
    with pytest.raises(ValueError, match=r"evaluate \(fid50k_inception_tf_train\) and evaluate \(is50k_inception_tf\)"):
        made.write().card()


def test_another_reference_than_the_one_that_both_used_is_refused(made: Run) -> None:
    made.write()
    made.summaries["reference"]["results"]["floors"] = {}
    write_json(made.folder / "reference" / "summary.json", made.summaries["reference"])
    with pytest.raises(ValueError, match="another reference than the one given"):
        made.card()


def test_unfinished_stages_doubled_stages_and_data_that_did_not_pass_are_refused(made: Run) -> None:
    made.write()
    folders = [made.folder / stage for stage in made.summaries]
    with pytest.raises(ValueError, match="two summaries of stage ingest"):
        run(config(), summaries=[*folders, folders[0]], passed=made.passed, out=made.folder / "card")
    with pytest.raises(ValueError, match="must name the folder of ingest"):
        run(config(), summaries=folders[1:], passed=made.passed, out=made.folder / "card")
    write_json(made.passed, {"format": 1, "data_hash": DATA, "passed": False})
    with pytest.raises(ValueError, match="does not say that the data passed"):
        made.card()
    (folders[0] / "summary.json").unlink()
    with pytest.raises(ValueError, match="has not finished"):
        made.card()


def test_a_picture_that_is_not_the_measured_one_is_refused(made: Run) -> None:
    made.write()
    (made.folder / "evaluate" / "generated.png").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"is not the file that evaluate/summary.json lists"):
        made.card()


def test_params_hash_moves_with_every_setting_and_with_nothing_else(made: Run) -> None:
    before = made.write().card()["params_hash"]
    made.summaries["train"]["results"]["steps"] = 1
    assert made.write().card()["params_hash"] == before
    made.summaries["train"]["config"]["seed"] = 1
    after = made.write().card()["params_hash"]
    assert after != before
    assert made.card(config(intended_use="Other tests."))["params_hash"] not in (before, after)


def test_the_same_summaries_give_the_same_bytes(made: Run) -> None:
    made.write().card()
    made.card(out="again")
    for path in (made.folder / "card").iterdir():
        assert path.read_bytes() == (made.folder / "again" / path.name).read_bytes(), path.name


NASTY = "a|b <img src=x onerror=alert(1)> *bold* `tick` [link](http://x)\n# heading: {x}\u202e"


def test_names_from_outside_never_act_as_markup_and_the_header_stays_yaml(made: Run) -> None:
    made.summaries["export"]["results"]["generator"] |= {"classes": [NASTY], "name": NASTY, "licence": NASTY}
    made.summaries["audit"]["results"]["findings"] = [NASTY]
    made.summaries["ingest"]["results"]["datasheet"] |= {"citation": NASTY, "name": NASTY}
    made.summaries["train"]["config"] = {NASTY: NASTY}
    made.write().card()
    text = made.text()
    header, body = text.split("\n---\n", 1)
    fields = yaml.safe_load(header)
    assert fields["model-index"][0]["name"] == NASTY
    assert fields["license"] == "other"
    assert "<img" not in body and "*bold*" not in body.replace("\\*bold\\*", "")
    assert "[link]" not in body.replace("\\[link\\]", "") and "\n# heading" not in body
    assert "\u202e" not in body
    for line in body.splitlines():
        if line.startswith("| citation"):
            assert line.replace("\\|", "").count("|") == 3


def test_the_header_is_what_the_hub_reads(made: Run) -> None:
    made.write().card()
    fields = yaml.safe_load(made.text().split("\n---\n", 1)[0])
    assert (fields["license"], fields["library_name"]) == ("cc-by-4.0", "onnxruntime")
    assert fields["pipeline_tag"] == "unconditional-image-generation"
    assert fields["datasets"] == ["uci-digits"]
    (model,) = fields["model-index"]
    (result,) = model["results"]
    metrics = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert metrics["fid_domain"] == 1.0 and metrics["memorization_p"] == 0.4


def test_the_card_has_every_section_and_every_reason(made: Run) -> None:
    made.summaries["evaluate"]["results"]["measures"]["cas"] |= {"value": None, "reason": "a class has no samples"}
    verdict = made.write().card()
    text = made.text()
    for heading in ("Intended use", "Forbidden use", "How to use it", "Training data", "Evaluation", "Audit", "Gate",
                    "Ethics and risks", "Limits", "Training procedure", "Marking of generated content", "Provenance",
                    "Protocols"):  # fmt: skip
        assert f"\n## {heading}\n" in text
    for line in verdict["checks"]:
        assert plain(line["reason"]) in text
    assert "No copying found." in text and "](samples.png)" in text
    for sha256 in (ONNX, DATA, verdict["params_hash"]):
        assert f"`{sha256}`" in text


def test_training_is_only_told_of_the_generator_that_was_trained(made: Run) -> None:
    made.write().card()
    assert "does not come from a training" in made.text()
    assert "Which images the generator saw is not known here" in made.text()
    made.train()
    made.write().card()
    assert "| `loss.name` | relativistic |" in made.text() and "| `steps` | 2000 |" in made.text()


ANCESTOR = {"init": "a" * 64, "name": "faces", "licence": "CC0", "data_hash": "b" * 64, "step": 7, "seed": 3}
ADOPTED = {"adopted": "c" * 64, "step": 9, "changes": ["lr was 0.1"]}
ALONE = "The generator saw the images of the split `train` and no others.\n"


@pytest.mark.parametrize(
    ("ancestry", "alone"),
    [
        ([], True),
        ([ADOPTED], True),
        ([{**ANCESTOR, "data_hash": DATA}], True),
        ([ANCESTOR, {**ANCESTOR, "name": "birds"}], False),
    ],
)
def test_what_a_training_began_with_is_told_and_what_it_saw(
    made: Run, ancestry: list[dict[str, Any]], alone: bool
) -> None:
    made.summaries["ingest"]["results"]["erased"] = [{"sha256": "ab" * 32, "date": "2026-11-22", "reason": "asked"}]
    made.train(ancestry=ancestry)
    made.write().card()
    text = made.text()
    assert (ALONE in text) == alone and ("It began with networks that had seen others" in text) != alone
    assert ("the networks that the training began with may have seen them:" in text) != alone
    assert ("Began with, the oldest first:" in text) == bool(ancestry) and "2 entries" not in text
    for entry in ancestry:
        told = "; ".join(f"`{key}` {value}" for key, value in entry.items() if key != "changes")
        assert f"- {told}" in text
    assert ("`changes` lr was 0.1" in text) == (ADOPTED in ancestry)


def test_an_extractor_from_a_file_may_have_seen_anything(made: Run) -> None:
    made.write().card()
    assert "The feature extractor saw `fit` alone;\n`heldout`" in made.text()
    made.summaries["evaluate"]["inputs"], made.summaries["audit"]["inputs"] = {}, {}
    made.summaries["reference"]["config"]["extractor"] = {"name": "file", "path": "x", "sha256": EXTRACTOR}
    made.write().card()
    assert "saw `fit` alone" not in made.text()
    assert "Which images the feature extractor saw is not known here" in made.text()


def test_without_a_summary_of_reference_the_card_says_that_and_not_where_the_extractor_came_from(made: Run) -> None:
    made.write()
    del made.summaries["reference"]
    made.card()
    told = "feature extractor saw is not known here, since no summary of reference was given;\n`heldout` was used"
    assert told in made.text() and "comes from elsewhere" not in made.text()


def test_rows_of_the_grid_that_have_numbers_alone_are_named_below_it(made: Run) -> None:
    made.summaries["evaluate"]["results"]["row_key"] = ""
    made.write().card()
    assert "Rows:" not in made.text()
    made.summaries["evaluate"]["results"]["row_key"] = "1: \u732b, 2: a|b"
    made.write().card()
    assert "](samples.png)\n\nRows: 1: \u732b, 2: a\\|b\n\n## Intended use" in made.text()


def test_a_conditional_generator_is_one_without_an_audit_too(made: Run) -> None:
    made.summaries.pop("audit")
    verdict = made.write().card()
    assert "Classes: a, b." in made.text() and "normal numbers and a class label into images" in made.text()
    assert {line["name"]: line["required"] for line in verdict["checks"]}["labels"]
    del made.summaries["export"]["results"]["generator"]
    with pytest.raises(ValueError, match=r"export/summary\.json lists no .* or does not say what it draws"):
        made.write().card()


def test_provenance_names_subjects_and_materials(made: Run) -> None:
    made.write().card()
    folder = made.folder / "card"
    statement = json.loads((folder / "provenance.json").read_text())
    subjects = {item["name"]: item["digest"]["sha256"] for item in statement["subject"]}
    assert subjects.pop("generator.onnx") == ONNX
    assert subjects == {name: sha256_file(folder / name) for name in ("MODEL_CARD.md", "samples.png", "verdict.json")}
    definition = statement["predicate"]["buildDefinition"]
    materials = {item["name"]: item["digest"]["sha256"] for item in definition["resolvedDependencies"]}
    assert materials["validate/passed.json"] == sha256_file(made.passed)
    assert materials["ingest/summary.json"] == sha256_file(made.folder / "ingest" / "summary.json")
    assert definition["externalParameters"]["card"] == json.loads(json.dumps(dataclasses.asdict(config())))


def test_text_helpers() -> None:
    assert plain("a_b <c>\nd") == "a\\_b &lt;c&gt; d"
    assert plain(3) == 3
    assert code("x`y|z") == "`x'y\\|z`"
    assert [slug(name) for name in ("CC BY-SA 4.0", "own data", "...")] == ["cc-by-sa-4.0", "own-data", "unknown"]
