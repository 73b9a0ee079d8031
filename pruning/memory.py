"""Memory that a training step frees stays with the process for the next step."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# Names and values of <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 1 << 30
# The largest that glibc takes: larger blocks are the system's own in any case.
_BLOCK_BYTES = 1 << 25


def keep_freed_memory() -> None:
    """Have glibc keep up to 1 GiB of freed memory, in blocks of up to 32 MiB, instead of giving it back to the system.

    torch asks the C library for every tensor's memory. By default a step of LeNet-5 gives back some 40 MB and gets
    them again as 10,000 fresh pages, which the kernel has to clear: a quarter of the step's time. The setting holds for
    the whole process; other C libraries have none, and nothing is done.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _BLOCK_BYTES)
