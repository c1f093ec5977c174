"""How often the project's intervals hold the truth, on distributions whose truth is known. Writes docs/intervals.md.

The real functions run on features drawn from `benchmarks.laws`. One line of JSON per cell: `coverage` with its own
Wilson interval, `above` and `below` (shares of intervals that lie wholly above and below the truth), mean `width`, and
whether coverage is 90 to 98 % at a nominal 95.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import itertools
import json
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.laws import LAWS, WIDTH, frechet_truth, kernel_truth
from benchmarks.report import context
from gan.intervals import mean_interval, share_interval, wilson
from gan.metrics import density_coverage, frechet_distance, inception_score, kernel_distance_full, precision_recall
from gan.population import Estimate, frechet_population, kernel_population
from gan.shares import corrected_shares, difference, total_variation

GOAL = (0.90, 0.98)
METRICS = ("fid", "kid", "is", "precision_k3", "recall_k3", "density_k5", "coverage_k5")
SHARES = ("precision_k3", "recall_k3", "coverage_k5")
SETS = (3, 5, 10, 20)
SAME, NEAR, FAR = 0.0, 0.2, 0.8  # how far the generator's law is from the real one

KERNEL_SIZES = {
    (100, 100): (SAME, NEAR, FAR),
    (263, 263): (SAME, NEAR, FAR),
    (263, 1315): (NEAR,),
    (1000, 1000): (NEAR,),
}
FRECHET_SIZES = {(263, 263): (SAME, NEAR, FAR), (263, 5260): (NEAR,), (1000, 1000): (NEAR,)}
EDGES = {"collapsed": 0.25, "sharp": 0.45}  # spread within a class: recall near 0, precision near 1
POOLS = [(263, name) for name in (*LAWS, *EDGES)] + [(100, "clipped"), (1000, "clipped")]

Array = NDArray[np.float64]
Row = dict[str, Any]


def row(
    name: str, estimand: str, method: str, truth: float, ends: Sequence[tuple[float, float]] | Array, **more: Any
) -> Row:
    """The line of one cell, from the intervals [simulations] and the truth that they should hold."""
    low, high = np.array(ends).T
    hits, count = int(((low <= truth) & (truth <= high)).sum()), len(low)
    share = {"coverage": hits / count, "coverage_low": wilson(hits, count)[0], "coverage_high": wilson(hits, count)[1]}
    sides = {"above": float((low > truth).mean()), "below": float((high < truth).mean())}
    return _line(name, estimand, method, truth, share | sides, float((high - low).mean()), simulations=count, **more)


def _line(
    name: str, estimand: str, method: str, truth: float, share: dict[str, float], width: float, **more: Any
) -> Row:
    return {
        "name": name, "estimand": estimand, "method": method, **more, "truth": truth, **share, "width": width,
        "goal": list(GOAL), "met": GOAL[0] <= share["coverage"] <= GOAL[1], "context": context(),
    }  # fmt: skip


def population(kind: str, law: str, change: float, n: int, m: int, simulations: int) -> list[Row]:
    """Population distance of one pair of laws at N and M, with fresh features each time."""
    real, fake = LAWS[law](SAME), LAWS[law](change)
    rng = np.random.default_rng([n, m, list(LAWS).index(law), int(100 * change)])
    estimate: Callable[[Array, Array], Estimate] = kernel_population if kind == "kernel" else frechet_population
    found = np.array([estimate(real.draw(rng, n), fake.draw(rng, m)) for _ in range(simulations)])
    truth = (kernel_truth if kind == "kernel" else frechet_truth)(real, fake)
    line = row(
        f"{kind}_population", "distance of the populations", "interval of a squared distance", truth, found[:, 1:],
        law=law, change=change, n_real=n, n_fake=m, bias=float(found[:, 0].mean() - truth),
        deviation=float(found[:, 0].std()),
    )  # fmt: skip
    return [line]


def sets_of(law: str, n: int, pool: int, simulations: int) -> list[Row]:
    """Expected scores given the real set, and differences of two generators on the same latents.

    `pool` independent sets are scored once against one fixed real set; simulations draw from these scores, so that
    their mean is the exact truth. The second generator mirrors the normal latents: every latent gives another picture
    of the same law, so that it is neither better nor worse. A score that is the same in all sets is left out.
    """
    rng = np.random.default_rng([n, pool, len(law)])
    base = LAWS["clipped" if law in EDGES else law]
    fake = dataclasses.replace(base(SAME), spread=np.full(WIDTH, EDGES[law])) if law in EDGES else base(NEAR)
    real, to_odds = base(SAME).draw(rng, n), rng.normal(size=(WIDTH, 10))
    scores = np.empty((2, pool, len(METRICS)))
    for index in range(pool):
        z, u, v = rng.normal(size=real.shape), rng.random(n), rng.random(n)
        scores[0, index], scores[1, index] = (_scores(real, fake.render(part, u, v), to_odds) for part in (z, -z))
    rows = []
    for (place, metric), count, paired in itertools.product(enumerate(METRICS), SETS, (False, True)):
        gap = scores[0, :, place] - scores[1, :, place]
        values = np.concatenate([gap, -gap]) if paired else scores[0, :, place]  # either sign is equally likely
        if np.ptp(values) == 0:
            continue
        drawn = values[rng.integers(len(values), size=(simulations, count))].tolist()
        share = metric in SHARES and not paired
        ends = [(share_interval(each, n) if share else mean_interval(each))[1:] for each in drawn]
        what = "difference of two equal generators" if paired else "expected value at N given the real set"
        rows.append(
            row(
                "paired_difference" if paired else "set_mean", what, "Student t over sets", float(values.mean()), ends,
                metric=metric, law=law, n_real=n, n_fake=n, sets=count, pool=pool,
            )
        )  # fmt: skip
    return rows


def _scores(real: Array, fake: Array, to_odds: Array) -> list[float]:
    logits = fake @ to_odds
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return [
        frechet_distance(real, fake), kernel_distance_full(real, fake),
        inception_score(odds / odds.sum(axis=1, keepdims=True), splits=1)[0],
        *precision_recall(real, fake, k=3), *density_coverage(real, fake, k=5),
    ]  # fmt: skip


def proportions(simulations: int) -> list[Row]:
    """Wilson's interval at the sizes of classes, held-out and generated images: sums of the binomial, no simulation.

    Then differences of shares and total variations, which are simulated.
    """
    rows = []
    for count, share in itertools.product((26, 100, 263, 2000, 5260), (0.5, 0.9, 0.98, 0.99, 0.995, 0.999)):
        ends = np.array([wilson(hits, count) for hits in range(count + 1)])
        odds = _binomial(count, share)
        held = (ends[:, 0] <= share) & (share <= ends[:, 1])
        exact = float(odds @ held)
        sides = {"above": float(odds @ (ends[:, 0] > share)), "below": float(odds @ (ends[:, 1] < share))}
        part = {"coverage": exact, "coverage_low": exact, "coverage_high": exact} | sides
        width = float(odds @ (ends[:, 1] - ends[:, 0]))
        rows.append(_line("proportion", "probability", "Wilson", share, part, width, n_fake=count, simulations=0))
    return rows + _differences(simulations) + _variations(min(simulations, 2000))


def _binomial(count: int, share: float) -> Array:
    hits = np.arange(count + 1)
    log = np.vectorize(math.lgamma)
    return np.exp(
        math.lgamma(count + 1) - log(hits + 1.0) - log(count - hits + 1.0)
        + hits * math.log(share) + (count - hits) * math.log(1 - share)
    )  # fmt: skip


def _differences(simulations: int) -> list[Row]:
    rng, rows = np.random.default_rng(41), []
    for n, m, p, q in ((100, 200, 0.1, 0.1), (100, 200, 0.3, 0.4), (988, 2000, 0.33, 0.33), (988, 2000, 0.02, 0.05)):
        hits = zip(rng.binomial(n, p, simulations), rng.binomial(m, q, simulations), strict=True)
        ends = [difference((int(a), n), (int(b), m))[1:] for a, b in hits]
        rows.append(row("share_difference", "difference of shares", "Newcombe", q - p, ends, n_real=n, n_fake=m, p=p))
    return rows


def _variations(simulations: int) -> list[Row]:
    """Total variation of three bins, and class shares corrected for a classifier that errs in 2 % of cases."""
    rng, rows = np.random.default_rng(42), []
    for gap in (0.0, 0.05, 0.15):
        p, q = np.full(3, 1 / 3), np.array([1 / 3 + gap, 1 / 3 - gap, 1 / 3])
        drawn = zip(rng.multinomial(988, p, simulations), rng.multinomial(2000, q, simulations), strict=True)
        ends = [total_variation(a, b, resamples=400, seed=i)[1:3] for i, (a, b) in enumerate(drawn)]
        rows.append(row("share_tv", "total variation", "bootstrap, less bias", gap, ends, n_real=988, n_fake=2000))
    confusion = np.full((10, 10), 0.02 / 9) + np.eye(10) * (0.98 - 0.02 / 9)
    for gap in (0.0, 0.03):
        shares = np.full(10, 0.1) + gap * np.array([1, -1] + [0] * 8)
        found = [
            corrected_shares(
                rng.multinomial(2000, shares @ confusion), np.array([rng.multinomial(80, line) for line in confusion]),
                np.full(10, 0.1), resamples=400, seed=index,
            )
            for index in range(simulations)
        ]  # fmt: skip
        sizes = {"n_real": 800, "n_fake": 2000}
        ends = [each.shares[0][1:] for each in found]
        rows.append(row("corrected_share", "share of a class", "delta method", shares[0], ends, **sizes))
        ends = [each.variation[1:3] for each in found]
        rows.append(row("share_tv_class", "total variation", "delta method, less bias", gap, ends, **sizes))
    return rows


def cells(quick: bool) -> Iterator[Callable[[], list[Row]]]:
    """Every cell as a call that returns its lines."""
    simulations, pool = (200, 100) if quick else (2000, 1000)
    for kind, sizes in (("kernel", KERNEL_SIZES), ("frechet", FRECHET_SIZES)):
        for (n, m), changes in sizes.items():
            for law, change in itertools.product(LAWS, changes):
                if not quick or (n, m) == (263, 263):
                    yield functools.partial(population, kind, law, change, n, m, simulations)
    for n, law in POOLS:
        if not quick or n <= 263:
            yield functools.partial(sets_of, law, n, pool if n < 1000 else pool // 2, 5 * simulations)
    yield functools.partial(proportions, simulations)


def main() -> None:
    """Run all cells; write docs/intervals.md unless --quick."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the simulations; the page is not written")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each (default: 2)")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the processes that start below
    work, rows = list(cells(options.quick)), []
    with concurrent.futures.ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as processes:
        running = [processes.submit(cell) for cell in work]
        for done in tqdm(running, desc="coverage", unit="cell", disable=None):
            for line in done.result():
                print(json.dumps(line), flush=True)
                rows.append(line)
    if not options.quick:
        from benchmarks.coverage_page import page

        PAGE.write_text(page(rows), encoding="utf-8")


PAGE = Path(__file__).parents[1] / "docs" / "intervals.md"

if __name__ == "__main__":
    main()
