"""How the C library's memory allocator treats what a training step frees."""

from __future__ import annotations

import ctypes
import os
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3)
# bytes: where glibc's own rule ends, too. With larger ones kept, holes of many sizes are left where lengths vary, until memory is full
# (benchmarks/NOTES.md)
LARGEST_KEPT = 1 << 25


def keep_freed_memory() -> bool:
    """From now on this process keeps freed blocks of up to 32 MB for the next step, on glibc; whether it does.

    By default glibc hands them back to the kernel, which clears every page again when the next step asks for it: 30,000 page faults a step.
    A user's own MALLOC_ variables in the environment are left to rule.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(TRIM_THRESHOLD, 2**31 - 1))
