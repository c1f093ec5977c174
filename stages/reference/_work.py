"""The work of room 3, in the order in which a reader wants to check it."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gan.draws import SUBSETS, permutation, spread
from gan.features.domain import save
from gan.intervals import proportion
from gan.metrics import moments
from gan.ranks import joined
from stages.common.files import output_folder, sha256_file, write_array, write_blocks, write_json
from stages.common.summary import Summary, write_summary
from stages.config.reference import Fit, ReferenceConfig
from stages.processor import use_processor
from stages.reference._extractor import (
    WHY_ROTATIONS,
    accuracy,
    blindness,
    confusion,
    extractor,
    guessing,
    pieces,
    recipe,
    set_size,
    split_features,
)
from stages.reference._published import Kept, kept_features, place
from stages.reference._selection import write_selection
from stages.scoring import FLOOR_POOL, SET_METRICS, binomial_sd, learn, set_scores
from stages.store import SPLITS, Store, open_passed_store

_log = logging.getLogger(__name__)


def reference(config: ReferenceConfig, *, images: Path, passed: Path, out: Path) -> Summary:
    """See `stages.reference.run`."""
    store = open_passed_store(images, passed)
    _check(config, store)
    use_processor(config.threads)
    with joined() as ranks:
        # Published networks first, which all processes share. The rest is rank 0's work.
        kept = kept_features(config, store, ranks)
        found = _write(config, store, kept, images=images, passed=passed, out=out) if ranks.rank == 0 else None
        return Summary(**ranks.told(found and dataclasses.asdict(found)))


def _write(
    config: ReferenceConfig, store: Store, kept: list[Kept], *, images: Path, passed: Path, out: Path
) -> Summary:
    """The whole folder, in the order in which a reader wants to check it."""
    with output_folder(out) as work:
        # The extractor, and what it makes of the real images.
        network = extractor(config, store)
        save(network, work / "extractor.safetensors")
        found, odds = {}, {}
        for name in SPLITS:
            found[name], odds[name] = split_features(network, store.splits[name])
            mean, covariance = moments(found[name])
            write_array(work / f"features-{name}.npy", found[name])
            np.savez(work / f"moments-{name}.npz", mean=mean, cov=covariance)
        write_selection(work / "selection", network, found["train"], store.info["data_hash"])
        # What real images and classifiers reach: the yardsticks of every later number.
        right = accuracy(network, store.splits["heldout"], odds["heldout"])
        guessed = guessing(network, store.splits["heldout"])
        if blind := blindness(network, right, guessed):
            _log.warning("%s", blind)
        else:
            read, what = 100 * right["value"], "classes" if store.classes else "rotations"
            told = (what, read, right["n"], 100 * guessed)
            _log.info("the extractor reads the %s of %.1f %% of %d held-out images; guessing, of %.1f %%", *told)
        about = {
            "sha256": sha256_file(work / "extractor.safetensors"),
            **network.settings,
            "origin": "fit" if isinstance(config.extractor, Fit) else "file",
            "why": "it reads the classes of the data set" if store.classes else WHY_ROTATIONS,
            "accuracy_heldout": right,
            "guessing": guessed,
            "blind": blind,
        }
        record = {
            "format": 1,
            "data_hash": store.info["data_hash"],
            "classes": store.classes,
            "counts": {name: len(store.splits[name]) for name in SPLITS},
            "set_size": set_size(config, store),
            "extractor": about,
            "recipe": dataclasses.asdict(recipe(config, network.width)),
            "seed": config.seed,
            "confusion": _confusion(store, odds["heldout"]),
            "floors": _floors(config, found, odds, size=set_size(config, store)),
            "baselines": _baselines(config, store, network.width, odds["heldout"]),
            "published": place(kept, work),
        }
        # Labels and pictures, for the floors of classes and for the pages.
        _write_pictures(work, store, picture_pool=config.picture_pool)
        write_json(work / "reference.json", record)
        summary = write_summary(
            work,
            stage="reference",
            config=config,
            inputs={"images": images / "dataset.json", "passed": passed},
            results={
                key: record[key] for key in ("data_hash", "counts", "set_size", "extractor", "floors", "baselines")
            },
        )
    return summary


def _write_pictures(work: Path, store: Store, *, picture_pool: int) -> None:
    """Write labels of all train images; images and labels of all held-out ones and of `picture_pool` train ones."""
    train = store.splits["train"]
    write_array(work / "labels-train.npy", train.labels)
    for name, count in (("heldout", len(store.splits["heldout"])), ("train", min(picture_pool, len(train)))):
        split = store.splits[name]
        write_blocks(work / f"{name}_images.npy", pieces(split, count), count)
        write_array(work / f"{name}_labels.npy", spread(split.labels, count))


def _check(config: ReferenceConfig, store: Store) -> None:
    counts = {name: len(store.splits[name]) for name in SPLITS}
    size = set_size(config, store)
    if counts["train"] < FLOOR_POOL * size:
        raise ValueError(
            f"the floors need {FLOOR_POOL} train images for each held-out one of a set, or their draws share "
            f"too many images and agree too well; there are {counts['train']} and {size}: give ingest.splits a larger "
            "share of train, or a smaller one of heldout, or lower reference.largest_set"
        )
    if not counts["fit"] or not counts["heldout"]:
        raise ValueError(f"the splits fit and heldout must hold images; the counts are {counts}")
    _check_learning(config, store)


def _check_learning(config: ReferenceConfig, store: Store) -> None:
    """Raise ValueError if a classifier, the extractor or a baseline, has too little to learn from."""
    if len(store.classes) == 1:
        raise ValueError(
            f"all images have one label, {store.classes[0]}, from which no classifier can learn; set "
            "ingest.source.labels to none (null or false, whichever the source takes), or give images of a second class"
        )
    least = config.training.batch // 4
    learnt = (["fit"] if isinstance(config.extractor, Fit) else []) + (["train"] if store.classes else [])
    for name in learnt:
        count = len(store.splits[name])
        if count < least:
            raise ValueError(
                f"reference.training.batch: {config.training.batch} needs at least {least} images, a quarter of it, in "
                f"the split {name}; there are {count}. Take at most {4 * count + 3}, or give ingest more images or a "
                f"larger share of {name}"
            )


def _floors(
    config: ReferenceConfig, found: dict[str, NDArray[np.float32]], odds: dict[str, NDArray[np.float64]], *, size: int
) -> dict[str, Any]:
    """What real images reach: mean and deviation (ddof 1) over draws of N train images against the N held-out ones."""
    real, pool, pool_odds = spread(found["heldout"], size), found["train"], odds["train"]
    rows = []
    for index in tqdm(range(config.floor_draws), desc="reference: floors", unit="draw", disable=None):
        # Apart from other permutations of this seed: the index starts beyond any kernel subset.
        chosen = permutation(config.seed, SUBSETS, 2**32 + index, len(pool))[:size]
        rows.append(set_scores(real, pool[chosen], pool_odds[chosen]))
    return {
        name: {
            "mean": float(np.mean([row[name] for row in rows])),
            "sd": float(np.std([row[name] for row in rows], ddof=1)),
            "draws": config.floor_draws,
            "n": size,
        }
        for name in SET_METRICS
    }


def _confusion(store: Store, odds: NDArray[np.float64]) -> list[list[int]]:
    """Counts on held-out images, which the classifier has not seen; empty if there are no classes."""
    if not store.classes:
        return []
    labels = store.splits["heldout"].labels
    return confusion(odds.argmax(axis=1).astype(np.int64), labels, len(store.classes))


def _baselines(config: ReferenceConfig, store: Store, width: int, odds: NDArray[np.float64]) -> dict[str, Any]:
    """What classifiers reach on held-out real images: the extractor's, and one trained on the whole train split."""
    if not store.classes:
        return {"cas": None, "label_agreement": None}
    train, held = store.splits["train"], store.splits["heldout"]
    network = learn(  # the recipe and seed with which evaluate trains on samples
        train, train.labels, classes=len(store.classes), recipe=recipe(config, width), seed=config.seed,
        title="reference: classifier",
    )  # fmt: skip
    predicted = split_features(network, held)[1].argmax(axis=1)
    return {
        "cas": _baseline(predicted, held.labels, store.classes),
        "label_agreement": _baseline(odds.argmax(axis=1), held.labels, store.classes),
    }


def _baseline(predicted: NDArray[np.integer], labels: NDArray[np.int64], classes: list[str]) -> dict[str, Any]:
    right = predicted == labels
    share = proportion(int(right.sum()), len(labels))
    per_class = [
        {"class": name, "right": int(right[labels == index].sum()), "n": int((labels == index).sum())}
        for index, name in enumerate(classes)
    ]
    return {**share, "mean": share["value"], "sd": binomial_sd(share), "per_class": per_class}
