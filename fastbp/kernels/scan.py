"""Questions that the gate asks about arrays before any other kernel sees them.

These kernels answer with the position of the first offender, or -1; :mod:`fastbp._arrays` turns the
answer into a message.
"""

from __future__ import annotations

from typing import Any

from .jit import kernel


@kernel("int64[::1], int64")
def first_outside(t: Any, C: int) -> int:
    """Index of the first label outside [0, C), or -1.

    Parameters
    ----------
    t : (N,) int64
    C : int
    """
    for n in range(t.size):
        if t[n] < 0 or t[n] >= C:
            return n
    return -1


@kernel("T[:, ::1], float64")
def first_not_distribution(t: Any, tolerance: float) -> int:
    """Index of the first row that is no distribution (negative, or its sum is not 1), or -1.

    Parameters
    ----------
    t : (N, C) float32 or float64
    tolerance : float - how far a sum may be from 1
    """
    zero = t.dtype.type(0)
    for n in range(t.shape[0]):
        total = 0.0
        negative = False
        for c in range(t.shape[1]):
            total += t[n, c]
            negative |= t[n, c] < zero
        if negative or not abs(total - 1.0) <= tolerance:  # "not <=" catches NaN
            return n
    return -1


@kernel("T[::1]")
def first_nonfinite(x: Any) -> int:
    """Index of the first NaN or infinity, or -1.

    Parameters
    ----------
    x : (n,) float32 or float64
    """
    zero = x.dtype.type(0)
    for start in range(0, x.size, 4096):
        stop = min(start + 4096, x.size)
        total = zero
        for i in range(start, stop):
            total += x[i] * zero  # 0, or NaN from the first offender on
        if total != zero:
            for i in range(start, stop):
                if x[i] * zero != zero:
                    return i
    return -1
