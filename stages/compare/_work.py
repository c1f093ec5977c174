"""The work of the comparison: open, score, decide, write."""

from pathlib import Path
from typing import Any

import numpy as np

from consumer import Generator
from stages.common.files import output_folder, write_json
from stages.common.summary import Summary, write_summary
from stages.compare._decide import differences, judge
from stages.config.compare import CompareConfig
from stages.processor import use_processor
from stages.reference_folder import Reference, open_reference
from stages.scoring import Sets, generated_sets, protocols

FORMAT = 1
NAMES = ("candidate", "champion")


def compare(config: CompareConfig, *, candidate: Path, champion: Path, reference: Path, out: Path) -> Summary:
    """See `stages.compare.run`."""
    use_processor(config.threads)
    opened = open_reference(reference)
    paths = dict(zip(NAMES, (candidate, champion), strict=True))
    generators = {
        name: Generator(path, providers=["CPUExecutionProvider"], threads=config.threads)
        for name, path in paths.items()
    }
    _check(generators, opened, paths)
    network, real = opened.network(), opened.compared()
    settings = {"sets": config.sets, "seed": config.seed}
    scores = {
        name: _scores(
            generated_sets(generator, network, real, **settings, title=f"compare: {name}"),
            labelled=bool(opened.classes),
        )
        for name, generator in generators.items()
    }
    floors, primary = opened.info["floors"], config.primary
    blind = opened.blind
    found = {} if blind else differences(scores["candidate"], scores["champion"], config.margins, floors, primary)
    absent = {
        margin.measure: blind or f"{margin.measure} has no meaning without labels"
        for margin in config.margins
        if margin.measure not in found
    }
    hashes = {name: generator.metadata.get("data_hash") for name, generator in generators.items()}
    judged = judge(found, absent)
    served = dict.fromkeys(opened.served_otherwise(generator.prior) for generator in generators.values())
    results: dict[str, Any] = {
        **judged,
        "reason": "; ".join([judged["reason"], *filter(None, served)]),
        "same_data": hashes["candidate"] is not None and hashes["candidate"] == hashes["champion"],
        "differences": found,
        "onnx_sha256": {name: generator.sha256 for name, generator in generators.items()},
        "data_hash": opened.info["data_hash"],
        "protocols": protocols(
            opened.info["extractor"], n=len(real), heldout=opened.heldout, sets=config.sets, seed=config.seed
        ),
    }
    with output_folder(out) as work:
        write_json(work / "comparison.json", {"format": FORMAT, **results, "scores": scores})
        inputs = {**paths, "reference": reference}
        return write_summary(work, stage="compare", config=config, inputs=inputs, results=results)


def _check(generators: dict[str, Generator], reference: Reference, paths: dict[str, Path]) -> None:
    """Raise ValueError unless what they draw is comparable: the same classes in the same order, pixels and channels."""
    first, second = (generators[name] for name in NAMES)
    for what in ("classes", "resolution", "channels"):
        mine, theirs = getattr(first, what), getattr(second, what)
        if mine != theirs:
            raise ValueError(
                f"candidate and champion cannot be compared, for their {what} differ: {_short(mine)} against "
                f"{_short(theirs)} ({paths['champion']}); register the new kind of generator under another name"
            )
    network = reference.info["extractor"]
    wanted = {"classes": reference.classes, "resolution": network["resolution"], "channels": network["channels"]}
    for what, theirs in wanted.items():
        if getattr(first, what) != theirs:
            raise ValueError(
                f"{paths['candidate']} does not fit the reference: {what} {_short(getattr(first, what))} instead of "
                f"{_short(theirs)}; run `python -m stages.reference` on the data of the candidate"
            )


def _scores(sets: Sets, *, labelled: bool) -> dict[str, list[float]]:
    """One score per set, by measure; label agreement only if the extractor reads the labels that were asked for."""
    scores = dict(sets.values)
    if sets.labels is not None and labelled:
        right = (sets.labels == sets.predicted).reshape(-1, sets.n)
        scores["label_agreement"] = np.mean(right, axis=1).tolist()
    return scores


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
