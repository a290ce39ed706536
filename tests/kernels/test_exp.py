"""The exponential, the logarithm and the logistic function: their errors in ULP.

ULP: units in the last place of the exact result.  The oracle of float32 is float64, that of float64
the 80-bit type where there is one, and for smaller samples and the points where something changes
in the computation mpmath at 150 bits.
"""

import re

import mpmath
import numba
import numpy as np
import pytest

from fastbp.kernels.exp import exp_nonpositive, exponential, log_positive, logistic
from fastbp.kernels.jit import EXACT_FLAGS, JIT_DISABLED, SUM_FLAGS

SAMPLES = 2000 if JIT_DISABLED else 1_000_000
# Plain Python has no fused multiply-add, with which 0.96 ULP was measured, and 1.23 without.
EXP_BOUND, LOG_BOUND, LOGISTIC_BOUND = 1.25 if JIT_DISABLED else 1.0, 1.0, 2.0
# x of the smallest normal result, and beyond the smallest subnormal one
NORMAL = {np.float32: -87.33, np.float64: -708.39}
LOWEST = {np.float32: -104.0, np.float64: -745.2}
# the largest x whose exponential is finite
HIGHEST = {np.float32: np.float32(88.72283), np.float64: np.float64(709.782712893384)}
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
exponential_of = mapped(exponential, SUM_FLAGS)
log_of = mapped(log_positive, SUM_FLAGS)
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


def sample_of_bits(dtype, low, high):
    """Return floats between two positive ones, each equally likely."""
    first, last = np.array([low, high], dtype).view("i4" if dtype == np.float32 else "i8")
    bits = np.random.default_rng(1).integers(first, last, SAMPLES, first.dtype, endpoint=True)
    return bits.view(dtype)


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
def test_exponential_is_within_its_bound(where, dtype):
    x = sample(dtype, *ranges(dtype, HIGHEST[dtype])[where])
    assert ulps(exponential_of(x), np.exp(wide(x))).max() <= EXP_BOUND


@pytest.mark.parametrize("where", ["any exponent", "0.5 to 2", "near 1", "subnormal"])
@by_dtype
def test_log_is_within_its_bound(where, dtype):
    info = np.finfo(dtype)
    low, high = {
        "any exponent": (info.smallest_subnormal, info.max),
        "0.5 to 2": (0.5, 2),
        "near 1": (0.999, 1.001),
        "subnormal": (info.smallest_subnormal, info.smallest_normal),
    }[where]
    x = sample_of_bits(dtype, low, high)
    assert ulps(log_of(x), np.log(wide(x))).max() <= LOG_BOUND


@by_range
@by_dtype
def test_logistic_is_within_its_bound(where, dtype):
    x = sample(dtype, *ranges(dtype, 40.0)[where])
    bound = 1.0 if where == "subnormal" else LOGISTIC_BOUND
    assert ulps(logistic_of(x), 1 / (1 + np.exp(-wide(x)))).max() <= bound


# function: (ours, the exact one, the same in NumPy, bound)
FUNCTIONS = {
    "exp": (exponential_of, mpmath.exp, np.exp, EXP_BOUND),
    "log": (log_of, mpmath.log, np.log, LOG_BOUND),
    "logistic": (
        logistic_of,
        lambda x: 1 / (1 + mpmath.exp(-x)),
        lambda x: 1 / (1 + np.exp(-x)),
        LOGISTIC_BOUND,
    ),
}
by_function = pytest.mark.parametrize("function", FUNCTIONS)


@by_function
def test_any_bits_of_float32(function):
    ours, _, numpys, bound = FUNCTIONS[function]
    bits = np.random.default_rng(2).integers(2**32, size=SAMPLES, dtype=np.uint32)
    x = bits.view(np.float32)
    with np.errstate(all="ignore"):
        actual, exact = ours(x), numpys(x.astype(np.float64))
        rounded = exact.astype(np.float32)
    finite = np.isfinite(rounded)
    assert ulps(actual[finite], exact[finite]).max() <= bound
    np.testing.assert_array_equal(actual[~finite], rounded[~finite])


def neighbours(x, dtype):
    """Return the numbers x and the three on either side of each."""
    x = np.asarray(x).astype(dtype)
    chain = [x]
    for end in (-np.inf, np.inf):
        y = x
        for _ in range(3):
            y = np.nextafter(y, dtype(end))
            chain.append(y)
    return np.concatenate(chain)


def turning_points(function, dtype):
    """Return where the computation changes, and the ends of the domain."""
    info = np.finfo(dtype)
    if function == "log":
        powers = np.ldexp(1.0, np.arange(info.minexp - info.nmant, info.maxexp))
        near_1 = 1 + np.arange(-200, 200) * float(info.eps)
        x = neighbours(np.concatenate([powers, powers[:-1] * np.sqrt(2), near_1]), dtype)
        return np.append(x[x > 0], [info.max])
    # n changes halfway between two multiples of ln 2
    highest = float(HIGHEST[dtype]) if function == "exp" else 42.0
    halves = np.arange(2 * LOWEST[dtype] / np.log(2), 2 * highest / np.log(2)).round()
    x = neighbours(np.append(halves * np.log(2) / 2, [LOWEST[dtype], highest]), dtype)
    return x[x <= dtype(highest)]


def mpmath_ulps(function, x):
    """Return the errors in ULP against mpmath at 150 bits."""
    ours, exactly, _, _ = FUNCTIONS[function]
    info = np.finfo(x.dtype)
    with mpmath.workprec(150):
        errors = []
        for v, y in zip(x.tolist(), ours(x).tolist(), strict=True):
            z = exactly(mpmath.mpf(v))
            unit = mpmath.mpf(2) ** (max(mpmath.frexp(z)[1] - 1, info.minexp) - info.nmant)
            errors.append(float(abs(mpmath.mpf(y) - z) / unit))
        return np.array(errors)


@by_function
@by_dtype
def test_turning_points_against_mpmath(function, dtype):
    x = turning_points(function, dtype)[:: 20 if JIT_DISABLED else 1]
    assert mpmath_ulps(function, x).max() <= FUNCTIONS[function][-1]


@by_range
@pytest.mark.parametrize("function", ["exp", "logistic"])
def test_float64_against_mpmath(function, where):
    high = {"exp": HIGHEST[np.float64], "logistic": 40.0}[function]
    x = sample(np.float64, *ranges(np.float64, high)[where])[:2000]
    bound = FUNCTIONS[function][-1]
    if (function, where) == ("logistic", "subnormal"):
        bound = 1.0
    assert mpmath_ulps(function, x).max() <= bound


@pytest.mark.parametrize("high", [2.0, np.finfo(np.float64).max], ids=["near 1", "any exponent"])
def test_log_of_float64_against_mpmath(high):
    x = sample_of_bits(np.float64, 1 / high, high)[:2000]
    assert mpmath_ulps("log", x).max() <= LOG_BOUND


@by_dtype
def test_exp_at_special_points(dtype):
    x = np.array([0, -0.0, -np.inf, np.nan, -1e30], dtype)
    np.testing.assert_array_equal(exp_of(x), np.array([1, 1, 0, np.nan, 0], dtype), strict=True)


@by_dtype
def test_exponential_at_special_points(dtype):
    x = np.array([0, -0.0, -np.inf, np.inf, np.nan, 1e30, -1e30], dtype)
    y = np.array([1, 1, 0, np.inf, np.nan, np.inf, 0], dtype)
    np.testing.assert_array_equal(exponential_of(x), y, strict=True)


@by_dtype
def test_exponential_overflows_where_its_result_does(dtype):
    x = HIGHEST[dtype]
    y = exponential_of(np.array([x, np.nextafter(x, dtype(np.inf))]))
    assert np.isfinite(y[0])
    assert y[1] == np.inf


@by_dtype
def test_log_at_special_points(dtype):
    smallest = -np.finfo(dtype).smallest_subnormal
    x = np.array([1, 0, -0.0, np.inf, np.nan, -np.nan, -1, smallest, -np.inf], dtype)
    y = np.array([0, -np.inf, -np.inf, np.inf] + [np.nan] * 5, dtype)
    np.testing.assert_array_equal(log_of(x), y, strict=True)


@by_dtype
def test_logistic_at_special_points(dtype):
    x = np.array([0, -0.0, -np.inf, np.inf, np.nan, 1e30, -1e30], dtype)
    y = np.array([0.5, 0.5, 0, 1, np.nan, 1, 0], dtype)
    np.testing.assert_array_equal(logistic_of(x), y, strict=True)


@by_dtype
@pytest.mark.parametrize(
    "f", [exp_of, exponential_of, logistic_of], ids=["<= 0", "any", "logistic"]
)
def test_the_smallest_result_before_0(f, dtype):
    smallest = np.finfo(dtype).smallest_subnormal
    log_of_smallest = {np.float32: -103.27893, np.float64: -744.4400719213812}[dtype]
    assert f(np.array([log_of_smallest], dtype)) == [smallest]


@by_dtype
def test_results_below_half_the_smallest_number_are_0(dtype):
    x = np.array([{np.float32: -103.98, np.float64: -745.14}[dtype]], dtype)
    assert (exp_of(x), exponential_of(x), logistic_of(x)) == ([0], [0], [0])


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


@pytest.mark.skipif(JIT_DISABLED, reason="there is no machine code")
@by_dtype
@pytest.mark.parametrize(
    "function",
    [exp_nonpositive, exponential, log_positive, logistic],
    ids=["<= 0", "exp", "log", "logistic"],
)
def test_the_loops_work_on_vectors(function, dtype):
    @numba.njit(fastmath=set(SUM_FLAGS), error_model="numpy")
    def loop(out, x):
        for i in range(x.size):
            out[i] = function(x[i])

    loop(np.empty(1, dtype), np.ones(1, dtype))
    (text,) = loop.inspect_llvm().values()
    kind = "float" if dtype == np.float32 else "double"
    # <8 x float>: LLVM's own text, whatever the processor's instructions are called
    assert re.search(rf"<\d+ x {kind}>", text)
