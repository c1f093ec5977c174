"""What the flow costs on top of the stages: a first retrain, and one with nothing to do.

In a clone of the working copy with its own state folder and a temporary Prefect server: the whole of
`python -m flows.retrain` (server, decision, tracking, registration, serving check, pages) against the seconds that the
stages take within it. Goals: less than a tenth on top of the default; if nothing changed, the flow says so within 15
seconds (it asks no server for that, so the time is the same with and without one).
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.report import report
from infra.smoke import PROJECT, clone_working_copy, cut, environment

_ROW = re.compile(r"^  (?P<stage>\w+) +ran +(?:(?P<minutes>\d+) min )?(?P<seconds>[\d.]+) s$", re.MULTILINE)
OVERHEAD, NOTHING_S = 0.10, 15.0


def main() -> None:
    """Measure both in one clone. `--quick` cuts the stages short, so that the share says little."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the cut configuration instead of the default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        clone_working_copy(PROJECT, project)
        if options.quick:
            cut(project)
            params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
            params["card"]["registrable"] = True
            (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
        run(project, "-m", "infra.digits", "--out", "data/raw")
        said, total = run(project, "-m", "flows.retrain")
        _, nothing = run(project, "-m", "flows.retrain")
    stages = sum(60 * int(row["minutes"] or 0) + float(row["seconds"]) for row in _ROW.finditer(said))
    what = "cut configuration" if options.quick else "default"
    report(
        "retrain_overhead", unit="share of the stages' seconds", ours=(total - stages) / stages, peer="goal",
        theirs=OVERHEAD, goal=1.0, of=what, stages_s=round(stages, 1), total_s=round(total, 1),
    )  # fmt: skip
    report("retrain_nothing_new", unit="s", ours=nothing, peer="goal", theirs=NOTHING_S, goal=1.0, of=what)


def run(project: Path, *arguments: str) -> tuple[str, float]:
    """What this Python prints when run with `arguments` in `project`, and the seconds that it took."""
    began = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, *arguments], cwd=project, env=environment(project / ".ganops"), capture_output=True, text=True
    )
    if answer.returncode:
        sys.exit(f"orchestration: {answer.stderr.splitlines()[-1:] or answer.stdout}")
    return answer.stdout, time.perf_counter() - began


if __name__ == "__main__":
    main()
