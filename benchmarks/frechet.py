"""Fréchet distance: eigenvalues of a symmetric product against the matrix square root that most tools use."""

import argparse

import numpy as np
import scipy.linalg

from benchmarks.report import paired, report
from gan.metrics import frechet_distance


def by_square_root(real: np.ndarray, fake: np.ndarray) -> float:
    """The textbook route: tr(S1 + S2 - 2 (S1 S2)^(1/2)) with scipy.linalg.sqrtm."""
    means, covariances = zip(*((x.mean(0), np.cov(x, rowvar=False)) for x in (real, fake)), strict=True)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    trace = np.trace(covariances[0] + covariances[1]) - 2 * np.trace(root).real
    return float(np.sum((means[0] - means[1]) ** 2) + trace)


def main() -> None:
    """Compare speed at one width; the two must agree to seven digits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="256 features instead of 1024")
    width = 256 if parser.parse_args().quick else 1024
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(2 * width, width)), rng.normal(0.1, 1.1, size=(2 * width, width))
    np.testing.assert_allclose(frechet_distance(real, fake), by_square_root(real, fake), rtol=1e-7)
    ours, theirs = paired(lambda: frechet_distance(real, fake), lambda: by_square_root(real, fake), repeats=3)
    report("frechet_distance", unit="s", ours=ours, peer="scipy.linalg.sqrtm", theirs=theirs, goal=1.0, width=width)


if __name__ == "__main__":
    main()
