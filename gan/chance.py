"""Numbers that belong to an image: a pure function of its key, computed where the image is, CPU or GPU.

A batch carries one int64 key an image (`gan.batches.draw_keys`); from it come augmentation, noise, dropout and swapped
labels, so that none of them depends on how a batch is shared out or on what ran before. The bits are SplitMix64's
(Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014) in wrapping 64-bit integers.
"""

import math

import torch
from torch import Tensor

REAL, FAKE, BETWEEN, NOISE, SWAP, AUGMENT, DATA, DROPOUT, AGAIN = range(9)  # salts: one number is used for one thing
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _signed(number: int) -> int:
    """The int64 with the bits of `number` modulo 2**64."""
    number %= 2**64
    return number - 2**64 if number >= 2**63 else number


def _shifted(x: Tensor, places: int) -> Tensor:
    """A logical shift to the right: torch's own keeps the sign."""
    return (x >> places) & (2 ** (64 - places) - 1)


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30)) * _signed(_FIRST)
    x = (x ^ _shifted(x, 27)) * _signed(_SECOND)
    return x ^ _shifted(x, 31)


def derived(keys: Tensor, salt: int) -> Tensor:
    """Keys for another use of the same images: int64, the same shape."""
    return _mixed(keys + _signed((salt + 1) * _GOLDEN))


def uniforms(keys: Tensor, salt: int, count: int) -> Tensor:
    """float32 [N, count] strictly inside (0, 1), multiples of 2**-24, from int64 keys [N]."""
    steps = torch.arange(1, count + 1, device=keys.device) * _signed(_GOLDEN)
    return (_shifted(_mixed(derived(keys, salt)[:, None] + steps), 41).float() + 0.5) * 2.0**-23


def normals(keys: Tensor, salt: int, count: int) -> Tensor:
    """Standard normal numbers (Box and Muller 1958): float32 [N, count]."""
    numbers = uniforms(keys, salt, 2 * count)
    return (-2 * numbers[:, :count].log()).sqrt() * (2 * math.pi * numbers[:, count:]).cos()
