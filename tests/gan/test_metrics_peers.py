"""The same feature arrays through ours and through the published packages; where they differ by convention, said so."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gan.metrics import (
    density_coverage,
    frechet_distance,
    frechet_distance_of_moments,
    inception_score,
    kernel_distance_full,
    kernel_distances,
    moments,
    neighbourhoods,
    precision_recall,
)

torch_fidelity = pytest.importorskip("torch_fidelity")


Features = NDArray[np.float64]


def _relu(rng: np.random.Generator, n: int, d: int) -> Features:
    """Rows with many exact zeros and a few strong directions, as features of a network have."""
    return np.maximum(0, rng.normal(size=(n, d // 4)) @ rng.normal(size=(d // 4, d)) + rng.normal(size=(n, d)))


def _arrays(name: str) -> tuple[Features, Features]:
    rng = np.random.default_rng(len(name))
    if name == "normal":
        return rng.normal(size=(400, 48)), rng.normal(0.2, 1.2, size=(331, 48))
    if name == "relu":
        return _relu(rng, 500, 64), 1.05 * _relu(rng, 500, 64)
    if name == "heavy tails":
        return rng.standard_t(3, size=(300, 20)), rng.standard_t(4, size=(450, 20))
    if name == "far from the origin":
        return rng.normal(50, 1, size=(300, 16)), rng.normal(50.3, 1, size=(280, 16))
    assert name == "very different scales"
    scales = 10.0 ** np.linspace(-3, 3, 24)
    return rng.normal(size=(300, 24)) * scales, rng.normal(0.1, 1.1, size=(300, 24)) * scales


NAMES = ["normal", "relu", "heavy tails", "far from the origin", "very different scales"]


@pytest.mark.parametrize("name", NAMES)
def test_frechet_distance_of_torch_fidelity(name: str) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    real, fake = _arrays(name)
    statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (real, fake)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(real, fake) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("n", [4, 64, 2048])
@pytest.mark.parametrize("c", [4, 16, 256])
def test_frechet_distance_over_sizes_is_that_of_the_square_root(n: int, c: int) -> None:
    """torch-fidelity's own test of its eigenvalues against scipy's root, seed 2023, singular covariances included."""
    from scipy.linalg import sqrtm

    rng = np.random.RandomState(2023)
    real, fake = rng.rand(n, c), rng.rand(n, c)
    (mean_r, cov_r), (mean_f, cov_f) = moments(real), moments(fake)
    root = np.trace(sqrtm(cov_r @ cov_f)).real
    expected = ((mean_r - mean_f) ** 2).sum() + np.trace(cov_r) + np.trace(cov_f) - 2 * root
    assert frechet_distance(real, fake) == pytest.approx(expected, abs=1e-5)


@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_frechet_distance_of_torchmetrics_and_clean_fid(name: str) -> None:
    from cleanfid.fid import frechet_distance as clean
    from torchmetrics.image.fid import _compute_fid

    real, fake = _arrays(name)
    ours = frechet_distance_of_moments(moments(real), moments(fake))
    stats = [(x.mean(0), np.cov(x, rowvar=False)) for x in (real, fake)]
    assert ours == pytest.approx(_compute_fid(*(torch.from_numpy(x) for s in stats for x in s)).item(), rel=1e-6)
    if name == NAMES[-1]:  # its square root leaves an imaginary part here, and it gives up
        with pytest.raises(ValueError, match="Imaginary component"):
            clean(*stats[0], *stats[1])
    else:
        assert ours == pytest.approx(clean(*stats[0], *stats[1]), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_kernel_distance_of_torch_fidelity_on_identical_subsets(name: str) -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    real, fake = _arrays(name)
    theirs = kid_features_to_metric(
        torch.from_numpy(real), torch.from_numpy(fake), kid_subsets=7, kid_subset_size=100, rng_seed=2020, verbose=False
    )
    rng = np.random.RandomState(2020)
    draws = [(rng.choice(len(real), 100, replace=False), rng.choice(len(fake), 100, replace=False)) for _ in range(7)]
    values = kernel_distances(real, fake, *([draw[side] for draw in draws] for side in (0, 1)))
    mean, std = theirs["kernel_inception_distance_mean"], theirs["kernel_inception_distance_std"]
    assert values.mean() == pytest.approx(mean, rel=1e-6, abs=1e-9)
    assert values.std() == pytest.approx(std, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_kernel_distance_of_torchmetrics_and_clean_fid_on_all_rows(name: str) -> None:
    from cleanfid.fid import kernel_distance as clean
    from torchmetrics.image.kid import poly_mmd

    real, fake = (x[:280] for x in _arrays(name))
    ours = kernel_distance_full(real, fake)
    assert ours == pytest.approx(poly_mmd(torch.from_numpy(real), torch.from_numpy(fake)).item(), rel=1e-6, abs=1e-9)
    assert ours == pytest.approx(clean(real, fake, num_subsets=1, max_subset_size=280), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("splits", [1, 3, 10])
def test_inception_score_of_torch_fidelity(splits: int) -> None:
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = torch.from_numpy(np.random.default_rng(6).normal(scale=4, size=(203, 1008)))
    theirs = isc_features_to_metric(logits, splits=splits, shuffle=False)
    found = inception_score(logits.softmax(dim=1).numpy(), splits=splits)
    assert found == pytest.approx((theirs["inception_score_mean"], theirs["inception_score_std"]), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("name", NAMES)
def test_precision_recall_of_torch_fidelity(name: str, k: int) -> None:
    """Its first operand is the generated set. Distances in float64 by plain differences, as `cdist` takes few rows."""
    from torch_fidelity.metric_prc import calculate_precision_recall_full, calculate_precision_recall_part

    real, fake = _arrays(name)
    operands = torch.from_numpy(fake), torch.from_numpy(real)
    for theirs in (calculate_precision_recall_full, calculate_precision_recall_part):
        assert precision_recall(real, fake, k=k) == pytest.approx(theirs(*operands, neighborhood=k), abs=1e-7)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("name", NAMES)
def test_all_four_of_prdc(name: str, k: int) -> None:
    """Its precision and recall are `<` where ours and the paper's are `<=`: without ties they are the same."""
    from prdc import compute_prdc

    real, fake = _arrays(name)
    theirs = compute_prdc(real, fake, nearest_k=k)
    found = neighbourhoods(real, fake, k_precision=k, k_density=k)
    assert found._asdict() == pytest.approx(theirs, abs=1e-12)
    assert density_coverage(real, fake, k=k) == (found.density, found.coverage)


def test_operands_of_torch_fidelity_are_the_other_way_round() -> None:
    """It had them swapped until 2026; a generator that is precise and not varied must say so on both sides."""
    from torch_fidelity.metric_prc import prc_features_to_metric

    rng = np.random.default_rng(1)
    wide, tight = rng.normal(size=(500, 8)), 0.1 * rng.normal(size=(500, 8))
    theirs = prc_features_to_metric(torch.from_numpy(tight), torch.from_numpy(wide), prc_neighborhood=3, verbose=False)
    precision, recall = precision_recall(wide, tight, k=3)
    assert (precision, recall) == pytest.approx((theirs["precision"], theirs["recall"]), abs=1e-6)
    assert precision > 0.8 and recall < 0.3
