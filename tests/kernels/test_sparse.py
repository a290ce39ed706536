"""The products with what is not zero, by columns and values or by masks and codes."""

import numba
import numpy as np
import pytest

from fastbp.kernels.gemm import CODES, THIN, columns_of
from fastbp.kernels.sparse import (
    WITH_THIN,
    WITH_THIN_CODES,
    add_columns,
    add_to_rows,
    sum_nonzeros,
    sum_rows,
)

by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
coded_or_not = pytest.mark.parametrize("coded", [False, True], ids=["values", "codes"])
# Columns of some rows of B: of a few masks, of one, of the last bit of each, all.
COLUMNS = [[], [0], [63], [64], [0, 1, 63], [5, 64, 191], [191], [63, 127, 191], range(192)]


# Every width there is, with and without thin columns apart.
ALL_CODES = [*CODES, *WITH_THIN_CODES]


@numba.njit
def sum_of_rows(code, C, c, C0, c0, where, w, numbers, table, first, last, B, b, b_row, thin):
    sum_rows(code, C, c, C0, c0, where, w, numbers, table, first, last, B, b, b_row, thin)


@numba.njit
def sum_of_nonzeros(code, C, c, C0, c0, masks, m, words, x, first, B, b, b_row, thin):
    sum_nonzeros(code, C, c, C0, c0, masks, m, words, x, first, B, b, b_row, thin)


@numba.njit
def add_to_some_rows(code, C, c, where, w, numbers, table, first, last, B, b, b_row, thin):
    add_to_rows(code, C, c, C, c, where, w, numbers, table, first, last, B, b, b_row, thin)


@numba.njit
def add_some_columns(
    code, count, C, c, c_row, thin, numbers, table, places, q, masks, m, D, d, d_row
):
    add_columns(code, count, C, c, c_row, thin, numbers, table, places, q, masks, m, D, d, d_row)


class Weights:
    """Rows of W in a flat array, five places behind its beginning; thin columns behind them all."""

    def __init__(self, code, rows, dtype):
        is_thin = code >= WITH_THIN
        self.body = columns_of(code - WITH_THIN if is_thin else code, np.dtype(dtype).itemsize)
        self.row, self.rows, self.apart = self.body + 3, rows, THIN if is_thin else 0
        self.width, self.thin = self.body + self.apart, 5 + rows * self.row + 1
        self.flat = integers(self.thin + rows * self.apart + 2, dtype)

    def whole(self):
        """Return a copy of W as a matrix."""
        body = self.flat[5:][: self.rows * self.row].reshape(self.rows, self.row)[:, : self.body]
        thin = self.flat[self.thin :][: self.rows * self.apart].reshape(self.rows, self.apart)
        return np.hstack([body, thin])

    def put(self, whole):
        """Write all of W."""
        body, thin = whole[:, : self.body], whole[:, self.body :]
        self.flat[5:][: self.rows * self.row].reshape(self.rows, self.row)[:, : self.body] = body
        self.flat[self.thin :][: thin.size] = thin.ravel()


def integers(size, dtype):
    """Return small whole numbers: every order of a sum gives the same."""
    return np.random.default_rng(size).integers(-9, 10, size).astype(dtype)


def masks_of(columns):
    """Return three masks with a bit for each column."""
    bits = sum(1 << k for k in columns)
    words = [bits >> 64 * i & 2**64 - 1 for i in range(3)]
    return np.array([m - 2**64 if m >= 2**63 else m for m in words])


def segment(columns, dtype, coded):
    """Return a segment as kernels take it, two places behind the first, and its values."""
    count, rng = len(columns), np.random.default_rng(1)
    if not coded:
        index = np.array([9, 9, *columns, 3], np.uint16)
        numbers = integers(count + 3, dtype)
        return (index, 0, numbers, numbers, 2, 2 + count), numbers[2 : 2 + count]
    table = np.random.default_rng(0).permutation(256).astype(dtype)
    codes = rng.integers(0, 256, count + 3).astype(np.uint8)
    where = np.concatenate([[-1], masks_of(columns), [-1]])
    return (where, 1, codes, table, 2, 2 + count), table[codes[2 : 2 + count]]


@by_dtype
@coded_or_not
@pytest.mark.parametrize("columns", COLUMNS, ids=str)
def test_multiples_of_rows_are_summed(columns, coded, dtype):
    given, values = segment(columns, dtype, coded)
    for code in ALL_CODES:
        W = Weights(code, 192, dtype)
        C0, C = integers(W.width + 2, dtype), np.full(W.width + 10, 777, dtype)
        sum_of_rows(code, C, 4, C0, 2, *given, W.flat, 5, W.row, W.thin)
        there = slice(4, 4 + W.width)
        np.testing.assert_array_equal(C[there], C0[2:] + values @ W.whole()[list(columns)])
        assert (np.delete(C, there) == 777).all()


@by_dtype
@pytest.mark.parametrize("columns", COLUMNS, ids=str)
def test_rows_of_what_is_met_that_is_not_zero_are_summed(columns, dtype):
    x = np.zeros((1, 3 + 192), dtype)
    x[0, 3 + np.array(columns, int)] = integers(len(columns), dtype)
    masks = np.concatenate([[-1], masks_of(columns), [-1]])
    for code in ALL_CODES:
        W = Weights(code, 192, dtype)
        C0, C = integers(W.width + 2, dtype), np.full(W.width + 10, 777, dtype)
        sum_of_nonzeros(code, C, 4, C0, 2, masks, 1, 3, x, 3, W.flat, 5, W.row, W.thin)
        there = slice(4, 4 + W.width)
        np.testing.assert_array_equal(C[there], C0[2:] + x[0, 3:] @ W.whole())
        assert (np.delete(C, there) == 777).all()


@by_dtype
@coded_or_not
@pytest.mark.parametrize("columns", COLUMNS, ids=str)
def test_multiples_of_a_row_are_added_to_rows(columns, coded, dtype):
    given, values = segment(columns, dtype, coded)
    for code in ALL_CODES:
        W = Weights(code, 192, dtype)
        C = integers(W.width + 2, dtype)
        expected, sums = Weights(code, 192, dtype), W.whole()
        sums[list(columns)] += values[:, None] * C[2:]
        expected.put(sums)
        add_to_some_rows(code, C, 2, *given, W.flat, 5, W.row, W.thin)
        np.testing.assert_array_equal(W.flat, expected.flat)


def test_a_row_that_comes_twice_is_added_to_twice():
    B, index, values = np.zeros(40), np.array([1, 1, 3], np.uint16), np.array([2.0, 3, 4])
    code = CODES[0]
    width = columns_of(code, 8)
    C = np.ones(width)
    add_to_some_rows(code, C, 0, index, 0, values, values, 0, 3, B, 0, 10, 0)
    np.testing.assert_array_equal(
        B.reshape(4, 10)[:, :width].sum(1), width * np.array([0, 5, 0, 4])
    )


ROWS = [[], [0], [63], [64], [127], [0, 63, 64, 127], [5, 6, 7], [70, 90], range(128)]


@by_dtype
@coded_or_not
@pytest.mark.parametrize("count", [0, 1, 3, len(ROWS)])
def test_columns_are_added_by_their_masks(count, coded, dtype):
    squares = np.zeros(2 + 64 + len(ROWS), np.int64)  # the high masks lie 64 behind the low ones
    for k, rows in enumerate(ROWS):
        squares[2 + k], squares[2 + 64 + k], _ = masks_of(rows)
    for code in ALL_CODES:
        W = Weights(code, len(ROWS), dtype)
        row = W.width + 3
        D = integers(5 + 128 * row, dtype)
        values = integers(2000, dtype)
        numbers, table = values, values
        if coded:
            table = integers(256, dtype)
            table[0] = 0  # a code nobody has
            numbers = np.random.default_rng(0).integers(1, 256, 2000).astype(np.uint8)
            values = table[numbers]
        places = np.arange(3, 3 + 15 * 130, 15)  # of row n: 15 * (n + 2), behind two not its own
        moved = places.copy()
        expected, sums = Weights(code, len(ROWS), dtype), W.whole()
        add_some_columns(
            code, count, W.flat, 5, W.row, W.thin, numbers, table, places, 2, squares, 2, D, 5, row
        )
        for k, rows in enumerate(ROWS[:count]):
            for n in rows:
                sums[k] += values[moved[2 + n]] * D[5 + n * row :][: W.width]
                moved[2 + n] += 1
        expected.put(sums)
        np.testing.assert_array_equal(W.flat, expected.flat)
        np.testing.assert_array_equal(places, moved)
