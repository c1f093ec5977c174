"""What stages ask of the processor holds in a process of its own, where no other test has asked for it."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from stages.processor import use_processor

if sys.argv[1] == "ours":
    use_processor(3)
    assert torch.get_num_threads() == 3
for turn in range(40):  # the heap grows at first, since small blocks settle between large ones
    if turn == 30:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(48 << 20, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(who: str) -> int:
    """Pages that the kernel had to map again for a tensor as large as that freed just before, ten times."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, who], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of another C library stays as it is")
def test_freed_memory_serves_the_next_step() -> None:
    """Pages may be of 4 KiB, of 64, or huge ones."""
    assert 10 * faults("ours") < faults("nobody")
