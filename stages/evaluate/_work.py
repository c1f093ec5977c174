"""The work of room 6, in the order in which a reader wants to check it."""

import dataclasses
from pathlib import Path
from typing import Any

from consumer import Generator
from gan.ranks import joined
from stages.common.files import output_folder, write_atomically, write_json
from stages.common.summary import Summary, not_assessed, write_summary
from stages.config.evaluate import EvaluateConfig
from stages.drawn import drawn
from stages.evaluate._cas import cas, cas_protocol
from stages.evaluate._classes import per_class
from stages.evaluate._curves import read_curves
from stages.evaluate._inputs import check_floors, check_pair
from stages.evaluate._page import render, row_key
from stages.evaluate._pictures import choose, write_pictures
from stages.evaluate._population import population
from stages.evaluate._published import Found, asked_for, published_measures
from stages.processor import use_processor
from stages.reference_folder import Reference, open_reference
from stages.scoring import (
    SET_METRICS,
    Sets,
    agreement_measure,
    generated_sets,
    protocols,
    set_measure,
)


def evaluate(config: EvaluateConfig, *, onnx: Path, reference: Path, out: Path, curves: Path | None) -> Summary:
    """See `stages.evaluate.run`."""
    opened = open_reference(reference)
    generator = Generator(onnx, providers=["CPUExecutionProvider"], threads=config.threads)
    check_pair(generator, onnx, opened)
    check_floors(opened)
    asked = asked_for(config, opened)
    training = read_curves(curves) if curves else []
    use_processor(config.threads)
    inputs = {"onnx": onnx, "reference": reference} | ({"curves": curves} if curves else {})
    with joined() as ranks:
        # Published networks first, which all processes share. The rest is rank 0's work.
        published = published_measures(config, generator, opened, asked, ranks)
        alone = ranks.rank == 0
        found = _write(config, generator, opened, published, training, inputs=inputs, out=out) if alone else None
        return Summary(**ranks.told(found and dataclasses.asdict(found)))


def _write(
    config: EvaluateConfig, generator: Generator, reference: Reference, published: Found,
    training: list[dict[str, Any]], *, inputs: dict[str, Path], out: Path,
) -> Summary:  # fmt: skip
    """The whole folder, in the order in which a reader wants to check it."""
    with output_folder(out) as work:
        # The numbers: sets of images, a classifier taught by them, and the published networks.
        network, real = reference.network(), reference.compared()
        sets = generated_sets(generator, network, real, sets=config.sets, seed=config.seed, title="evaluate: sets")
        taught, taught_per_class = cas(generator, reference, seed=config.seed, start=config.sets * sets.n, folder=work)
        measures = {**_measures(config, reference, sets), "cas": taught, **published.measures}
        about, heldout = reference.info["extractor"], reference.heldout
        served = reference.served_otherwise(generator.prior)
        measures = {name: _with_note(found, served) for name, found in measures.items()}
        keys = protocols(about, n=sets.n, heldout=heldout, sets=config.sets, seed=config.seed)
        keys |= {"cas": cas_protocol(reference, seed=config.seed), **published.protocols}
        # What a person looks at.
        images, _ = drawn(generator, sets.n, seed=config.seed, folder=work, title="evaluate: pictures")
        pictures = choose(generator, network, reference, sets, images, columns=config.columns, seed=config.seed)
        report = {
            "format": 1,
            "data_hash": reference.info["data_hash"],
            "generator": {
                "name": generator.name, "sha256": generator.sha256, "classes": generator.classes,
                "prior": generator.prior, "resolution": generator.resolution, "channels": generator.channels,
            },
            "seed": config.seed,
            "notes": [note for note in (reference.blind, served) if note],
            "measures": measures,
            "population": population(reference, sets, seed=config.seed),
            "protocols": keys,
            "sets": {**sets.values, **published.sets},
            "floors": reference.info["floors"],
            "classifier": about,
            "per_class": per_class(reference, sets, taught_per_class, seed=config.seed),
            "nearest": pictures.nearest,
            "realism": pictures.realism,
            "truncation": pictures.walks.sweep,
        }  # fmt: skip
        # Pictures and the page first, the numbers last: a reader of the numbers finds everything there.
        write_pictures(work, pictures, columns=config.columns)
        write_atomically(work / "index.html", render(report, pictures, training, columns=config.columns))
        write_json(work / "metrics.json", _flat(measures))
        write_json(work / "evaluation.json", report)
        kept = ("data_hash", "measures", "population", "protocols", "per_class")
        results = {key: report[key] for key in kept} | {"row_key": row_key(pictures.rows)}
        summary = write_summary(work, stage="evaluate", config=config, inputs=inputs, results=results)
    return summary


def _measures(config: EvaluateConfig, reference: Reference, sets: Sets) -> dict[str, dict[str, Any]]:
    """Every measure by name, except the classification accuracy score."""
    reason = reference.blind
    if reason is None and sets.n < config.smallest_set:
        reason = f"{sets.n} held-out images in a set are fewer than evaluate.smallest_set, {config.smallest_set}"
    if reason is not None:
        found = {name: not_assessed(reason, n_real=sets.n, n_fake=sets.n, protocol=name) for name in SET_METRICS}
    else:
        found = {name: set_measure(sets, name, reference.info["floors"][name]) for name in SET_METRICS}
    agreement = agreement_measure(sets, reference.info["baselines"]["label_agreement"])
    if reference.blind is not None and agreement["value"] is not None:
        counts = {key: agreement[key] for key in ("n_real", "n_fake", "protocol")}
        agreement = not_assessed(reference.blind, **counts)
    return {**found, "label_agreement": agreement}


def _with_note(found: dict[str, Any], note: str | None) -> dict[str, Any]:
    """The measure with `note`, which holds for all comparisons of generated with held-out images, after its reason."""
    if note is None or found["value"] is None or found["protocol"] in ("label_agreement", "cas"):
        return found
    return found | {"reason": "; ".join(filter(None, (found["reason"], note)))}


def _flat(measures: dict[str, dict[str, Any]]) -> dict[str, float]:
    """`metrics.json`: each assessed measure, and the ends of its interval if it has one; one number per key."""
    flat: dict[str, float] = {}
    for name, found in measures.items():
        ends = {name: found["value"], f"{name}_low": found["low"], f"{name}_high": found["high"]}
        flat |= {key: value for key, value in ends.items() if value is not None}
    return flat
