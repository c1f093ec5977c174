"""Validation of many rows, and how often drift raises an alarm although nothing changed.

validate_rows     seconds of a whole `python -m stages.validate` on 1,000,000 images (8 px, grey, a dozen columns and
                  groups, a baseline to compare with), start-up included; at most 120
validate_memory   bytes of its largest process, in GiB; at most 4
drift_alarms      share of 2,000 comparisons of two samples of one distribution in which any of 20 columns alarms at
                  the level 0.01: 1,797 images against 1,797, 60 against 50,000, 100,000 against 300; 1,797 against
                  1,797 with mostly rare values; and, binned by the quantiles of the first sample, 1,797 against 1,797
                  and against 20,000
drift_found       smallest share of images moved in one of 20 columns that raises an alarm in 9 of 10 comparisons of
                  1,797 images with as many
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.report import report
from gan.attributes import bins
from stages.common.files import to_json
from stages.config.validate import Drift
from stages.store import SPLITS
from stages.validate._drift import compare
from stages.validate._profile import binned, quantiles

LIMIT_S, LIMIT_GIB, LEVEL = 120.0, 4.0, 0.01
_SHARD = 65536
_WORDS = 300
_SHARES = {"train": 0.55, "fit": 0.3, "heldout": 0.15}


def main() -> None:
    """Write a store, validate it, count alarms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a twentieth of it all")
    share = 20 if parser.parse_args().quick else 1
    with tempfile.TemporaryDirectory() as name:
        rows(Path(name), 1_000_000 // share)
    alarms(2000 // share)


def rows(folder: Path, count: int) -> None:
    """The store, its profile as a baseline, and the run that is measured."""
    write_store(folder / "store", count)
    command = [sys.executable, "-m", "stages.validate", "--images", str(folder / "store"), "--out", str(folder / "out")]
    subprocess.run(command, check=True, capture_output=True)
    (folder / "baseline.json").write_bytes((folder / "out" / "profile.json").read_bytes())
    started, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, "--baseline", str(folder / "baseline.json")], check=True, capture_output=True)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    report("validate_rows", unit="s", ours=seconds, peer="goal", theirs=LIMIT_S, goal=1.0, rows=count,
           cpu_seconds=round(cpu, 1))  # fmt: skip
    gib = after.ru_maxrss / 2**20
    report("validate_memory", unit="GiB", ours=gib, peer="goal", theirs=LIMIT_GIB, goal=1.0, rows=count)


def write_store(folder: Path, count: int) -> None:
    """A store of noise as ingest would write it, without any image file."""
    folder.mkdir(parents=True)
    dice = np.random.default_rng(0)
    groups = np.arange(count) // 3
    sides = dice.choice(3, groups[-1] + 1, p=list(_SHARES.values())).astype(np.uint8)[groups]
    labels = dice.integers(0, 10, count)
    for number, start in enumerate(range(0, count, _SHARD)):
        part = slice(start, min(start + _SHARD, count))
        size = part.stop - part.start
        np.save(folder / f"images-{number:05d}.npy", dice.integers(0, 256, (size, 8, 8, 1), dtype=np.uint8))
        np.save(folder / f"labels-{number:05d}.npy", labels[part])
        np.save(folder / f"split-{number:05d}.npy", sides[part])
    columns: dict[str, Any] = {
        "sha256": [hashlib.sha256(str(place).encode()).hexdigest() for place in range(count)],
        "source": [f"{label}/{place:07d}.png" for place, label in enumerate(labels)],
        "split": [SPLITS[side] for side in sides],
        "label": labels,
        "class": [str(label) for label in labels],
        "width": dice.integers(1000, 2000, count),
        "height": dice.integers(1000, 2000, count),
    }
    columns |= {name: dice.choice(names, count) for name, names in bins(1).items()}
    columns["group"] = [f"person {group}" for group in groups]
    pq.write_table(pa.table(columns), folder / "manifest.parquet")
    _write_papers(folder, count, np.bincount(sides, minlength=3).tolist())


def _write_papers(folder: Path, count: int, sizes: list[int]) -> None:
    counts = {"read": count, "kept": count, "duplicates": 0, "refused": 0, **dict(zip(SPLITS, sizes, strict=True))}
    info = {
        "format": 1, "resolution": 8, "channels": 1, "classes": [str(label) for label in range(10)],
        "attributes": bins(1), "declared": {}, "grouped": True, "counts": counts, "data_hash": "0" * 64,
        "datasheet": {"name": "noise", "source": "drawn", "licence": "CC0", "legal_basis": "made here"},
    }  # fmt: skip
    config = {"splits": _SHARES, "upscale": False, "near_duplicates": {"distance": 7, "levels": 4.0}}
    summary = {"format": 1, "stage": "ingest", "inputs": {}, "outputs": {}, "config": config, "results": {}}
    (folder / "dataset.json").write_text(to_json(info))
    (folder / "summary.json").write_text(json.dumps(summary))
    for name, header in (("quarantine", "source,reason,sha256"), ("near_duplicates", "source,near")):
        (folder / f"{name}.csv").write_text(f"{header}\n")


def alarms(draws: int) -> None:
    """How often there is an alarm although nothing changed, and how small a change is found."""
    dice = np.random.default_rng(1)
    config = Drift(false_alarms=LEVEL, min_moved=0.0)
    numbers, words = np.full(64, 0.5), np.full(_WORDS, 0.5)
    for before, now, spread in (
        (1797, 1797, numbers), (60, 50_000, numbers), (100_000, 300, numbers), (1797, 1797, words)
    ):  # fmt: skip
        shares = dice.dirichlet(spread)
        rate = np.mean([_alarms([shares] * 20, shares, (before, now), dice, config) for _ in range(draws)])
        report("drift_alarms", unit="share", ours=max(float(rate), 1 / draws), peer="stated", theirs=LEVEL, goal=0.6,
               draws=draws, images=f"{before} against {now}", values=len(shares))  # fmt: skip
    for before, now in ((1797, 1797), (1797, 20_000)):
        rate = np.mean([_alarm([_numbers(before, now, dice) for _ in range(20)], (before, now), config)
                        for _ in range(draws)])  # fmt: skip
        report("drift_alarms", unit="share", ours=max(float(rate), 1 / draws), peer="stated", theirs=LEVEL, goal=0.6,
               draws=draws, images=f"{before} against {now}", values="numbers of any range")  # fmt: skip
    config = Drift(false_alarms=LEVEL, min_moved=0.05)
    shares = np.full(64, 1 / 64)
    for moved in (0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12, 0.15):
        other = np.repeat([1 / 64 - moved / 32, 1 / 64 + moved / 32], 32)
        hits = np.mean(
            [_alarms([*[shares] * 19, other], shares, (1797, 1797), dice, config) for _ in range(draws // 5)]
        )
        if hits >= 0.9:
            break
    report("drift_found", unit="share of the images", ours=moved, peer="goal", theirs=0.15, goal=1.0, images=1797)


def _alarms(
    now: list[NDArray[np.float64]], before: NDArray[np.float64], sizes: tuple[int, int], dice: np.random.Generator,
    config: Drift,
) -> bool:  # fmt: skip
    """Whether any column alarms in one comparison of samples of these sizes."""
    old = [_column(dice.multinomial(sizes[0], before).tolist()) for _ in now]
    new = [_column(dice.multinomial(sizes[1], shares).tolist()) for shares in now]
    return _alarm(list(zip(old, new, strict=True)), sizes, config)


def _alarm(columns: list[tuple[dict[str, Any], dict[str, Any]]], sizes: tuple[int, int], config: Drift) -> bool:
    """Whether any of these columns, each before and now, alarms."""
    old, new = (
        {"images": size, "resolution": 8, "channels": 1, "columns": {str(at): one for at, one in enumerate(side)}}
        for size, side in zip(sizes, zip(*columns, strict=True), strict=True)
    )
    return any(one.alarm for one in compare(old, new, config)[0])


def _numbers(before: int, now: int, dice: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    """A column of numbers, two samples of one distribution, binned by the quantiles of the first."""
    one, two = dice.lognormal(size=before), dice.lognormal(size=now)
    bins = {"edges": quantiles(one)}
    return binned(bins, one), binned(bins, two)


def _column(counts: list[int]) -> dict[str, Any]:
    """A column of a profile: a histogram of 64 bins, or, for any other number of counts, words with their counts."""
    if len(counts) == 64:
        return {"grid": [0.0, 64.0, 64, "linear"], "counts": counts}
    return {"counts": {f"word {place}": count for place, count in enumerate(counts) if count}}


if __name__ == "__main__":
    main()
