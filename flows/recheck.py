"""`python -m flows.recheck`: is the champion still what it was, on today's data?

Today's raw data are read, validated and made into a reference (`dvc repro reference`; nothing is trained). The
champion's registered bytes must match their recorded SHA-256, have the inputs and outputs that were registered with
them, and draw their self-test images in the serving environment. Then `stages.evaluate` scores them on today's held-out
images, and the required checks of `card.checks` that rest on that score must hold. The findings are written on the
version (tag `rechecked`, files `recheck/`), where `flows.status` reads them. No alias is moved: people decide whether
to go back.

Exit codes: 0 fine, or no champion yet; 1 it could not be checked; 2 wrong usage; 3 ALARM. In the deployed flow, an
alarm is a failed run and the event `ganops.champion.alarm`.
"""

import argparse
import dataclasses
import datetime
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.command import command
from flows.promotion import serving
from flows.promotion.fitness import HOURS, declared, own_bytes, scored
from flows.promotion.judge import lost_champion
from flows.promotion.moves import history
from flows.state import hold, settle
from flows.tracking.registry import ONNX, Registry, connect, model_name, sentences, unmade
from flows.work.pipeline import DVC
from flows.work.process import last_sentence
from flows.work.testbench import STOPPED, Testbench
from stages.config import load_section
from stages.config.promote import PromoteConfig

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

ALARM = 3
EVENT = "ganops.champion.alarm"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What was found about `version`: one sentence for each thing that is wrong, and today's scores."""

    model: str
    version: str | None
    failed: list[str] = dataclasses.field(default_factory=list)
    measures: dict[str, float | None] = dataclasses.field(default_factory=dict)
    data_hash: str | None = None

    def told(self) -> str:
        """The findings in one line."""
        if self.version is None:
            return f"{self.model} has no champion; nothing was checked"
        if self.failed:
            return f"ALARM: champion {self.model} version {self.version}: {'; '.join(self.failed)}"
        return f"champion {self.model} version {self.version} is intact and still passes its checks on today's data"


def recheck(registry: Registry, bench: Testbench) -> Report:
    """Check the champion. Raises ValueError if that could not be carried out."""
    champion = registry.alias("champion")
    if champion is None:
        moves = history(registry.notes()) if registry.exists() else []
        lost = lost_champion(None, registry, moves[-1].version if moves else None)
        failed = [] if lost is None else ["it was deleted from the registry, and nothing is champion"]
        return Report(model=registry.name, version=lost, failed=failed)
    _say(bench, "reading today's data")
    code, lines = bench.run([*DVC, "repro", "reference"], minutes=HOURS * 60)
    if code == STOPPED:
        raise ValueError(
            f"reading today's data took over {HOURS:g} hours; run `dvc repro reference` first, then recheck"
        )
    if code:
        raise ValueError(f"no reference could be made from today's data: {last_sentence(lines)}")
    folder = bench.state / "recheck"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    failed = own_bytes(champion, registry, folder / ONNX) or declared(champion, registry, folder)
    if not failed:
        _say(bench, "running its registered bytes")
        failed = serving.check(champion, registry, bench, timed=False).failed
    measures: dict[str, float | None] = {}
    data_hash = None
    if not failed:
        _say(bench, "scoring it on today's held-out images")
        failed, measures, data_hash = scored(folder, bench)
    report = Report(
        model=registry.name, version=str(champion.version), failed=failed, measures=measures, data_hash=data_hash
    )
    _remember(report, champion, registry, folder)
    return report


def _say(bench: Testbench, what: str) -> None:
    bench.log(f"recheck: {what}")


def _remember(report: Report, champion: "ModelVersion", registry: Registry, folder: Path) -> None:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    found = {"format": 1, "time": now, "onnx_sha256": champion.tags.get("onnx_sha256"), **dataclasses.asdict(report)}
    keep = folder / "keep"
    keep.mkdir()
    (keep / "recheck.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if (summary := folder / "evaluate" / "summary.json").is_file():
        shutil.copy(summary, keep / "evaluate.json")
    registry.client.log_artifacts(str(champion.run_id), str(keep), f"recheck/{now[:10]}")
    told = {key: found[key] for key in ("time", "failed", "data_hash")}
    registry.tag(str(champion.version), rechecked=json.dumps(told))


def run(project: Path, state: Path, log: Any) -> Report:
    """Check the champion of `project`, while no retrain runs. Raises ValueError if that cannot be done."""
    name = model_name(project / "params.yaml")
    if unmade(state):
        return Report(model=name, version=None)
    config = load_section(PromoteConfig, project / "params.yaml", "promote")
    with hold(state) as held, sentences():
        bench = Testbench(project=project, state=state, held=held, config=config, log=log)
        return recheck(connect(state, name), bench)


def raise_alarm(report: Report) -> None:
    """Tell Prefect's server, if one is set, so that its automations can tell people."""
    from prefect.events import emit_event

    resource = {"prefect.resource.id": f"ganops.model.{report.model}", "ganops.version": str(report.version)}
    emit_event(EVENT, resource=resource, payload={"failed": report.failed, "data_hash": report.data_hash})


def main(argv: Sequence[str] | None = None) -> int:
    """Check, and print the findings; returns the exit code."""
    argparse.ArgumentParser(prog="python -m flows.recheck", description=__doc__).parse_args(argv)

    def act() -> int:
        report = run(Path.cwd(), settle(), lambda line: sys.stderr.write(f"{line}\n"))
        sys.stdout.write(report.told() + "\n")
        if report.failed and os.environ.get("PREFECT_API_URL"):
            raise_alarm(report)
        return ALARM if report.failed else 0

    return command("recheck", act)


if __name__ == "__main__":
    sys.exit(main())
