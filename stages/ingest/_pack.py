"""Decoded samples in the state folder, found again by the stamp of their file or by their content.

A pack is two files that never change: `<name>.pixels`, and `<name>.records`, a line of JSON and a record per sample;
the second is renamed into place last, so that any pack found is whole. Neither is in a common format: there may be
thousands, and numpy takes longer to open one than to read it. This is only a cache: the store does not depend on it.
"""

import functools
import json
import math
import mmap
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan.attributes import bins, measure
from stages.common.files import named
from stages.ingest._near import hashes
from stages.ingest._sample import STAMP

_PIXELS, _RECORDS = ".pixels", ".records"


def record_type(channels: int) -> np.dtype[Any]:
    """One sample: hashes as bytes, sizes in pixels, attributes as indices of bins, `place` of its pixels or -1."""
    return np.dtype(
        [
            ("stamp", f"V{STAMP}"),  # zeros if the sample must not be found by it
            ("sha256", "V32"),  # of the content; zeros if it was not read
            ("pixels", "V32"),  # SHA-256 of the stored pixels
            ("near", "u8"),  # perceptual hash
            ("mean", "f8"),  # level of the stored pixels
            ("width", "u4"),
            ("height", "u4"),
            ("claim", "u1"),  # format that the name claims, an index into CLAIMS
            ("place", "i4"),
            ("attributes", "u1", (len(bins(channels)),)),
        ]
    )


@dataclass(frozen=True)
class Pack:
    """`length` samples; `reasons` says by row why some cannot be used. The pixels of the others, uint8 of `shape`
    [n, H, W, C], stay on the disk."""

    path: Path
    length: int
    shape: tuple[int, ...]
    reasons: dict[int, str]

    def pixels(self, places: NDArray[np.integer]) -> NDArray[np.uint8]:
        """uint8 [len(places), H, W, C]. Nothing stays open or mapped: there may be more packs than a process may open,
        and more pixels than it may map."""
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return np.take(np.frombuffer(mapped, np.uint8).reshape(self.shape), places, axis=0)


def write_pack(
    folder: Path, name: str, records: NDArray[np.void], pixels: NDArray[np.uint8], reasons: dict[int, str]
) -> None:
    """Measure the pixels and write a pack. Raises OSError if the disk is full."""
    kept = np.flatnonzero(records["place"] >= 0)
    if len(kept):
        records["near"][kept] = hashes(pixels)
        records["mean"][kept] = pixels.reshape(len(pixels), -1).mean(axis=1)
        records["attributes"][kept] = np.stack(list(measure(pixels).values()), axis=1)
    body = records.tobytes()
    head = {"shape": pixels.shape, "crc32": zlib.crc32(body), "reasons": list(reasons.items())}
    _write(folder, f"{name}{_PIXELS}", np.ascontiguousarray(pixels).data)
    _write(folder, f"{name}{_RECORDS}", json.dumps(head).encode() + b"\n" + body)


def _write(folder: Path, name: str, content: bytes | memoryview) -> None:
    temporary = folder / f".{name}.partial"
    try:
        with named(folder / name):
            temporary.write_bytes(content)
            temporary.replace(folder / name)
    finally:
        temporary.unlink(missing_ok=True)


def read_pack(folder: Path, name: str, kind: np.dtype[Any]) -> tuple[Pack, NDArray[np.void]] | None:
    """A pack and its records, of dtype `kind`; None if it is not whole."""
    path = folder / f"{name}{_PIXELS}"
    try:
        line, _, body = path.with_suffix(_RECORDS).read_bytes().partition(b"\n")
        head, records = json.loads(line), np.frombuffer(body, kind)
        whole = zlib.crc32(body) == head["crc32"] and path.stat().st_size == math.prod(head["shape"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (Pack(path, len(records), tuple(head["shape"]), dict(head["reasons"])), records) if whole else None


def pack_names(folder: Path) -> list[str]:
    """Names of the packs in a folder, in order."""
    return sorted(path.stem for path in folder.glob(f"*{_RECORDS}"))


def remove_pack(pack: Pack) -> None:
    """Remove a pack, its records first, so that half a pack is never taken for a whole one."""
    for suffix in (_RECORDS, _PIXELS):
        pack.path.with_suffix(suffix).unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Remove what a killed process left behind."""
    for path in folder.glob(".*.partial"):
        path.unlink(missing_ok=True)
    whole = set(pack_names(folder))
    for path in folder.glob(f"*{_PIXELS}"):
        if path.stem not in whole:
            path.unlink()


class Index:
    """All packs of a folder, for finding decoded samples; `records` are those of all packs, one after another."""

    def __init__(self, folder: Path, kind: np.dtype[Any]) -> None:
        found = [pack for name in pack_names(folder) if (pack := read_pack(folder, name, kind)) is not None]
        self.packs = [pack for pack, _ in found]
        self.records = np.concatenate([records for _, records in found]) if found else np.empty(0, kind)
        self._starts = np.cumsum([0, *(pack.length for pack in self.packs)])

    @functools.cached_property
    def _contents(self) -> "_Sorted":
        return _Sorted(_content_keys(self.records["sha256"], self.records["claim"]))

    def by_stamp(self, stamps: NDArray[np.void]) -> NDArray[np.int64]:
        """Indices [n] into `records` of the samples with these stamps; -1 for none."""
        return _Sorted(_texts(self.records["stamp"])).find(_texts(stamps))

    def by_content(self, sha256: bytes, claim: int) -> tuple[Pack, int, np.void] | None:
        """Pack, row and record of a sample with this content whose name claims the same format; None if none has."""
        keys = _content_keys(np.frombuffer(sha256, "V32"), np.array([claim], np.uint8))
        at = int(self._contents.find(keys)[0])
        if at < 0:
            return None
        owner = int(np.searchsorted(self._starts, at, "right")) - 1
        return self.packs[owner], at - int(self._starts[owner]), self.records[at]


class _Sorted:
    """Finds keys in an array of keys; all-zero keys are never found."""

    def __init__(self, keys: NDArray[np.bytes_]) -> None:
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def find(self, wanted: NDArray[np.bytes_]) -> NDArray[np.int64]:
        if not len(self._keys):
            return np.full(len(wanted), -1)
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.where((self._keys[at] == wanted) & (wanted != b""), self._order[at], -1)


def _texts(values: NDArray[np.void]) -> NDArray[np.bytes_]:
    """Raw bytes as fixed-length byte strings, which numpy sorts and compares fast (ignoring zeros at the end)."""
    return np.ascontiguousarray(values).view(f"S{values.dtype.itemsize}")


def _content_keys(sha256: NDArray[np.void], claim: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    unread = _texts(sha256) == b""
    keys = np.zeros((len(sha256), 33), np.uint8)
    keys[:, :32] = np.ascontiguousarray(sha256).view(np.uint8).reshape(-1, 32)
    keys[:, 32] = np.where(unread, 0, claim + 1)
    return keys.view("S33")[:, 0]
