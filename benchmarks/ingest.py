"""Ingestion and reading of the store, against decoding alone and against torchvision's ImageFolder.

20,000 JPEG and PNG files of the sizes that photographs have on the web (300 to 640 px a side, two thirds JPEG), 64 px
RGB stored, all cores for both sides:

    ingest          images/s of a whole ingest from nothing, all hashes and checks included, against decoding and
                    antialiased resizing alone, in as many processes
    read            images/s of shuffled batches of 64 from the finished store, against torchvision's ImageFolder with
                    PIL transforms in a DataLoader with workers
    ingest_grown    seconds with 1 % more images in a new folder; at most 5 % of the first run's

200,000 small PNG files (16 px, grey):

    ingest_again    seconds of a second run with nothing changed, beyond start-up; at most 2
    ingest_wiped    the same after DVC has removed the output: nothing is decoded, the store is written again
    ingest_memory   bytes of the largest process, for 200,000 images against 2,000; at most twice as many
    near_duplicates seconds for 200,000 perceptual hashes, of which 20,000 are near another; at most 60

`cpu` in the context is the same ratio in processor seconds, which other work on the machine hardly affects.
"""

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from benchmarks.report import report
from infra.digits import encode_png
from stages.ingest._near import near_duplicates
from stages.store import open_store

SIDE, CLASSES, LIMIT_S = 64, 10, 2.0
SHEET = (
    "name: benchmark\nsource: drawn\nlicence: CC0 1.0\nspdx: CC0-1.0\nlegal_basis: made here\n"
    "intended_use: measuring\n"
    "motivation: tests need pictures\ncomposition: small pictures\ncollection: drawn\n"
    "consent: nobody is shown\npersonal_data: none\nsensitive_attributes: none\n"
    "allowed_use: [internal, research, commercial, publication]\nretention: as long as the tests run\n"
    "contact: the tests\n"
)


def main() -> None:
    """Write the files, run all rows, and remove everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a twentieth of it all")
    share, cores = 20 if parser.parse_args().quick else 1, os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        many_rows(Path(name) / "many", 200_000 // share, cores)
        photo_rows(Path(name) / "photos", 20_000 // share, cores)
    near_row(200_000 // share)


def draw(raw: Path, count: int, seed: int, name: str = "") -> Iterator[Path]:
    """Files of smooth random scenes with some grain, `count` of them in class folders."""
    dice = random.Random(seed)
    grain = np.random.default_rng(seed).normal(0, 6, (640, 640, 3))
    for number in range(count):
        width, height = dice.randint(300, 640), dice.randint(300, 640)
        rough = np.frombuffer(dice.randbytes(12 * 12 * 3), np.uint8).reshape(12, 12, 3)
        scene = np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC))
        pixels = np.clip(scene + grain[:height, :width], 0, 255).astype(np.uint8)
        path = raw / f"class {name or number % CLASSES}" / f"{number:06d}.{'jpg' if number % 3 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=85, compress_level=1)
        yield path


def photo_rows(folder: Path, count: int, cores: int) -> None:
    """From nothing, against decoding alone; then reading, against ImageFolder."""
    paths = list(draw(folder / "raw", count, 0))
    write_settings(folder, resolution=SIDE, channels=3, processes=cores)
    for path in paths:
        path.read_bytes()  # both sides find the files in memory
    limit = measured(lambda: decode_alone(paths, cores))
    ours = measured(lambda: command(folder))
    report(
        "ingest", unit="images/s", ours=count / ours.seconds, peer="decode and resize alone",
        theirs=count / limit.seconds, goal=0.8, lower_is_better=False, images=count, processes=cores,
        megabytes=round(sum(path.stat().st_size for path in paths) / 1e6), cpu=round(limit.cpu / ours.cpu, 3),
    )  # fmt: skip
    added = list(draw(folder / "raw", count // 100, 1, "later"))
    start_up = measured(lambda: command(folder, "--dry-run"))
    grown = measured(lambda: command(folder))
    report(
        "ingest_grown", unit="s", ours=grown.seconds - start_up.seconds, peer="5 % of the first run",
        theirs=0.05 * ours.seconds, goal=1.0, images=count, added=len(added),
        cpu=round(0.05 * ours.cpu / (grown.cpu - start_up.cpu), 3),
    )  # fmt: skip
    read_row(folder, cores)


def many_rows(folder: Path, count: int, cores: int) -> None:
    """A run with nothing changed, one without the output, and the memory of the largest process."""
    write_settings(folder, resolution=16, channels=1, processes=cores)
    scatter(folder / "raw", range(2000))
    few = measured(lambda: command(folder))
    scatter(folder / "raw", range(2000, count))
    start_up = measured(lambda: command(folder, "--dry-run"))
    command(folder)
    time.sleep(2.5)  # files younger than two seconds are not yet taken as unchanged
    command(folder)
    again = measured(lambda: command(folder))
    shutil.rmtree(folder / "out")
    wiped = measured(lambda: command(folder))
    for name, run in (("ingest_again", again), ("ingest_wiped", wiped)):
        report(
            name, unit="s", ours=run.seconds - start_up.seconds, peer="2 s", theirs=LIMIT_S, goal=1.0, images=count,
            cpu=round(LIMIT_S / (run.cpu - start_up.cpu), 3),
        )  # fmt: skip
    report(
        "ingest_memory", unit="MB", ours=wiped.peak / 1e6, peer="2,000 images", theirs=few.peak / 1e6, goal=0.5,
        images=count,
    )  # fmt: skip


def scatter(raw: Path, numbers: range) -> None:
    """Grey noise of 16 px, in one folder per class."""
    for number in numbers:
        path = raw / f"class {number % CLASSES}" / f"{number:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(random.Random(number).randbytes(256), 16, 16))


def write_settings(folder: Path, **changes: object) -> None:
    """params.yaml of the project with these changes, and a datasheet."""
    (folder / "raw").mkdir(parents=True, exist_ok=True)
    (folder / "sheet.yaml").write_text(SHEET)
    params = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8"))
    params["ingest"] |= changes
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


@dataclass(frozen=True)
class Measured:
    """Wall and processor seconds of a call and its processes, and the bytes of the largest process so far."""

    seconds: float
    cpu: float
    peak: int


def measured(call: Callable[[], object]) -> Measured:
    """Run `call` once."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    call()
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(seconds, cpu, after.ru_maxrss * 1024)


def command(folder: Path, *more: str) -> None:
    """One run of the stage, as DVC starts it."""
    options = {"raw": "raw", "datasheet": "sheet.yaml", "params": "params.yaml", "out": "out"}
    arguments = [part for name, path in options.items() for part in (f"--{name}", str(folder / path))]
    environment = os.environ | {"GANOPS_STATE": str(folder / "state")}
    subprocess.run(
        [sys.executable, "-m", "stages.ingest", *arguments, *more], env=environment, check=True, capture_output=True
    )


def decode_alone(paths: list[Path], cores: int) -> None:
    """Open, decode, crop and resize with antialiasing, and nothing else."""
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        for _ in pool.imap_unordered(_decode, map(str, paths), chunksize=64):
            pass


def _decode(path: str) -> int:
    with Image.open(path) as image:
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        small = image.convert("RGB").crop((left, top, left + edge, top + edge))
        return len(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).tobytes())


def read_row(folder: Path, cores: int) -> None:
    """One pass over all images in random order, in batches of 64."""
    import torch
    from torchvision import datasets, transforms

    torch.set_num_threads(1)
    store = open_store(folder / "out").splits["train"]

    def ours() -> None:
        order = np.random.default_rng(0).permutation(len(store))
        for start in range(0, len(order), 64):
            chosen = np.sort(order[start : start + 64])
            torch.from_numpy(store.take(chosen)), torch.from_numpy(store.labels[chosen])

    steps = [transforms.CenterCrop(300), transforms.Resize(SIDE, antialias=True), transforms.PILToTensor()]
    peer = datasets.ImageFolder(folder / "raw", transforms.Compose(steps))
    loader = torch.utils.data.DataLoader(peer, batch_size=64, shuffle=True, num_workers=cores)
    ours()
    report(
        "read", unit="images/s", ours=len(store) / measured(ours).seconds, peer="ImageFolder, DataLoader with workers",
        theirs=len(peer) / measured(lambda: [None for _ in loader]).seconds, goal=2.0, lower_is_better=False,
        images=len(store),
        workers=cores,
    )  # fmt: skip


def near_row(count: int) -> None:
    """The search alone; pixels are taken to agree."""
    randomness = np.random.default_rng(0)
    hashed = randomness.integers(0, 2**64, count, dtype=np.uint64)
    copies = count // 10
    hashed[:copies] = hashed[copies : 2 * copies] ^ (
        np.uint64(1) << randomness.integers(0, 64, copies).astype(np.uint64)
    )
    mean, side = randomness.normal(128, 40, count), randomness.integers(0, 3, count)
    mean[:copies] = mean[copies : 2 * copies]
    start = time.perf_counter()
    found = near_duplicates(hashed, mean, side, 7, 4.0, lambda first, second: np.ones(len(first), np.int64))
    seconds = time.perf_counter() - start
    both = int(((found.partner >= 0) | (found.same >= 0)).sum())
    report(
        "near_duplicates", unit="s", ours=seconds, peer="one minute for 200,000", theirs=60.0, goal=1.0, hashes=count,
        planted=copies, found=both,
    )  # fmt: skip


if __name__ == "__main__":
    main()
