"""The gate by a table of known cases: each row says what must come out and why."""

import math
from typing import Any

import pytest

from stages.card.verdict import decide, is_green
from stages.config.card import Check

pytestmark = pytest.mark.fast


def check(**changes: Any) -> Check:
    settings: dict[str, Any] = dict(
        name="line", source="evaluate", measure="fid_domain", op="<=", threshold=2.0, relative_to="none", required=True
    )
    return Check(**{**settings, **changes})


def measure(**changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = dict(
        value=1.5,
        low=1.0,
        high=1.9,
        n_real=10,
        n_fake=10,
        protocol="p",
        reference={"mean": 1.0, "sd": 0.5},
        reason=None,
    )
    return {**settings, **changes}


def line(a_check: Check, found: dict[str, Any] | None, *, labelled: bool = True) -> dict[str, Any]:
    measures = {} if found is None else {a_check.measure: found}
    evidence: dict[str, Any] = {a_check.source: {"measures": measures, "protocols": {"p": {"n_real": 10}}}}
    return decide([a_check], evidence, labelled=labelled)[0]


CASES = [
    ("value and interval below", {}, {}, "passed"),
    ("exactly at the threshold", {}, {"high": 2.0}, "passed"),
    ("good value, bad upper end", {}, {"high": 2.1}, "failed"),
    ("good value, bad lower end", {"op": ">=", "threshold": 1.2}, {}, "failed"),
    ("lower end holds", {"op": ">=", "threshold": 1.0}, {}, "passed"),
    ("ratio: 1.9 / 0.5 = 3.8", {"relative_to": "ratio"}, {"reference": {"mean": 0.5, "sd": 0.1}}, "failed"),
    ("ratio: 1.9 / 1.0 = 1.9", {"relative_to": "ratio"}, {}, "passed"),
    ("ratio to nothing", {"relative_to": "ratio"}, {"reference": {"mean": 0.0, "sd": 0.1}}, "not_assessed"),
    ("ratio to a negative floor", {"relative_to": "ratio"}, {"reference": {"mean": -0.1, "sd": 0.1}}, "not_assessed"),
    ("deviations: (1.9 - 1) / 0.5 = 1.8", {"relative_to": "deviations"}, {}, "passed"),
    ("deviations: (2.1 - 1) / 0.5 = 2.2", {"relative_to": "deviations"}, {"high": 2.1}, "failed"),
    ("deviations of zero", {"relative_to": "deviations"}, {"reference": {"mean": 1.0, "sd": 0.0}}, "not_assessed"),
    ("deviations unknown", {"relative_to": "deviations"}, {"reference": {"mean": 1.0}}, "not_assessed"),
    ("difference: 1.9 - 1 = 0.9", {"relative_to": "difference", "threshold": 0.9}, {}, "passed"),
    ("difference: 1.0 - 1 = 0", {"op": ">=", "relative_to": "difference", "threshold": 0.01}, {}, "failed"),
    ("no reference", {"relative_to": "difference"}, {"reference": None}, "not_assessed"),
    ("exact value, no interval", {}, {"low": None, "high": None}, "passed"),
    ("exact value too large", {}, {"value": 3.0, "low": None, "high": None}, "failed"),
    ("half an interval", {}, {"high": None}, "not_assessed"),
    ("interval turned round", {}, {"low": 1.9, "high": 1.0}, "not_assessed"),
    ("no value", {}, {"value": None, "reason": "two images"}, "not_assessed"),
    ("NaN", {}, {"value": math.nan}, "not_assessed"),
    ("infinite end", {}, {"high": math.inf}, "not_assessed"),
    ("NaN reference", {"relative_to": "ratio"}, {"reference": {"mean": math.nan, "sd": 1.0}}, "not_assessed"),
    ("text for a number", {}, {"value": "1.5"}, "not_assessed"),
    ("true is no measurement", {}, {"value": True, "low": None, "high": None}, "not_assessed"),
    ("protocol that nobody declared", {}, {"protocol": "other"}, "not_assessed"),
]


@pytest.mark.parametrize(("rule", "found", "status"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_status(rule: dict[str, Any], found: dict[str, Any], status: str) -> None:
    result = line(check(**rule), measure(**found))
    assert result["status"] == status, result["reason"]
    assert is_green([result]) is (status == "passed")


def test_missing_measure_and_missing_stage_are_not_assessed_and_red() -> None:
    for result in (line(check(), None), decide([check()], {}, labelled=True)[0]):
        assert result["status"] == "not_assessed"
        assert not is_green([result])


def test_what_is_not_required_never_turns_the_verdict_red() -> None:
    failed = line(check(required=False), measure(high=9.0))
    assert failed["status"] == "failed"
    assert is_green([failed, line(check(), measure())])


def test_a_verdict_without_any_required_line_is_red() -> None:
    assert not is_green([])
    assert not is_green([line(check(required=False), measure())])


def test_label_checks_have_no_meaning_without_labels_but_distance_has() -> None:
    labels = line(check(measure="label_agreement"), None, labelled=False)
    assert (labels["status"], labels["required"]) == ("not_assessed", False)
    assert "no labels" in labels["reason"]
    assert line(check(), None, labelled=False)["required"]
    assert line(check(measure="label_agreement"), None, labelled=True)["required"]


def test_copies_are_required_of_grouped_images_no_more_than_labels_where_there_are_none() -> None:
    rule = check(measure="memorization_p", source="audit")
    evidence = {"audit": {"measures": {"memorization_p": measure()}, "protocols": {"p": {}}}}
    (found,) = decide([rule], evidence, labelled=True, grouped=True)
    assert (found["status"], found["required"], found["value"]) == ("not_assessed", False, None)
    assert decide([rule, check()], evidence, labelled=True)[0]["required"]
    assert decide([check()], evidence, labelled=True, grouped=True)[0]["required"]


def test_a_line_holds_what_the_format_promises_and_says_the_reason_in_words() -> None:
    result = line(check(relative_to="ratio"), measure(high=2.5))
    assert list(result) == [
        "name", "value", "low", "high", "compared", "rule", "required", "status", "reason", "source", "measure",
        "protocol",
    ]  # fmt: skip
    assert result["rule"] == {"op": "<=", "threshold": 2.0, "relative_to": "ratio"}
    assert (result["value"], result["low"], result["high"], result["compared"]) == (1.5, 1.0, 2.5, 2.5)
    assert line(check(), None)["compared"] is None
    assert "upper end" in result["reason"] and "2.5 times" in result["reason"] and "at most 2" in result["reason"]
    assert "two images" in line(check(), measure(value=None, reason="two images"))["reason"]


@pytest.mark.parametrize(
    ("interval", "status"), [("none: exact", "passed"), (None, "not_assessed"), ("Student t", "passed")]
)
def test_an_estimate_without_its_interval_cannot_pass(interval: str | None, status: str) -> None:
    """One generated set on a published network: a value, no interval, and the reason; a good value is no pass."""
    found = measure(low=None, high=None, reason="no interval from 1 generated sets")
    evidence = {"evaluate": {"measures": {"fid_domain": found}, "protocols": {"p": {"interval": interval}}}}
    (result,) = decide([check()], evidence, labelled=True)
    assert result["status"] == status and result["required"]
    assert status == "passed" or "no interval from 1 generated sets" in result["reason"]
