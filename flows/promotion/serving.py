"""Whether the registered bytes can be served: loaded and run in a process that needs only numpy and onnxruntime.

The file is downloaded from the registry first, so that what is tested is what a consumer will get. The process is
`consumer.selftest`, run by the interpreter of `promote.serving.python`; its images must be those that the generator
drew when it was registered. This shows that a generator works, not that it is good.
"""

import dataclasses
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.tracking.registry import ONNX, Registry
from flows.work.process import last_sentence, search_path
from flows.work.retry import Unavailable
from flows.work.testbench import STOPPED, Testbench
from stages.common.files import write_json

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

SELFTEST = "selftest"  # folder of a version: images and their description
_TRIES = 2  # a busy machine may be slow once
_ABSENT = 3
_KILLED = [place - number for place in (0, 256) for number in (signal.SIGKILL, signal.SIGTERM)]
"""Exit codes of a leash that was killed, and of one whose command was; other signals are the command's own doing."""
_UNTIMED = 60.0  # minutes, for checks without a time limit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Served:
    """What the check found: `failed` has one sentence per limit broken; `slow`: only time limits were."""

    failed: list[str]
    measured: dict[str, Any]
    slow: bool = False


def record_selftest(onnx: Path, folder: Path) -> None:
    """Draw the self-test images of `onnx` and keep them in `folder`."""
    from consumer.selftest import measure

    measure(onnx, record=folder)


def check(version: "ModelVersion", registry: Registry, bench: Testbench, *, timed: bool = True) -> Served:
    """Load and run a version's registered bytes; the report is attached to the version's run as `serving`.

    `timed=False` is for rollbacks and rechecks, which must not fail because the machine is busy or the report cannot be
    stored: no limits on time and size (only an hour, enough for any machine), and no report. Raises ValueError if the
    bytes are not the ones registered, or if the serving environment is incomplete; Unavailable if the process was
    killed or gave no answer in time, which says nothing about the bytes.
    """
    with tempfile.TemporaryDirectory(dir=bench.state, prefix="serving-") as folder:
        registry.fetch(version, Path(folder) / ONNX)
        command = _command(version, registry, bench, Path(folder))
        served = Served(failed=[], measured={})
        for _attempt in range(_TRIES):
            served = _ask(command, version, bench, timed=timed)
            if not served.failed or not served.measured:
                break
    if timed:
        _report(served, version, registry, bench)
    return served


def _report(served: Served, version: "ModelVersion", registry: Registry, bench: Testbench) -> None:
    limits = dataclasses.asdict(bench.config.serving)
    report = {"format": 1, "passed": not served.failed, "failed": served.failed, "limits": limits, **served.measured}
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "serving.json", report)
        registry.client.log_artifacts(str(version.run_id), folder, "serving")


def _command(version: "ModelVersion", registry: Registry, bench: Testbench, folder: Path) -> list[str]:
    from mlflow.artifacts import download_artifacts, list_artifacts

    python = bench.config.serving.python or sys.executable
    if (found := shutil.which(python, path=search_path())) is None:
        raise ValueError(f"promote.serving.python must name an interpreter that can be started; received {python}")
    command = [str(Path(found).absolute()), "-m", "consumer.selftest", "--model", str(folder / ONNX)]
    source = registry.source(version)
    if any(Path(item.path).name == SELFTEST for item in list_artifacts(artifact_uri=source)):
        shutil.copytree(download_artifacts(artifact_uri=f"{source}/{SELFTEST}"), folder / SELFTEST)
        command += ["--expect", str(folder / SELFTEST)]
    return command


def _ask(command: list[str], version: "ModelVersion", bench: Testbench, *, timed: bool) -> Served:
    limits = bench.config.serving
    minutes = limits.minutes if timed else _UNTIMED
    code, lines = bench.run(command, minutes=minutes, shown=False)
    if code == _ABSENT:
        raise ValueError(f"the serving environment of {command[0]} is incomplete: {last_sentence(lines)}")
    if code == STOPPED:
        raise Unavailable(f"the self-test of version {version.version} did not answer within {minutes:g} minutes")
    if code in _KILLED:
        raise Unavailable(
            f"the self-test of version {version.version} was killed, by a person or because memory ran out"
        )
    if code:
        return Served(failed=[f"it cannot be served: {last_sentence(lines)}"], measured={})
    found: dict[str, Any] = json.loads(lines[-1])
    if found["sha256"] != version.tags["onnx_sha256"]:
        raise ValueError(f"version {version.version} changed between download and test; run it again")
    levels = "self-test images differ by {} levels, but promote.serving.levels allows {}"
    failed = _broken([(found["max_levels"] or 0, limits.levels, levels)])
    if not timed:
        return Served(failed=failed, measured=found)
    size = "the file has {} million bytes, but promote.serving.size_mb allows {}"
    failed += _broken([(found["size_bytes"] / 1e6, limits.size_mb, size)])
    loading = "loading took {} seconds, but promote.serving.load_seconds allows {}"
    latency = "one image took {} milliseconds, but promote.serving.latency_ms allows {}"
    late = _broken(
        [
            (found["load_seconds"], limits.load_seconds, loading),
            (found["latency_ms"], limits.latency_ms, latency),
        ]
    )
    return Served(failed=failed + late, measured=found, slow=bool(late) and not failed)


def _broken(rules: list[tuple[float, float, str]]) -> list[str]:
    """One sentence per value that is above its limit."""
    return [said.format(f"{value:g}", f"{most:g}") for value, most, said in rules if value > most]
