"""Softmax, and softmax followed by cross-entropy with its gradient.

A block of rows that fits the first-level cache goes through three passes: subtract each row's
maximum, exponentiate the block as one flat array (so the vector registers are full whatever the
number of classes), divide by the row sums.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .exp import exp_nonpositive
from .jit import kernel, part, scalar_part
from .rows import row_max, row_sum
from .simd import row_of, view

# Elements a block: with its logits 24 kB of float64, of a cache of 32.  Two rows of 1000
# classes at once take 6 % longer than one in float32, 10 % in float64; of up to 500 nothing more.
BLOCK = 1536
F32_ONE = np.float32(1)


def _reciprocal_f32(x: Any) -> Any:
    return F32_ONE / x


def _reciprocal_f64(x: Any) -> Any:
    return 1.0 / x


# 1 / x, which LLVM leaves alone.  In a kernel that may reorder sums it would turn the products with
# it back into divisions, one for each element: half of the time of a row.
reciprocal = scalar_part(_reciprocal_f32, _reciprocal_f64)


@part
def shift_rows(y: Any, a: Any, start: int, stop: int) -> None:
    """``y[n] = a[n] - max(a[n])`` for start <= n < stop.

    A NaN ends up as the maximum or stays where it is; both ways the whole row becomes NaN.
    """
    for n in range(start, stop):
        logits, shifted = row_of(a, n), row_of(y, n)
        highest = row_max(logits)
        for c in range(logits.size):
            shifted[c] = logits[c] - highest


@part
def exponentiate_rows(y: Any, start: int, stop: int) -> None:
    """``y[n] = exp(y[n])`` for start <= n < stop, all elements in one run."""
    # A slice, not a range from start: an index that might be negative would not vectorise.
    block = view(y, start * y.shape[1], (stop - start) * y.shape[1])
    for i in range(block.size):
        block[i] = exp_nonpositive(block[i])


@part
def normalise(row: Any) -> Any:
    """``row /= sum(row)``; returns the sum."""
    whole = row_sum(row)
    scale = reciprocal(whole)
    for c in range(row.size):
        row[c] *= scale
    return whole


@kernel("T[:, ::1], T[:, ::1]")
def softmax_forward(y: Any, a: Any) -> None:
    """``y[n, c] = exp(a[n, c]) / sum_k exp(a[n, k])``.

    Parameters
    ----------
    y : (N, C) float32 or float64, C >= 1 - overwritten
    a : (N, C) like y - logits
    """
    N, C = a.shape
    rows = max(1, BLOCK // C)
    for start in range(0, N, rows):
        stop = min(start + rows, N)
        shift_rows(y, a, start, stop)
        exponentiate_rows(y, start, stop)
        for n in range(start, stop):
            normalise(row_of(y, n))


@kernel("T[:, ::1], T[:, ::1], int64[::1]")
def softmax_loss_forward(y: Any, a: Any, t: Any) -> float:
    """Softmax into y; returns ``sum_n(log sum_c exp(a[n, c]) - a[n, t[n]])``, in nats.

    Parameters
    ----------
    y : (N, C) float32 or float64, C >= 1 - overwritten, what backward needs
    a : (N, C) like y - logits
    t : (N,) int64 in [0, C) - labels

    Returns
    -------
    float
        The sum of the rows' losses, added in float64 in the order of the rows.
    """
    N, C = a.shape
    rows = max(1, BLOCK // C)
    loss, product = 0.0, 1.0
    for start in range(0, N, rows):
        stop = min(start + rows, N)
        shift_rows(y, a, start, stop)
        for n in range(start, stop):
            loss -= np.float64(y[n, t[n]])
        exponentiate_rows(y, start, stop)
        for n in range(start, stop):
            # The logarithm of a product, now and then, for a sum of logarithms: every factor lies
            # between 1 and C, and N logarithms would be a fifth of the time at ten classes.
            product *= np.float64(normalise(row_of(y, n)))
            if product > 1e200:
                loss += math.log(product)
                product = 1.0
    return loss + math.log(product)


@kernel("T[:, ::1], T[:, ::1], T[:, ::1]")
def softmax_loss_rows_forward(y: Any, a: Any, t: Any) -> float:
    """Softmax into y; returns ``sum_n sum_c t[n, c] (log sum_k exp(a[n, k]) - a[n, c])``, in nats.

    Parameters
    ----------
    y : (N, C) float32 or float64, C >= 1 - overwritten, what backward needs
    a : (N, C) like y - logits
    t : (N, C) like y - one-hot rows, or probabilities

    Returns
    -------
    float
        The sum of the rows' losses, added in float64 in the order of the rows.
    """
    N, C = a.shape
    rows = max(1, BLOCK // C)
    zero = t.dtype.type(0)
    loss, product = 0.0, 1.0
    for start in range(0, N, rows):
        stop = min(start + rows, N)
        shift_rows(y, a, start, stop)
        for n in range(start, stop):
            expected = 0.0
            for c in range(C):
                share, logit = t[n, c], y[n, c]
                value = logit if share != zero else zero  # 0 * -inf would be NaN
                expected += np.float64(share) * value
            loss -= expected
        exponentiate_rows(y, start, stop)
        for n in range(start, stop):
            weight = 0.0
            for c in range(C):
                weight += np.float64(t[n, c])
            total = np.float64(normalise(row_of(y, n)))
            # One-hot rows as in softmax_loss_forward: 12 to 24 % faster at ten classes.  For the
            # others the C library's logarithm: number by number it beats the vectorisable one of
            # exp.py, by which the kernel would take 10 % longer.
            if weight == 1.0:
                product *= total
                if product > 1e200:
                    loss += math.log(product)
                    product = 1.0
            else:
                loss += weight * math.log(total)
    return loss + math.log(product)


@kernel("T[:, ::1], T[:, ::1], int64[::1], float64")
def softmax_loss_backward(dx: Any, y: Any, t: Any, scale: float) -> None:
    """``dx[n, c] = scale * (y[n, c] - (1 if c == t[n] else 0))``.

    Parameters
    ----------
    dx : (N, C) float32 or float64 - overwritten
    y : (N, C) like dx, from forward
    t : (N,) int64 in [0, C) - labels
    scale : float - dout / N, rounded to the type of dx before it is used
    """
    N, C = y.shape
    factor = y.dtype.type(scale)
    flat, source = dx.reshape(-1), y.reshape(-1)
    for i in range(N * C):
        flat[i] = source[i] * factor
    for n in range(N):
        dx[n, t[n]] = (y[n, t[n]] - y.dtype.type(1)) * factor


@kernel("T[:, ::1], T[:, ::1], T[:, ::1], float64")
def softmax_loss_rows_backward(dx: Any, y: Any, t: Any, scale: float) -> None:
    """``dx[n, c] = scale * (y[n, c] * sum_k t[n, k] - t[n, c])``.

    Parameters
    ----------
    dx : (N, C) float32 or float64 - overwritten
    y : (N, C) like dx, from forward
    t : (N, C) like dx - one-hot rows, or probabilities
    scale : float - dout / N, rounded to the type of dx before it is used
    """
    N, C = y.shape
    factor = y.dtype.type(scale)
    for n in range(N):
        weight = t.dtype.type(0)
        for c in range(C):
            weight += t[n, c]
        for c in range(C):
            dx[n, c] = (y[n, c] * weight - t[n, c]) * factor
