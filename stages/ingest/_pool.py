"""Tasks handed to decoding processes. If a process dies, its task is halved, and its halves again, until the sample
that kills is alone and is refused."""

import contextlib
import os
import secrets
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait

from stages.ingest._pack import Index
from stages.ingest._worker import Job, Task, work

_PROGRAM = "import sys; from stages.ingest._worker import serve; serve(int(sys.argv[1]), sys.argv[2])"
_HALVES = 10**8  # task numbers from here on are those of halves
Done = tuple[Task, list[tuple[str, int]] | None]  # packs; None if the task's only sample kills the process


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection
    task: Task | None = None
    ready: bool = False


def decode_all(job: Job, tasks: Iterable[Task], index: Index, processes: int) -> Iterator[Done]:
    """Every task as it finishes, in no fixed order. With `processes` 0 the work is done in this process."""
    run = secrets.token_hex(6)  # packs of different runs never share a name
    if processes == 0:
        for task in tasks:
            yield task, work(job, task, index, run)
        return
    workers: list[_Worker] = []
    try:
        for _ in range(processes):
            workers.append(_start(job, run))
        yield from _schedule(job, iter(tasks), workers, run)
    finally:
        _stop(workers)


def _schedule(job: Job, tasks: Iterator[Task], workers: list[_Worker], run: str) -> Iterator[Done]:
    halves: deque[Task] = deque()
    number = _HALVES
    while True:
        for worker in workers:
            if worker.ready and worker.task is None:
                _give(worker, halves.popleft() if halves else next(tasks, None))
        if all(worker.ready and worker.task is None for worker in workers):
            return
        for pipe in wait([worker.pipe for worker in workers]):
            worker = next(worker for worker in workers if worker.pipe is pipe)
            task, worker.task = worker.task, None
            try:
                answer = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                if task is None:
                    raise RuntimeError(f"a decoding process ended with code {worker.process.wait()}") from None
                if len(task) == 1:
                    yield task, None
                else:
                    halves.extendleft(task.halves(number))
                    number += 2
                _stop([worker])
                workers[workers.index(worker)] = _start(job, run)
                continue
            worker.ready = True
            if isinstance(answer, Exception):
                raise answer
            if task is not None:
                yield task, answer


def _give(worker: _Worker, task: Task | None) -> None:
    worker.task = task
    if task is not None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # noticed when its answer is read
            worker.pipe.send(task)


def _start(job: Job, run: str) -> _Worker:
    ours, theirs = Pipe()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), run]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL)
    theirs.close()
    ours.send(job)
    return _Worker(process, ours)


def _stop(workers: list[_Worker]) -> None:
    """Kill them at once: what they answered is on the disk, and an interpreter takes its time to end by itself."""
    for worker in workers:
        worker.pipe.close()
        worker.process.kill()
    for worker in workers:
        worker.process.wait()
