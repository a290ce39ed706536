"""The exponential and the logistic function: their documented errors, in units in the last place.

The oracle of float32 is float64, that of float64 the 80-bit type where there is one, and for a
smaller sample mpmath at 100 bits.
"""

import mpmath
import numba
import numpy as np
import pytest

from fastbp.kernels.exp import exp_nonpositive, logistic
from fastbp.kernels.jit import EXACT_FLAGS, JIT_DISABLED, SUM_FLAGS

SAMPLES = 2000 if JIT_DISABLED else 1_000_000
# Plain Python has no fused multiply-add, with which 0.94 ULP was measured, and 1.23 without.
EXP_BOUND, LOGISTIC_BOUND = 1.25 if JIT_DISABLED else 1.0, 2.6
# x of the smallest normal result, and beyond the smallest subnormal one
NORMAL = {np.float32: -87.33, np.float64: -708.39}
LOWEST = {np.float32: -104.0, np.float64: -745.2}
by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def mapped(function, flags):
    """Return a compiled loop that applies a scalar function to an array."""

    @numba.njit(fastmath=set(flags), error_model="numpy")
    def loop(out, x):
        for i in range(x.size):
            out[i] = function(x[i])

    def apply(x):
        out = np.full_like(x, 77)
        loop(out, x)
        return out

    return apply


exp_of = mapped(exp_nonpositive, SUM_FLAGS)  # as in softmax, with the most freedom for LLVM
logistic_of = mapped(logistic, EXACT_FLAGS)  # as in the sigmoid


def wide(x):
    """Return x in a type with at least 11 more bits."""
    if x.dtype == np.float32:
        return x.astype(np.float64)
    if np.finfo(np.longdouble).nmant < 63:
        pytest.skip("no type wider than float64 here; the test with mpmath covers it")
    return x.astype(np.longdouble)


def ulps(actual, exact):
    """Return the errors in units in the last place of the exact result, in actual's type."""
    info = np.finfo(actual.dtype)
    exponent = np.maximum(np.frexp(exact)[1] - 1, info.minexp)
    return np.abs(actual.astype(exact.dtype) - exact) / np.ldexp(
        exact.dtype.type(1), exponent - info.nmant
    )


def sample(dtype, low, high):
    return np.random.default_rng(0).uniform(low, high, SAMPLES).astype(dtype)


def ranges(dtype, high):
    """Return where to look: all normal results, those of common arguments, subnormal ones."""
    return {
        "normal": (NORMAL[dtype], high),
        "common": (-20.0, min(high, 20.0)),
        "near 0": (-1.0, min(high, 1.0)),
        "subnormal": (LOWEST[dtype], NORMAL[dtype]),
    }


by_range = pytest.mark.parametrize("where", ["normal", "common", "near 0", "subnormal"])


@by_range
@by_dtype
def test_exp_is_within_its_bound(where, dtype):
    x = sample(dtype, *ranges(dtype, 0.0)[where])
    assert ulps(exp_of(x), np.exp(wide(x))).max() <= EXP_BOUND


@by_range
@by_dtype
def test_logistic_is_within_its_bound(where, dtype):
    x = sample(dtype, *ranges(dtype, 40.0)[where])
    assert ulps(logistic_of(x), 1 / (1 + np.exp(-wide(x)))).max() <= LOGISTIC_BOUND


@by_range
@pytest.mark.parametrize("function", ["exp", "logistic"])
def test_float64_against_mpmath(function, where):
    x = sample(np.float64, *ranges(np.float64, 0.0 if function == "exp" else 40.0)[where])[:1000]
    with mpmath.workprec(100):
        if function == "exp":
            actual, bound = exp_of(x), EXP_BOUND
            exact = [mpmath.exp(mpmath.mpf(v)) for v in x.tolist()]
        else:
            actual, bound = logistic_of(x), LOGISTIC_BOUND
            exact = [1 / (1 + mpmath.exp(-mpmath.mpf(v))) for v in x.tolist()]
        for y, z in zip(actual.tolist(), exact, strict=True):
            unit = mpmath.mpf(2) ** (max(mpmath.frexp(z)[1] - 1, -1022) - 52)
            assert abs(mpmath.mpf(y) - z) <= bound * unit


@by_dtype
def test_exp_at_special_points(dtype):
    x = np.array([0, -0.0, -np.inf, np.nan, -1e30], dtype)
    np.testing.assert_array_equal(exp_of(x), np.array([1, 1, 0, np.nan, 0], dtype), strict=True)


@by_dtype
def test_logistic_at_special_points(dtype):
    x = np.array([0, -0.0, -np.inf, np.inf, np.nan, 1e30, -1e30], dtype)
    y = np.array([0.5, 0.5, 0, 1, np.nan, 1, 0], dtype)
    np.testing.assert_array_equal(logistic_of(x), y, strict=True)


@by_dtype
@pytest.mark.parametrize("function", ["exp", "logistic"])
def test_the_smallest_result_before_0(function, dtype):
    f = exp_of if function == "exp" else logistic_of
    smallest = np.finfo(dtype).smallest_subnormal
    log_of_smallest = {np.float32: -103.27893, np.float64: -744.4400719213812}[dtype]
    assert f(np.array([log_of_smallest], dtype)) == [smallest]


@by_dtype
def test_results_below_half_the_smallest_number_are_0(dtype):
    x = np.array([{np.float32: -103.98, np.float64: -745.14}[dtype]], dtype)
    assert (exp_of(x), logistic_of(x)) == ([0], [0])


def test_logistic_of_float32_where_its_result_is_subnormal():
    # 2.7e-39, which a division by 1 + exp(88.8) = inf would flush to 0
    y = logistic_of(np.array([-88.8], np.float32))
    exact = 1 / (1 + np.exp(88.80000305175781))
    assert y == [np.float32(exact)]
    assert 2.7e-39 < y[0] < 2.8e-39


@by_dtype
def test_exp_never_exceeds_1(dtype):
    x = -np.logspace(-40 if dtype == np.float32 else -300, 0, SAMPLES).astype(dtype)
    assert exp_of(x).max() <= 1


@by_dtype
def test_logistic_stays_between_0_and_1(dtype):
    y = logistic_of(sample(dtype, -1000, 1000))
    assert y.min() >= 0
    assert y.max() <= 1
