"""Where the thresholds of the gate come from: full and tenth-length trainings from seeds that are not the default.

Uses the data and reference of the last `make repro`. Every seed is trained, exported, evaluated, audited and judged by
the stages themselves; the figure compared with a threshold is the one in `verdict.json`, the bad end of an interval
relative to what real images reach. Writes docs/thresholds.md; finished stages are not run again.
"""

import argparse
import concurrent.futures
import copy
import hashlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from benchmarks.report import context
from stages.state import state_folder

PROJECT = Path(__file__).parents[1]
DATA = PROJECT / "data"
PAGE = PROJECT / "docs" / "thresholds.md"


def settings(params: dict[str, Any], seed: int, share: float) -> dict[str, Any]:
    """params.yaml with another training seed and `share` of the budget, on one thread so that two fit on two cores."""
    changed = copy.deepcopy(params)
    train = changed["train"]
    train |= {"seed": seed, "threads": 1}
    keys = ["total_kimg", "lr_kimg", "burn_in_kimg", "ema_halflife_start_kimg", "ema_halflife_kimg"]
    for key in [*keys, "snapshot_kimg", "checkpoint_kimg"]:
        train[key] = train[key] * share
    return changed


def judge(params: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run the stages train to card in `folder`, skipping those before card that have finished; returns the verdict."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "params.yaml"
    file.write_text(yaml.safe_dump(params))
    onnx, made = (
        folder / "export" / "generator.onnx",
        {s: folder / s for s in ("train", "export", "evaluate", "audit", "card")},
    )
    images, passed, reference = DATA / "ingest", DATA / "validate" / "passed.json", DATA / "reference"
    summaries = [images, reference, *(made[s] for s in ("train", "export", "evaluate", "audit"))]
    commands: dict[str, list[object]] = {
        "train": ["--images", images, "--passed", passed],
        "export": ["--generator", made["train"] / "generator"],
        "evaluate": ["--onnx", onnx, "--reference", reference],
        "audit": ["--onnx", onnx, "--reference", reference, "--images", images],
        "card": ["--summaries", *summaries, "--passed", passed],
    }
    for stage, arguments in commands.items():
        if stage != "card" and (made[stage] / "summary.json").is_file():
            continue
        command = [sys.executable, "-m", f"stages.{stage}", *map(str, arguments), "--params", str(file)]
        done = subprocess.run(
            [*command, "--out", str(made[stage])], cwd=PROJECT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"tolerances: {stage} failed in {folder.name}: {done.stderr.strip()}")
    verdict: dict[str, Any] = json.loads((made["card"] / "verdict.json").read_text())
    return verdict


def compared(verdict: dict[str, Any], name: str) -> float | None:
    """The figure that check `name` compared with its threshold; None if it was not assessed."""
    line = next(line for line in verdict["checks"] if line["name"] == name)
    return None if line["compared"] is None else float(line["compared"])


def page(params: dict[str, Any], full: list[dict[str, Any]], tenth: list[dict[str, Any]], seeds: list[int]) -> str:
    """docs/thresholds.md: per check the threshold, the full runs and the tenth-length runs."""
    greens = [sum(verdict["passed"] for verdict in runs) for runs in (full, tenth)]
    facts = context()
    text = f"""# Thresholds

Written by `python -m benchmarks.tolerances` (Python {facts["python"]}, {facts["machine"]}, one training thread a run).
Seeds {", ".join(map(str, seeds))}, none of them the default; {params["train"]["total_kimg"]:g} kimg in full, and a
tenth of it with every schedule shortened alike. Each figure is the bad end of the check's interval in the unit that the
check compares (docs/gate.md): worst is the run closest to failing, best the run closest to passing. Of {len(full)} full
runs {greens[0]} are green, of {len(tenth)} tenth-length runs {greens[1]}.

| check | required | rule | full: mean ± sd | full: worst | a tenth: mean ± sd | a tenth: best | tells them apart |
|---|---|---|---|---|---|---|---|
"""
    for check in params["card"]["checks"]:
        name, down = check["name"], check["op"] == "<="
        columns = [
            [found for verdict in runs if (found := compared(verdict, name)) is not None] for runs in (full, tenth)
        ]
        if min(map(len, columns)) < 2:  # for images without labels, or an attribute that these images do not have
            text += f"| {name} | not assessed |" + " |" * 6 + "\n"
            continue
        worst, best = (max(columns[0]), min(columns[1])) if down else (min(columns[0]), max(columns[1]))
        holds = [figure <= check["threshold"] if down else figure >= check["threshold"] for figure in (worst, best)]
        apart = "yes" if holds == [True, False] else "no"
        spread = [f"{statistics.fmean(c):.3g} ± {statistics.stdev(c):.2g}" for c in columns]
        rule = f"{check['op']} {check['threshold']:g}" + (
            "" if check["relative_to"] == "none" else f" ({check['relative_to']})"
        )
        cells = [
            name,
            "yes" if check["required"] else "no",
            rule,
            spread[0],
            f"{worst:.3g}",
            spread[1],
            f"{best:.3g}",
            apart,
        ]
        text += f"| {' | '.join(cells)} |\n"
    return text


def main() -> None:
    """Train, judge, tabulate; prints one JSON object per run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tolerances", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="two seeds and a fiftieth of the budget; the page is not written"
    )
    parser.add_argument("--seeds", type=int, default=8, help="how many seeds, from 1 on (default: 8)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time, one core each (default: 2)")
    options = parser.parse_args()
    if not (DATA / "reference" / "summary.json").is_file():
        raise SystemExit("tolerances: data/reference is missing; run `make repro` first")
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    seeds = [1, 2] if options.quick else list(range(1, options.seeds + 1))
    scale = 0.02 if options.quick else 1.0
    measured = [params[section] for section in ("reference", "train", "export", "evaluate", "audit")]
    key = hashlib.sha256(
        json.dumps([measured, (DATA / "reference" / "summary.json").read_text()]).encode()
    ).hexdigest()[:12]
    work = state_folder() / "tolerances" / key
    runs = [(seed, share) for share in (scale, scale / 10) for seed in seeds]

    def one(run: tuple[int, float]) -> dict[str, Any]:
        verdict = judge(settings(params, *run), work / f"seed-{run[0]}-budget-{run[1]:g}")
        failed = [line["name"] for line in verdict["checks"] if line["required"] and line["status"] != "passed"]
        print(json.dumps({"seed": run[0], "budget": run[1], "passed": verdict["passed"], "failed": failed}), flush=True)
        return verdict

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        verdicts = list(tqdm(pool.map(one, runs), total=len(runs), desc="tolerances", unit="run", disable=None))
    if not options.quick:
        PAGE.write_text(page(params, verdicts[: len(seeds)], verdicts[len(seeds) :], seeds), encoding="utf-8")


if __name__ == "__main__":
    main()
