"""Which samples show the same picture: exact copies, contradictions, and near duplicates in different splits."""

import hashlib
import io
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.common.files import write_atomically
from stages.config.ingest import NearDuplicates, Splits
from stages.ingest._near import FAR, Compare, Near, near_duplicates
from stages.ingest._read import Refusal, Refusals, Samples, hex_digests
from stages.ingest._sample import Listing
from stages.store import SPLITS

_CHUNK = 2**24  # bytes of images compared at once
_FOUND = ("partner", "nearest", "squared", "same")  # arrays of Near


@dataclass(frozen=True)
class Distinct:
    """Samples with distinct pixels and their splits; `copies`, exact ones, as (copy, kept, SHA-256); `near`, kept near
    duplicates, as (source, near); `near_refused`, for each kept image that training images were refused for, as (the
    nearest of those, `train`, the kept image, the squared distance of their stored pixels)."""

    samples: Samples
    splits: NDArray[np.uint8]
    copies: list[tuple[str, str, str]]
    refused: Refusals
    near: list[tuple[str, str]]
    near_refused: list[tuple[str, str, str, str]]
    crowded: int


def split_of(sha256: NDArray[np.void], splits: Splits) -> NDArray[np.uint8]:
    """Index in SPLITS for each hash [n], by its first 64 bits as a fraction of 2**64.

    It depends on nothing else, so an image never changes its split when others come or go.
    """
    head = np.ascontiguousarray(sha256).view(">u8").reshape(len(sha256), 4)[:, 0].astype(np.uint64)
    fraction = head.astype(np.float64) / 2**64
    return (fraction >= splits.train).astype(np.uint8) + (fraction >= splits.train + splits.fit).astype(np.uint8)


def distinct(samples: Samples, listing: Listing, splits: Splits, near: NearDuplicates | None, memory: Path) -> Distinct:
    """Remove duplicates. Of equal pictures in different splits, the one furthest from training is kept. A picture that
    lies in two classes has no label that can be trusted, so all its copies are refused. Of near duplicates in different
    splits, the one nearer to training is refused. The near pairs found are kept in the folder `memory`."""
    sides = _sides(samples, listing, splits)
    keep, copies, refused = _exact(samples, listing, sides)
    samples, sides = samples.where(keep), sides[keep]
    if near is None or not len(samples):
        return Distinct(samples, sides, copies, refused, [], [], 0)

    def compare(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
        return _squared(samples, first, second, near.levels)

    found = _remembered(memory, samples, sides, near, compare)
    for at in np.flatnonzero(found.partner >= 0):
        partner = found.partner[at]
        name = _source(listing, samples, partner)
        reason = f"near duplicate: of {name} ({SPLITS[sides[partner]]})"
        refused.append(Refusal(_source(listing, samples, at), reason, _digest(samples, at), name))
    alike = [(_source(listing, samples, at), _source(listing, samples, found.same[at]))
             for at in np.flatnonzero(found.same >= 0)]  # fmt: skip
    taken = [(_source(listing, samples, found.nearest[at]), SPLITS[0], _source(listing, samples, at),
              str(found.squared[at])) for at in np.flatnonzero(found.nearest >= 0)]  # fmt: skip
    stay = found.partner < 0
    return Distinct(samples.where(stay), sides[stay], copies, refused, alike, taken, found.crowded)


def _sides(samples: Samples, listing: Listing, splits: Splits) -> NDArray[np.uint8]:
    """Index in SPLITS of each sample, by the hash of its content, or of its group if there are groups."""
    if listing.groups is None:
        return split_of(samples.records["sha256"], splits)
    digests = b"".join(hashlib.sha256(name).digest() for name in listing.groups.raw(samples.rows))
    return split_of(np.frombuffer(digests, "V32"), splits)


def _exact(
    samples: Samples, listing: Listing, sides: NDArray[np.uint8]
) -> tuple[NDArray[np.bool_], list[tuple[str, str, str]], Refusals]:
    pixels = np.ascontiguousarray(samples.records["pixels"]).view("S32")
    order = np.argsort(pixels, kind="stable")
    ordered = pixels[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(order) else np.empty(0, np.int64)
    lengths = np.diff(np.append(starts, len(order)))
    keep, copies, refused = np.ones(len(samples), np.bool_), [], []
    for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
        group = order[start : start + length]  # in store order
        names = {int(at): _source(listing, samples, at) for at in group}
        labels = listing.labels[samples.rows[group]]
        keep[group] = False
        if (labels != labels[0]).any():
            last = group[labels != labels[0]][0]
            for at, label in zip(group, labels, strict=True):
                other = names[int(last if label == labels[0] else group[0])]
                reason = f"contradiction: the same picture lies in another class, {other}"
                refused.append(Refusal(names[int(at)], reason, _digest(samples, at), other))
            continue
        chosen = group[np.argmax(sides[group])]  # the first of those furthest from training
        keep[chosen] = True
        copies += [(names[int(at)], names[int(chosen)], _digest(samples, at)) for at in group if at != chosen]
    return keep, copies, refused


def _remembered(
    memory: Path, samples: Samples, sides: NDArray[np.uint8], near: NearDuplicates, compare: Compare
) -> Near:
    """The near duplicates, searched for only if the images, their splits or the limits differ from last time."""
    hashed, mean, digest = samples.records["near"], samples.records["mean"], hashlib.sha256()
    for part in (samples.records["pixels"], sides, np.array([near.distance, near.levels])):
        digest.update(np.ascontiguousarray(part).tobytes())
    path, key = memory / "near.npz", np.frombuffer(digest.digest(), np.uint8)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as last:
            if np.array_equal(last["key"], key):
                return Near(**{name: last[name] for name in _FOUND}, crowded=int(last["crowded"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        pass  # it is only a cache
    found = near_duplicates(hashed, mean, sides, near.distance, near.levels, compare)
    body = io.BytesIO()
    np.savez(body, key=key, crowded=found.crowded, **{name: getattr(found, name) for name in _FOUND})
    write_atomically(path, body.getvalue())
    return found


def _squared(samples: Samples, first: NDArray[np.int64], second: NDArray[np.int64], levels: float) -> NDArray[np.int64]:
    """Sum of squared differences of each pair's stored pixels; FAR if they differ by more than `levels` on average.

    Computed in chunks; levels run from 0 to 255.
    """
    found = np.full(len(first), FAR)
    pairs = max(1, _CHUNK // math.prod(samples.shape))
    for start in range(0, len(first), pairs):
        part = slice(start, start + pairs)
        a, b = samples.pixels(first[part]), samples.pixels(second[part])
        difference = (np.maximum(a, b) - np.minimum(a, b)).reshape(len(a), -1)
        near = np.flatnonzero(difference.mean(axis=1) <= levels)
        found[start + near] = (difference[near].astype(np.uint16) ** 2).sum(axis=1, dtype=np.int64)
    return found


def _source(listing: Listing, samples: Samples, at: int | np.integer) -> str:
    return listing.sources[int(samples.rows[at])]


def _digest(samples: Samples, at: int | np.integer) -> str:
    return hex_digests(samples.records["sha256"][at : at + 1])[0]
