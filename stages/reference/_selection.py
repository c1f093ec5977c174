"""`data/reference/selection/`: all that training needs in order to measure itself, and nothing about held-out images.

It is a folder of its own so that training that selects by a metric depends on these bytes alone.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import gan
from gan.draws import spread
from gan.features.domain import DomainNetwork, save
from gan.metrics import moments
from stages.common.files import sha256_file, write_array, write_json

MOST = 10_000  # features kept; moments are those of all


def write_selection(folder: Path, network: DomainNetwork, features: NDArray[np.float32], data_hash: str) -> None:
    """Write the extractor, features [n, D] of at most `MOST` train images, and the moments of all.

    `code` in selection.json lists digests of the code that the measures use: if that changes, so does this folder, and
    with it everything that depends on it.
    """
    folder.mkdir()
    save(network, folder / "extractor.safetensors")
    write_array(folder / "features.npy", spread(features, min(MOST, len(features))))
    mean, covariance = moments(features)
    np.savez(folder / "moments.npz", mean=mean, cov=covariance)
    library = Path(str(gan.__file__)).parent
    files = [library / "draws.py", *sorted((library / "metrics").glob("*.py")), library / "features" / "domain.py"]
    record = {
        "format": 1,
        "data_hash": data_hash,
        "extractor_sha256": sha256_file(folder / "extractor.safetensors"),
        "train": len(features),
        "code": {path.relative_to(library).as_posix(): sha256_file(path) for path in files},
    }
    write_json(folder / "selection.json", record)
