"""Run by a test under torch's launcher: do the processes notice that one of them holds other weights?

The argument is a folder, where each process writes what it was told about equal and about unequal weights.
"""

import sys
from pathlib import Path

import torch

from stages.train._processes import joined

if __name__ == "__main__":
    with joined() as processes:
        tensors = [torch.arange(6.0).reshape(2, 3), torch.ones(4)]
        processes.check_equal(tensors)
        if not processes.first:
            tensors[1][3] += 2**-23  # the last bit of one weight
        try:
            processes.check_equal(tensors)
            said = "equal"
        except ValueError as error:
            said = str(error)
        (Path(sys.argv[1]) / f"{processes.rank}.txt").write_text(said)
