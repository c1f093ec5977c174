"""`python -m benchmarks`: run every comparison and write docs/benchmarks.md."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

# tolerances, coverage, promotions, recipes and modes are left out: they write pages of their own, or take an hour. So
# is feed, which has no peer: docs/training.md holds its figures.
NAMES = ("metrics", "train", "cold_start", "orchestration", "ingest", "validation", "remotes")
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Written by `make bench`; each line compares with a peer in the same run. A ratio above 1 means that ours is better.
Machines are noisy: read ratios, not single times.

| benchmark | unit | ours | peer | theirs | ratio | goal | met | context |
|---|---|---|---|---|---|---|---|---|
"""


def main() -> int:
    """Run all; returns 1 if one could not run. A missed goal is a result, not a failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs; the page is not written")
    options = parser.parse_args()
    rows = []
    for name in NAMES:
        command = [sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if options.quick else [])]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        print(answer.stdout, end="", flush=True)
        if answer.returncode:
            return 1
        rows += [json.loads(line) for line in answer.stdout.splitlines()]
    if not options.quick:
        lines = []
        for row in rows:
            details = ", ".join(f"{key} {value}" for key, value in row["context"].items())
            cells = [row["name"], row["unit"], f"{row['ours']:.4g}", row["peer"], f"{row['theirs']:.4g}"]
            cells += [f"{row['ratio']:.2f}", f"{row['goal']:g}", "yes" if row["met"] else "no", details]
            lines.append(f"| {' | '.join(cells)} |\n")
        PAGE.write_text(HEAD + "".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
