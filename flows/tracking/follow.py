"""One MLflow run per pipeline run, open while the stages run: the curve of the training and the machine's load, live.

    with follow(project, state, facts, log) as following:
        ...                                   # stages before the training
        following.training()                  # as the stage `train` begins, wherever it runs
        ...
        register(candidate, registry, facts, following.run())

Everything goes through one thread, so no stage ever waits for a server; it also logs how far the training is. What a
server does not take is kept and sent again: the trainer's lines are read from its log only as they are sent.
`following.run()` waits a little for the rest, ends the thread and returns the run's id; None if no server has answered.
`register` takes the run over, adds what is missing of the curve from the files (`record`), and ends it: so a rerun
after a crash, a cached stage and a training on another machine have whole curves too. If an exception leaves the block,
the run ends as FAILED or KILLED.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.tracking.curves import MACHINE, Row, Tail, live_log
from flows.tracking.load import Load
from flows.tracking.progress import Progress
from flows.tracking.registry import Registry, address, connect, model_name, sentences
from flows.tracking.runs import begin, bury, log_metrics, revive

if TYPE_CHECKING:
    from mlflow.entities import Metric

EVERY = 2.0  # seconds between two looks
PATIENCE = 20.0  # seconds that the end waits for a server
_TICK = 0.02  # seconds by which a file system's clock may lag
_LONGEST_PAUSE = 60.0
_KEPT = 100_000  # values of the machine's load kept for a server, at most


def curve_metrics(rows: list[Row], time_ms: int) -> "list[Metric]":
    """Rows of a curve as metrics `train/NAME` at their steps; rows without a time get `time_ms`."""
    from mlflow.entities import Metric

    return [
        Metric(f"train/{name}", value, int(row["time"] * 1000) if "time" in row else time_ms, int(row["step"]))
        for row in rows
        for name, value in row.items()
        if name not in ("step", "time")
    ]


class Following:
    """See the module's docstring; made by `follow`."""

    def __init__(self, project: Path, state: Path, facts: Mapping[str, Any], log: Callable[[str], None]) -> None:
        self.project, self.state, self.facts, self.log = project, state, facts, log
        self.registry: Registry | None = None
        self.run_id: str | None = None
        self._began = time.time()
        self._seen: set[int] = set()  # hashes of the rows sent, without what they say about the machine
        self._waiting: list[Metric] = []
        self._tail: Tail | None = None
        self._progress: Progress | None = None
        self._training, self._ending = threading.Event(), threading.Event()
        self._load = Load()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._work, name="follow", daemon=True)

    def start(self) -> None:
        """Start the thread; call it once."""
        self._thread.start()

    def training(self) -> None:
        """Say that the trainer begins now: its log is followed from here on. An earlier log may be from older work."""
        self._training.set()

    def run(self, patience: float = PATIENCE) -> str | None:
        """Send what waits, for at most `patience` seconds, and end the thread; returns the run's id or None."""
        self._deadline = time.monotonic() + patience
        self._ending.set()
        self._thread.join(patience + EVERY)
        return self.run_id

    def end(self, status: str) -> None:
        """Close the run, unless `register` has done so or no server answers."""
        self.run(PATIENCE if status != "KILLED" else 2 * EVERY)
        if self.registry is None or self.run_id is None:
            return
        try:
            with sentences():
                run = self.registry.client.get_run(self.run_id)
                if run.info.status == "RUNNING":
                    self.registry.client.set_terminated(self.run_id, status)
        except ValueError as error:
            self.log(f"tracking: run {self.run_id} stays open: {error}")

    def _work(self) -> None:
        """Look, send, pause; after a failure the pauses grow to a minute. No failure here ends a pipeline run."""
        pause, ending = EVERY, False
        while not (ending and (pause == EVERY or time.monotonic() > self._deadline)):
            ending = self._ending.is_set()  # asked before the look, so that the last look sees all
            try:
                self._load.sample()
                self._look()
                with sentences():
                    self._send()
                if pause > EVERY:
                    self.log(f"tracking: {address()} answers again, nothing was lost")
                pause = EVERY
            except (ValueError, OSError) as error:
                if pause == EVERY:
                    self.log(f"tracking: {error}; the stages go on, and what could not be sent is kept")
                self.registry, pause = None, min(2 * pause, _LONGEST_PAUSE)
            self._ending.wait(pause) if not ending else time.sleep(EVERY / 4)

    def _send(self) -> None:
        registry, run = self._open()
        while self._waiting or self._read():
            log_metrics(registry.client, run, self._waiting)
        load = self._load.waiting
        del load[:-_KEPT]
        log_metrics(registry.client, run, load)

    def _look(self) -> None:
        """Find the trainer's log, once it writes one, and log how far the training is."""
        if self._training.is_set() and self._tail is None:
            self._tail = live_log(self.project / "data", self.state, self._began - _TICK)
            if self._tail is not None:
                self._progress = Progress(Tail(self._tail.path, self._tail.most), self._began, self.log)
        if self._progress is not None:
            self._progress.look()

    def _read(self) -> bool:
        """Fetch the next lines of the trainer's log; returns whether there were any.

        What a resumed training repeats is sent once. If a training went back and then took another course, both courses
        are sent; MLflow shows the latest value of each step.
        """
        if self._tail is None:
            return False
        found = self._tail.read()
        for row in found:
            said = hash(frozenset((name, value) for name, value in row.items() if name not in MACHINE))
            if said not in self._seen:
                self._seen.add(said)
                self._waiting += curve_metrics([row], self._time_ms())
        return bool(found)

    def _time_ms(self) -> int:
        return int(self._began * 1000)

    def _open(self) -> tuple[Registry, str]:
        """The registry, and this pipeline's run in it: created, or restored if somebody deleted it."""
        if self.registry is not None and self.run_id is not None:
            return self.registry, self.run_id
        registry = connect(self.state, model_name(self.project / "params.yaml"))
        if self.run_id is None:
            bury(registry)
            self.run_id = begin(registry, self.facts, self._time_ms())
        revive(registry, self.run_id)
        self.registry = registry
        return registry, self.run_id


@contextlib.contextmanager
def follow(project: Path, state: Path, facts: Mapping[str, Any], log: Callable[[str], None]) -> Iterator[Following]:
    """Keep an MLflow run open for this pipeline run while the block runs; no server error raises."""
    following = Following(project, state, facts, log)
    following.start()
    try:
        yield following
    except Exception:
        following.end("FAILED")
        raise
    except BaseException:
        following.end("KILLED")
        raise
    following.end("FINISHED")
