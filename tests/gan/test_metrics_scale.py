"""What must not matter - block size, device, float32 storage, order, number of parts - and what memory may not do."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from gan.metrics import (
    energy_distance,
    frechet_distance,
    frechet_distance_of_moments,
    kernel_distance,
    kernel_distance_full,
    kernel_distances,
    merge_moments,
    moments,
    neighbourhoods,
    realism,
)
from gan.metrics.distances import FAST, SHARP, exact_squares, lower, points
from gan.metrics.nearest import nearest

ON_TORCH = "cpu:0"  # what is not just "cpu" is torch's: the code of a GPU, run where there is none


def _adversaries() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Arrays on which rounded distances lie, or take long."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(300, 24))
    centres = 1e3 * rng.normal(size=(6, 24))
    clusters = centres[np.arange(300) % 6] + 1e-5 * base
    grid = rng.integers(0, 2, size=(300, 6)).astype(float)
    return {
        "tight clusters far apart": (clusters, centres[np.arange(200) % 6] + 1e-5 * rng.normal(size=(200, 24))),
        "sorted, so that each block is nearer": (np.sort(base[:, :1], axis=0), np.sort(base[:200, :1] + 0.01, axis=0)),
        "one row far away": (np.vstack([base, np.full((1, 24), 1e9)]), base[:200] * 1.1),
        "huge": (1e40 * base, 1e40 * base[::-1][:200] * 1.1),
        "tiny": (1e-40 * base, 1e-40 * base[::-1][:200] * 1.1),
        "ties": (grid, grid[::-1][:200]),
        "copies of one row": (base, np.repeat(base[:1], 200, axis=0)),
        "most rows twice": (np.vstack([base, base]), np.vstack([base[:90], base[:90] + 1e-12])),
        "far from the origin": (base + 1e9, base[:200] * 1.1 + 1e9),
    }


def _plain(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, ...]:
    def squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return ((a[:, None].astype(np.float64) - b[None]) ** 2).sum(-1)

    rf, radius_r, radius_f = (squares(real, fake), *(np.sort(squares(x, x), 1)[:, k] for x in (real, fake)))
    closed, strict = rf <= radius_r[:, None], rf < radius_r[:, None]
    recall = (rf <= radius_f[None]).any(1).mean()
    return closed.any(0).mean(), recall, strict.sum() / (k * len(fake)), strict.any(1).mean()


@pytest.mark.parametrize("name", list(_adversaries()))
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_counts_are_those_of_plain_differences_on_adversaries(name: str, dtype: type) -> None:
    real, fake = _adversaries()[name]
    if dtype is np.float32 and name not in ("huge", "far from the origin"):  # float32 cannot hold these two
        real, fake = real.astype(dtype), fake.astype(dtype)
    for k in (1, 4):
        expected = pytest.approx(_plain(real, fake, k), abs=1e-15)
        for block, device in ((64, "cpu"), (2048, "cpu"), (100, ON_TORCH)):
            assert neighbourhoods(real, fake, k_precision=k, k_density=k, block=block, device=device) == expected


@pytest.mark.parametrize("name", list(_adversaries()))
def test_bounds_hold_for_every_pair(name: str) -> None:
    """The one statement that everything rests on, in both precisions."""
    real, fake = _adversaries()[name]
    x, y = points(real, fake)
    i, j = slice(0, len(real)), slice(0, len(fake))
    row, column = (part.ravel() for part in np.indices((len(real), len(fake))))
    squares = exact_squares(x, row, y, column) * x.unit
    for dtype in (FAST, SHARP):
        low = lower(x, i, y, j, dtype)
        _, _, least, most = low.pick(np.full(len(real), np.inf), axis=0)
        assert (least <= squares).all() and (squares <= most).all()


def test_bounds_hold_in_many_dimensions() -> None:
    rng = np.random.default_rng(1)
    real, fake = (rng.normal(size=(60, 3000)).astype(np.float32) + 30 for _ in range(2))
    x, y = points(real, fake)
    row, column = (part.ravel() for part in np.indices((60, 60)))
    squares = exact_squares(x, row, y, column) * x.unit
    _, _, least, most = lower(x, slice(0, 60), y, slice(0, 60)).pick(np.full(60, np.inf), axis=1)
    assert (least <= squares).all() and (squares <= most).all()
    assert (most - least).max() < 0.01 * squares.min()  # and they are close enough to decide nearly everything


def test_neighbours_are_exact_for_every_block() -> None:
    rows = np.random.default_rng(2).normal(size=(257, 5))
    squares = ((rows[:, None] - rows[None]) ** 2).sum(-1)
    expected = np.sort(squares, axis=1)[:, 1:5]
    for block in (20, 50, 256, 257, 1000):
        (prepared,) = points(rows)
        assert (nearest(prepared, 4, block) == expected).all()


def test_reduced_precision_of_the_process_is_not_used() -> None:
    """A process that trains may allow TF32 or bfloat16 products; distances do not take part, and leave it as it was."""
    real, fake = _adversaries()["far from the origin"]
    asked = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = neighbourhoods(real, fake, k_precision=3, k_density=5, device=ON_TORCH)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(asked)
    assert found == neighbourhoods(real, fake, k_precision=3, k_density=5)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e8])
@pytest.mark.parametrize("parts", [1, 2, 3, 7, 50])
def test_moments_merge_exactly(offset: float, parts: int) -> None:
    """Against np.cov of all rows; parts of one row and of none among them."""
    rows = np.random.default_rng(3).normal(size=(211, 9)) * np.arange(1, 10) + offset
    cuts = [*np.array_split(rows, parts), rows[:0]]
    merged = [(len(cut), moments(cut) if len(cut) > 1 else (cut.sum(axis=0), np.full((9, 9), 0.0))) for cut in cuts]
    count, (mean, cov) = merge_moments(merged)
    assert count == 211
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-14, atol=1e-13)
    np.testing.assert_allclose(cov, np.cov(rows - offset, rowvar=False), rtol=0, atol=1e-10 * 81 + 1e-15 * offset)
    distance = frechet_distance_of_moments((mean, cov), moments(1.1 * rows[:100]))
    assert distance == pytest.approx(frechet_distance(rows, 1.1 * rows[:100]), rel=1e-10, abs=1e-8)


def test_moments_of_one_row_parts() -> None:
    rows = np.random.default_rng(4).normal(size=(20, 3))
    _, (mean, cov) = merge_moments([(1, (row, np.zeros((3, 3)))) for row in rows])
    np.testing.assert_allclose(mean, rows.mean(axis=0), atol=1e-15)
    np.testing.assert_allclose(cov, np.cov(rows, rowvar=False), rtol=1e-12)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "at least 2 rows"),
        ([(1, (np.zeros(2), np.eye(2)))], "at least 2 rows"),
        ([(3, (np.zeros(2), np.eye(2))), (-1, (np.zeros(2), np.eye(2)))], "at least 2 rows"),
        ([(3, (np.zeros(2), np.eye(2))), (3, (np.zeros(3), np.eye(3)))], "the same width"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        merge_moments(parts)


def test_moments_of_float32_are_those_of_its_values() -> None:
    """More rows than a block, an offset that float32 sums would lose; np.cov of the same values in float64."""
    rows = np.random.default_rng(5).normal(1e4, 1, size=(9000, 6)).astype(np.float32)
    mean, cov = moments(rows)
    wide = rows.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(cov, np.cov(wide, rowvar=False), rtol=0, atol=1e-12 * np.abs(cov).max())
    assert mean.dtype == cov.dtype == np.float64


def test_subsets_that_overlap_share_their_kernels() -> None:
    """Both routes, and the same array on both sides, give what each subset gives alone."""
    rng = np.random.default_rng(6)
    real, fake = rng.normal(size=(90, 7)), rng.normal(0.2, 1, size=(75, 7)).astype(np.float32)
    for a, b in ((real, fake), (real, real)):
        for count in (1, 40):  # few: each subset alone; many: every pair of rows once
            rows_a, rows_b = ([rng.permutation(len(x))[:30] for _ in range(count)] for x in (a, b))
            found = kernel_distances(a, b, rows_a, rows_b)
            expected = [kernel_distance_full(a[i], b[j]) for i, j in zip(rows_a, rows_b, strict=True)]
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13)


def test_kernel_distance_keeps_its_draws() -> None:
    """Values of version 0.1, which computed each subset alone."""
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(40, 5)), rng.normal(0.3, 1, size=(31, 5))
    few = kernel_distance(real, fake, subsets=3, subset_size=20, seed=0)
    many = kernel_distance(real, fake, subsets=30, subset_size=20, seed=0)
    assert few == pytest.approx((-0.032885223278230256, 0.2679811925843642), rel=1e-9)
    assert many == pytest.approx((-0.05387027136728721, 0.22981554377722382), rel=1e-9)


def test_more_rows_than_a_block_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    real, fake = rng.normal(size=(150, 6)), rng.normal(0.1, 1.1, size=(130, 6))
    whole = kernel_distance_full(real, fake), kernel_distance(real, fake, subsets=20, subset_size=60, seed=1)
    monkeypatch.setattr("gan.metrics.kernel._BLOCK", 17)
    assert kernel_distance_full(real, fake) == pytest.approx(whole[0], rel=1e-10)
    assert kernel_distance(real, fake, subsets=20, subset_size=60, seed=1) == pytest.approx(whole[1], rel=1e-10)
    monkeypatch.setattr("gan.metrics.checks._ROWS", 13)
    assert frechet_distance(real, fake) == pytest.approx(frechet_distance(real[::-1], fake), rel=1e-10)
    distances = [
        energy_distance(real, fake, block=block, device=d) for block in (9, 64, 4096) for d in ("cpu", ON_TORCH)
    ]
    assert distances == pytest.approx([distances[0]] * 6, rel=1e-10)
    scores = [realism(real, fake, k=3, block=block, device=d) for block in (9, 64, 4096) for d in ("cpu", ON_TORCH)]
    assert all((score == scores[0]).all() for score in scores)


MEMORY = """
import resource, sys
import numpy as np
from gan.metrics import frechet_distance, kernel_distance, neighbourhoods
rng = np.random.default_rng(0)
real, fake = (rng.standard_normal((6000, 512), dtype=np.float32) for _ in range(2))
neighbourhoods(real[:50], fake[:50], k_precision=3, k_density=5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
{call}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(
    ("call", "most"),
    [
        # A full matrix of distances would take 288 MB in float64; blocks and copies take less, at any N.
        ("neighbourhoods(real, fake, k_precision=3, k_density=5)", 200),
        ("frechet_distance(real, fake)", 100),
        ("kernel_distance(real, fake, subsets=30, subset_size=1000, seed=0)", 250),
    ],
)
def test_memory_is_bounded_by_blocks(call: str, most: int) -> None:
    """Measured from outside: resident memory of a process of its own, in MiB above the arrays."""
    program = MEMORY.format(call=call)
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(answer.stdout) / 1024 < most
