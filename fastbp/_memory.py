"""Arrays that lie well in memory, which NumPy does not promise.

A vector that crosses the end of a cache line takes two of them: Adam on state that begins in the
middle of one takes at least twice as long.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np

CACHE_LINE = 64  # bytes
HUGE_PAGE = 2 * 1024 * 1024


def aligned_zeros(elements: int, dtype: np.dtype[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    """Return zeros that begin on a cache line, on huge pages where the system has them.

    With pages of 4 kB every row of a batch is on one of its own, more than the processor's first
    table of pages has entries.
    """
    size = elements * dtype.itemsize
    if size >= HUGE_PAGE // 4 and hasattr(mmap, "MADV_HUGEPAGE"):
        # Private: a forked child must not share it.
        memory = mmap.mmap(
            -1, round_up(size, HUGE_PAGE) + HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        with contextlib.suppress(OSError):  # a system without them
            memory.madvise(mmap.MADV_HUGEPAGE)
        raw, boundary = np.frombuffer(memory, np.uint8), HUGE_PAGE
    else:
        raw, boundary = np.zeros(size + CACHE_LINE, np.uint8), CACHE_LINE
    start = -raw.ctypes.data % boundary
    return raw[start : start + size].view(dtype)


def round_up(n: int, quantum: int) -> int:
    """Return the next multiple of quantum that is at least n."""
    return -(-n // quantum) * quantum
