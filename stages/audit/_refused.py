"""How near the controls were to images that ingest refused because of them.

Of near duplicates on two sides ingest refuses the one nearer to training. So no image that is left outside training is
ever near a training image, while a fresh draw of the same distribution can be: compared with the stored training images
alone, a generator that copies nothing would come nearer than its controls, and be called a copying one. Ingest writes
down the distances that it took away, and here they are given back.
"""

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

NONE = np.iinfo(np.int64).max  # farther than any image


def nearest_refused(store: Path, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Squared L2 [len(rows)] of these rows of the store to the nearest image that each kept out of training, or NONE.

    The list names for each image that stayed the nearest one that training would have seen; what was refused for `fit`
    the generator would not have seen in any case.

    Raises ValueError where ingest wrote no such list: without it nobody knows what was refused.
    """
    path = store / "near_refused.csv"
    if not path.is_file():
        raise ValueError(f"{path} is missing: an older version wrote this store; run `python -m stages.ingest` again")
    with path.open(encoding="utf-8", newline="") as file:
        least = {row["kept"]: int(row["squared_distance"]) for row in csv.DictReader(file)}
    return _by_row(store / "manifest.parquet", least)[rows] if least else np.full(len(rows), NONE)


def _by_row(manifest: Path, least: dict[str, int]) -> NDArray[np.int64]:
    """The value of each row's source, or NONE, in store order."""
    found: list[int] = []
    with pq.ParquetFile(manifest) as file:
        for batch in file.iter_batches(columns=["source"]):
            found += (least.get(source, NONE) for source in batch.column(0).to_pylist())
    return np.array(found, np.int64)
