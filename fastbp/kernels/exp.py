"""The exponential, the logarithm and the logistic function, as arithmetic for vector registers.

The exponential and the logistic function write x = n ln 2 + r with a whole n and |r| <= ln(2) / 2,
so that exp(x) = 2**n exp(r); the logarithm splits its argument into 2**k and a number near 1.

- Rounding costs no instruction of its own: adding 1.5 * 2**23 (2**52 for float64) leaves n in the
  low bits of the sum.  Shifted to the exponent's place those bits *are* 2**n, or can be added to
  the exponent of another number.
- ln 2 is kept in two parts, the first with so few bits that n times it is exact.
- Results below the smallest normal number keep all the bits they have: the power of two carries an
  offset that a last multiplication or division takes away, and that rounds correctly.

The method is Cody and Waite's (*Software Manual for the Elementary Functions*, 1980, chapters 5
and 6); the coefficients are Chebyshev interpolants.  The comment above each set says of which
function: with ``mpmath.mp.prec = 300`` the call given there computes them anew.

The errors given are the largest that ``python -m benchmarks.accuracy --all --samples 20000000``
found, in units in the last place (ULP): over every float32, and over 60 to 80 million float64.
They hold where the processor has a fused multiply-add; without, the exponential's is 1.25.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import scalar_part

f32 = np.float32
f64 = np.float64
i32 = np.int32
i64 = np.int64
u32 = np.uint32
u64 = np.uint64

LOG2_E = 1.4426950408889634

# ln 2 in two parts.
F32_LN2_HIGH, F32_LN2_LOW = f32(0.693359375), f32(-2.12194440e-4)
F64_LN2_HIGH, F64_LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10

F32_LOG2_E, F32_SHIFT = f32(LOG2_E), i32(23)
F64_LOG2_E, F64_SHIFT = LOG2_E, i64(52)

F32_LOWEST, F64_LOWEST = f32(-104.0), f64(-745.2)  # exp rounds to 0 below
F32_ZERO, F32_ONE, F32_TWO = f32(0), f32(1), f32(2)

# --- exp(x) for |x| <= ln(2) / 2 ----------------------------------------------------------------
# exp(x) = 1 + x (1 + x q(x)); relative error of the polynomials 9e-10 and 2e-18.
# chebyfit(lambda x: (exp(x) - 1 - x) / x**2, [-log(2) / 2, log(2) / 2], 5), for float64 10.
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


def _exp_near_0_f32(x: Any) -> Any:
    c4, c3, c2, c1, c0 = F32_Q
    p = (((c4 * x + c3) * x + c2) * x + c1) * x + c0
    return (p * x + F32_ONE) * x + F32_ONE


def _exp_near_0_f64(x: Any) -> Any:
    c9, c8, c7, c6, c5, c4, c3, c2, c1, c0 = F64_Q
    p = ((((c9 * x + c8) * x + c7) * x + c6) * x + c5) * x + c4
    p = (((p * x + c3) * x + c2) * x + c1) * x + c0
    return (p * x + 1.0) * x + 1.0


exp_near_0 = scalar_part(_exp_near_0_f32, _exp_near_0_f64)

# --- exp(x) for x <= 0 --------------------------------------------------------------------------
# The power of two carries the offset 64, so that 2**(n + 64) is normal down to the last subnormal.
F32_ROUND_EXP, F64_ROUND_EXP = f32(1.5 * 2**23 + 127 + 64), 1.5 * 2.0**52 + 1023 + 64
F32_DOWN, F64_DOWN = f32(2.0**-64), 2.0**-64


def _exp_f32(x: Any) -> Any:
    x = max(x, F32_LOWEST)
    t = x * F32_LOG2_E + F32_ROUND_EXP
    n = t - F32_ROUND_EXP
    power = i32(f32(t).view(i32) << F32_SHIFT).view(f32)
    r = x - n * F32_LN2_HIGH
    r = r - n * F32_LN2_LOW
    return exp_near_0(r) * power * F32_DOWN


def _exp_f64(x: Any) -> Any:
    x = max(x, F64_LOWEST)
    t = x * F64_LOG2_E + F64_ROUND_EXP
    n = t - F64_ROUND_EXP
    power = i64(f64(t).view(i64) << F64_SHIFT).view(f64)
    r = x - n * F64_LN2_HIGH
    r = r - n * F64_LN2_LOW
    return exp_near_0(r) * power * F64_DOWN


# e**x for x <= 0, to 0.96 ULP, subnormal results included; NaN stays NaN.
exp_nonpositive = scalar_part(_exp_f32, _exp_f64)

# --- exp(x) for every x -------------------------------------------------------------------------
# As above, but for x > 0 the offset is -64: 2**128 is no float32, and a result too large is to
# become infinite in the last multiplication, not before.
F32_ROUND_EXP_UP, F64_ROUND_EXP_UP = f32(1.5 * 2**23 + 127 - 64), 1.5 * 2.0**52 + 1023 - 64
F32_UP, F64_UP = f32(2.0**64), 2.0**64
F32_OVERFLOW, F64_OVERFLOW = f32(89.0), f64(710.0)  # exp is infinite here and above


def _exponential_f32(x: Any) -> Any:
    # max, then min, in this order of arguments: one instruction each, and NaN passes.
    x = min(max(x, F32_LOWEST), F32_OVERFLOW)
    shift = F32_ROUND_EXP_UP if x > F32_ZERO else F32_ROUND_EXP
    scale = F32_UP if x > F32_ZERO else F32_DOWN
    t = x * F32_LOG2_E + shift
    n = t - shift
    power = i32(f32(t).view(i32) << F32_SHIFT).view(f32)
    r = x - n * F32_LN2_HIGH
    r = r - n * F32_LN2_LOW
    return exp_near_0(r) * power * scale


def _exponential_f64(x: Any) -> Any:
    x = min(max(x, F64_LOWEST), F64_OVERFLOW)
    shift = F64_ROUND_EXP_UP if x > 0.0 else F64_ROUND_EXP
    scale = F64_UP if x > 0.0 else F64_DOWN
    t = x * F64_LOG2_E + shift
    n = t - shift
    power = i64(f64(t).view(i64) << F64_SHIFT).view(f64)
    r = x - n * F64_LN2_HIGH
    r = r - n * F64_LN2_LOW
    return exp_near_0(r) * power * scale


# e**x, to 0.96 ULP, subnormal results included; NaN stays NaN.
exponential = scalar_part(_exponential_f32, _exponential_f64)

# --- log(x) -------------------------------------------------------------------------------------
# x = 2**k m with sqrt(1/2) <= m < sqrt(2): added to the bits of x, the distance from sqrt(1/2) to
# 1 carries into the exponent just where m would reach sqrt(2).  With f = m - 1, s = f / (2 + f),
# w = s * s and h = f * f / 2,
#     log(m) = 2 atanh(s) = 2 s + s w R(w) = f - (h - s (h + w R(w))),
# whose bracket is small against f, and k ln 2 + f is added in two parts.
# The form without a division, a polynomial in f, is no faster in float32 and needs 20 coefficients
# in float64.
# chebyfit(lambda w: (log((1 + sqrt(w)) / (1 - sqrt(w))) / sqrt(w) - 2) / w,
#          [0, (sqrt(2) - 1)**4], 3), for float64 7; relative error of log(m) 3e-9 and 4e-18.
F32_R = (f32(0.2957994939197279), f32(0.3998878056602198), f32(0.6666668503957586))
F64_R = (
    0.14616449685043406,
    0.15331721600556042,
    0.18182889125261723,
    0.2222221113479508,
    0.28571428625975487,
    0.39999999999899505,
    0.666666666666667,
)
F32_HALF, F32_INF, F32_NAN = f32(0.5), f32(np.inf), f32(np.nan)
F32_ROOT, F32_ROOT_TO_1 = u32(0x3F3504F3), u32(0x3F800000 - 0x3F3504F3)
F64_ROOT = u64(0x3FE6A09E667F3BCD)
F64_ROOT_TO_1 = u64(0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
F32_EXPONENT, F32_FRACTION = u32(23), u32(2**23 - 1)
F64_EXPONENT, F64_FRACTION = u64(52), u64(2**52 - 1)
# A whole number put into the fraction of 2**23 (2**52) makes a float that much larger.
F32_COUNTER, F64_COUNTER = u32(0x4B000000), u64(0x4330000000000000)
F32_BIAS, F64_BIAS = f32(2.0**23 + 127), 2.0**52 + 1023
# Subnormal numbers are made normal first.
F32_NORMAL, F32_RAISE, F32_BIAS_RAISED = f32(2.0**-126), f32(2.0**23), f32(2.0**23 + 127 + 23)
F64_NORMAL, F64_RAISE, F64_BIAS_RAISED = 2.0**-1022, 2.0**52, 2.0**52 + 1023 + 52


def _log_f32(x: Any) -> Any:
    c2, c1, c0 = F32_R
    size = abs(x)
    tiny = size < F32_NORMAL
    bias = F32_BIAS_RAISED if tiny else F32_BIAS
    bits = u32(f32(size * F32_RAISE if tiny else size).view(u32) + F32_ROOT_TO_1)
    k = u32(u32(bits >> F32_EXPONENT) | F32_COUNTER).view(f32) - bias
    f = u32(u32(bits & F32_FRACTION) + F32_ROOT).view(f32) - F32_ONE
    s = f / (f + F32_TWO)
    w = s * s
    h = F32_HALF * f * f
    high = k * F32_LN2_HIGH + f
    low = (k * F32_LN2_HIGH - high) + f  # what was lost in high, exactly
    p = (c2 * w + c1) * w + c0
    y = high + ((s * (p * w + h) - h) + (k * F32_LN2_LOW + low))
    y = y if x < F32_INF else x
    return y if x > F32_ZERO else (-F32_INF if x == F32_ZERO else F32_NAN)


def _log_f64(x: Any) -> Any:
    c6, c5, c4, c3, c2, c1, c0 = F64_R
    size = abs(x)
    tiny = size < F64_NORMAL
    bias = F64_BIAS_RAISED if tiny else F64_BIAS
    bits = f64(size * F64_RAISE if tiny else size).view(u64) + F64_ROOT_TO_1
    k = u64((bits >> F64_EXPONENT) | F64_COUNTER).view(f64) - bias
    f = u64((bits & F64_FRACTION) + F64_ROOT).view(f64) - 1.0
    s = f / (f + 2.0)
    w = s * s
    h = 0.5 * f * f
    high = k * F64_LN2_HIGH + f
    low = (k * F64_LN2_HIGH - high) + f
    p = ((c6 * w + c5) * w + c4) * w + c3
    p = ((p * w + c2) * w + c1) * w + c0
    y = high + ((s * (p * w + h) - h) + (k * F64_LN2_LOW + low))
    y = y if x < np.inf else x
    return y if x > 0.0 else (-np.inf if x == 0.0 else np.nan)


# The natural logarithm of x > 0, to 0.9 ULP, subnormal x included; log(0) = -inf, NaN below.
log_positive = scalar_part(_log_f32, _log_f64)

# --- logistic(x) = 1 / (1 + exp(-x)) ------------------------------------------------------------
# exp(r) = A / B with A = E + r O and B = E - r O, where E / O = r coth(r / 2) has short
# approximations in z = r**2 (relative error of A / B 2.5e-9 and 3.4e-18).  Then
# logistic(x) = 2**n A / (2**n A + B): one division in all.
# - B is computed as A - 2 r O: so it contains A's rounding error, which all but cancels in A / B.
# - E and O share a factor.  1.6 and 1.64 put A and B where a rounding error is small against
#   them, between 1.3 and 2 after the leading power of two: 1.8 ULP, where 1 gives 2.4.  The power,
#   2**24 and 2**60, makes 2**n A a normal number down to the last subnormal result.
# The pipes that multiply limit the float64 version on current processors; 2**n as an addition to
# the exponent spares them an operation, and so does the power of two inside E and O.
# float32: O = 1, and E - 2 over z is
# chebyfit(lambda z: (sqrt(z) * coth(sqrt(z) / 2) - 2) / z, [0, (log(2) / 2)**2], 2).
F32_FACTOR, F64_FACTOR = 1.6 * 2.0**24, 1.64 * 2.0**60 / 30262.938538037106
F32_E = tuple(f32(F32_FACTOR * c) for c in (-0.002769854598082437, 0.16666654775143921, 2.0))
F32_O, F32_2_O = f32(F32_FACTOR), f32(2 * F32_FACTOR)
# float64: E of degree 2 over O = z**2 + o1 z + o0, equal to the function at the five Chebyshev
# points of the same interval (a linear system).
F64_E = tuple(F64_FACTOR * c for c in (30.013648198372287, 3362.4576321352797, 30262.938538037106))
F64_O = tuple(F64_FACTOR * c for c in (1.0, 420.2730436494577, 15131.469269018553))
F32_ROUND, F64_ROUND = f32(1.5 * 2**23), 1.5 * 2.0**52
F32_HIGHEST, F64_HIGHEST = f32(42.0), f64(42.0)  # the logistic rounds to 1 long before


def _logistic_f32(x: Any) -> Any:
    e2, e1, e0 = F32_E
    x = min(max(x, F32_LOWEST), F32_HIGHEST)
    t = x * F32_LOG2_E + F32_ROUND
    n = t - F32_ROUND
    r = x - n * F32_LN2_HIGH
    r = r - n * F32_LN2_LOW
    z = r * r
    a = (e2 * z + e1) * z + e0 + F32_O * r
    b = a - F32_2_O * r
    a = i32(f32(a).view(i32) + i32(f32(t).view(i32) << F32_SHIFT)).view(f32)
    return a / (b + a)


def _logistic_f64(x: Any) -> Any:
    e2, e1, e0 = F64_E
    o2, o1, o0 = F64_O
    x = min(max(x, F64_LOWEST), F64_HIGHEST)
    t = x * F64_LOG2_E + F64_ROUND
    n = t - F64_ROUND
    r = x - n * F64_LN2_HIGH
    r = r - n * F64_LN2_LOW
    z = r * r
    o = (o2 * z + o1) * z + o0
    a = (e2 * z + e1) * z + e0 + o * r
    b = a - o * (r + r)
    a = i64(f64(a).view(i64) + i64(f64(t).view(i64) << F64_SHIFT)).view(f64)
    return a / (b + a)


# 1 / (1 + e**-x), to 1.9 ULP (float32 1.72), to 0.95 where the result is subnormal; NaN stays NaN.
logistic = scalar_part(_logistic_f32, _logistic_f64)
