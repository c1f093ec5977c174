"""Has nothing changed since the last run? Then its output, if it is still there untouched, is the result.

This is checked before anything else is loaded or listed: with 200,000 files there is only time for one look at each.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import struct
import sys
import time
from pathlib import Path

from stages.common.files import sha256_file, write_atomically
from stages.common.summary import Summary, read_summary
from stages.config.ingest import IngestConfig
from stages.state import state_folder

FORMAT = 2
_SETTLED_NS = 2_000_000_000  # files that changed more recently may change again unseen
_FIELDS = struct.Struct("<QQqqq")


def ingested(config: IngestConfig, raw: Path, datasheet: Path, erased: Path | None, out: Path) -> Summary:
    """See `stages.ingest.run`."""
    inner, outer = out.resolve(), raw.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):  # it would be read as raw data, or replace it
        raise ValueError(
            f"one of --out {out} and --raw {raw} lies inside the other; write the store to a folder of its own"
        )
    finished = _Finished(state_folder(), config, raw, datasheet, erased, out)
    if (summary := finished.summary()) is not None:
        print(f"ingest: nothing changed, {out} stays as it is", file=sys.stderr)  # noqa: T201
        return summary

    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # before Arrow loads: its own pool keeps freed memory
    from stages.ingest._since import tell_changes
    from stages.ingest._work import ingest

    summary = ingest(config, raw, datasheet, erased, out, finished.remember)
    tell_changes(state_folder(), raw, out)  # only now, when the memory that the run held is free
    return summary


class _Finished:
    """What is remembered of the last finished run from `raw` to `out`, for the case that this one would be the same."""

    def __init__(
        self, state: Path, config: IngestConfig, raw: Path, datasheet: Path, erased: Path | None, out: Path
    ) -> None:
        self._path = state / "ingest-finished" / f"{places(raw, out)}.json"
        self._out = out
        now = time.time_ns()
        files, latest = _look(raw, now)
        self._key = ""
        if latest < now - _SETTLED_NS:
            with contextlib.suppress(OSError):  # the run itself reports a datasheet that cannot be read
                self._key = _key(config, files, datasheet, erased)

    def summary(self) -> Summary | None:
        """The summary of the last run if another one would give just what lies in `out` now, else None."""
        if not self._key or not self._path.is_file() or not (self._out / "summary.json").is_file():
            return None
        return read_summary(self._out) if self._path.read_bytes() == self._memory() else None

    def remember(self) -> None:
        """Record what was written, unless a raw file changed too recently to be sure of."""
        if self._key:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            write_atomically(self._path, self._memory())

    def _memory(self) -> bytes:
        """The key, and size, time and inode of every file written: replacing or editing one changes its time."""
        found = sorted((path.name, path.stat()) for path in self._out.iterdir())
        files = {name: [status.st_size, status.st_mtime_ns, status.st_ino] for name, status in found}
        return json.dumps({"format": FORMAT, "key": self._key, "files": files}).encode()


def places(raw: Path, out: Path) -> str:
    """The name under which runs from `raw` to `out` are remembered."""
    return hashlib.sha256(f"{raw.resolve()}\n{out.resolve()}".encode("utf-8", "replace")).hexdigest()


def _look(root: Path, now: int) -> tuple[str, int]:
    """Digest of name, inode, size and times of everything below `root`, hidden or not, and the latest time.

    If anything cannot be read, the digest is empty and the time later than any other. A link counts as its target. A
    modification time after `now` was set by hand, and the time when that was done counts instead.
    """
    digest, latest, folders = hashlib.sha256(), 0, [os.fsencode(root)]
    try:
        while folders:
            path = folders.pop()
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            lines = [path]
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                    continue
                status = _status(entry)
                modified, changed = status.st_mtime_ns, status.st_ctime_ns
                latest = max(latest, changed, modified if modified <= now else 0)
                lines += (entry.name, _FIELDS.pack(status.st_dev, status.st_ino, status.st_size, modified, changed))
            digest.update(b"\0".join(lines))
    except OSError:
        return "", 2**63
    return digest.hexdigest(), latest


def _status(entry: os.DirEntry[bytes]) -> os.stat_result:
    try:
        return entry.stat()
    except OSError:  # a link that leads nowhere; it is refused later
        return entry.stat(follow_symlinks=False)


def _key(config: IngestConfig, files: str, datasheet: Path, erased: Path | None) -> str:
    """Digest of all that the store depends on: settings, files, what describes them, code and libraries."""
    here = Path(__file__).parent
    code = sorted([*here.glob("*.py"), here / "sources" / f"{config.source.name}.py"])
    code += [here.parents[1] / "gan" / "attributes.py", here.parent / "store.py"]
    code.append(here.parent / "common" / "yaml_files.py")  # reads the datasheet
    papers = [datasheet, *([erased] if erased else [])]
    versions = [importlib.metadata.version(name) for name in ("numpy", "pillow", "pyarrow")]
    found: list[object] = [dataclasses.asdict(config), files, versions]
    found += [sha256_file(path) for path in (*papers, *code)]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()
