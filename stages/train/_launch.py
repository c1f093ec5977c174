"""Several processes on this machine, by torch's own elastic launcher."""

import dataclasses
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path

import yaml
from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from gan.ranks import gpus
from stages.common.command import RESUME_ME, ResumeLater, WorkSaved
from stages.common.summary import Summary, read_summary
from stages.config.train import TrainConfig
from stages.train._processes import check_gpus
from stages.train._stopper import INTERRUPTED

_log = logging.getLogger(__name__)
_AT_ONCE = 10  # seconds in which processes that were not asked to end notice that another one has


def launched(config: TrainConfig, inputs: Mapping[str, Path | str | None], *, out: Path) -> Summary | None:
    """Run the room in as many processes as `train.processes` asks for; None where this process shall do it itself.

    That is where one process is enough, or where this is a launched process already (WORLD_SIZE is set).
    Raises ResumeLater, WorkSaved or ValueError as the processes ended, ValueError where GPUs are missing.
    """
    check_gpus(0 if "WORLD_SIZE" in os.environ else config.processes)
    if "WORLD_SIZE" in os.environ:
        return None
    count = config.processes or _usual(config)
    if count == 1:
        return None
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # tables and traces about our own exits
    with tempfile.TemporaryDirectory() as folder:
        params = Path(folder) / "params.yaml"
        params.write_text(yaml.safe_dump({"train": dataclasses.asdict(config)}), encoding="utf-8")
        paths = {**inputs, "out": out, "params": params}
        options = [part for name, path in paths.items() if path for part in (f"--{name}", str(path))]
        launch = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=count, run_id=uuid.uuid4().hex,
            rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0, monitor_interval=0.1,
            logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=Std.OUT),  # this process has the last word on stdout
        )  # fmt: skip
        try:
            elastic_launch(launch, sys.executable)("-m", "stages.train", *options)
        except ChildFailedError as error:
            _explain(causes(error.failures.values()))
        except SignalException as stopped:
            _explain({130 if stopped.sigval == signal.SIGINT else RESUME_ME})
    return read_summary(out)


def _usual(config: TrainConfig) -> int:
    """One process per GPU, or as many as share the batch out evenly; one without GPUs."""
    there = gpus()
    images = config.parts * config.network.group
    count = next((many for many in range(there, 1, -1) if config.batch % (many * images) == 0), 1)
    if count < there:
        _log.warning(
            "train.batch %d is shared out evenly by %d of %d GPUs; the others idle", config.batch, count, there
        )
    return count


def causes(failures: Collection[ProcessFailure]) -> set[int]:
    """The exit codes of the processes that ended by themselves.

    When one has ended, the launcher stops the others with SIGTERM, and kills those that it does not reach in half a
    minute: on GPUs they may wait in a kernel for the one that is gone.
    """
    first = min(failure.timestamp for failure in failures)
    return {found.exitcode for found in failures if found.exitcode > 0 or found.timestamp <= first + _AT_ONCE}


def _explain(codes: set[int]) -> None:
    """Raise what these exit codes mean; a process that was killed leaves work that can be resumed.

    Processes that the launcher stopped outside the loop also exit with RESUME_ME; it counts only if no other code
    explains the end.
    """
    if 130 in codes:
        raise WorkSaved(INTERRUPTED)
    if killed := sorted(-code for code in codes if code < 0 and code != -signal.SIGTERM):
        names = ", ".join(signal.Signals(number).name for number in killed)
        raise ResumeLater(f"a process of the run was killed ({names}); run it again to go on from the last checkpoint")
    if codes <= {RESUME_ME, -signal.SIGTERM}:
        raise ResumeLater("stopped by SIGTERM; run it again to go on from the last checkpoint")
    raise ValueError("a process of the run failed and the others were stopped; its own message stands above")
