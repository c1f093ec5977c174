"""Augmentation: nothing at strength 0, the transforms it names, gradients through it once and twice, and no leak."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from gan import chance
from gan.augmentation import TRANSFORMS, Variation, augment, vary, warp

pytestmark = pytest.mark.fast


def images(count: int = 64, channels: int = 3, side: int = 8) -> torch.Tensor:
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def keys(count: int = 64) -> torch.Tensor:
    return torch.arange(count) * 7919 + 3


def test_numbers_of_keys_are_uniform_normal_and_each_its_own() -> None:
    u = chance.uniforms(torch.arange(20000), chance.NOISE, 3)
    assert u.min() > 0 and u.max() < 1
    counts = torch.histc(u[:, 1], 20, 0, 1)
    assert ((counts - 1000).square() / 1000).sum() < 19 + 4 * 38**0.5
    assert torch.corrcoef(u.T).fill_diagonal_(0).abs().max() < 0.03
    assert abs(torch.corrcoef(torch.stack([u[1:, 0], u[:-1, 0]]))[0, 1]) < 0.03  # neighbouring keys
    other = chance.uniforms(torch.arange(20000), chance.SWAP, 3)
    assert abs(torch.corrcoef(torch.stack([u[:, 0], other[:, 0]]))[0, 1]) < 0.03
    n = chance.normals(torch.arange(20000), chance.NOISE, 2)
    assert n.mean().abs() < 0.02 and abs(n.std().item() - 1) < 0.02 and n.isfinite().all()


def mixed(x: int) -> int:
    """SplitMix64's finaliser in whole numbers."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


@pytest.mark.parametrize("key", [0, 1, -1, 2**62 + 12345, -(2**63)])
def test_bits_are_those_of_splitmix(key: int) -> None:
    golden, salt = 0x9E3779B97F4A7C15, 5
    state = mixed((key + (salt + 1) * golden) % 2**64)
    expected = [((mixed((state + place * golden) % 2**64) >> 41) + 0.5) * 2.0**-23 for place in (1, 2, 3)]
    assert chance.uniforms(torch.tensor([key]), salt, 3)[0].tolist() == expected


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_at_strength_0_images_come_back_as_they_are_and_at_1_they_do_not(name: str, channels: int) -> None:
    x = images(channels=channels)
    assert torch.equal(augment(x, keys(), (name,), 0.0), x)
    assert torch.equal(augment(x, keys(), (name,), torch.zeros(())), x)
    changed = (augment(x, keys(), (name,), 1.0) != x).flatten(1).any(1).float().mean()
    assert changed > {"flip": 0.35, "turn": 0.6, "shift": 0.6}.get(name, 0.85)
    half = (augment(x, keys(), (name,), 0.5) != x).flatten(1).any(1).float().mean()
    assert half < changed and torch.equal(augment(x, keys(), (name,), 0.5), augment(x, keys(), (name,), 0.5))


def test_an_image_is_augmented_alike_in_every_batch() -> None:
    x = images()
    whole = augment(x, keys(), TRANSFORMS, 0.6)
    torch.testing.assert_close(augment(x[20:40], keys()[20:40], TRANSFORMS, 0.6), whole[20:40])


def test_flips_turns_and_shifts_only_move_pixels() -> None:
    x = images()
    for name, ways in (("flip", [x, x.flip(3)]), ("turn", [x.rot90(k, (2, 3)) for k in range(4)])):
        found = augment(x, keys(), (name,), 1.0)
        error = torch.stack([(found - way).abs().flatten(1).amax(1) for way in ways]).amin(0)
        assert error.max() < 1e-4, name
    found = augment(x, keys(), ("shift",), 1.0)
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    ways = [padded[..., 1 + a : 9 + a, 1 + b : 9 + b] for a, b in itertools.product((-1, 0, 1), repeat=2)]
    assert torch.stack([(found - way).abs().flatten(1).amax(1) for way in ways]).amin(0).max() < 1e-4


def test_warping_agrees_with_grid_sample() -> None:
    x = images(8)
    matrix = torch.eye(3).expand(8, 3, 3) + 0.2 * torch.randn(8, 3, 3, generator=torch.Generator().manual_seed(1))
    matrix = torch.cat([matrix[:, :2], torch.eye(3)[None, 2:].expand(8, 1, 3)], dim=1)
    grid = F.affine_grid(matrix[:, :2], [8, 3, 8, 8], align_corners=False)
    # grid_sample mirrors at the border of pixels with align_corners, warp always does: compare inside the image.
    inside = (grid.abs() < 1 - 1 / 8).all(-1)[:, None].expand_as(x)
    theirs = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    torch.testing.assert_close(warp(x, matrix)[inside], theirs[inside], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_gradients_pass_through_it_once_and_twice(name: str) -> None:
    x = images(3, side=4).double().requires_grad_()
    weight = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def critic(x: torch.Tensor) -> torch.Tensor:
        return (augment(x, keys(3), (name,), 1.0).tanh() * weight).sum((1, 2, 3))

    assert torch.autograd.gradcheck(critic, x, eps=1e-6, atol=1e-6)
    assert torch.autograd.gradgradcheck(critic, x, eps=1e-6, atol=1e-6)


def test_what_is_seen_determines_what_was_generated_below_strength_1() -> None:
    # The inverse problem of Karras et al. 2020, section 2.2: a generator that is right only after augmentation is wrong
    # before it, as long as no two mixtures of quarter turns look alike afterwards.
    marked = torch.zeros(4000, 1, 8, 8)
    marked[:, :, 0, 3] = 1
    way = torch.arange(4000) % 4
    turned = torch.stack([marked[i].rot90(int(k), (1, 2)) for i, k in enumerate(way)])

    def operator(strength: float) -> torch.Tensor:
        seen = augment(turned, keys(4000), ("turn",), strength)
        places = torch.stack([marked[0].rot90(k, (1, 2)).flatten() for k in range(4)])
        found = (seen.flatten(1) @ places.T).argmax(1)
        return torch.stack([torch.bincount(found[way == k], minlength=4).double() for k in range(4)]) / 1000

    expected = 0.2 * torch.eye(4, dtype=torch.float64) + 0.8 / 4
    assert (operator(0.8) - expected).abs().max() < 0.06
    assert torch.linalg.svdvals(operator(0.8))[-1] > 0.1  # a mixture of true orientations can be told from what is seen
    assert torch.linalg.svdvals(operator(1.0))[-1] < 0.06  # at strength 1 it cannot: hence the limit of 0.8
    mixture = torch.tensor([0.7, 0.3, 0.0, 0.0], dtype=torch.float64)
    recovered = torch.linalg.solve(expected.T, operator(0.8).T @ mixture)
    assert (recovered - mixture).abs().max() < 0.2


def test_variations_of_real_images() -> None:
    x = images()
    assert not Variation() and Variation(flip=True) and Variation(rotation=5) and Variation(zoom=0.1)
    mirrored = vary(x, keys(), Variation(flip=True))
    which = (mirrored == x.flip(3)).flatten(1).all(1)
    assert 0.3 < which.float().mean() < 0.7 and torch.equal(mirrored[~which], x[~which])
    torch.testing.assert_close(vary(x, keys(), Variation(rotation=1e-4)), x, rtol=0, atol=1e-3)
    for variation in (Variation(rotation=20), Variation(zoom=0.3)):
        assert ((vary(x, keys(), variation) - x).flatten(1).abs().amax(1) > 0.01).float().mean() > 0.9
    bright = torch.full((4, 1, 8, 8), 0.5)
    torch.testing.assert_close(vary(bright, keys(4), Variation(rotation=45, zoom=0.5)), bright)  # nothing from outside
