"""What the model card says, and that nothing from outside acts as markup in it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.card.text import code, plain, slug
from tests.stages.summarised_run import DATA, EXTRACTOR, ONNX, Run

pytestmark = pytest.mark.fast


@pytest.fixture
def made(tmp_path: Path) -> Run:
    return Run(tmp_path)


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


def test_the_intended_use_is_that_of_the_datasheet(made: Run) -> None:
    sheet = made.summaries["ingest"]["results"]["datasheet"]
    sheet["intended_use"] = "drawing *rare* defects"
    made.write().card()
    assert "## Intended use\n\ndrawing \\*rare\\* defects\n" in made.text() and made.text().count("defects") == 1
    del sheet["intended_use"]  # as datasheets were once
    made.write().card()
    assert "## Intended use\n\nNot stated: the datasheet names none" in made.text()


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


def test_text_helpers() -> None:
    assert plain("a_b <c>\nd") == "a\\_b &lt;c&gt; d"
    assert plain(3) == 3
    assert code("x`y|z") == "`x'y\\|z`"
    assert [slug(name) for name in ("CC BY-SA 4.0", "own data", "...")] == ["cc-by-sa-4.0", "own-data", "unknown"]
