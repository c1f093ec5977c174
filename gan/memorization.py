"""Does a generator copy its training images? Pixel distances and the exact null of the nearest-neighbour test.

Distance: squared L2 over uint8 pixels, in integers, so that a copy is at exactly 0 on every machine. It is taken from
each generated image, and from each control (a real image that the generator never saw), to the nearest training image.
Null: generated images and controls are exchangeable given the training images, so every order of their distances is
equally likely; if near duplicates of controls were taken out of training, controls' distances to them still count. Then
the number of generated images below the r-th smallest control is negative hypergeometric
(`gan.intervals.negative_hypergeometric_tail`), whatever the distribution of distances is.

Tests of the mean or of global rank miss a few percent of copies; the lower tail finds them (compare Meehan,
Chaudhuri, Dasgupta: "A non-parametric test to detect data-copying in generative models", AISTATS 2020). The tail is
tested twice, at r = 1 (sharpest for exact copies) and at 1 % of the controls (near copies), with Bonferroni's
correction.

What it cannot do: say anything about privacy. Images that are not near copies in pixels can still reveal who was in the
data (Yao et al.: "The DCR Delusion", ESORICS 2025). numpy only.
"""

import bisect
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gan.intervals import negative_hypergeometric_tail

if TYPE_CHECKING:
    from gan.features.domain import Pictures

_BLOCK_BYTES = 64 * 2**20  # memory that a block of distances may take
_EXACT = 2**53  # float64 holds every whole number up to here


class Neighbours(NamedTuple):
    """Nearest training image of each query."""

    squared: NDArray[np.int64]  # [N], squared L2 in grey levels of 255
    place: NDArray[np.int64]  # [N], index of that training image


class Copying(NamedTuple):
    """Result of the test."""

    p: float  # of the null `no copying`; small means copies
    ranks: tuple[int, ...]  # the r of each tail looked at
    counts: tuple[int, ...]  # generated images at or below the r-th smallest control, per rank
    tails: tuple[float, ...]  # uncorrected p-value, per rank
    fakes: int  # generated images that counted: repeats of one image once, exact copies each time
    controls: int


def nearest(
    queries: "Pictures", train: "Pictures", *, done: Callable[[int], object] = lambda count: None
) -> Neighbours:
    """Nearest training image of every query by squared L2 in pixels, exact; the first if several are equally near.

    `queries` uint8 [N, H, W, C] and `train` uint8 [M, H, W, C] may lie on disk; time N x M x pixels, memory bounded by
    blocks. `done` is called after each block with the number of queries that it answered.
    Raises ValueError for another dtype, different image shapes, or no training images.
    """
    kinds = [images[np.arange(0)].dtype for images in (queries, train)]
    if kinds != [np.uint8] * 2 or queries.shape[1:] != train.shape[1:] or not len(train):
        raise ValueError(
            "nearest neighbours need uint8 images of one shape and at least one training image; received "
            f"{kinds[0]} {list(queries.shape)} and {kinds[1]} {list(train.shape)}"
        )
    pixels = int(np.prod(train.shape[1:]))
    assert pixels * 255**2 < _EXACT  # then every sum below is a whole number that float64 holds, in any order
    squared = np.full(len(queries), np.iinfo(np.int64).max, np.int64)
    place = np.zeros(len(queries), np.int64)
    rows = max(1, min(len(queries), 1024, _BLOCK_BYTES // (8 * pixels)))
    columns = max(1, _BLOCK_BYTES // (8 * max(rows, pixels)))
    for left in range(0, len(queries), rows):
        part = slice(left, min(left + rows, len(queries)))
        x = _flat(queries, part)
        own = np.square(x).sum(axis=1)[:, None]
        for right in range(0, len(train), columns):
            block = _flat(train, slice(right, min(right + columns, len(train))))
            distances = (own - 2 * (x @ block.T) + np.square(block).sum(axis=1)).astype(np.int64)
            first = distances.argmin(axis=1)
            found = distances[np.arange(len(first)), first]
            closer = found < squared[part]
            squared[part] = np.where(closer, found, squared[part])
            place[part] = np.where(closer, first + right, place[part])
        done(part.stop - part.start)
    return Neighbours(squared, place)


def _flat(images: "Pictures", part: slice) -> NDArray[np.float64]:
    return images[np.arange(part.start, part.stop)].reshape(part.stop - part.start, -1).astype(np.float64)


def fingerprints(images: "Pictures") -> list[bytes]:
    """16 bytes for each image uint8 [N, H, W, C], equal only for equal pixels (BLAKE2b)."""
    step = max(1, _BLOCK_BYTES // math.prod(images.shape[1:]))
    return [
        hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        for start in range(0, len(images), step)
        for image in images[np.arange(start, min(start + step, len(images)))]
    ]


def counted(prints: Sequence[bytes], squared: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which generated images count in the test: bool [N], from their `fingerprints` and distances [N].

    Real images do not repeat (ingest keeps one of each), so a generator that repeats itself breaks the null without
    having copied anything: of equal images only the first counts, or a collapsed generator would be taken for a copying
    one. Exact copies of training images, at distance 0, count every time.
    """
    firsts: dict[bytes, int] = {}
    for place, each in enumerate(prints):
        firsts.setdefault(each, place)
    mask = np.asarray(squared) == 0
    mask[list(firsts.values())] = True
    return mask


def copying(fakes: NDArray[np.integer], controls: NDArray[np.integer]) -> Copying:
    """Test whether generated images lie closer to the training images than unseen real images do.

    `fakes` [m] and `controls` [n] are squared distances to the nearest training image (only their order matters).
    A generated image as near as the r-th control counts against the generator, so that exact copies are found even if
    a control has an exact copy in the training images; without such ties the p-value is exact at each rank.
    Raises ValueError if either is empty.
    """
    if not len(fakes) or not len(controls):
        raise ValueError(f"the test needs generated images and controls; received {len(fakes)} and {len(controls)}")
    ranks = _ranks(len(controls))
    bounds = np.sort(controls)[np.array(ranks) - 1]
    counts = tuple(int((fakes <= bound).sum()) for bound in bounds)
    tails = tuple(
        negative_hypergeometric_tail(count, fakes=len(fakes), controls=len(controls), rank=rank)
        for count, rank in zip(counts, ranks, strict=True)
    )
    return Copying(min(1.0, len(ranks) * min(tails)), ranks, counts, tails, len(fakes), len(controls))


def copies_needed(fakes: int, controls: int, *, alpha: float) -> int | None:
    """Fewest exact copies among `fakes` images that give p < alpha; None if no number does."""
    tests, tail = len(_ranks(controls)), 1.0
    for copies in range(1, fakes + 1):
        # P(at least this many of the fakes lie below every control), the tail at rank 1, as a running product.
        tail *= (fakes - copies + 1) / (fakes + controls - copies + 1)
        if tests * tail < alpha:
            return copies
    return None


def detectable_share(fakes: int, controls: int, *, alpha: float) -> float | None:
    """Smallest share of exact copies that is found with probability 0.95; None if none is.

    Each image is a copy with that probability, so the number of copies is binomial; images that lie in the tail
    without being copies are left out, which makes the statement conservative.
    """
    needed = copies_needed(fakes, controls, alpha=alpha)
    if needed is None:
        return None
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if _at_least(needed, fakes, middle) >= 0.95 else (middle, high)
    return high


def samples_needed(controls: int, *, share: float, alpha: float, most: int) -> int | None:
    """Number of images, at most `most`, from which on exact copies in that share give p < alpha; None if none does.

    With more images p approaches (number of ranks) x (1 - share) ** controls from above.
    """
    copies = range(1, math.floor(share * most) + 1)
    place = bisect.bisect_left(copies, True, key=lambda n: _p_of_copies(math.floor(n / share), controls, n) < alpha)
    return math.floor(copies[place] / share) if place < len(copies) else None


def controls_needed(fakes: int, *, share: float, alpha: float) -> int:
    """Number of controls from which on exact copies in that share of `fakes` images give p < alpha."""
    copies, many = math.ceil(share * fakes), range(101, 10**10)  # from 101 on there are two ranks
    return many[bisect.bisect_left(many, True, key=lambda n: _p_of_copies(fakes, n, copies) < alpha)]


def _p_of_copies(fakes: int, controls: int, copies: int) -> float:
    """p if `copies` of the fakes are exact copies and all others lie beyond every control."""
    held = (math.lgamma(fakes + 1), -math.lgamma(fakes - copies + 1))
    free = (math.lgamma(fakes + controls - copies + 1), -math.lgamma(fakes + controls + 1))
    return min(1.0, len(_ranks(controls)) * math.exp(math.fsum((*held, *free))))


def _ranks(controls: int) -> tuple[int, ...]:
    """1 and a hundredth of the controls, rounded up; one rank if they are the same."""
    return tuple(sorted({1, math.ceil(controls / 100)}))


def _at_least(needed: int, count: int, share: float) -> float:
    """P(binomial(count, share) >= needed) for 0 < share <= 1."""
    if share >= 1:
        return 1.0
    odds = math.log(share) - math.log1p(-share)
    log_term = count * math.log1p(-share)  # of zero copies
    below = 0.0
    for copies in range(needed):
        below += math.exp(log_term)
        log_term += odds + math.log(count - copies) - math.log(copies + 1) if copies < count else -math.inf
    return max(0.0, 1 - below)
