"""Nothing changed since the last run? Then its output, where it is still there untouched, is the result.

Asked before anything else is loaded or listed: at 200,000 files one look at each is all that there is time for.
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
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):  # it would be raw data, or these replaced by it
        raise ValueError(f"--out {out} and --raw {raw} lie in one another; write the store to a folder of its own")
    finished = _Finished(state_folder(), config, raw, datasheet, erased, out)
    if (summary := finished.summary()) is not None:
        print(f"ingest: nothing changed, {out} stays as it is", file=sys.stderr)  # noqa: T201
        return summary

    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # before it loads: Arrow's own keeps what was freed
    from stages.ingest._since import tell_changes
    from stages.ingest._work import ingest

    summary = ingest(config, raw, datasheet, erased, out, finished.remember)
    tell_changes(state_folder(), raw, out)  # what the run held in memory is free again
    return summary


class _Finished:
    """The memory of the last finished run from this folder to that one, as far as this run would be the same."""

    def __init__(
        self, state: Path, config: IngestConfig, raw: Path, datasheet: Path, erased: Path | None, out: Path
    ) -> None:
        self._path = state / "ingest-finished" / f"{places(raw, out)}.json"
        self._out = out
        now = time.time_ns()
        files, latest = _look(raw, now)
        self._key = ""
        if latest < now - _SETTLED_NS:
            with contextlib.suppress(OSError):  # a datasheet that cannot be read: the run itself says so
                self._key = _key(config, files, datasheet, erased)

    def summary(self) -> Summary | None:
        """The summary of the last run, where the same again would give what lies there now."""
        if not self._key or not self._path.is_file() or not (self._out / "summary.json").is_file():
            return None
        return read_summary(self._out) if self._path.read_bytes() == self._memory() else None

    def remember(self) -> None:
        """Note what was written, unless a raw file was too young to be sure of."""
        if self._key:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            write_atomically(self._path, self._memory())

    def _memory(self) -> bytes:
        """Size and time of every file written; one that was replaced or edited has another time."""
        found = sorted((path.name, path.stat()) for path in self._out.iterdir())
        files = {name: [status.st_size, status.st_mtime_ns, status.st_ino] for name, status in found}
        return json.dumps({"format": FORMAT, "key": self._key, "files": files}).encode()


def places(raw: Path, out: Path) -> str:
    """What runs from this folder to that one are remembered under."""
    return hashlib.sha256(f"{raw.resolve()}\n{out.resolve()}".encode("utf-8", "replace")).hexdigest()


def _look(root: Path, now: int) -> tuple[str, int]:
    """Digest of name, inode, size and times of all that lies below `root`, hidden or not, and the latest time.

    Whoever cannot be looked at is not believed: the time is then beyond all others. A link counts as what it leads to.
    A modification after `now` was set by hand, and counts at the time of that.
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
    except OSError:  # a link that leads nowhere is refused as such
        return entry.stat(follow_symlinks=False)


def _key(config: IngestConfig, files: str, datasheet: Path, erased: Path | None) -> str:
    """Digest of all that the store follows from: settings, files, what is said of them, code and libraries."""
    here = Path(__file__).parent
    code = sorted([*here.glob("*.py"), here / "sources" / f"{config.source.name}.py"])
    code += [here.parents[1] / "gan" / "attributes.py", here.parent / "store.py"]
    code.append(here.parent / "common" / "yaml_files.py")  # reads the datasheet
    papers = [datasheet, *([erased] if erased else [])]
    versions = [importlib.metadata.version(name) for name in ("numpy", "pillow", "pyarrow")]
    found: list[object] = [dataclasses.asdict(config), files, versions]
    found += [sha256_file(path) for path in (*papers, *code)]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()
