"""The data feed of a training alone, against what a step needs; and both as the data set grows a hundredfold.

Settings are those of params.yaml. Random 8x8 images lie in shards of the size that ingest makes; each size of data set
is measured in a process of its own, so that its memory is measured alone.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.report import report

SIZES = (2_000, 200_000)
SHARD = 4096  # images, as params.yaml has it
CLASSES = 10


def make_store(folder: Path, images: int) -> None:
    """A store of random 8x8 images, all of them in the train split."""
    rng = np.random.default_rng(0)
    for number, start in enumerate(range(0, images, SHARD)):
        count = min(SHARD, images - start)
        np.save(folder / f"images-{number:05d}.npy", rng.integers(0, 256, (count, 8, 8, 1), np.uint8))
        np.save(folder / f"labels-{number:05d}.npy", rng.integers(0, CLASSES, count))
        np.save(folder / f"split-{number:05d}.npy", np.zeros(count, np.uint8))
    info = {"format": 1, "resolution": 8, "channels": 1, "classes": [str(c) for c in range(CLASSES)]}
    info |= {"counts": {"kept": images}, "data_hash": str(images), "datasheet": {"name": "noise", "licence": "CC0 1.0"}}
    (folder / "dataset.json").write_text(json.dumps(info), encoding="utf-8")


def measure(folder: Path, repeats: int) -> None:
    """Print seconds per image of the feed and of a step, and peak memory in bytes, for the store in `folder`."""
    from stages.config import load_section
    from stages.config.train import TrainConfig
    from stages.processor import use_processor
    from stages.store import open_store
    from stages.train._loop import Run
    from stages.train._processes import Processes

    config = load_section(TrainConfig, Path("params.yaml"), "train")
    use_processor(config.threads)
    run = Run(config, open_store(folder), folder, Processes())
    numbers = iter(range(10**9))
    found = {
        "feed": _median(lambda: [run.feed._prepare(next(numbers)) for _ in range(64)], repeats) / (64 * config.batch),
        "step": _median(run.one_step, repeats) / (config.batches_a_step * config.batch),
    }
    run.feed.close()
    unit = 1 if sys.platform == "darwin" else 1024
    print(json.dumps(found | {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}))


def _median(call: Callable[[], object], repeats: int) -> float:
    """Seconds of one call, after a warm-up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print the comparisons."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feed", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    repeats = 10 if options.quick else 60
    if options.store:
        measure(options.store, repeats)
        return
    rows = []
    for images in SIZES:
        with tempfile.TemporaryDirectory() as name:
            make_store(Path(name), images)
            command = [sys.executable, "-m", "benchmarks.feed", "--store", name] + ["--quick"] * options.quick
            answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(answer.stdout))
    small, large = rows
    names = [f"{images:,} images" for images in SIZES]
    report(
        "feed", unit="images/s", ours=1 / large["feed"], peer="what a training step takes", theirs=1 / large["step"],
        goal=50, lower_is_better=False, images=SIZES[1],
    )  # fmt: skip
    for what, unit, scale in (("feed", "us an image", 1e6), ("step", "us an image", 1e6), ("memory", "MiB", 2**-20)):
        report(
            f"growth_{what}", unit=unit, ours=large[what] * scale, peer=f"the same with {names[0]}",
            theirs=small[what] * scale, goal=0.9, images=SIZES[1],
        )  # fmt: skip


if __name__ == "__main__":
    main()
