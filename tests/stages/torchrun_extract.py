"""Program for torchrun: features of known images by a small network, written by rank 0. Arguments: folder, fault."""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gan.features.published import Published
from gan.ranks import joined
from stages.extraction import extract


class Small(nn.Module):
    """Convolutions, so that the batch could show in the last bits."""

    side = 16

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 40, 3), nn.ReLU())
        self.head = nn.Linear(40, 7)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(x / 128 - 1).mean((2, 3))
        return features, self.head(features)


def images(start: int, stop: int) -> np.ndarray:
    """uint8 [stop - start, 9, 9, 1]; image i is the same whoever asks."""
    return np.stack([np.random.default_rng(i).integers(0, 256, (9, 9, 1)).astype(np.uint8) for i in range(start, stop)])


COUNTS = (1, 70)  # in batches of 16: one image, so that others have none; five batches, the last one of 6


def main(out: Path, fault: str) -> None:
    torch.set_num_threads(1)
    extractor = Published("small", "clean", "a" * 64, 40, Small().eval())
    with joined() as ranks:

        def asked(start: int, stop: int) -> np.ndarray:
            if fault == "dies" and ranks.rank == 1 and start > 40:
                raise ValueError("image 48 cannot be drawn")
            if fault == "late" and ranks.rank == 0:
                time.sleep(0.05)
            return images(start, stop)

        for count in COUNTS:
            found = extract(asked, count, extractor, ranks=ranks, batch=16)
            assert (found is None) == (ranks.rank > 0)
            if found is not None:
                np.savez(out / f"{ranks.world}-{count}.npz", features=found[0], odds=found[1])
            assert ranks.told({"count": count} if ranks.rank == 0 else None) == {"count": count}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
