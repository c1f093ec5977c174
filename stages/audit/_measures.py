"""What the gate reads from an audit: measures with intervals, their protocols, and the findings in plain words."""

from typing import Any

from gan.intervals import LEVEL
from gan.metrics.protocols import K_COVERAGE, K_PRECISION
from stages.audit._quality import worst
from stages.common.summary import measure, not_assessed


def measures(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every measure by name; those that could not be assessed have no value, but the reason."""
    found = {"memorization_p": _memorization(report["memorization"])}
    for row in report["shares"]["rows"]:
        if row["family"] == "all":
            found[f"share_tv_{row['attribute']}"] = _variation(row, "shares", row["n_real"], row["n_fake"])
    labels, n = report["labels"], report["samples"]
    if report["generator"]["classes"]:
        shares = labels["shares"] or {"variation": None, "reason": labels["reason"]}
        found["share_tv_class"] = _variation(shares, "class_shares", sum(row["n_real"] for row in labels["rows"]), n)
        found["label_agreement_worst_class"] = _worst_label(labels)
    for family in ("class", "attribute"):
        rows = [row for row in report["quality"]["rows"] if (row["family"] == "class") == (family == "class")]
        for kind, k in (("precision", K_PRECISION), ("coverage", K_COVERAGE)):
            if rows:
                found[f"{kind}_k{k}_worst_{family}"] = _worst_quality(rows, kind)
    return found


def protocols(report: dict[str, Any], extractor: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """How each kind of number was made."""
    m, n = report["memorization"], report["samples"]
    counts = {"n_real": report["n_train"], "n_fake": n}
    classifier = {**extractor, "n_real": sum(row["n_real"] for row in report["labels"]["rows"]), "n_fake": n}
    group = {**extractor, **counts, "splits": "train against generated", "level": LEVEL}
    return {
        "memorization": {
            "n_real": m["controls"], "n_fake": m["fakes"], "n_train": report["n_train"], "ranks": list(m["ranks"]),
            "splits": "train; controls heldout and fit, whose distances count the images refused because of them",
            "distance": "squared L2 of uint8 pixels", "resize": "none", "arithmetic": "whole numbers",
            "interval": "none: exact p-value of the negative hypergeometric null",
            "estimand": "probability of so many generated images this near to training images if nothing is copied",
        },
        "shares": {
            "n_real": next(row["n_real"] for row in report["shares"]["rows"] if row["family"] == "all"), "n_fake": n,
            "splits": "train against generated", "resize": "none", "arithmetic": "integer moments",
            "interval": f"{LEVEL:g}, parametric bootstrap of both histograms, lower end less chance's bias",
            "estimand": "total variation of attribute shares, classes of both sides in the shares of the serving prior",
        },
        "class_shares": {
            **classifier, "interval": f"{LEVEL:g}, draws with the delta-method covariance, lower end less bias",
            "estimand": "total variation of class shares against the prior, corrected for the confusion matrix",
        },
        "label_agreement_class": {
            **classifier, "interval": f"Wilson, level {LEVEL:g} Bonferroni-corrected for the number of classes",
            "estimand": "smallest share, over classes, of images given the label asked for",
        },
        "group_precision": {
            **group, "k": K_PRECISION, "interval": "Wilson given the real images, Bonferroni over groups",
            "estimand": "smallest precision over groups of equal size",
        },
        "group_coverage": {
            **group, "k": K_COVERAGE, "interval": "Wilson given the generated images, Bonferroni over groups",
            "estimand": "smallest coverage over groups of equal size",
        },
    }  # fmt: skip


def findings(report: dict[str, Any], alpha: float) -> list[str]:
    """The result in sentences, for the page and the model card."""
    said = [_copies_in_words(report["memorization"], alpha)]
    rows = report["shares"]["rows"]
    cells = [(abs(cell["difference"]["value"]), row, cell) for row in rows for cell in row["cells"] if cell["differs"]]
    said.append(
        f"Shares of attributes: {len(cells)} of {report['shares']['tests']} cells differ from the training images"
        f"{', with classes in the shares that are served' if report['generator']['classes'] else ''}."
    )
    if cells:
        _, row, cell = max(cells, key=lambda item: item[0])
        said[-1] += (
            f" The largest gap: {row['attribute']} {cell['bin']} in {row['group']}, {cell['fake']['value']:.1%} "
            f"generated against {cell['real']['value']:.1%}."
        )
    labels = report["labels"]
    assessed = [row for row in labels["rows"] if row["agreement"]]
    if assessed:
        row = min(assessed, key=lambda each: each["agreement"]["value"])
        said.append(
            f"Labels: the worst class is {row['class']}: {_share(row['agreement'])} of its images are given that label"
            + (f" (the classifier on real images: {_share(row['classifier'])})." if row["classifier"] else ".")
        )
    elif labels["reason"]:
        said.append(f"Labels: not assessed, {labels['reason']}.")
    graded = [row for row in report["quality"]["rows"] if row["precision"]]
    if graded:
        row = min(graded, key=lambda each: each["precision"]["value"])
        said.append(
            f"Quality: the lowest precision is that of {row['family']} {row['group']}, {_share(row['precision'])}."
        )
    small = sum(row["status"] != "assessed" for row in [*rows, *labels["rows"], *report["quality"]["rows"]])
    if small:
        said.append(f"{small} groups could not be assessed; the audit's page names each with the reason.")
    return said


def _copies_in_words(m: dict[str, Any], alpha: float) -> str:
    if m["reason"]:
        return f"Copies of training images: not assessed, {m['reason']}."
    power = f"a share of exact copies of {m['detectable_share']:.2%} would be found 19 times in 20"
    counts = f"{m['fakes']} images against {m['controls']} real images that the generator never saw"
    word = "copying found" if m["p"] < alpha else "no copying found"
    return f"Copies of training images: {word}, p {m['p']:.3g} ({counts}; {power})."


def _share(share: dict[str, Any]) -> str:
    return f"{share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%})"


def _memorization(m: dict[str, Any]) -> dict[str, Any]:
    counts: dict[str, Any] = {"n_real": m["controls"], "n_fake": m["fakes"]}
    if m["reason"]:
        return not_assessed(m["reason"], **counts, protocol="memorization")
    return measure(m["p"], None, None, **counts, protocol="memorization")


def _variation(row: dict[str, Any], protocol: str, n_real: int, n_fake: int) -> dict[str, Any]:
    found = row["variation"]
    if found is None:
        return not_assessed(row["reason"], n_real=n_real, n_fake=n_fake, protocol=protocol)
    return measure(
        found["value"], found["low"], found["high"], n_real=n_real, n_fake=n_fake, protocol=protocol,
        reference={"mean": found["floor_mean"], "sd": found["floor_sd"]},
    )  # fmt: skip


def _worst_label(labels: dict[str, Any]) -> dict[str, Any]:
    """The smallest agreement over classes; not assessed if some class is not, since that class may be the worst."""
    rows = labels["rows"]
    counts = {key: sum(row[key] for row in rows) for key in ("n_real", "n_fake")}
    missing = [row for row in rows if row["reason"]]
    reason = labels["reason"] or (f"class {missing[0]['class']}: {missing[0]['reason']}" if missing else None)
    if reason:
        return not_assessed(reason, **counts, protocol="label_agreement_class")
    accuracies = [row["classifier"]["value"] for row in rows if row["classifier"]]
    reference = {"mean": min(accuracies), "sd": None} if len(accuracies) == len(rows) else None
    ends = worst([row["agreement"] for row in rows])
    return measure(*ends, **counts, protocol="label_agreement_class", reference=reference)


def _worst_quality(rows: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The smallest precision or coverage over groups that are large enough."""
    shares = [row[kind] for row in rows if row[kind]]
    protocol = f"group_{kind}"
    if not shares:
        return not_assessed(rows[0]["reason"], n_real=0, n_fake=0, protocol=protocol)
    count = min(share["count"] for share in shares)
    unseen = [row["precision_unseen"]["value"] for row in rows if row["precision_unseen"]]
    expected = [row["coverage_expected"] for row in rows if row["coverage_expected"] is not None]
    means = unseen if kind == "precision" else expected
    reference = {"mean": min(means), "sd": None} if means else None
    return measure(*worst(shares), n_real=count, n_fake=count, protocol=protocol, reference=reference)
