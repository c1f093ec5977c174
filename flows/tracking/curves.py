"""The curve of a training: the lines that the trainer writes while it runs, and the rows that it leaves behind.

`log.jsonl` lies in the trainer's state folder and has what is not repeatable (times, speed, memory) beside losses and
measures; `curves.csv` and `measures.csv` of `data/train` have only losses and measures, wherever the training ran. Rows
map names to numbers, `step` among them.
"""

import csv
import json
from pathlib import Path
from typing import Any

import yaml

LOG, RECORD = "log.jsonl", "trajectory.json"
MACHINE = {
    "time", "images_per_second", "seconds_per_kimg", "waiting_for_data", "memory_mib", "memory_reserved_mib",
    "utilisation",
}  # fmt: skip
"""What a row says about the machine, which differs when a resumed training repeats the row."""
Row = dict[str, float]


class Tail:
    """Reads the lines that were appended to a file since the last read; a half-written line is left until it is
    complete.

    Rows beyond `most` thousand images belong to another, longer run and are skipped.
    """

    def __init__(self, path: Path, most: float = float("inf")) -> None:
        self.path, self.most, self._at = path, most, 0

    def read(self, lines: int = 1000) -> list[Row]:
        """Up to `lines` further rows; a line that is not a row of numbers (torn by a crash) is skipped."""
        rows: list[Row] = []
        try:
            with self.path.open("rb") as file:
                file.seek(self._at)
                for raw in file:
                    if not raw.endswith(b"\n") or len(rows) == lines:
                        break
                    self._at += len(raw)
                    rows += [row for row in _row(raw) if row.get("kimg", 0) <= self.most]
        except FileNotFoundError:
            pass
        return rows


def _row(raw: bytes) -> list[Row]:
    try:
        found = json.loads(raw)
        row = {str(key): float(value) for key, value in found.items()}
    except (ValueError, TypeError, AttributeError):
        return []
    return [row] if "step" in row else []


def live_log(data: Path, state: Path, since: float = 0.0) -> Tail | None:
    """The log of the training that `data`/ingest and params.yaml beside `data` ask for; None before it has begun.

    The trainer names its folder after images, settings, code and torch. Of several that agree in images and settings,
    this takes the log that was written last; None if that was before `since` (seconds since 1970), as it may be from
    older code.
    """
    try:
        data_hash = json.loads((data / "ingest" / "dataset.json").read_text(encoding="utf-8"))["data_hash"]
        section = yaml.safe_load((data.parent / "params.yaml").read_text(encoding="utf-8"))["train"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    logs = [path.with_name(LOG) for path in state.glob(f"train/*/{RECORD}") if _asked(path, data_hash, section)]
    written = {log: log.stat().st_mtime for log in logs if log.is_file()}
    newest = max(written, key=lambda log: written[log], default=None)
    if newest is None or written[newest] < since:
        return None
    return Tail(newest, section.get("total_kimg", float("inf")))


def _asked(record: Path, data_hash: str, section: dict[str, Any]) -> bool:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        same = all(section.get(key) == value for key, value in found["settings"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return same and found.get("data_hash") == data_hash


def whole(data: Path, state: Path) -> list[Row]:
    """The finished curve by step: `data`/train/curves.csv and measures.csv, with the log's latest values per step."""
    rows: dict[int, Row] = {}
    for path in (data / "train" / "curves.csv", data / "train" / "measures.csv"):
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    numbers = {key: float(value) for key, value in row.items() if value}
                    rows.setdefault(int(numbers["step"]), {}).update(numbers)
    said: dict[int, Row] = {}
    log = live_log(data, state) if rows else None
    if log is not None:
        for line in log.read(10_000_000):
            if (step := int(line["step"])) in rows:
                said.setdefault(step, {}).update(line)
    return [said.get(step, {}) | rows[step] for step in sorted(rows)]
