"""Perceptual hashes, and all near pairs of them without comparing every image with every other.

The hash: signs of the 8 x 8 lowest coefficients of a two-dimensional cosine transform against their median (Zauner,
"Implementation and benchmarking of perceptual image hash functions", 2010), in whole numbers, so that every machine
gets the same bits. The search: multi-index hashing (Norouzi, Punjani, Fleet, CVPR 2012). Two hashes that differ in at
most d of 64 bits differ in at most d // 4 of some quarter, so that only images which nearly share a quarter are
compared: about N * 4 * N / 65,536 of the N^2 / 2 pairs.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CROWD = 512  # buckets up to this size are compared in full; in larger ones each image meets the 512 nearest in mean
_CHUNK = 1 << 18  # pairs compared at once
_KEPT = 4  # pairs per image kept for the next pass; if there are more, they are searched for again
FAR = np.iinfo(np.int64).max  # squared distance of a pair that is not near
Compare = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]  # squared distances of pairs


def hashes(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """uint64 [N] from uint8 [N, side, side, C]."""
    count, side = images.shape[:2]
    luma = (images @ np.array([299, 587, 114], np.int64) if images.shape[3] == 3 else images[..., 0]).astype(np.float64)
    angles = np.pi / side * np.outer(np.arange(8), np.arange(side) + 0.5)
    basis = np.rint(256 * np.cos(angles))  # whole numbers below 2**53 in every sum: exact in float64
    low = (basis @ luma @ basis.T).reshape(count, 64)
    low[:, 0] = 0  # brightness says nothing about what is seen
    # The median of 64 whole numbers is the mean of the middle two; doubled, it is whole.
    middle = np.sort(low, axis=1)[:, 31:33].sum(axis=1, keepdims=True)
    return np.packbits(2 * low > middle, axis=1).view(">u8")[:, 0].astype(np.uint64)


@dataclass(frozen=True)
class Near:
    """Which of n images are near each other; of a pair in different splits, the one nearer to training is refused.

    `partner` [n] gives for each refused image a kept one near it in a split further from training, and -1 for a kept
    image. `nearest` [n] gives for each kept image the nearest training image that was refused, at squared distance
    `squared` [n]; -1 and FAR if there is none. `same` [n] gives for each kept image an earlier kept one near it in the
    same split, or -1. `crowded` counts the images that were compared with only part of their bucket.
    """

    partner: NDArray[np.int64]
    nearest: NDArray[np.int64]
    squared: NDArray[np.int64]
    same: NDArray[np.int64]
    crowded: int


def near_duplicates(
    hashed: NDArray[np.uint64],
    mean: NDArray[np.float64],
    side: NDArray[np.integer],
    distance: int,
    levels: float,
    compare: Compare,
) -> Near:
    """Pairs whose hashes differ in at most `distance` bits and whose pixels `compare(first, second)` finds near.

    `mean` is the mean level of each image: a pair whose means differ by more than `levels` cannot be near. `side` is 0
    for training, and larger for splits further from it. The furthest are handled first, so that a refused image refuses
    no other. Memory grows only with the number of images. A training image is compared with all kept candidates in
    other splits, since any of them may be the nearest; any other image only until a near one is found. In a crowd, an
    image meets at most CROWD others for each quarter of the hash and each key looked up.
    """
    partner, nearest, same = (np.full(len(hashed), -1) for _ in range(3))
    squared = np.full(len(hashed), FAR)
    pairs = _Pairs(hashed, mean, distance, levels)
    for one in reversed(range(int(side.max(initial=0)))):
        for first, second in pairs:
            swap = side[first] > side[second]
            loser, winner = np.where(swap, second, first), np.where(swap, first, second)
            asked = (side[loser] == one) & (side[winner] > one) & (partner[winner] < 0)
            loser, winner, found = _confirmed(loser, winner, asked & (partner[loser] < 0) if one else asked, compare)
            _note(partner, loser, winner)
            if one == 0:
                order = np.lexsort((loser, found))
                _note_nearest(nearest, squared, loser[order], winner[order], found[order])
    for first, second in pairs:
        asked = (side[first] == side[second]) & (partner[first] < 0) & (partner[second] < 0) & (same[second] < 0)
        first, second, _ = _confirmed(first, second, asked, compare)
        _note(same, second, first)
    return Near(partner, nearest, squared, same, int(pairs.crowded.sum()))


def _confirmed(
    first: NDArray[np.int64], second: NDArray[np.int64], asked: NDArray[np.bool_], compare: Compare
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Those of the `asked` pairs that are near, with their squared distances."""
    first, second = first[asked], second[asked]
    found = compare(first, second)
    near = found < FAR
    return first[near], second[near], found[near]


def _note(known: NDArray[np.int64], at: NDArray[np.int64], other: NDArray[np.int64]) -> None:
    """Set `known[at]` to the other of each pair if it is still -1; of several, the first counts."""
    new = known[at] < 0
    known[at[new][::-1]] = other[new][::-1]


def _note_nearest(
    nearest: NDArray[np.int64],
    squared: NDArray[np.int64],
    refused: NDArray[np.int64],
    kept: NDArray[np.int64],
    found: NDArray[np.int64],
) -> None:
    """The same, but if none as near is known; pairs come in order of distance."""
    nearer = found < squared[kept]
    at = kept[nearer][::-1]
    nearest[at], squared[at] = refused[nearer][::-1], found[nearer][::-1]


class _Pairs:
    """Candidate pairs, which can be iterated over any number of times."""

    def __init__(self, hashed: NDArray[np.uint64], mean: NDArray[np.float64], distance: int, levels: float) -> None:
        self.crowded = np.zeros(len(hashed), np.bool_)
        self._search = functools.partial(_candidates, hashed, mean, distance, levels, self.crowded)
        self._kept: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        if self._kept is not None:
            yield self._kept
            return
        found, count = [np.empty((2, 0), np.int64)], 0
        for first, second in self._search():
            yield first, second
            count += len(first)
            if count <= _KEPT * len(self.crowded):
                found.append(np.stack((first, second)))
            else:
                found.clear()
        if found:
            self._kept = tuple(np.concatenate(found, axis=1))


def _candidates(
    hashed: NDArray[np.uint64],
    mean: NDArray[np.float64],
    distance: int,
    levels: float,
    crowded: NDArray[np.bool_],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs (first < second) near by hash and mean, in chunks. Marks `crowded` images, whose pairs may repeat."""
    for band in range(4):
        keys = (hashed >> np.uint64(16 * band)).astype(np.uint16)
        order = np.lexsort((mean, keys))
        bucket = _Buckets(keys[order], mean[order])
        sorted_hashes = hashed[order]
        for mask in _masks(distance // 4):
            if (large := bucket.large(mask)) is not None:
                crowded[order[large]] = True
            for first, second in bucket.joined(mask, large):
                difference = sorted_hashes[first] ^ sorted_hashes[second]
                close = np.flatnonzero(np.bitwise_count(difference) <= distance)  # few, so that the rest costs little
                first, second, difference = order[first[close]], order[second[close]], difference[close]
                right = np.abs(mean[first] - mean[second]) <= levels
                seen = _seen_before(difference, band, distance // 4)
                right &= ~seen | crowded[first] | crowded[second]  # an earlier band may have left these out
                yield np.minimum(first, second)[right], np.maximum(first, second)[right]


def _masks(radius: int) -> list[int]:
    """All 16-bit numbers with at most `radius` bits set."""
    return [sum(1 << bit for bit in bits) for r in range(radius + 1) for bits in itertools.combinations(range(16), r)]


def _seen_before(difference: NDArray[np.uint64], band: int, radius: int) -> NDArray[np.bool_]:
    """Whether an earlier band has brought the pair together already."""
    seen = np.zeros(len(difference), np.bool_)
    for earlier in range(band):
        seen |= np.bitwise_count((difference >> np.uint64(16 * earlier)).astype(np.uint16)) <= radius
    return seen


class _Buckets:
    """Images sorted by one quarter of their hashes, then by mean; all numbers are positions in this order."""

    def __init__(self, keys: NDArray[np.uint16], mean: NDArray[np.float64]) -> None:
        self._keys, self._mean = keys, mean
        self._bounds = np.searchsorted(keys, np.arange(2**16 + 1)).astype(np.int32)

    def large(self, mask: int) -> NDArray[np.bool_] | None:
        """Which images face more than CROWD others at the key that differs from theirs by `mask`; None if none does."""
        partner = self._keys ^ np.uint16(mask)
        large = np.diff(self._bounds)[partner] > CROWD
        return large if large.any() else None

    def joined(
        self, mask: int, large: NDArray[np.bool_] | None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Pairs whose keys differ by exactly `mask`, in chunks, each pair once; of `large` ones the nearest in mean."""
        partner = self._keys ^ np.uint16(mask)
        start, end = self._bounds[:-1][partner], self._bounds[1:][partner]
        if large is not None:
            start[large] = self._nearest(partner, start, end, large)
            end[large] = start[large] + CROWD
        if mask == 0:
            start = np.maximum(start, np.arange(len(start)) + 1)
        else:
            end = np.where(partner > self._keys, end, start)
        counts = np.maximum(end - start, 0)
        ends = np.cumsum(counts)
        first_row = 0
        while first_row < len(counts):
            done = ends[first_row - 1] if first_row else 0
            last_row = max(first_row + 1, int(np.searchsorted(ends, done + _CHUNK, "right")))
            rows, many = np.arange(first_row, last_row), counts[first_row:last_row]
            offsets = start[first_row:last_row] - (np.cumsum(many) - many)
            yield np.repeat(rows, many), np.arange(many.sum()) + np.repeat(offsets, many)
            first_row = last_row

    def _nearest(
        self,
        partner: NDArray[np.uint16],
        start: NDArray[np.int64],
        end: NDArray[np.int64],
        large: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """For each large one, where in the bucket `start` to `end` of its `partner` the CROWD nearest in mean begin."""
        levels, rank, places = self._ranked
        wanted = levels * partner[large].astype(np.int64) + rank[large]
        among = np.flatnonzero(large) - np.searchsorted(places, places[large])  # equal means share it out
        middle = np.searchsorted(places, wanted) + among
        return np.minimum(np.maximum(start[large], middle - CROWD // 2), end[large] - CROWD)

    @functools.cached_property
    def _ranked(self) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        """The number of distinct means, the rank of each image's mean, and sort keys in the order of the images."""
        levels, rank = np.unique(self._mean, return_inverse=True)
        return len(levels), rank, len(levels) * self._keys.astype(np.int64) + rank
