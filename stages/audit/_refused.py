"""How near the controls were to images that ingest refused because of them.

Of near duplicates in different splits, ingest refuses the one nearer to training. So no image left outside training is
ever near a training image, while a fresh draw from the same distribution can be: if only the stored training images
were compared, a generator that copies nothing would come nearer than its controls and be said to copy. Ingest writes
down the distances of the images that it refused, and here they are counted again.
"""

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

NONE = np.iinfo(np.int64).max  # farther than any image


def nearest_refused(store: Path, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Squared L2 distance [len(rows)] of these rows of the store to the nearest image that each kept out of training.

    NONE if there is no such image. Ingest's list gives for each kept image the nearest refused one of training; images
    refused from the split `fit` do not count, because the generator would not have seen them in any case.

    Raises ValueError if ingest wrote no such list: without it nobody knows what was refused.
    """
    path = store / "near_refused.csv"
    if not path.is_file():
        raise ValueError(f"{path} is missing: an older version wrote this store; run `python -m stages.ingest` again")
    with path.open(encoding="utf-8", newline="") as file:
        least = {row["kept"]: int(row["squared_distance"]) for row in csv.DictReader(file)}
    return _by_row(store / "manifest.parquet", least)[rows] if least else np.full(len(rows), NONE)


def _by_row(manifest: Path, least: dict[str, int]) -> NDArray[np.int64]:
    """The value that `least` gives for each row's source, or NONE, in store order."""
    found: list[int] = []
    with pq.ParquetFile(manifest) as file:
        for batch in file.iter_batches(columns=["source"]):
            found += (least.get(source, NONE) for source in batch.column(0).to_pylist())
    return np.array(found, np.int64)
