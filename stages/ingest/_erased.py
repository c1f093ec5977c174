"""Images that must never come back: the tombstones that an erasure leaves, by the SHA-256 of their content."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.common.files import read_json
from stages.ingest._read import Refusal, Refusals, Samples, hex_digests
from stages.ingest._sample import Listing
from stages.ingest._worker import ERASED

Tombstone = dict[str, str]
_KEYS = ("sha256", "date", "reason")  # of a tombstone; any others are for the erasure's own use


def read_tombstones(path: Path | None) -> list[Tombstone]:
    """What was erased, sorted by SHA-256. Raises ValueError if the file does not say what, when and why."""
    if path is None:
        return []
    found = read_json(path, needs=("images",))["images"]
    for entry in found:
        whole = isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in _KEYS)
        if not whole or not re.fullmatch("[0-9a-f]{64}", entry["sha256"]):
            raise ValueError(f"{path} must give sha256, date and reason of every erased image; received {entry!r}")
    return sorted(({key: entry[key] for key in _KEYS} for entry in found), key=lambda entry: entry["sha256"])


def contents(erased: list[Tombstone]) -> frozenset[bytes]:
    """SHA-256 of what was erased."""
    return frozenset(bytes.fromhex(entry["sha256"]) for entry in erased)


def without_erased(
    samples: Samples, refused: Refusals, listing: Listing, erased: list[Tombstone]
) -> tuple[Samples, Refusals]:
    """The samples that were never erased, and all refusals; those for an erasure give its date and reason."""
    if not erased:
        return samples, refused
    reasons = {entry["sha256"]: f"erased: {entry['date']}, {entry['reason']}" for entry in erased}
    told = [one._replace(reason=reasons[one.sha256]) if one.reason == ERASED else one for one in refused]
    gone: NDArray[np.bool_] = np.isin(  # decoded before they were erased
        samples.records["sha256"].astype("V32").view("S32"), np.array(list(contents(erased)), "S32")
    )
    rows = np.flatnonzero(gone)
    digests = hex_digests(samples.records["sha256"][rows])
    names = listing.sources.take(samples.rows[rows])
    told += [Refusal(name, reasons[digest], digest) for name, digest in zip(names, digests, strict=True)]
    return samples.where(~gone), told
