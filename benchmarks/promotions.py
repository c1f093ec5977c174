"""How often chance promotes: a thousand nights in which every candidate comes from the same recipe and the same data.

Score vectors are simulated instead of trained: normal, with the variances that eight full trainings of the default had
in `stages.compare` (20 sets of 263 images). The decision is the project's own, `stages.compare._decide`, with the
margins of params.yaml. A model's scores stay what they are, since its latents are the same every night; so a champion
that was lucky stays lucky. Writes docs/promotions.md.
"""

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import context, report
from gan.intervals import wilson
from stages.compare._decide import differences, judge
from stages.config import load_section
from stages.config.compare import HIGHER_IS_BETTER, CompareConfig

PROJECT = Path(__file__).parents[1]
PAGE = PROJECT / "docs" / "promotions.md"
# Measured: mean over eight trainings; standard deviation over trainings of the expected score (an upper bound: it
# contains a part of the sets' own); standard deviation of one set's paired difference of two trainings.
MEASURED = {
    "fid_domain": (1.287, 0.025, 0.167),
    "kid_domain": (-0.0004, 0.0071, 0.0564),
    "precision_k3": (0.914, 0.0071, 0.0242),
    "coverage_k5": (0.971, 0.0027, 0.0192),
    "label_agreement": (0.989, 0.0022, 0.0094),
}
FLOORS = {"fid_domain": {"mean": 1.110, "sd": 0.235}, "kid_domain": {"mean": -0.061, "sd": 0.0544}}
TOGETHER = 0.9  # correlation of FID's and KID's differences over sets; the others' are below 0.3 and taken as 0
NAMES = list(MEASURED)
Scores = NDArray[np.float64]  # [measures, sets]


@dataclasses.dataclass
class Night:
    """One night: the candidate's expected scores [measures], whether it was promoted, the champion's scores after it,
    and the number of comparisons."""

    candidate: NDArray[np.float64]
    promoted: bool
    champion: NDArray[np.float64]
    compared: int


def model(rng: np.random.Generator, sets: int, spread: float, loss: float) -> tuple[NDArray[np.float64], Scores]:
    """(expected scores, scores of its sets); `spread` 1: trainings differ as measured, 0: all are equal; `loss`: how
    much worse every measure is, in standard deviations over trainings."""
    mean, between, paired = (np.array(column) for column in zip(*MEASURED.values(), strict=True))
    worse = np.array([-1.0 if HIGHER_IS_BETTER[name] else 1.0 for name in NAMES])
    expected = mean + between * (spread * rng.standard_normal(len(NAMES)) + loss * worse)
    noise = rng.standard_normal((len(NAMES), sets))
    noise[1] = TOGETHER * noise[0] + np.sqrt(1 - TOGETHER**2) * noise[1]
    return expected, expected[:, None] + noise * (paired / np.sqrt(2))[:, None]


def against(candidate: Scores, other: Scores, config: CompareConfig) -> dict[str, Any]:
    """The judgement of stages.compare on two score vectors."""
    mine, theirs = ({n: row.tolist() for n, row in zip(NAMES, s, strict=True)} for s in (candidate, other))
    return judge(differences(mine, theirs, config.margins, FLOORS, config.primary), {})


def nights(
    config: CompareConfig, *, count: int, seed: int, spread: float = 0.0, drift: float = 0.0, same_data: bool = True,
    keep_best: bool = True, fresh: bool = False,
) -> Iterator[Night]:  # fmt: skip
    """`count` nights from a first champion on, by the rule of flows.promotion.judge.

    drift: how much worse each recipe is than the one of the night before, in standard deviations over trainings.
    fresh: each night has a champion of its own, as if the night before had not happened.
    """
    rng = np.random.default_rng(seed)
    champion = best = model(rng, config.sets, spread, 0.0)
    for night in range(1, count + 1):
        if fresh:
            champion = best = model(rng, config.sets, spread, 0.0)
        candidate = model(rng, config.sets, spread, drift * night)
        found = against(candidate[1], champion[1], config)
        compared = len(config.margins) + (len(config.primary) if same_data else 0)
        earned, ahead = found["not_worse"] and (bool(found["better"]) or not same_data), found["ahead"]
        if earned and keep_best and best is not champion:
            mark = against(candidate[1], best[1], config)
            compared += len(config.margins)
            earned, ahead = mark["not_worse"], mark["ahead"]
        if earned:
            champion, best = candidate, candidate if ahead else best
        yield Night(candidate[0], earned, champion[0], compared)


def main() -> None:
    """Simulate, print the rate of false promotions as a JSON object, write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.promotions", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a hundred nights; the page is not written")
    count = 100 if parser.parse_args().quick else 1000
    config = load_section(CompareConfig, PROJECT / "params.yaml", "compare")
    settings: dict[str, dict[str, Any]] = {
        "equal models, a champion of its own each night": {"fresh": True},
        "equal models, one champion after the other": {},
        "trainings that differ as measured": {"spread": 1.0},
        "equal models on new data each night": {"same_data": False},
        "each recipe a little worse, new data, against the champion alone": {
            "same_data": False, "drift": 0.1, "keep_best": False
        },
        "each recipe a little worse, new data, against the best too": {"same_data": False, "drift": 0.1},
    }  # fmt: skip
    rows = []
    for name, options in settings.items():
        run = list(nights(config, count=count, seed=0, **options))
        promoted = sum(night.promoted for night in run)
        low, high = wilson(promoted, count)
        fid = run[-1].champion[0] - MEASURED["fid_domain"][0]
        row = {"promoted": promoted, "low": low, "high": high, "compared": sum(n.compared for n in run), "fid": fid}
        rows.append((name, row))
        if name.startswith("equal models, a champion"):
            peer = "level of one comparison, one side"
            report("false promotions", unit="share", ours=max(promoted, 1) / count, peer=peer, theirs=0.025, goal=1.0,
                   nights=count, comparisons=row["compared"])  # fmt: skip
    if count == 1000:
        PAGE.write_text(page(rows, config), encoding="utf-8")


def page(rows: list[tuple[str, dict[str, Any]]], config: CompareConfig) -> str:
    """docs/promotions.md."""
    _, between, paired = MEASURED["fid_domain"]
    text = f"""# How often chance promotes

Written by `python -m benchmarks.promotions` (Python {context()["python"]}). A thousand nights each; candidates and
champions are **simulated score vectors**, not trainings: normal, with the variances that eight full trainings of the
default had in `stages.compare` ({config.sets} sets of 263 images; standard deviation of FID over trainings {between:g},
of one set's paired difference {paired:g}). The decision is the project's own code, with the margins and the primary
measures ({", ".join(config.primary)}) of `params.yaml`. Comparisons are intervals held against a margin or 0, over all
nights. The last column is the expected FID of the last champion less that of the first recipe: above 0 is a loss.

| nights | promoted of 1,000 | 95 % interval of the share | comparisons | FID lost at the end |
|---|---|---|---|---|
"""
    for name, row in rows:
        share = f"{row['low']:.1%} to {row['high']:.1%}"
        text += f"| {name} | {row['promoted']} | {share} | {row['compared']} | {row['fid']:+.3f} |\n"
    return f"""{text}
The first line is the false-promotion rate: nothing is better, every promotion is chance. In a chain there are fewer,
since whoever is promoted by chance had luck that the next candidate would need too. On new data no gain is asked for,
so an equal candidate replaces the champion; that this cannot go downhill is what the last two lines show.
"""


if __name__ == "__main__":
    main()
