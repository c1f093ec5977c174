"""Verdict, refusals and provenance from small summaries of the released format."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from gan.metrics.protocols import PROTOCOLS, named
from stages.card import run
from stages.card.evidence import judge_rights
from stages.common.files import sha256_file, write_json
from stages.config import build
from stages.config.card import CardConfig
from tests.stages.summarised_run import CHECKS, DATA, DATASHEET, EXTRACTOR, ONNX, Run, config, section

pytestmark = pytest.mark.fast


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


def test_the_verdict_is_said_at_the_end(made: Run, capsys: pytest.CaptureFixture[str]) -> None:
    required = sum(line["required"] for line in made.write().card()["checks"])
    card = made.folder / "card" / "MODEL_CARD.md"
    assert capsys.readouterr().err == f"card: GREEN, all {required} required checks passed; see {card}\n"
    made.summaries["evaluate"]["results"]["measures"]["fid_domain"] |= {"high": 3.0}
    made.write().card()
    said = f"card: RED, 1 of {required} required checks did not pass: distance; see {card}\n"
    assert capsys.readouterr().err == said


def test_a_cut_configuration_can_be_green_but_not_registrable(made: Run) -> None:
    verdict = made.write().card(config(registrable=False))
    assert verdict["passed"] and not verdict["registrable"]
    assert "may not be registered" in made.text()


@pytest.mark.parametrize(
    ("datasheet", "value", "word"),
    [
        (DATASHEET, 1.0, None),
        ({**DATASHEET, "licence": "cc by  4.0"}, 1.0, None),
        (
            {**DATASHEET, "licence": "CC BY-NC 4.0"},
            0.0,
            "ingest.licences, those accepted for the uses in ingest.use (internal)",
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
    made.summaries["ingest"]["config"] = {"use": ["internal", "research"], "licences": ["CC BY-NC 4.0"]}
    made.summaries["ingest"]["results"]["datasheet"]["licence"] = "CC BY-NC 4.0"
    assert made.write().card()["passed"]
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


def test_two_checks_of_one_name_are_refused() -> None:
    checks = section()["checks"]
    with pytest.raises(ValueError, match="is used twice"):
        config(checks=[*checks, checks[0]])


@pytest.mark.parametrize(
    ("stage", "part", "change", "message"),
    [
        ("evaluate", "inputs", {"onnx": "1" * 64}, "evaluate measured an ONNX file other than"),
        ("audit", "inputs", {"onnx": "1" * 64}, "audit measured an ONNX file other than"),
        ("audit", "inputs", {"reference": "1" * 64}, "different references"),
        ("ingest", "results", {"data_hash": "1" * 64}, "ingest used data other than"),
        ("export", "results", {"data_hash": "1" * 64}, "export used data other than"),
        ("evaluate", "results", {"data_hash": "1" * 64}, "evaluate used data other than"),
        ("ingest", "results", {"data_hash": None}, "ingest/summary.json names no data_hash"),
        ("export", "results", {"data_hash": None}, "export/summary.json names no data_hash"),
        ("evaluate", "results", {"data_hash": None}, "evaluate/summary.json names no data_hash"),
        ("export", "outputs", {"generator.onnx": "1" * 64}, "evaluate measured an ONNX file other than"),
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
    with pytest.raises(ValueError, match="a reference other than the one given"):
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
    assert made.card(config(registrable=False))["params_hash"] not in (before, after)


def test_the_same_summaries_give_the_same_bytes(made: Run) -> None:
    made.write().card()
    made.card(out="again")
    for path in (made.folder / "card").iterdir():
        assert path.read_bytes() == (made.folder / "again" / path.name).read_bytes(), path.name


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
