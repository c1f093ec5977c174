"""The work of room 6, in the order in which a reader wants to check it."""

from pathlib import Path
from typing import Any

import numpy as np

from consumer import Generator
from gan.intervals import wilson
from stages.common.files import output_folder, write_atomically, write_json
from stages.common.summary import Summary, write_summary
from stages.config.evaluate import EvaluateConfig
from stages.evaluate._cas import cas, cas_protocol
from stages.evaluate._page import render
from stages.evaluate._pictures import Pictures, choose, write_pictures
from stages.reference_folder import Reference, open_reference
from stages.scoring import (
    SET_METRICS,
    Sets,
    agreement_measure,
    generated_sets,
    not_assessed,
    protocols,
    set_measure,
)


def evaluate(config: EvaluateConfig, *, onnx: Path, reference: Path, out: Path) -> Summary:
    """See `stages.evaluate.run`."""
    opened = open_reference(reference)
    generator = Generator(onnx, providers=["CPUExecutionProvider"], threads=config.threads)
    _check(generator, onnx, opened)
    with output_folder(out) as work:
        sets = generated_sets(
            generator, opened.network(), opened.features("heldout"), sets=config.sets, seed=config.seed,
            threads=config.threads,
        )  # fmt: skip
        taught, taught_per_class = cas(generator, opened, seed=config.seed, start=config.sets * sets.n)
        measures = {**_measures(config, opened, sets), "cas": taught}
        keys = protocols(opened.info["extractor"], n=sets.n, sets=config.sets, seed=config.seed)
        keys["cas"] = cas_protocol(opened, seed=config.seed)
        pictures = choose(generator, opened, sets, columns=config.columns, seed=config.seed)
        report = _report(config, generator, opened, sets, measures, keys, taught_per_class, pictures)
        # Pictures and the page first, the numbers last: a reader of the numbers finds everything there.
        write_pictures(work, pictures, columns=config.columns)
        write_atomically(work / "index.html", render(report, pictures, columns=config.columns))
        write_json(work / "metrics.json", _flat(measures))
        write_json(work / "evaluation.json", report)
        summary = write_summary(
            work,
            stage="evaluate",
            config=config,
            inputs={"onnx": onnx, "reference": reference},
            results={key: report[key] for key in ("data_hash", "measures", "protocols", "per_class")},
        )
    return summary


def _check(generator: Generator, onnx: Path, reference: Reference) -> None:
    """Refuse a generator that this reference cannot judge."""
    about = reference.info["extractor"]
    mine = (generator.metadata.get("data_hash"), generator.resolution, generator.channels)
    theirs = (reference.info["data_hash"], about["resolution"], about["channels"])
    for name, found, wanted in zip(("data hash", "resolution", "channels"), mine, theirs, strict=True):
        if found != wanted:
            raise ValueError(
                f"{onnx} and {reference.path} do not belong together: {name} {found} against {wanted}; give the files "
                "of one run"
            )
    if generator.classes and reference.classes and generator.classes != reference.classes:
        raise ValueError(
            f"{onnx} and {reference.path} differ in classes: {', '.join(generator.classes[:20])} against "
            f"{', '.join(reference.classes[:20])}; give the files of one run"
        )


def _measures(config: EvaluateConfig, reference: Reference, sets: Sets) -> dict[str, dict[str, Any]]:
    """Every measure by name but the classification accuracy score."""
    if sets.n < config.smallest_set:
        reason = f"{sets.n} held-out images are fewer than evaluate.smallest_set, {config.smallest_set}"
        found = {name: not_assessed(reason, n_real=sets.n, n_fake=sets.n, protocol=name) for name in SET_METRICS}
    else:
        found = {name: set_measure(sets, name, reference.info["floors"][name]) for name in SET_METRICS}
    return {**found, "label_agreement": agreement_measure(sets, reference.info["baselines"]["label_agreement"])}


def _report(
    config: EvaluateConfig, generator: Generator, reference: Reference, sets: Sets,
    measures: dict[str, Any], keys: dict[str, Any], taught: list[int], pictures: Pictures,
) -> dict[str, Any]:  # fmt: skip
    """`evaluation.json`."""
    return {
        "format": 1,
        "data_hash": reference.info["data_hash"],
        "generator": {
            "name": generator.name, "sha256": generator.sha256, "classes": generator.classes,
            "prior": generator.prior, "resolution": generator.resolution, "channels": generator.channels,
        },
        "seed": config.seed,
        "measures": measures,
        "protocols": keys,
        "sets": sets.values,
        "floors": reference.info["floors"],
        "classifier": reference.info["extractor"],
        "per_class": _per_class(reference, sets, taught),
        "nearest": pictures.nearest,
    }  # fmt: skip


def _per_class(reference: Reference, sets: Sets, taught: list[int]) -> list[dict[str, Any]]:
    """One row a class: label agreement and classification accuracy, generated beside real, with the drop."""
    if sets.labels is None or not reference.classes:
        return []
    rows = []
    baselines = reference.info["baselines"]
    for label, name in enumerate(reference.classes):
        predicted = sets.predicted[sets.labels == label]
        wrong = np.bincount(predicted[predicted != label], minlength=len(reference.classes))
        real, trained = baselines["label_agreement"]["per_class"][label], baselines["cas"]["per_class"][label]
        samples = _share(taught[label], trained["n"]) if taught else None
        on_real = _share(trained["right"], trained["n"])
        rows.append(
            {
                "class": name,
                "agreement": _share(int((predicted == label).sum()), len(predicted)),
                "agreement_real": _share(real["right"], real["n"]),
                "mistaken_for": reference.classes[int(wrong.argmax())] if wrong.any() else None,
                "cas": samples,
                "cas_real": on_real,
                "cas_drop": on_real["value"] - samples["value"] if samples and on_real else None,
            }
        )
    return rows


def _share(hits: int, count: int) -> dict[str, Any] | None:
    """{value, low, high, n}, Wilson; None of no images."""
    if not count:
        return None
    low, high = wilson(hits, count)
    return {"value": hits / count, "low": low, "high": high, "n": count}


def _flat(measures: dict[str, dict[str, Any]]) -> dict[str, float]:
    """`metrics.json`: each assessed measure with the ends of its interval, one number a key."""
    flat: dict[str, float] = {}
    for name, found in measures.items():
        if found["value"] is not None:
            flat |= {name: found["value"], f"{name}_low": found["low"], f"{name}_high": found["high"]}
    return flat
