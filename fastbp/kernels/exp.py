"""The exponential and the logistic function, as arithmetic that LLVM can put into vector registers.

Both write x = n ln 2 + r with a whole n and |r| <= ln(2) / 2, so that exp(x) = 2**n exp(r).

- Rounding costs no instruction of its own: adding 1.5 * 2**23 (2**52 for float64) leaves n in the
  low bits of the sum.  Shifted to the exponent's place those bits *are* 2**n, or can be added to
  the exponent of another number.
- ln 2 is kept in two parts, the first with so few bits that n times it is exact.
- Results below the smallest normal number keep all the bits they have: the power of two carries an
  offset that a last multiplication or division takes away, and that rounds correctly.

The method is Cody and Waite's (*Software Manual for the Elementary Functions*, 1980, chapter 6);
the coefficients are Chebyshev interpolants, computed at 100 bits or more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import scalar_part

f32 = np.float32
f64 = np.float64
i32 = np.int32
i64 = np.int64

LOG2_E = 1.4426950408889634

# ln 2 in two parts.
F32_LN2_HIGH, F32_LN2_LOW = f32(0.693359375), f32(-2.12194440e-4)
F64_LN2_HIGH, F64_LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10

F32_LOG2_E, F32_SHIFT = f32(LOG2_E), i32(23)
F64_LOG2_E, F64_SHIFT = LOG2_E, i64(52)

# --- exp(x) for x <= 0 --------------------------------------------------------------------------
# exp(r) = 1 + r (1 + r q(r)); relative error of the polynomials 9e-10 and 2e-18.
# The power of two carries the offset 64, so that 2**(n + 64) is normal down to the last subnormal.
F32_Q = tuple(
    f32(c)
    for c in (
        0.0013926177501010365,
        0.00836317418011074,
        0.041666554653757494,
        0.16666577018959405,
        0.5,
    )
)
F64_Q = (
    2.5100377619606372e-08,
    2.7620078203806394e-07,
    2.7557268476553695e-06,
    2.4801521317484083e-05,
    1.9841269863042963e-04,
    1.3888888917199863e-03,
    8.333333333330063e-03,
    4.166666666662416e-02,
    1.6666666666666669e-01,
    5.0000000000000011e-01,
)
F32_ROUND_EXP, F64_ROUND_EXP = f32(1.5 * 2**23 + 127 + 64), 1.5 * 2.0**52 + 1023 + 64
F32_DOWN, F64_DOWN = f32(2.0**-64), 2.0**-64
F32_LOWEST, F64_LOWEST = f32(-104.0), -745.2  # exp rounds to 0 below
F32_ONE = f32(1)


def _exp_f32(x: Any) -> Any:
    c4, c3, c2, c1, c0 = F32_Q
    x = max(x, F32_LOWEST)
    t = x * F32_LOG2_E + F32_ROUND_EXP
    n = t - F32_ROUND_EXP
    power = i32(f32(t).view(i32) << F32_SHIFT).view(f32)
    r = x - n * F32_LN2_HIGH
    r = r - n * F32_LN2_LOW
    p = (((c4 * r + c3) * r + c2) * r + c1) * r + c0
    p = (p * r + F32_ONE) * r + F32_ONE
    return p * power * F32_DOWN


def _exp_f64(x: Any) -> Any:
    c9, c8, c7, c6, c5, c4, c3, c2, c1, c0 = F64_Q
    x = max(x, F64_LOWEST)
    t = x * F64_LOG2_E + F64_ROUND_EXP
    n = t - F64_ROUND_EXP
    power = i64(f64(t).view(i64) << F64_SHIFT).view(f64)
    r = x - n * F64_LN2_HIGH
    r = r - n * F64_LN2_LOW
    p = ((((c9 * r + c8) * r + c7) * r + c6) * r + c5) * r + c4
    p = (((p * r + c3) * r + c2) * r + c1) * r + c0
    p = (p * r + 1.0) * r + 1.0
    return p * power * F64_DOWN


# e**x for x <= 0, to 1 ULP, subnormal results included; NaN stays NaN.
exp_nonpositive = scalar_part(_exp_f32, _exp_f64)

# --- logistic(x) = 1 / (1 + exp(-x)) ------------------------------------------------------------
# exp(r) = (E + r O) / (E - r O) with short polynomials E and O in r**2 (r coth(r / 2) as a
# fraction; relative errors 2e-10 and 2e-18).  Then logistic(x) = A / (A + B) with
# A = 2**n (E + r O) and B = E - r O: one division in all.  A and B both carry 2**24 (2**54), so
# that A is always a normal number.
# The pipes that multiply are what limits this function on current processors; the leading
# coefficient 1 of O and 2**n as an addition to the exponent each spare them an operation.
F32_E = (f32(12.012868477864213), f32(120.15453770557274))
F32_O = f32(60.07726882056072)
F64_E = (30.013650278343196, 3362.458006821618, 30262.9420353042)
F64_O = (420.27308527316444, 15131.4710176521)
F32_ROUND_LOGISTIC, F64_ROUND_LOGISTIC = f32(1.5 * 2**23 + 24), 1.5 * 2.0**52 + 54
F32_UP, F64_UP = f32(2.0**24), 2.0**54
F32_HIGHEST, F64_HIGHEST = f32(42.0), 42.0  # the logistic rounds to 1 long before


def _logistic_f32(x: Any) -> Any:
    e1, e0 = F32_E
    # max, then min, in this order of arguments: one instruction each, and NaN passes.
    x = min(max(x, F32_LOWEST), F32_HIGHEST)
    t = x * F32_LOG2_E + F32_ROUND_LOGISTIC
    n = t - F32_ROUND_LOGISTIC
    r = x - n * F32_LN2_HIGH
    r = r - n * F32_LN2_LOW
    z = r * r
    e = e1 * z + e0
    o = r * (z + F32_O)
    a = i32(f32(e + o).view(i32) + i32(f32(t).view(i32) << F32_SHIFT)).view(f32)
    return a / ((e - o) * F32_UP + a)


def _logistic_f64(x: Any) -> Any:
    e2, e1, e0 = F64_E
    o1, o0 = F64_O
    x = min(max(x, F64_LOWEST), F64_HIGHEST)
    t = x * F64_LOG2_E + F64_ROUND_LOGISTIC
    n = t - F64_ROUND_LOGISTIC
    r = x - n * F64_LN2_HIGH
    r = r - n * F64_LN2_LOW
    z = r * r
    e = (e2 * z + e1) * z + e0
    o = r * ((z + o1) * z + o0)
    a = i64(f64(e + o).view(i64) + i64(f64(t).view(i64) << F64_SHIFT)).view(f64)
    return a / ((e - o) * F64_UP + a)


# 1 / (1 + e**-x), to 2.6 ULP, subnormal results included; NaN stays NaN.
logistic = scalar_part(_logistic_f32, _logistic_f64)
