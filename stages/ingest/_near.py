"""Perceptual hashes, and all pairs of near ones without comparing every image with every other.

The hash: signs of the 8 x 8 lowest coefficients of a two-dimensional cosine transform against their median (Zauner,
"Implementation and benchmarking of perceptual image hash functions", 2010), in whole numbers, so that every machine
finds the same bits. The search: multi-index hashing (Norouzi, Punjani, Fleet, CVPR 2012). Two hashes that differ in at
most d of 64 bits differ in at most d // 4 of some quarter, so that only images which nearly share a quarter are
compared: about N * 4 * N / 65,536 of the N^2 / 2 pairs.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CROWD = 512  # members of one bucket that are all compared; in larger ones each meets this many, nearest in brightness
_CHUNK = 1 << 18  # pairs compared at once
Confirm = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]  # first and second of pairs


def hashes(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """uint64 [N] from uint8 [N, side, side, C]."""
    count, side = images.shape[:2]
    luma = (images @ np.array([299, 587, 114], np.int64) if images.shape[3] == 3 else images[..., 0]).astype(np.float64)
    angles = np.pi / side * np.outer(np.arange(8), np.arange(side) + 0.5)
    basis = np.rint(256 * np.cos(angles))  # whole numbers below 2**53 in every sum: exact in float64
    low = (basis @ luma @ basis.T).reshape(count, 64)
    low[:, 0] = 0  # brightness says nothing of what is seen
    # The median of 64 whole numbers is the mean of two, so that the doubled one is whole.
    middle = np.sort(low, axis=1)[:, 31:33].sum(axis=1, keepdims=True)
    return np.packbits(2 * low > middle, axis=1).view(">u8")[:, 0].astype(np.uint64)


@dataclass(frozen=True)
class Near:
    """What is near what among n images; of a pair on two sides the one nearer to training is refused.

    `partner` [n] is for each refused image one on a side further from training that stays, or -1: the image stays.
    `pairs` [m, 2] are all pairs of a refused image and one on another side that stays, in order. `same` [n] is for each
    image that stays an earlier one on its side that stays, or -1. `crowded` images were compared with a part of their
    bucket only.
    """

    partner: NDArray[np.int64]
    pairs: NDArray[np.int64]
    same: NDArray[np.int64]
    crowded: int


def near_duplicates(
    hashed: NDArray[np.uint64],
    mean: NDArray[np.float64],
    side: NDArray[np.integer],
    distance: int,
    levels: float,
    confirm: Confirm,
) -> Near:
    """Pairs whose hashes differ in at most `distance` bits and that `confirm(first, second)` finds near as pixels.

    `mean` is the mean level of each image: a pair whose means differ by more than `levels` cannot be confirmed. A
    larger `side` is further from training. Sides are gone through from the furthest on: a refused image refuses none.
    """
    count, found = len(hashed), [np.empty(0, np.int64)]
    crowded = np.zeros(count, np.bool_)
    for first, second in _candidates(hashed, mean, distance, levels, crowded):
        across = side[first] != side[second]
        first, second = first[across], second[across]
        right = confirm(first, second)
        found.append(count * first[right] + second[right])
    first, second = np.divmod(np.unique(np.concatenate(found)), count)
    swap = side[first] > side[second]
    loser, winner = np.where(swap, second, first), np.where(swap, first, second)
    partner = np.full(count, -1)
    for one in np.unique(side[loser])[::-1]:
        right = (side[loser] == one) & (partner[winner] < 0)
        partner[loser[right][::-1]] = winner[right][::-1]  # of several the first
    pairs = np.concatenate([np.stack(pair, axis=1) for pair in ((loser, winner), (winner, loser))])
    pairs = pairs[(partner[pairs[:, 0]] >= 0) & (partner[pairs[:, 1]] < 0)]
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    same = _same(hashed, mean, np.where(partner < 0, side, -1), distance, levels, confirm)
    return Near(partner, pairs, same, int(crowded.sum()))


def _same(
    hashed: NDArray[np.uint64],
    mean: NDArray[np.float64],
    side: NDArray[np.integer],
    distance: int,
    levels: float,
    confirm: Confirm,
) -> NDArray[np.int64]:
    """For each image an earlier near one on the same side, or -1; side -1 is left out."""
    same = np.full(len(hashed), -1)
    for one in np.unique(side[side >= 0]):
        rows = np.flatnonzero(side == one)
        crowded = np.zeros(len(rows), np.bool_)
        for earlier, later in _candidates(hashed[rows], mean[rows], distance, levels, crowded):
            new = same[rows[later]] < 0
            first, second = rows[earlier[new]], rows[later[new]]
            right = confirm(first, second)
            same[second[right][::-1]] = first[right][::-1]  # of several the first
    return same


def _candidates(
    hashed: NDArray[np.uint64],
    mean: NDArray[np.float64],
    distance: int,
    levels: float,
    crowded: NDArray[np.bool_],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs (first < second) near by hash and mean, in chunks; those of `crowded` ones, who are marked, may repeat."""
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
    """Images in the order of one quarter of their hashes, of equal ones in that of their means; all by place in it."""

    def __init__(self, keys: NDArray[np.uint16], mean: NDArray[np.float64]) -> None:
        self._keys, self._mean = keys, mean
        self._bounds = np.searchsorted(keys, np.arange(2**16 + 1)).astype(np.int32)

    def large(self, mask: int) -> NDArray[np.bool_] | None:
        """Which images have more than CROWD others at the key that differs from theirs by `mask`; None if none has."""
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
        """Where the CROWD members nearest in mean begin in the bucket `start` to `end` of each large `partner`."""
        levels, rank, places = self._ranked
        wanted = levels * partner[large].astype(np.int64) + rank[large]
        among = np.flatnonzero(large) - np.searchsorted(places, places[large])  # images of one mean share it out
        middle = np.searchsorted(places, wanted) + among
        return np.minimum(np.maximum(start[large], middle - CROWD // 2), end[large] - CROWD)

    @functools.cached_property
    def _ranked(self) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        """How many means there are, the place of each image's among them, and numbers as ordered as the images."""
        levels, rank = np.unique(self._mean, return_inverse=True)
        return len(levels), rank, len(levels) * self._keys.astype(np.int64) + rank
