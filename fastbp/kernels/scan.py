"""Questions that the gate asks about arrays before any other kernel sees them.

These kernels answer with the position of the first offender, or -1; :mod:`fastbp._arrays` turns the
answer into a message.
"""

from __future__ import annotations

from typing import Any

import numpy as np

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


@kernel("int64[::1], T[:, ::1]")
def first_not_one_hot(labels: Any, t: Any) -> int:
    """Index of the first row that is not one-hot, or -1 and the labels of all rows.

    A row is one-hot when its elements, their absolute values and their squares all sum to 1; the
    label is then the sum of the positions times the elements.  Sums vectorise, a search does not.

    Parameters
    ----------
    labels : (N,) int64 - overwritten up to the first row that is not one-hot
    t : (N, C) float32 or float64
    """
    for n in range(t.shape[0]):
        total = sizes = squares = position = 0.0
        for c in range(t.shape[1]):
            share = np.float64(t[n, c])
            total += share
            sizes += abs(share)
            squares += share * share
            position += share * c
        # A position between two integers comes from rounding errors beside the 1.
        whole = position == np.floor(position)
        if not (whole and total == 1.0 and sizes == 1.0 and squares == 1.0):
            return n
        labels[n] = np.int64(position)
    return -1


@kernel("T[:, ::1], float64")
def first_not_distribution(t: Any, tolerance: float) -> int:
    """Index of the first row that is no distribution (negative, or its sum is not 1), or -1.

    Parameters
    ----------
    t : (N, C) float32 or float64
    tolerance : float - how far a sum may be from 1, and twice the sum of the negatives from 0
    """
    for n in range(t.shape[0]):
        total = size = 0.0
        for c in range(t.shape[1]):
            total += t[n, c]
            size += abs(t[n, c])
        # Sums, because a search for a negative would not vectorise; "not <=" catches NaN.
        if not (abs(total - 1.0) <= tolerance and size - total <= tolerance):
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
