"""The processor that a stage computes on: its number of threads, and memory that is kept from step to step."""

import ctypes

import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # as in glibc's malloc.h


def use_processor(threads: int) -> None:
    """Give torch that many threads, never the machine's count, which would change the last bits; keep freed memory.

    glibc hands a large block back to the kernel once it is freed, and at the next step the kernel maps and clears all
    its pages again, which can take as long as the step itself (docs/training.md). Here freed memory is kept for later
    blocks until the process ends, at the price of some that fits none. Other C libraries stay as they are.
    """
    torch.set_num_threads(threads)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)  # large blocks come from the heap too,
        mallopt(_TRIM_THRESHOLD, -1)  # and its free end is not given back
