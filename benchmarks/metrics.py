"""Metrics against the published packages on the same feature arrays, and their growth with N in time and memory.

The peer of a row is the fastest package whose answer is right: within a relative 1e-6 of ours (plus 1e-9 for the kernel
distance, which may be near 0), equal for shares. The context says how long the others took and which were wrong.
Features are float32, as extractors give them; packages that lose digits in float32 are given float64 too, with the
conversion counted.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import paired, report
from gan.draws import SUBSETS, permutation
from gan.metrics import (
    frechet_distance,
    frechet_distance_of_moments,
    kernel_distance,
    kernel_distances,
    moments,
    neighbourhoods,
)

Features = NDArray[np.floating]
K_PRECISION, K_DENSITY = 3, 5
GROWTH = {"frechet_growth": 1, "prdc_growth": 2, "kid_growth": 2}  # power of N that the work grows with, at most


def features(count: int, width: int, seed: int, spread: float = 1.0) -> NDArray[np.float32]:
    """Like those of a network: not negative, many exact zeros, a few hundred strong directions."""
    directions = np.random.default_rng(0).standard_normal((width // 8, width), dtype=np.float32) * np.float32(0.1)
    found, rng = np.empty((count, width), np.float32), np.random.default_rng(seed)
    for start in range(0, count, 1024):
        rows = min(1024, count - start)
        strong = rng.standard_normal((rows, width // 8), dtype=np.float32) @ directions * np.float32(spread)
        weak = rng.standard_normal((rows, width), dtype=np.float32) * np.float32(0.2)
        np.maximum(strong + weak + np.float32(0.3), 0, out=found[start : start + rows])
    return found


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Wall clock seconds and answer of one call; what the package prints is dropped."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        answer = call()
        return time.perf_counter() - start, answer


def compare(
    name: str,
    ours: Callable[[], Any],
    peers: dict[str, Callable[[], Any]],
    *,
    goal: float,
    right: Callable[[Any, Any], bool],
    repeats: int,
    trials: tuple[Callable[[], Any], dict[str, Callable[[], Any]]] | None = None,
    **more: Any,
) -> None:
    """One row: try every peer once, then time ours and the fastest right one in turns.

    `trials` are ours and the peers on a part of the work, if one call of each on all of it would take too long.
    """
    first, tried = trials or (ours, peers)
    _, expected = seconds(first)
    others, best = {}, ("", float("inf"))
    for peer, call in tried.items():
        took, answer = seconds(call)
        fits = right(answer, expected)
        others[peer] = f"{took:.2f} s" if fits else f"{took:.2f} s, wrong"
        best = (peer, took) if fits and took < best[1] else best
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        times = paired(ours, peers[best[0]], repeats)
    report(name, unit="s", ours=times[0], peer=best[0], theirs=times[1], goal=goal, tried=others, **more)


def frechet(width: int, repeats: int, square_roots: bool) -> None:
    """The solve alone: from means and covariances to the number."""
    import torch
    from cleanfid.fid import frechet_distance as clean
    from torch_fidelity.metric_fid import fid_statistics_to_metric
    from torchmetrics.image.fid import _compute_fid

    real, fake = (moments(features(2 * width + 500, width, seed, 1 + seed / 20)) for seed in (1, 2))
    stats = [{"mu": mean, "sigma": cov} for mean, cov in (real, fake)]
    tensors = [torch.from_numpy(part) for side in (real, fake) for part in side]
    peers: dict[str, Callable[[], Any]] = {
        "torch-fidelity": lambda: fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"],
        "torchmetrics": lambda: _compute_fid(*tensors).item(),
    }
    if square_roots:  # the same formula as pytorch-fid's
        peers["clean-fid"] = lambda: clean(*real, *fake)
    compare(
        f"frechet_{width}", lambda: frechet_distance_of_moments(real, fake), peers, goal=3.0, repeats=repeats,
        right=lambda found, expected: abs(found - expected) <= 1e-6 * expected,
    )  # fmt: skip


def prdc(count: int, width: int, repeats: int) -> None:
    """All four from one pass, precision and recall at k 3, density and coverage at k 5; prdc takes only one k, and
    torch-fidelity gives only the first two."""
    import torch
    from prdc import compute_prdc
    from torch_fidelity.metric_prc import calculate_precision_recall_full, calculate_precision_recall_part

    real, fake = features(count, width, 1), features(count, width, 2, 1.05)
    tensors = torch.from_numpy(fake), torch.from_numpy(real)

    def ours() -> Any:
        return neighbourhoods(real, fake, k_precision=K_PRECISION, k_density=K_DENSITY)

    def same(found: Any, expected: Any) -> bool:
        return bool(np.allclose(found, expected, rtol=0, atol=0.5 / count))

    compare(
        f"prdc_{count}_against_prdc", ours,
        {"prdc": lambda: [compute_prdc(real, fake, K_DENSITY)[name] for name in ("density", "coverage")]},
        goal=3.0, right=lambda found, expected: same(found[1], expected[3]), repeats=repeats, width=width,
    )  # fmt: skip
    compare(
        f"prdc_{count}_against_torch_fidelity", ours,
        {
            "torch-fidelity, precision and recall only": lambda: calculate_precision_recall_full(*tensors),
            "torch-fidelity in parts, precision and recall only": lambda: calculate_precision_recall_part(*tensors),
        },
        goal=1.0, right=lambda found, expected: same(found, expected[:2]), repeats=repeats, width=width,
    )  # fmt: skip
    used, theirs = (child(name, count, width)["mib"] for name in ("prdc_growth", "prdc_peer"))
    report(
        f"prdc_{count}_memory", unit="MiB above the inputs", ours=used, peer="prdc", theirs=theirs, goal=1.0, limit=1536
    )


def kid(counts: tuple[int, ...], width: int, subsets: int, size: int, repeats: int) -> None:
    """One row per number of images: subsets of few images overlap much, subsets of many hardly at all."""
    for count in counts:
        kid_of(count, width, subsets, size, repeats)


def kid_of(count: int, width: int, subsets: int, size: int, repeats: int) -> None:
    """Mean and deviation over subsets of rows; every package is given the same subsets."""
    import torch
    from torch_fidelity.metric_kid import kernel_mmd
    from torchmetrics.image.kid import poly_mmd

    real, fake = features(count, width, 1), features(count, width, 2, 1.05)
    draws = [[permutation(0, SUBSETS, 2 * s + side, count)[:size] for s in range(subsets)] for side in (0, 1)]

    def over(mmd: Callable[[Any, Any], Any], dtype: Any, count: int) -> Callable[[], tuple[float, float]]:
        def call() -> tuple[float, float]:
            pairs = list(zip(*draws, strict=True))[:count]
            values = [float(mmd(real[a].astype(dtype), fake[b].astype(dtype))) for a, b in pairs]
            return float(np.mean(values)), float(np.std(values))

        return call

    def clean(x: Features, y: Features) -> Any:  # it draws subsets itself: one of all these rows
        from cleanfid.fid import kernel_distance as distance

        return distance(x, y, num_subsets=1, max_subset_size=len(x))

    def metrics(x: Features, y: Features) -> Any:
        return poly_mmd(torch.from_numpy(x), torch.from_numpy(y)).item()

    def ours(count: int) -> tuple[float, float]:
        values = kernel_distances(real, fake, draws[0][:count], draws[1][:count])
        return float(values.mean()), float(values.std())

    def peers(count: int) -> dict[str, Callable[[], Any]]:
        return {
            f"{package}, {np.dtype(dtype).name}": over(mmd, dtype, count)
            for package, mmd in (("torch-fidelity", kernel_mmd), ("torchmetrics", metrics), ("clean-fid", clean))
            for dtype in (np.float32, np.float64)
        }

    part = max(1, subsets // 10)
    compare(
        f"kid_{subsets}x{size}_of_{count}", lambda: ours(subsets), peers(subsets), goal=2.0,
        right=lambda found, expected: bool(np.allclose(found, expected, rtol=1e-6, atol=1e-9)),
        repeats=repeats, trials=(lambda: ours(part), peers(part)), subsets_tried=part, width=width,
    )  # fmt: skip


def growth(counts: list[int], width: int, subsets: int, size: int) -> None:
    """Seconds and memory at growing N, each in a process of its own; a ratio of 1: they grow as the work does."""
    for name, power in GROWTH.items():
        before: dict[str, float] = {}
        for count in counts:
            now = child(name, count, width, subsets, size)
            if before:
                expected = before["seconds"] * (count / before["count"]) ** power
                report(
                    f"{name}_{count}", unit="s", ours=now["seconds"],
                    peer=f"ours at {before['count']:.0f}, times N^{power}", theirs=expected, goal=0.5,
                    mib_above_inputs=round(now["mib"]), width=width,
                )  # fmt: skip
            before = now | {"count": count}


def child(name: str, *numbers: int) -> dict[str, float]:
    """Seconds and peak MiB above the inputs of one call, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.metrics", "--child", name, *map(str, numbers)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return measured


def in_child(name: str, count: int, width: int, subsets: int = 100, size: int = 1000) -> None:
    """The body of `child`: warm up on few rows, so that loaded libraries are not counted; print one JSON object."""
    from prdc import compute_prdc

    calls: dict[str, Callable[[Features, Features, int], Any]] = {
        "frechet_growth": lambda x, y, _: frechet_distance(x, y),
        "prdc_growth": lambda x, y, _: neighbourhoods(x, y, k_precision=K_PRECISION, k_density=K_DENSITY),
        "prdc_peer": lambda x, y, _: compute_prdc(x, y, K_DENSITY),
        "kid_growth": lambda x, y, n: kernel_distance(x, y, subsets=subsets, subset_size=n, seed=0),
    }
    real, fake = features(count, width, 1), features(count, width, 2, 1.05)
    seconds(lambda: calls[name](real[:64], fake[:64], 32))
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    took, _ = seconds(lambda: calls[name](real, fake, size))
    print(json.dumps({"seconds": took, "mib": resident("VmHWM") - before}))


def resident(key: str) -> float:
    """MiB of this process as the kernel counts them: VmRSS now, VmHWM at the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def main() -> None:
    """All rows; takes about a quarter of an hour on two free cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small arrays, under two minutes")
    parser.add_argument("--only", choices=("frechet", "prdc", "kid", "growth"), help="one part")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        in_child(options.child[0], *map(int, options.child[1:]))
        return
    quick = options.quick
    width, subsets, size = (256, 20, 200) if quick else (2048, 100, 1000)
    parts: dict[str, Callable[[], object]] = {
        "frechet": lambda: frechet(512 if quick else 2048, 3, square_roots=quick),
        "prdc": lambda: prdc(2000 if quick else 10_000, width, 3 if quick else 2),
        "kid": lambda: kid((600, 1200) if quick else (5000, 10_000), width, subsets, size, 3 if quick else 1),
        "growth": lambda: growth([1000, 2000, 4000] if quick else [5000, 10_000, 20_000, 50_000], width, subsets, size),
    }
    for name, part in parts.items():
        if options.only in (None, name):
            part()


if __name__ == "__main__":
    main()
