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

# Elements a block: 16 kB of float64, half of a first-level cache.
BLOCK = 2048

F32_MAGNITUDE, F32_SIGN = np.int32(0x7FFFFFFF), np.int32(31)
F64_MAGNITUDE, F64_SIGN = np.int64(0x7FFFFFFFFFFFFFFF), np.int64(63)


def _flip32(x: Any) -> Any:
    return np.int32(x ^ ((x >> F32_SIGN) & F32_MAGNITUDE))


def _flip64(x: Any) -> Any:
    return np.int64(x ^ ((x >> F64_SIGN) & F64_MAGNITUDE))


def _float_bits32(x: Any) -> Any:
    return np.float32(x).view(np.int32)


def _float_bits64(x: Any) -> Any:
    return np.float64(x).view(np.int64)


def _from_bits32(x: Any) -> Any:
    return np.int32(x).view(np.float32)


def _from_bits64(x: Any) -> Any:
    return np.int64(x).view(np.float64)


flip = scalar_part(_flip32, _flip64)
float_bits = scalar_part(_float_bits32, _float_bits64)
from_bits = scalar_part(_from_bits32, _from_bits64)


@part
def largest(row: Any) -> Any:
    """Return the largest element of a row, NaN only perhaps if there is one.

    The maximum is taken over integers in the order of the floats they stand for (a negative
    float's bits below the sign, flipped): LLVM puts that into vector registers, but a maximum of
    floats only if NaN is declared impossible.
    """
    top = flip(float_bits(row[0]))
    for c in range(1, row.size):
        top = max(top, flip(float_bits(row[c])))
    return from_bits(flip(top))


@part
def shift_rows(y: Any, a: Any, start: int, stop: int) -> None:
    """``y[n] = a[n] - max(a[n])`` for start <= n < stop.

    A NaN ends up as the maximum or stays where it is; both ways the whole row becomes NaN.
    """
    for n in range(start, stop):
        highest = largest(a[n])
        for c in range(a.shape[1]):
            y[n, c] = a[n, c] - highest


@part
def exponentiate_rows(y: Any, start: int, stop: int) -> None:
    """``y[n] = exp(y[n])`` for start <= n < stop, all elements in one run."""
    # A slice, not a range from start: an index that might be negative would not vectorise.
    block = y.reshape(-1)[start * y.shape[1] : stop * y.shape[1]]
    for i in range(block.size):
        block[i] = exp_nonpositive(block[i])


@part
def normalise_row(y: Any, n: int) -> Any:
    """``y[n] /= sum(y[n])``; returns the sum."""
    total = y.dtype.type(0)
    for c in range(y.shape[1]):
        total += y[n, c]
    scale = y.dtype.type(1) / total
    for c in range(y.shape[1]):
        y[n, c] *= scale
    return total


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
            normalise_row(y, n)


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
            product *= np.float64(normalise_row(y, n))
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
            total = np.float64(normalise_row(y, n))
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


@kernel("T[:, ::1], T[:, ::1], int64[::1], T")
def softmax_loss_backward(dx: Any, y: Any, t: Any, scale: Any) -> None:
    """``dx[n, c] = scale * (y[n, c] - (1 if c == t[n] else 0))``.

    Parameters
    ----------
    dx : (N, C) float32 or float64 - overwritten
    y : (N, C) like dx, from forward
    t : (N,) int64 in [0, C) - labels
    scale : like an element of dx - dout / N
    """
    N, C = y.shape
    flat, source = dx.reshape(-1), y.reshape(-1)
    for i in range(N * C):
        flat[i] = source[i] * scale
    for n in range(N):
        dx[n, t[n]] = (y[n, t[n]] - y.dtype.type(1)) * scale


@kernel("T[:, ::1], T[:, ::1], T[:, ::1], T")
def softmax_loss_rows_backward(dx: Any, y: Any, t: Any, scale: Any) -> None:
    """``dx[n, c] = scale * (y[n, c] * sum_k t[n, k] - t[n, c])``.

    Parameters
    ----------
    dx : (N, C) float32 or float64 - overwritten
    y : (N, C) like dx, from forward
    t : (N, C) like dx - one-hot rows, or probabilities
    scale : like an element of dx - dout / N
    """
    N, C = y.shape
    for n in range(N):
        weight = t.dtype.type(0)
        for c in range(C):
            weight += t[n, c]
        for c in range(C):
            dx[n, c] = (y[n, c] * weight - t[n, c]) * scale
