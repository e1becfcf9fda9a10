"""What a step frees stays with the process, unless its user has said how the allocator is to behave."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = """
import resource, sys
import torch
from sslrepro.training.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else False
torch.set_num_threads(1)
x, weights = torch.randn(1500, 256), [torch.randn(256, 1024, requires_grad=True) for _ in range(6)]
for step in range(12):
    if step == 6:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    sum(torch.nn.functional.gelu(x @ weight).sum() for weight in weights).backward()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
IN_HUGE_PAGES = """
import sslrepro
import torch
from pathlib import Path
x = torch.ones(64 << 18)  # 64 MB
lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
print(next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages")))
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone is set")


def counted(how: str, **env: str) -> tuple[str, int]:
    """What the call returned, and page faults of six steps, after as many, which keep 75 MB for their backward and then free them."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | {"THP_MEM_ALLOC_ENABLE": "0"}
    told = subprocess.run([sys.executable, "-c", COUNT, how], env=clean | env, capture_output=True, text=True, check=True).stdout.split()
    return told[0], int(told[1])


def test_freed_memory_is_used_again_without_the_kernel():
    kept, faults = counted("keep")
    assert kept == "True"
    assert faults < counted("plain")[1] / 4


def test_an_environment_that_sets_the_allocator_is_left_alone():
    assert counted("keep", MALLOC_ARENA_MAX="2")[0] == "False"


@pytest.mark.skipif(not HUGE.exists() or "[never]" in HUGE.read_text(), reason="the kernel grants no huge pages")
def test_large_tensors_lie_in_huge_pages_unless_told_otherwise():
    def kilobytes(**env: str) -> int:
        clean = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"} | env
        return int(subprocess.run([sys.executable, "-c", IN_HUGE_PAGES], env=clean, capture_output=True, text=True, check=True).stdout)

    if "[madvise]" in HUGE.read_text():
        assert kilobytes(THP_MEM_ALLOC_ENABLE="0") == 0
    assert kilobytes() > 0  # how many of 32 it finds is the kernel's
