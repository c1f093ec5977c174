"""Named protocols on published networks: the numbers of papers, with everything that a paper leaves out.

Every process of torchrun draws its share of the images and computes their features; rank 0 does the arithmetic. Set i
of N images starts at place START + i N of the seed; the domain extractor's sets lie below, so the two share no images.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer import Generator
from gan.draws import SUBSETS, permutation, spread
from gan.features.published import Published
from gan.intervals import mean_interval, share_interval
from gan.metrics import (
    density_coverage,
    energy_distance,
    frechet_distance_of_moments,
    inception_score,
    kernel_distance,
    kernel_distance_full,
    moments,
    precision_recall,
)
from gan.metrics.protocols import ROWS_PER_FEATURE, Protocol, named
from gan.ranks import Ranks
from stages.common.summary import measure, not_assessed
from stages.config.evaluate import EvaluateConfig
from stages.extraction import extract
from stages.reference_folder import Reference
from stages.scoring import sets_interval

START = 2**40  # place of the first image of the first set
SETS = 3  # fewer give no interval

Features = NDArray[np.float32]
Odds = NDArray[np.float64]


class Found(NamedTuple):
    """What evaluate reports on published networks, by name: measures, protocols, and one value per generated set."""

    measures: dict[str, Any]
    protocols: dict[str, Any]
    sets: dict[str, list[float]]


def asked_for(config: EvaluateConfig, reference: Reference) -> list[Protocol]:
    """The protocols of `evaluate.published`. Raises ValueError for one that is unknown or cannot be computed."""
    known = {f"{each['name']}-{each['resize']}" for each in reference.published()}
    found = []
    for name in config.published.protocols:
        try:
            protocol = named(name)
        except ValueError as error:
            raise ValueError(f"evaluate.published.protocols: {error}") from None
        if protocol.extractor == "domain":
            raise ValueError(f"evaluate.published.protocols: {name} is reported in any case; leave it out")
        if extractor_key(protocol) not in known:
            held = ", ".join(sorted(known)) or "none"
            raise ValueError(
                f"evaluate.published.protocols: {name} needs {extractor_key(protocol)} in reference.published, and "
                f"{reference.path} was made with {held}; add it: `python -m stages.reference.weights "
                f"{protocol.extractor} --resize {protocol.resize}`"
            )
        found.append(protocol)
    return found


def extractor_key(protocol: Protocol) -> str:
    """Name of the protocol's extractor in the reference folder."""
    return f"{protocol.extractor}-{protocol.resize}"


def published_measures(
    config: EvaluateConfig, generator: Generator, reference: Reference, asked: Sequence[Protocol], ranks: Ranks
) -> Found:
    """All measures asked for, on rank 0; empty elsewhere. Every process must call it."""
    measures: dict[str, Any] = {}
    protocols: dict[str, Any] = {}
    sets: dict[str, list[float]] = {}
    for key in dict.fromkeys(extractor_key(each) for each in asked):
        mine = [each for each in asked if extractor_key(each) == key]
        about = next(each for each in reference.published() if f"{each['name']}-{each['resize']}" == key)
        reasons = {each.name: too_few(each, reference, int(about["width"])) for each in mine}
        possible = [each for each in mine if reasons[each.name] is None]
        values: dict[str, list[float]] = {}
        size = max((fakes(each, reference) for each in possible), default=0)
        extractor = reference.open_published(key, device=ranks.device) if possible else None
        for index in range(config.published.sets if extractor else 0):
            assert extractor is not None
            drawn = _drawn(generator, extractor, ranks, seed=config.seed, start=START + index * size, count=size)
            if drawn is not None:
                for each in possible:
                    for name, value in _numbers(each, reference, key, *drawn, seed=config.seed, index=index).items():
                        values.setdefault(name, []).append(value)
        sets |= values
        if ranks.rank == 0:
            for each in mine:
                measures |= _measures(each, reference, key, values, reasons[each.name], seed=config.seed)
                protocols[each.name] = _record(each, config, reference, about, start_step=size)
    return Found(measures, protocols, sets)


def fakes(protocol: Protocol, reference: Reference) -> int:
    """Generated images per set."""
    return reference.heldout if protocol.n_fake is None else protocol.n_fake


def reals(protocol: Protocol, reference: Reference) -> int:
    """Number of real images compared; 0 if the protocol compares none."""
    if protocol.real is None:
        return 0
    return int(reference.info["counts"][protocol.real]) if protocol.n_real is None else protocol.n_real


def too_few(protocol: Protocol, reference: Reference, width: int) -> str | None:
    """Why the protocol cannot be followed with these counts; None if it can."""
    if protocol.real is None:
        return None
    there, wanted = int(reference.info["counts"][protocol.real]), reals(protocol, reference)
    least = {"frechet": ROWS_PER_FEATURE * width, "kernel": protocol.subset_size or 2}.get(protocol.kind, 2)
    least = max(least, (protocol.k or 0) + 1)
    if there < wanted:
        return f"{protocol.name} takes {wanted} images of {protocol.real}; there are {there}"
    smaller = min(wanted, fakes(protocol, reference))
    if smaller < least:
        why = f"{ROWS_PER_FEATURE} for each of {width} features" if protocol.kind == "frechet" else "by its definition"
        return f"{protocol.name} needs at least {least} images on each side, {why}; there are {smaller}"
    return None


def _drawn(
    generator: Generator, extractor: Published, ranks: Ranks, *, seed: int, start: int, count: int
) -> tuple[Features, Odds | None] | None:
    """Features and probabilities of one generated set on rank 0, None elsewhere."""

    def images(first: int, stop: int) -> NDArray[np.uint8]:
        return generator.draw(stop - first, seed, start=start + first)[0]

    return extract(images, count, extractor, ranks=ranks)


def _numbers(
    protocol: Protocol, reference: Reference, key: str, fake: Features, odds: Odds | None, *, seed: int, index: int
) -> dict[str, float]:
    """The protocol's numbers for generated set `index`, of which it takes the first images.

    Random subsets are drawn afresh in each set: one draw of real images shared by all sets would cause an error that no
    interval over sets can show.
    """
    count = fakes(protocol, reference)
    if protocol.kind == "inception":
        assert odds is not None and protocol.score_splits is not None
        return {protocol.name: inception_score(odds[:count], splits=protocol.score_splits)[0]}
    assert protocol.real is not None
    if protocol.kind == "frechet":
        known = reference.moments(protocol.real, key)
        return {protocol.name: frechet_distance_of_moments(known, moments(fake[:count]))}
    real = spread(reference.features(protocol.real, key), reals(protocol, reference))
    if protocol.kind == "kernel":
        return {protocol.name: _kernel(protocol, real, fake[:count], seed, index)}
    values = _ON_FEATURES[protocol.kind](real, fake[:count], protocol.k or 0)
    return dict(zip(protocol.measures, values, strict=True))


_ON_FEATURES: dict[str, Callable[[Features, Features, int], tuple[float, ...]]] = {
    "energy": lambda real, fake, _: (energy_distance(real, fake),),
    "precision_recall": lambda real, fake, k: precision_recall(real, fake, k=k),
    "density_coverage": lambda real, fake, k: density_coverage(real, fake, k=k),
}


def _kernel(protocol: Protocol, real: Features, fake: Features, seed: int, index: int) -> float:
    if protocol.subsets is None or protocol.subset_size is None:
        return kernel_distance_full(real, fake)
    return kernel_distance(
        real, fake, subsets=protocol.subsets, subset_size=protocol.subset_size, seed=seed,
        first=index * protocol.subsets,
    )[0]  # fmt: skip


def _measures(
    protocol: Protocol, reference: Reference, key: str, values: dict[str, list[float]], reason: str | None, *, seed: int
) -> dict[str, Any]:
    """The protocol's measures by name; without an interval if there are fewer than three sets."""
    counts: dict[str, Any] = {"n_real": reals(protocol, reference), "n_fake": fakes(protocol, reference)}
    if reason is not None:
        return {name: not_assessed(reason, **counts, protocol=protocol.name) for name in protocol.measures}
    floor = _floor(protocol, reference, key, seed)
    found = {}
    for name in protocol.measures:
        record = measure(float(np.mean(values[name])), None, None, **counts, protocol=protocol.name,
                         reference=floor.get(name))  # fmt: skip
        if len(values[name]) >= SETS:
            low, high = ends(protocol, name, values[name], **counts)
            record |= {"low": low, "high": high}
        else:
            record["reason"] = (
                f"no interval from {len(values[name])} generated sets: set evaluate.published.sets to 3 or more"
            )
        found[name] = record
    return found


def ends(protocol: Protocol, name: str, values: list[float], *, n_real: int, n_fake: int) -> tuple[float, float]:
    """The interval of the expected value, cut to the possible range."""
    if name.endswith(("_precision", "_recall", "_coverage")):
        return share_interval(values, n_fake if name.endswith("_precision") else n_real)[1:]
    _, low, high = mean_interval(values)
    unbiased = protocol.kind in ("kernel", "energy")  # estimates that may be negative
    return low if unbiased else max(low, 1.0 if protocol.kind == "inception" else 0.0), high


def _floor(protocol: Protocol, reference: Reference, key: str, seed: int) -> dict[str, dict[str, Any]]:
    """What real images reach in place of the generated ones, by measure: as many images of the other split.

    It is one draw, so there is no deviation. Empty if the other split has too few images, or no real ones are compared.
    """
    if protocol.real is None:
        return {}
    other = "heldout" if protocol.real == "train" else "train"
    count = fakes(protocol, reference)
    pool = reference.features(other, key)
    if len(pool) < count:
        return {}
    stand_in = np.asarray(pool[np.sort(permutation(seed, SUBSETS, 2**33, len(pool))[:count])])
    found = _numbers(protocol, reference, key, stand_in, None, seed=seed, index=0)
    return {name: {"mean": value, "sd": None} for name, value in found.items()}


def _record(
    protocol: Protocol, config: EvaluateConfig, reference: Reference, about: dict[str, Any], *, start_step: int
) -> dict[str, Any]:
    """The whole protocol: what its name fixes, and what this run adds."""
    sets = config.published.sets
    other = "held-out" if protocol.real == "train" else "train"
    floor = f"one draw of as many {other} images in place of the generated ones; none where there are fewer"
    drawn = {"subset_draws": f"{protocol.subsets} i and on, of set i"} if protocol.subsets else {}
    return {
        **protocol.as_record(), **drawn, "extractor_sha256": about["sha256"], "extractor_width": about["width"],
        "n_real": reals(protocol, reference), "n_fake": fakes(protocol, reference), "sets": sets,
        "seed": config.seed, "places": f"{START} + {start_step} i and on, of set i",
        "interval": sets_interval(sets) if sets >= SETS else None,
        "estimand": "expected value at this size for this generator, given the real images",
        "reference": None if protocol.real is None else floor,
    }  # fmt: skip
