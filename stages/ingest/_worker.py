"""Read, decode and pack a part of the samples, in a process of its own under a memory limit, or in the main one."""

import hashlib
import importlib
import os
import resource
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.common.files import named
from stages.ingest._decode import Rules, claim, decode
from stages.ingest._pack import Index, record_type, write_pack
from stages.ingest._sample import STAMP, Refused, stamp_of

ERASED = "erased"  # the reason; `_erased` adds the date and why it was erased
PACK = 256  # samples
_RACE_NS = 100_000_000  # a file that changed this recently may change again within one tick of its clock
_MEMORY = 2**31  # bytes that a decoding process may take besides what `max_pixels` pixels need
_PIXEL_MEMORY = 32  # bytes per pixel: several copies in several depths
_STATUS = STAMP - 8  # bytes of a stamp that describe the file as a whole


@dataclass(frozen=True)
class Job:
    """What all tasks of one run share."""

    source: Any  # the source's Config
    root: Path
    folder: Path  # of packs
    rules: Rules
    erased: frozenset[bytes]  # SHA-256 of contents that must not be kept, not even here


@dataclass(frozen=True)
class Task:
    """Some rows of the listing; `number` names its packs."""

    number: int
    rows: NDArray[np.int64]
    units: list[bytes]
    places: list[str]
    stamps: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.units)

    def halves(self, number: int) -> "list[Task]":
        """The same rows in two tasks with the numbers `number` and `number` + 1."""
        middle = len(self) // 2
        parts = (slice(None, middle), slice(middle, None))
        return [
            Task(number + at, self.rows[part], self.units[part], self.places[part], self.stamps[part])
            for at, part in enumerate(parts)
        ]


def work(job: Job, task: Task, index: Index, run: str) -> list[tuple[str, int]]:
    """Read and decode a task, write its packs, and return their names and lengths; samples keep the task's order."""
    names: list[tuple[str, int]] = []
    batch = _Batch(job)
    for at, (stamp, content) in enumerate(_contents(job, task)):
        batch.add(stamp, content, index)
        if len(batch) == PACK or at == len(task) - 1:
            names.append((f"{run}-{task.number:06d}-{len(names):04d}", len(batch)))
            batch.write(job.folder, names[-1][0])
            batch = _Batch(job)
    assert sum(length for _, length in names) == len(task), "a source must answer for every place"
    return names


Answer = tuple[str, bytes | NDArray[Any]] | Refused


def _contents(job: Job, task: Task) -> Iterator[tuple[bytes, Answer]]:
    """Stamp (empty if it must not be trusted) and content of every sample, unit by unit."""
    source = importlib.import_module(f"stages.ingest.sources.{job.source.name}")
    start = 0
    while start < len(task):
        end = start + 1
        while end < len(task) and task.units[end] == task.units[start]:
            end += 1
        path = job.root / os.fsdecode(task.units[start])
        whole = task.places[start:end] == [""]
        listed = task.stamps[start].tobytes()[:_STATUS]
        answers = source.contents(job.source, job.root, task.units[start], task.places[start:end], job.rules.max_bytes)
        with named(path):
            for at, answer in enumerate(answers, start=start):
                if (whole or at == end - 1) and not _unchanged(path, listed):
                    answer = _changed(path, whole)
                yield (b"" if isinstance(answer, Refused) or _racy(listed) else task.stamps[at].tobytes()), answer
        start = end


def _unchanged(path: Path, listed: bytes) -> bool:
    try:
        return stamp_of(path.stat())[:_STATUS] == listed
    except OSError:
        return False


def _changed(path: Path, whole: bool) -> Refused:
    if not whole:  # its other samples are packed already
        raise ValueError(f"{path} changed while it was read; run ingest again when nothing writes to it")
    return Refused("changed: the file changed while it was read; run ingest again")


def _racy(listed: bytes) -> bool:
    now, (modified, changed) = time.time_ns(), np.frombuffer(listed[24:40], "<i8")
    latest = changed if modified > now else max(modified, changed)  # setting a time in the future changes the file now
    return bool(latest > now - _RACE_NS)


class _Batch:
    """The samples of one pack."""

    def __init__(self, job: Job) -> None:
        side, channels = job.rules.resolution, job.rules.channels
        self._rules, self._erased = job.rules, job.erased
        self._records = np.zeros(PACK, record_type(channels))
        self._pixels = np.empty((PACK, side, side, channels), np.uint8)
        self._reasons: dict[int, str] = {}
        self._count = self._kept = 0

    def __len__(self) -> int:
        return self._count

    def add(self, stamp: bytes, content: Answer, index: Index) -> None:
        """One sample, decoded unless its content is known."""
        record = self._records[self._count]
        try:
            record["place"] = -1
            if isinstance(content, Refused):
                raise content
            name, body = content
            sha = record["sha256"] = content_sha256(body)
            if sha in self._erased:  # without a stamp: it is checked again as long as the file is there
                raise Refused(ERASED)
            record["stamp"], record["claim"] = stamp.ljust(STAMP, b"\0"), claim(name)
            image, record["width"], record["height"] = self._image(body, name, sha, index)
            record["pixels"] = hashlib.sha256(image.data).digest()
            record["place"], self._pixels[self._kept] = self._kept, image
            self._kept += 1
        except Refused as reason:
            self._reasons[self._count] = str(reason)
        self._count += 1

    def _image(
        self, body: bytes | NDArray[Any], name: str, sha: bytes, index: Index
    ) -> tuple[NDArray[np.uint8], int, int]:
        known = index.by_content(sha, claim(name))
        if known is None or known[0].reasons.get(known[1]) == ERASED:  # the erasure no longer holds
            image, width, height = decode(body, name, self._rules)
            return np.ascontiguousarray(image), width, height
        pack, row, record = known
        if record["place"] < 0:
            raise Refused(pack.reasons[row])
        return pack.pixels(record["place"]), int(record["width"]), int(record["height"])

    def write(self, folder: Path, name: str) -> None:
        write_pack(folder, name, self._records[: self._count], self._pixels[: self._kept], self._reasons)


def content_sha256(content: bytes | NDArray[Any]) -> bytes:
    """Digest of encoded bytes as they are, or of dtype, shape and values of a raw array."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    values = np.ascontiguousarray(content)
    head = f"{values.dtype.newbyteorder('<').str} {list(values.shape)}\n".encode()
    return hashlib.sha256(head + values.astype(values.dtype.newbyteorder("<")).tobytes()).digest()


def serve(handle: int, run: str) -> None:
    """Run a decoding process: a Job, then Tasks come through the pipe; each answer is a list of packs or an exception.

    It ends when the process that holds the other end does, however that ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends us
    pipe = Connection(handle)
    try:
        job: Job = pipe.recv()
        limit_memory(job.rules)
        index = Index(job.folder, record_type(job.rules.channels))
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 2)  # the C libraries behind Pillow write warnings there
        pipe.send("ready")
        while True:
            task: Task = pipe.recv()
            try:
                answer: Any = work(job, task, index, run)
            except Exception as error:  # noqa: BLE001 - raised again in the main process
                answer = error
            pipe.send(answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def limit_memory(rules: Rules) -> None:
    """Limit this process to the memory that honest images need."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    most = pages * resource.getpagesize() + _MEMORY + _PIXEL_MEMORY * rules.max_pixels
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
