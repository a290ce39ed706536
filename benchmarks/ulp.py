"""Errors in units in the last place (ULP), and the largest of many, found in one compiled pass.

The exact result comes in two float64: ``high``, and what it is off by, ``low``, in units in the
last place of high.  One float64 alone would not do where the result measured is itself float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numba
import numpy as np

Array = np.ndarray[Any, Any]

CHUNK = 2**18  # numbers: enough that starting a call costs nothing, few enough for the caches


@numba.njit(inline="always")
def _power_of_2(k: int) -> float:
    """2.0**k for the exponents of normal numbers."""
    return np.int64((k + 1023) << 52).view(np.float64)


@numba.njit(error_model="numpy")
def error(actual: float, high: float, low: float, digits: int, lowest: int, highest: int) -> float:
    """|actual - exact| in units in the last place of the exact result.

    ``digits``, ``lowest`` and ``highest`` are ``finfo``'s nmant, minexp and maxexp of the type that
    actual had.  Infinity counts as 2**highest, the number it stands for: a finite result where
    infinity is right, or the other way round, has the size of that mistake.
    """
    if math.isnan(actual) or math.isnan(high):
        return 0.0 if math.isnan(actual) and math.isnan(high) else math.inf
    # Halves, where nothing is lost by it: 2.0**1024 has no float64.
    half = 0.5 if abs(high) > 1.0 else 1.0
    limit = _power_of_2(highest - 1) * (2.0 * half if highest < 1024 else 1.0)
    actual = min(max(actual * half, -limit), limit)
    high = min(max(high * half, -limit), limit)
    high_exponent = max(((np.float64(high).view(np.int64) >> 52) & 0x7FF) - 1023, -1022)
    if abs(high) == limit:
        low = 0.0
    exponent = high_exponent
    if low * high < 0.0 and abs(high) == _power_of_2(exponent):
        exponent -= 1  # a little below a power of two the units are half as large
    shift = -1 if half == 0.5 else 0
    scale = digits - min(max(exponent, lowest + shift), highest - 1 + shift)
    distance = (actual - high) * _power_of_2(scale // 2) * _power_of_2(scale - scale // 2)
    return abs(distance - low * _power_of_2(high_exponent - 52 + scale))


@numba.njit(error_model="numpy")
def _errors(
    out: Array, actual: Array, high: Array, low: Array, digits: int, lowest: int, highest: int
) -> None:
    for i in range(out.size):
        out[i] = error(np.float64(actual[i]), high[i], low[i], digits, lowest, highest)


@numba.njit(error_model="numpy")
def _largest(
    actual: Array, high: Array, low: Array, digits: int, lowest: int, highest: int
) -> tuple[float, int, float, int]:
    smallest_normal = _power_of_2(lowest)
    normal, subnormal = -1.0, -1.0
    at_normal = at_subnormal = -1
    # With nothing in low, an error no larger than those seen is known by one subtraction.
    short = not low.any()
    for i in range(actual.size):
        if short:
            size = abs(high[i])
            seen = subnormal if 0.0 < size < smallest_normal else normal
            bits = np.float64(size).view(np.int64) & (0x7FF << 52)
            unit = max(np.int64(bits).view(np.float64), smallest_normal)
            if abs(np.float64(actual[i]) - high[i]) * _power_of_2(digits) <= seen * unit:
                continue
        found = error(np.float64(actual[i]), high[i], low[i], digits, lowest, highest)
        if abs(high[i]) >= smallest_normal or high[i] == 0.0 or math.isnan(high[i]):
            if found > normal:
                normal, at_normal = found, i
        elif found > subnormal:
            subnormal, at_subnormal = found, i
    return normal, at_normal, subnormal, at_subnormal


def _format(dtype: Any) -> tuple[int, int, int]:
    info = np.finfo(dtype)
    return int(info.nmant), int(info.minexp), int(info.maxexp)


def two_parts(exact: Array) -> tuple[Array, Array]:
    """Return an array of a wider type as float64, and what is missing in units of those."""
    if exact.dtype == np.float64:
        return exact, np.zeros_like(exact)
    with np.errstate(all="ignore"):
        high = exact.astype(np.float64)
        low = ((exact - high) / np.spacing(np.abs(high))).astype(np.float64)
        return high, np.where(np.isfinite(low), low, 0.0)


def by_mpmath(function: Any, x: Array, bits: int = 100) -> tuple[Array, Array]:
    """Apply ``function(mpmath, number)`` to every number of x; return the results in two parts."""
    import mpmath

    high, low = np.empty(x.size), np.empty(x.size)
    with mpmath.workprec(bits):
        for i, number in enumerate(x.tolist()):
            exact = function(mpmath, mpmath.mpf(number))
            high[i] = float(exact)
            low[i] = float((exact - mpmath.mpf(high[i])) / mpmath.mpf(math.ulp(high[i])))
    return high, low


def ulps(actual: Array, exact: Array) -> Array:
    """Return the error of every element, in units in the last place of the exact one."""
    high, low = two_parts(exact)
    out = np.empty(actual.size)
    _errors(out, actual.ravel(), high.ravel(), low.ravel(), *_format(actual.dtype))
    return out.reshape(actual.shape)


class Worst:
    """The largest error seen, and where: of normal results (0 included) and of subnormal ones.

    Attributes
    ----------
    normal, subnormal : (float, float) or None
        The error in ULP and the argument, once there was such a result.
    """

    def __init__(self) -> None:
        self.normal: tuple[float, float] | None = None
        self.subnormal: tuple[float, float] | None = None

    def add(self, x: Array, actual: Array, high: Array, low: Array) -> None:
        """Note the results of one chunk, flat arrays: x -> actual, exactly high + low."""
        normal, i, subnormal, j = _largest(actual, high, low, *_format(actual.dtype))
        if i >= 0 and (self.normal is None or normal > self.normal[0]):
            self.normal = normal, float(x[i])
        if j >= 0 and (self.subnormal is None or subnormal > self.subnormal[0]):
            self.subnormal = subnormal, float(x[j])

    def record(self) -> dict[str, Any]:
        """Return what has been found, as JSON takes it."""
        return {"normal": self.normal, "subnormal": self.subnormal}


def every_float32() -> Iterator[Array]:
    """All 2**32 numbers, in chunks, in the order of their bits."""
    for start in range(0, 2**32, CHUNK):
        yield np.arange(start, start + CHUNK, dtype=np.uint32).view(np.float32)


def samples(
    ranges: list[tuple[float, float]], dtype: str, count: int, even_exponents: bool
) -> Iterator[Array]:
    """``count`` random numbers of each range, in chunks.

    ``even_exponents`` makes every power of two as likely as the next, instead of every value.
    """
    random = np.random.default_rng(0)
    bits = "i4" if dtype == "float32" else "i8"
    for low, high in ranges:
        for start in range(0, count, CHUNK):
            size = min(CHUNK, count - start)
            if even_exponents:
                first, last = np.array([low, high], dtype).view(bits)
                yield random.integers(first, last, size, bits).view(dtype)
            else:
                yield random.uniform(low, high, size).astype(dtype)
