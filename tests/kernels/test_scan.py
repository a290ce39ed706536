"""The kernels that look for the first offender in an array."""

import numpy as np
import pytest

from fastbp.kernels.jit import JIT_DISABLED
from fastbp.kernels.scan import (
    first_nonfinite,
    first_not_distribution,
    first_not_one_hot,
    first_outside,
)

by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
NAN, INF = np.nan, np.inf
INT64 = np.iinfo(np.int64)


@pytest.mark.parametrize(
    ("t", "C", "first"),
    [
        ([], 3, -1),
        ([0, 1, 2], 3, -1),
        ([0, 3, 2], 3, 1),
        ([0, 1, -1], 3, 2),
        ([9, -9], 3, 0),
        ([0], 0, 0),
        ([0, INT64.max], 3, 1),
        ([0, INT64.min], 3, 1),
        ([0, 2**32], 3, 1),  # 0 in 32 bits
    ],
)
def test_first_outside(t, C, first):
    assert first_outside(np.array(t, np.int64), C) == first


@by_dtype
@pytest.mark.parametrize(
    ("rows", "first"),
    [
        ([[1, 0], [0, 1]], -1),
        ([[0.25, 0.75], [0.5, 0.5]], -1),
        ([[0.5, 0.4995], [0.5, 0.5005]], -1),  # within the tolerance
        ([[1, 0], [0.5, 0.498]], 1),
        ([[1, 0], [0.5, 0.502]], 1),
        ([[1, 0], [0, 0], [1, 1]], 1),
        ([[2, -1]], 0),
        ([[1, 0], [-0.5, 1.5]], 1),
        ([[1, 0], [NAN, 1]], 1),
        ([[1, 0], [1, NAN]], 1),
        ([[1, 0], [INF, 0]], 1),
        ([[1, 0], [INF, -INF]], 1),
        ([[1, 0], [-INF, INF]], 1),
    ],
    ids=str,
)
def test_first_not_distribution(rows, first, dtype):
    assert first_not_distribution(np.array(rows, dtype), 1e-3) == first


@by_dtype
@pytest.mark.parametrize(("shape", "first"), [((0, 3), -1), ((0, 0), -1), ((2, 0), 0)], ids=str)
def test_first_not_distribution_of_nothing(shape, first, dtype):
    assert first_not_distribution(np.zeros(shape, dtype), 1e-3) == first


@by_dtype
def test_first_not_distribution_adds_up_many_classes(dtype):
    C = 1000 if JIT_DISABLED else 100_000
    rows = np.full((2, C), 1 / C, dtype)
    assert first_not_distribution(rows, 1e-3) == -1


UNTOUCHED = -7


@by_dtype
@pytest.mark.parametrize(
    ("rows", "first", "labels"),
    [
        ([[1, 0, 0], [0, 0, 1], [0, 1, 0]], -1, [0, 2, 1]),
        ([[-0.0, 1, -0.0]], -1, [1]),
        ([[1]], -1, [0]),
        ([[0, 1], [0.5, 0.5], [1, 0]], 1, [1, UNTOUCHED, UNTOUCHED]),
        ([[0, 0]], 0, [UNTOUCHED]),
        ([[1, 1]], 0, [UNTOUCHED]),
        ([[2, -1]], 0, [UNTOUCHED]),
        ([[-1, 0]], 0, [UNTOUCHED]),
        ([[1, -1, 1]], 0, [UNTOUCHED]),
        ([[0.999, 0]], 0, [UNTOUCHED]),
        ([[1, 1e-6]], 0, [UNTOUCHED]),
        ([[NAN, 1]], 0, [UNTOUCHED]),
        ([[1, INF]], 0, [UNTOUCHED]),
        ([[INF, -INF]], 0, [UNTOUCHED]),
    ],
    ids=str,
)
def test_first_not_one_hot(rows, first, labels, dtype):
    out = np.full(len(rows), UNTOUCHED, np.int64)
    assert first_not_one_hot(out, np.array(rows, dtype)) == first
    np.testing.assert_array_equal(out, labels)


@by_dtype
@pytest.mark.parametrize("C", [1, 2, 7, 8, 9, 31, 32, 33, 200])
def test_first_not_one_hot_finds_every_label(C, dtype):
    out = np.full(C, UNTOUCHED, np.int64)
    assert first_not_one_hot(out, np.eye(C, dtype=dtype)) == -1
    np.testing.assert_array_equal(out, np.arange(C))


@by_dtype
@pytest.mark.parametrize("shape", [(0, 3), (0, 0)], ids=str)
def test_first_not_one_hot_of_nothing(shape, dtype):
    assert first_not_one_hot(np.empty(0, np.int64), np.zeros(shape, dtype)) == -1


LENGTH = 8200  # two blocks of 4096 and a rest


@by_dtype
@pytest.mark.parametrize("bad", [NAN, INF, -INF, -NAN])
@pytest.mark.parametrize("position", [0, 1, 4095, 4096, 8191, 8192, LENGTH - 1])
def test_first_nonfinite_at_the_edges_of_its_blocks(position, bad, dtype):
    x = np.ones(LENGTH, dtype)
    x[position] = bad
    assert first_nonfinite(x) == position


@by_dtype
@pytest.mark.parametrize("later", [1, 3000, 5000])
def test_first_nonfinite_finds_the_first(later, dtype):
    x = np.zeros(LENGTH, dtype)
    x[[100, 100 + later]] = INF, -INF
    assert first_nonfinite(x) == 100


@by_dtype
@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097])
def test_first_nonfinite_accepts_the_largest_numbers(size, dtype):
    x = np.full(size, np.finfo(dtype).max, dtype)
    x[::2] *= -1
    assert first_nonfinite(x) == -1


@by_dtype
def test_first_nonfinite_accepts_subnormal_numbers(dtype):
    assert first_nonfinite(np.full(100, np.finfo(dtype).smallest_subnormal, dtype)) == -1
