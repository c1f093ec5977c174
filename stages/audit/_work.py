"""The work of the room: draw, group, measure, write."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan.draws import spread
from gan.features.domain import Pictures
from stages.audit._copies import copies
from stages.audit._inputs import Inputs, open_inputs
from stages.audit._labels import agreement, class_shares
from stages.audit._measures import findings, measures, protocols
from stages.audit._page import render
from stages.audit._quality import quality
from stages.audit._refused import nearest_refused
from stages.audit._shares import shares
from stages.audit._sides import Side, by_attribute, by_class, side
from stages.common.files import output_folder, write_atomically, write_json
from stages.common.summary import Summary, write_summary
from stages.config.audit import AuditConfig
from stages.drawn import drawn
from stages.pictures import write_grid
from stages.processor import use_processor
from stages.store import Split

FORMAT = 1


def audit(config: AuditConfig, *, onnx: Path, reference: Path, images: Path, out: Path) -> Summary:
    """See `stages.audit.run`."""
    use_processor(config.threads)
    inputs = open_inputs(onnx, reference, images, threads=config.threads)
    with output_folder(out) as work:
        generator, split = inputs.generator, inputs.store.splits

        # Draw as a service does if no particular label is asked for.
        fake = side(*drawn(generator, config.samples, seed=config.seed, folder=work, title="audit: samples"))
        real = side(split["train"], split["train"].labels if generator.classes else None)
        controls = _controls(config, inputs)
        refused, grouped = nearest_refused(images, controls.rows), bool(inputs.store.info.get("grouped"))

        report: dict[str, Any] = {
            "format": FORMAT,
            "onnx_sha256": generator.sha256,
            "data_hash": inputs.reference.info["data_hash"],
            "generator": _describe(inputs),
            "samples": config.samples,
            "seed": config.seed,
            "n_train": len(real),
            "shares": shares(config, real, fake, generator.classes, generator.prior),
            **_seen_by_the_network(config, inputs, real, fake),
            "memorization": copies(config, fake.images, real.images, controls, refused, grouped=grouped),
        }
        report["findings"] = findings(report, config.alpha)
        results = {
            "data_hash": report["data_hash"],
            "onnx_sha256": report["onnx_sha256"],
            "generator": report["generator"],
            "grouped": grouped,
            "findings": report["findings"],
            "measures": measures(report),
            "protocols": protocols(report, inputs.extractor),
        }
        pictures = closest_images(report["memorization"], fake.images, real.images, controls)
        write_json(work / "audit.json", report | {key: results[key] for key in ("measures", "protocols")})
        write_atomically(work / "index.html", render(report, alpha=config.alpha, pictures=pictures))
        rows = ["generated", "nearest training", "unseen real", "nearest training"]
        write_grid(
            work / "closest.png",
            np.concatenate(list(pictures.values())),
            columns=len(pictures["unseen"]),
            row_labels=rows,
        )
        return write_summary(
            work,
            stage="audit",
            config=config,
            inputs={
                "onnx": onnx,
                "reference": reference,
                "images": images / "dataset.json",
                "near_refused": images / "near_refused.csv",
            },
            results=results,
        )


def _controls(config: AuditConfig, inputs: Inputs) -> Split:
    """Real images that the generator never saw, evenly spread over both splits; see `stages.audit._copies`."""
    sides = [inputs.store.splits[name] for name in ("heldout", "fit")]
    rows = np.concatenate([one.rows for one in sides])
    labels = np.concatenate([one.labels for one in sides])
    places = spread(np.arange(len(rows)), min(len(rows), config.controls))
    return Split(sides[0].shards, rows[places], labels[places])


def _describe(inputs: Inputs) -> dict[str, Any]:
    generator = inputs.generator
    return {
        "name": generator.name,
        "licence": generator.metadata.get("licence"),
        "classes": generator.classes,
        "prior": generator.prior,
        "resolution": generator.resolution,
        "channels": generator.channels,
        "z_dim": generator.z_dim,
    }


def _seen_by_the_network(config: AuditConfig, inputs: Inputs, real: Side, fake: Side) -> dict[str, Any]:
    """What needs the feature extractor: labels per class, and quality per group."""
    found, predicted = inputs.look(fake.images)
    classes, blind = inputs.generator.classes, inputs.reference.blind
    labels: dict[str, Any] = {"reason": None, "rows": [], "shares": None}
    if not classes:
        labels["reason"] = "the images carry no labels"
    elif blind:
        labels["reason"] = blind
    elif not inputs.classifies or fake.labels is None:
        labels["reason"] = "the reference's extractor is no classifier of these classes"
    else:
        confusion = np.asarray(inputs.reference.info["confusion"], np.int64)
        labels["rows"] = agreement(config, fake.labels, predicted, confusion, inputs.generator.prior, classes)
        labels["shares"] = class_shares(config, predicted, confusion, inputs.generator.prior, classes)
    heldout = inputs.store.splits["heldout"]
    unseen = side(heldout, heldout.labels if classes else None)
    unseen_features = inputs.look(unseen.images)[0]
    groups = [*by_class(real, fake, classes), *by_attribute(real, fake)]
    same = [*by_class(unseen, fake, classes), *by_attribute(unseen, fake)]
    features = {(group.family, group.name): unseen_features[group.real] for group in same}
    return {"labels": labels, "quality": quality(config, groups, inputs.train_features, found, features, blind)}


def closest_images(
    memorization: dict[str, Any], fake: Pictures, train: Pictures, controls: Pictures
) -> dict[str, NDArray[np.uint8]]:
    """Images of equally many closest pairs of both kinds: generated and unseen real, each with its training image."""
    near, unseen = memorization["closest"], memorization["closest_controls"]
    count = min(len(near), len(unseen))
    return {
        "generated": fake[np.array([pair["image"] for pair in near[:count]], np.int64)],
        "generated_train": train[np.array([pair["train"] for pair in near[:count]], np.int64)],
        "unseen": controls[np.array([pair["image"] for pair in unseen[:count]], np.int64)],
        "unseen_train": train[np.array([pair["train"] for pair in unseen[:count]], np.int64)],
    }
