"""Images that must never come back: the tombstones that an erasure leaves, by the SHA-256 of their content."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.common.files import read_json
from stages.ingest._read import Refusal, Refusals, Samples, hex_digests
from stages.ingest._sample import Listing

Tombstone = dict[str, str]  # sha256, date, reason


def read_tombstones(path: Path | None) -> list[Tombstone]:
    """What was erased, sorted. Raises ValueError where the file does not say what, when and why."""
    if path is None:
        return []
    found = read_json(path, needs=("images",))["images"]
    for entry in found:
        whole = isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("sha256", "date", "reason"))
        if not whole or not re.fullmatch("[0-9a-f]{64}", entry["sha256"]):
            raise ValueError(f"{path} must give sha256, date and reason of every erased image; received {entry!r}")
    return sorted(found, key=lambda entry: entry["sha256"])


def without_erased(samples: Samples, listing: Listing, erased: list[Tombstone]) -> tuple[Samples, Refusals]:
    """The samples that were never erased, and the others as refusals."""
    if not erased:
        return samples, []
    reasons = {bytes.fromhex(entry["sha256"]): f"erased: {entry['date']}, {entry['reason']}" for entry in erased}
    gone: NDArray[np.bool_] = np.isin(
        samples.records["sha256"].astype("V32").view("S32"), np.array(list(reasons), "S32")
    )
    rows = np.flatnonzero(gone)
    digests = hex_digests(samples.records["sha256"][rows])
    refused = [
        Refusal(listing.sources[int(samples.rows[row])], reasons[bytes.fromhex(digest)], digest)
        for row, digest in zip(rows, digests, strict=True)
    ]
    return samples.where(~gone), refused
