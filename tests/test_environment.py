"""What a process is told before it works."""

import platform
import subprocess
import sys

import pytest

# Prints the pages that the kernel hands out when 64 MiB are used again: the median of nine times,
# after a dozen in which the allocator finds their place: at first small things take bites of it.
FAULTS = """
import resource, statistics, sys
import torch
from orchestration.environment import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

found = [faults() for _ in range(21)]
print(statistics.median(found[12:]))
"""


def _faults(how: str) -> int:
    command = [sys.executable, "-c", FAULTS, how]
    return int(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's")
def test_memory_that_was_freed_is_used_again():
    assert _faults("leave") > 20  # huge pages make it dozens instead of thousands
    assert _faults("keep") < 20
