"""The same images under DVC, as files and as shards of the image store: pushed to an empty folder, and asked about.

push_shards     seconds of `dvc push` of data/ingest, against data/raw as 20,000 files of 16 px (--images: another
                number, 200,000 take an hour); both under DVC already
push_grown      the same with 1 % more images in a new folder
push_objects    objects that the remote then holds, against those of the files
data_status     seconds of `dvc data status` if nothing changed since the last commit
status          the same for `dvc status`
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.ingest import command, scatter, write_settings
from benchmarks.report import report

KINDS = ("files", "shards")


def main() -> None:
    """Two DVC projects of the same images, side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    parser.add_argument("--images", type=int, default=20_000, help="how many (default: 20000)")
    options = parser.parse_args()
    count = options.images // 10 if options.quick else options.images
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        for kind in KINDS:
            _dvc_project(home / kind, home / f"remote of {kind}")
        scatter(home / "files" / "raw", range(count))
        first = _pushed(home)
        scatter(home / "files" / "raw" / "more", range(count, count + count // 100))
        grown = _pushed(home)
        asked = _asked(home)
        objects = {kind: sum(1 for path in (home / f"remote of {kind}").rglob("*") if path.is_file()) for kind in first}
    for row, seconds in (("push_shards", first), ("push_grown", grown)):
        report(row, unit="s", ours=seconds["shards"], peer="the same images as files", theirs=seconds["files"],
               goal=2.0, images=count)  # fmt: skip
    report("push_objects", unit="objects", ours=objects["shards"], peer="the same images as files",
           theirs=objects["files"], goal=10.0, images=count)  # fmt: skip
    for row, seconds in asked.items():
        report(row, unit="s", ours=seconds["shards"], peer="the same images as files", theirs=seconds["files"],
               goal=2.0, images=count)  # fmt: skip


def _pushed(home: Path) -> dict[str, float]:
    """Put both forms of what lies in raw under DVC; returns the seconds that each push takes."""
    _tracked(home)
    return {kind: _seconds(home / kind, "push", "--quiet") for kind in KINDS}


def _asked(home: Path) -> dict[str, dict[str, float]]:
    """Commit both; returns the seconds that each answer takes."""
    for kind in KINDS:
        git = ["git", "-C", str(home / kind), "-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run([*git, "add", "raw.dvc", ".gitignore"], check=True)
        subprocess.run([*git, "commit", "-qm", "data"], check=True)
    asked = {"data_status": ("data", "status", "--json"), "status": ("status", "--json")}
    return {row: {kind: _seconds(home / kind, *words) for kind in KINDS} for row, words in asked.items()}


def _tracked(home: Path) -> None:
    """Ingest what lies in raw, and put both forms under DVC."""
    files = home / "files"
    write_settings(files, resolution=16, channels=1, processes=os.cpu_count() or 1, near_duplicates=None)
    command(files)
    shutil.rmtree(home / "shards" / "raw", ignore_errors=True)
    (files / "out").rename(home / "shards" / "raw")
    for kind in KINDS:
        _dvc(home / kind, "add", "--quiet", "raw")


def _seconds(folder: Path, *arguments: str) -> float:
    started = time.perf_counter()
    _dvc(folder, *arguments)
    return time.perf_counter() - started


def _dvc_project(folder: Path, remote: Path) -> None:
    folder.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    _dvc(folder, "init", "--quiet")
    _dvc(folder, "remote", "add", "--default", "--quiet", "store", str(remote))


def _dvc(folder: Path, *arguments: str) -> None:
    environment = os.environ | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder / ".dvc" / "site")}
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, env=environment, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip


if __name__ == "__main__":
    main()
