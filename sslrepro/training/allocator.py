"""How the C library's memory allocator treats what a training step frees."""

from __future__ import annotations

import ctypes
import os
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3)
LARGEST_KEPT = 1 << 27  # bytes. At 2^30, too, base is 5 % faster and holds 5 to 10 % more (benchmarks/NOTES.md)
OLD_LIMIT = 1 << 25  # the largest that glibc before 2.35 takes


def keep_freed_memory() -> bool:
    """From now on this process keeps freed blocks of up to 128 MB for the next step, on glibc; whether it does.

    By default glibc hands them back to the kernel, which clears every page again when the next step asks for it: 30,000 page faults a step.
    A user's own MALLOC_ variables in the environment are left to rule.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    kept = mallopt(MMAP_THRESHOLD, LARGEST_KEPT) or mallopt(MMAP_THRESHOLD, OLD_LIMIT)
    return bool(kept and mallopt(TRIM_THRESHOLD, 2**31 - 1))
