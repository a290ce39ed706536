"""Questions that the gate asks about arrays before any other kernel sees them.

These kernels answer with the position of the first offender, or -1; :mod:`fastbp._arrays` turns the
answer into a message.
"""

from __future__ import annotations

from typing import Any

from .jit import kernel
from .simd import row_of, view

# More than any number of classes, and than the sum of the places of all would wrap around.
COUNT = 2**32


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

    A row is one-hot when one element is not 0, and that is 1.  One sum counts those that are not 0
    and adds up where they are: sums vectorise, a search does not.

    Parameters
    ----------
    labels : (N,) int64 - overwritten up to the first row that is not one-hot
    t : (N, C) float32 or float64
    """
    zero, one = t.dtype.type(0), t.dtype.type(1)
    for n in range(t.shape[0]):
        row = row_of(t, n)
        found = 0
        for c in range(row.size):
            found += c + COUNT if row[c] != zero else 0
        position = found - COUNT
        if not (0 <= position < row.size and row[position] == one):
            return n
        labels[n] = position
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
        # A view, not a range from start: an index that might be negative would not vectorise.
        piece = view(x, start, min(4096, x.size - start))
        total = zero
        for i in range(piece.size):
            total += piece[i] * zero  # 0, or NaN from the first offender on
        if total != zero:
            for i in range(piece.size):
                if piece[i] * zero != zero:
                    return start + i
    return -1
