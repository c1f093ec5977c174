"""First image from a cold start: `python -m consumer` in a new process, against an import of torch alone."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.report import paired, report

LIMIT_S = 2.0


def main() -> None:
    """Compare whole processes; the goal is an image within two seconds, and before torch would even have loaded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one pair instead of five")
    parser.add_argument(
        "--model", type=Path, default=Path("data/export/generator.onnx"), help="ONNX file of `make repro`"
    )
    options = parser.parse_args()
    if not options.model.is_file():
        sys.exit(f"cold_start: {options.model} does not exist; run `make repro` first")
    with tempfile.TemporaryDirectory() as folder:
        draw = [sys.executable, "-m", "consumer", "--model", str(options.model), "--count", "1", "--seed", "0"]
        draw += ["--out", str(Path(folder) / "one.png")]
        seconds = paired(
            lambda: subprocess.run(draw, check=True, capture_output=True),
            lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True),
            repeats=1 if options.quick else 5,
        )
    report("cold_start", unit="s", ours=seconds[0], peer="import torch", theirs=seconds[1], goal=1.0, limit_s=LIMIT_S)


if __name__ == "__main__":
    main()
