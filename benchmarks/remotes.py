"""`dvc push` of the same images as files and as shards of the image store, to an empty remote folder.

push_shards     seconds of `dvc push` of data/ingest, against data/raw as 20,000 files of 16 px (--images: another
                number, 200,000 take an hour); both under DVC already
push_grown      the same after 1 % more images in a new folder
push_objects    objects that the remote holds then, against those of the files
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


def main() -> None:
    """Two DVC projects of the same images, side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    parser.add_argument("--images", type=int, default=20_000, help="how many (default: 20000)")
    options = parser.parse_args()
    count = options.images // 10 if options.quick else options.images
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        for kind in ("files", "shards"):
            _dvc_project(home / kind, home / f"remote of {kind}")
        scatter(home / "files" / "raw", range(count))
        first = _pushed(home)
        scatter(home / "files" / "raw" / "more", range(count, count + count // 100))
        grown = _pushed(home)
        objects = {kind: sum(1 for path in (home / f"remote of {kind}").rglob("*") if path.is_file()) for kind in first}
    for row, seconds in (("push_shards", first), ("push_grown", grown)):
        report(row, unit="s", ours=seconds["shards"], peer="the same images as files", theirs=seconds["files"],
               goal=2.0, images=count)  # fmt: skip
    report("push_objects", unit="objects", ours=objects["shards"], peer="the same images as files",
           theirs=objects["files"], goal=10.0, images=count)  # fmt: skip


def _pushed(home: Path) -> dict[str, float]:
    """Ingest what lies in raw, put both forms under DVC, and the seconds that each push takes."""
    files = home / "files"
    write_settings(files, resolution=16, channels=1, processes=os.cpu_count() or 1, near_duplicates=None)
    command(files)
    shutil.rmtree(home / "shards" / "raw", ignore_errors=True)
    (files / "out").rename(home / "shards" / "raw")
    seconds = {}
    for kind in ("files", "shards"):
        _dvc(home / kind, "add", "--quiet", "raw")
        started = time.perf_counter()
        _dvc(home / kind, "push", "--quiet")
        seconds[kind] = time.perf_counter() - started
    return seconds


def _dvc_project(folder: Path, remote: Path) -> None:
    folder.mkdir()
    _dvc(folder, "init", "--no-scm", "--quiet")
    _dvc(folder, "remote", "add", "--default", "--quiet", "store", str(remote))


def _dvc(folder: Path, *arguments: str) -> None:
    environment = os.environ | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder / ".dvc" / "site")}
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    main()
