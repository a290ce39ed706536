"""The largest element and the sum of a row, of all sizes around a register."""

import numba
import numpy as np
import pytest

from fastbp.kernels import rows
from fastbp.kernels.simd import lanes

by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])

# Around one register, four (which are added side by side), and none full.
SIZES = sorted({1, 2, 3, 1000} | {n * lanes(4) + more for n in (1, 2, 4, 5) for more in (-1, 0, 1)})


@numba.njit
def reduced(row):
    return rows.row_max(row), rows.row_sum(row)


@by_dtype
@pytest.mark.parametrize("size", SIZES)
def test_largest_and_sum_of_a_row(size, dtype, rng):
    # whole numbers, so that the sum is the same in every order
    behind = np.full(size + lanes(4), 10**6, dtype)  # what does not belong to the row
    row = behind[:size]
    for at in range(min(size, 40)):
        row[:] = rng.integers(-50, 0, size)
        row[at] = -0.5
        assert reduced(row) == (-0.5, row.sum())
    row[:] = -np.inf
    assert reduced(row) == (-np.inf, -np.inf)


@by_dtype
def test_of_no_numbers_and_of_odd_ones(dtype):
    assert reduced(np.empty(0, dtype))[1] == 0
    for odd in (np.nan, np.inf):
        row = np.ones(50, dtype)
        for at in range(50):
            row[:] = 1
            row[at] = odd
            largest, total = reduced(row)
            assert np.array_equal(total, dtype(odd), equal_nan=True)
            if odd == np.inf:
                assert largest == odd
