"""The kernels that look for what is not zero."""

from itertools import pairwise

import numba
import numpy as np
import pytest

from fastbp.kernels.gemm import CODES, columns_of
from fastbp.kernels.sparse import (
    add_column,
    add_to_rows,
    compress,
    compress_segment,
    count_nonzeros,
    count_segments,
    sum_rows,
)

by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
SHAPES = [(0, 5), (1, 1), (3, 7), (20, 65), (4, 300)]
EDGES = {1: [0, 0, 1], 5: [0, 2, 5], 7: [0, 3, 3, 5, 7], 65: [0, 16, 48, 64, 65], 300: [0, 300]}


def matrix(shape, dtype, density):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape) * (rng.random(shape) < density)
    if x.size > 10:
        x[0, 0], x[-1, -1], x[0, 1] = np.nan, np.inf, -0.0
    return x.astype(dtype)


@by_dtype
@pytest.mark.parametrize("density", [0, 0.2, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_count_nonzeros(shape, density, dtype):
    x, edges = matrix(shape, dtype, density), np.array(EDGES[shape[1]])
    counts = np.full((shape[0], len(edges) - 1), -77)
    count_nonzeros(counts, x, edges)
    expected = [np.count_nonzero(x[:, a:b], 1) for a, b in pairwise(edges)]
    np.testing.assert_array_equal(counts, np.array(expected).T)


def segment_starts(x, edges, position):
    counts = np.empty((len(x), len(edges) - 1), np.int64)
    count_nonzeros(counts, x, edges)
    return np.concatenate([[position], position + np.cumsum(counts)])


def masks_of(present, edges):
    """Return the masks of the segments of each row: present is (N, D) of booleans."""
    words = -(-int(np.diff(edges).max()) // 64)
    masks = np.zeros((len(present), len(edges) - 1, 64 * words), bool)
    for s, (a, b) in enumerate(pairwise(edges)):
        masks[:, s, : b - a] = present[:, a:b]
    return np.packbits(masks, axis=-1, bitorder="little").view(np.int64).reshape(-1)


@by_dtype
@pytest.mark.parametrize("density", [0, 0.2, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_compress_keeps_what_is_not_zero(shape, density, dtype):
    x, edges = matrix(shape, dtype, density), np.array(EDGES[shape[1]])
    nonzeros = np.count_nonzero(x)
    columns, values = np.full(nonzeros + 5, 777, np.uint16), np.full(nonzeros + 5, 777, dtype)
    expected_masks = masks_of(x != 0, edges)
    masks = np.full_like(expected_masks, 77)
    compress(columns, values, masks, x, segment_starts(x, edges, 2), edges)
    rows, expected = np.nonzero(x)
    np.testing.assert_array_equal(columns[2 : nonzeros + 2], expected)
    np.testing.assert_array_equal(values[2 : nonzeros + 2], x[rows, expected])
    for array in (values, columns):  # what is before the first place and behind the last
        np.testing.assert_array_equal(np.delete(array, np.s_[2 : nonzeros + 2]), 777)
    np.testing.assert_array_equal(masks, expected_masks)
    again = np.full_like(columns, 777), np.full_like(values, 777)
    compress(*again, np.empty(0, np.int64), x, segment_starts(x, edges, 2), edges)
    for array, same in zip(again, (columns, values), strict=True):
        np.testing.assert_array_equal(array, same)


@by_dtype
def test_compress_stays_in_its_places_when_x_has_changed_since_it_was_counted(dtype):
    x, edges = matrix((20, 65), dtype, 0.2), np.array(EDGES[65])
    starts = segment_starts(x, edges, 0)
    for changed in np.ones_like(x), np.zeros_like(x):
        columns, values = np.full(starts[-1] + 5, 777, np.uint16), np.full(starts[-1] + 5, 7, dtype)
        masks = np.zeros(20 * 4, np.int64)
        compress(columns, values, masks, changed, starts, edges)
        assert (values[starts[-1] :] == 7).all()
        for segment, (start, stop) in enumerate(pairwise(starts)):
            low, high = edges[segment % 4], edges[segment % 4 + 1]
            assert ((columns[start:stop] >= low) & (columns[start:stop] < max(high, 1))).all()
            assert (values[start:stop] == changed[0, 0]).all()
            # As many bits as there are places to read: the update believes them.
            assert (int(masks[segment]) % 2**64).bit_count() == (
                stop - start if changed[0, 0] else 0
            )


@numba.njit
def compress_a_segment(columns, values, p, stop, masks, mask, x, row, k0, k1):
    return compress_segment(columns, values, p, stop, masks, mask, x, row, k0, k1)


@by_dtype
@pytest.mark.parametrize(
    ("k0", "k1"), [(0, 64), (0, 63), (1, 64), (0, 40), (3, 70), (70, 150), (60, 60), (0, 150)]
)
def test_a_segment_ends_where_it_ends_however_much_room_there_is(k0, k1, dtype):
    x = np.arange(1, 451).reshape(3, 150).astype(dtype)  # no number is zero, nor in the next row
    x[:, 5] = 0
    for row in range(3):
        columns, values = np.full(200, 777, np.uint16), np.full(200, 777, dtype)
        masks = np.zeros(4, np.int64)
        end = compress_a_segment(columns, values, 10, 190, masks, 1, x, 150 * row, k0, k1)
        expected = [k for k in range(k0, k1) if k != 5]
        assert columns[10:end].tolist() == expected
        assert values[10:end].tolist() == x[row, expected].tolist()
        assert (np.delete(columns, np.s_[10:end]) == 777).all()
        bits = sum(1 << (k - k0) for k in expected)
        assert [int(m) % 2**64 for m in masks] == [
            0,
            *(bits >> 64 * i & 2**64 - 1 for i in range(3)),
        ]


@pytest.mark.parametrize("density", [0, 0.2, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_count_segments(shape, density):
    x, edges = matrix(shape, float, density), np.array(EDGES[shape[1]])
    starts = np.concatenate([[0], np.cumsum(np.count_nonzero(x, 1))])
    counts = np.full((shape[0], len(edges) - 1), -77)
    masks = np.full_like(masks_of(x != 0, edges), 77)
    count_segments(counts, masks, starts, np.nonzero(x)[1], edges)
    expected = [np.count_nonzero(x[:, a:b], 1) for a, b in pairwise(edges)]
    np.testing.assert_array_equal(counts, np.array(expected).T)
    np.testing.assert_array_equal(masks, masks_of(x != 0, edges))
    counts[:] = -77
    count_segments(counts, np.empty(0, np.int64), starts, np.nonzero(x)[1], edges)
    np.testing.assert_array_equal(counts, np.array(expected).T)


# --- the two products ----------------------------------------------------------------------------


@numba.njit
def sum_of_rows(code, C, c, C0, c0, index, values, first, last, B, b, b_row):
    sum_rows(code, C, c, C0, c0, index, values, first, last, B, b, b_row)


@numba.njit
def add_to_some_rows(code, C, c, index, values, first, last, B, b, b_row):
    add_to_rows(code, C, c, C, c, index, values, first, last, B, b, b_row)


@numba.njit
def add_a_column(code, C, c, values, places, q, low, high, D, d, d_row):
    add_column(code, C, c, values, places, q, low, high, D, d, d_row)


def integers(size, dtype):
    """Return small whole numbers: every order of a sum gives the same."""
    return np.random.default_rng(size).integers(-9, 10, size).astype(dtype)


@by_dtype
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_multiples_of_rows_are_summed(count, dtype):
    for code in CODES:
        width = columns_of(code, np.dtype(dtype).itemsize)
        row = width + 3
        index = np.array([9, 9, 4, 0, 8, 2, 1, 0, 3], np.uint16)
        values, B = integers(9, dtype), integers(5 + 10 * row, dtype)
        C0, C = integers(width + 2, dtype), np.full(width + 10, 777, dtype)
        sum_of_rows(code, C, 4, C0, 2, index, values, 2, 2 + count, B, 5, row)
        rows = B[5:].reshape(10, row)[index[2 : 2 + count], :width]
        np.testing.assert_array_equal(C[4 : 4 + width], C0[2:] + values[2 : 2 + count] @ rows)
        assert (np.delete(C, np.s_[4 : 4 + width]) == 777).all()


@by_dtype
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_multiples_of_a_row_are_added_to_rows(count, dtype):
    for code in CODES:
        width = columns_of(code, np.dtype(dtype).itemsize)
        row = width + 3
        index = np.array([9, 9, 4, 0, 8, 2, 1, 0, 3], np.uint16)
        values, B, C = integers(9, dtype), integers(5 + 10 * row, dtype), integers(width + 2, dtype)
        expected = B.copy()
        add_to_some_rows(code, C, 2, index, values, 2, 2 + count, B, 5, row)
        for p in range(2, 2 + count):
            expected[5:].reshape(10, row)[index[p], :width] += values[p] * C[2:]
        np.testing.assert_array_equal(B, expected)


@by_dtype
@pytest.mark.parametrize(
    "rows", [[], [0], [63], [64], [127], [0, 63, 64, 127], [5, 6, 7], [70, 90], range(128)], ids=str
)
def test_a_column_is_added_by_its_masks(rows, dtype):
    bits = sum(1 << n for n in rows)
    low, high = ((bits >> shift & 2**64 - 1) for shift in (0, 64))
    low, high = (m - 2**64 if m >= 2**63 else m for m in (low, high))
    for code in CODES:
        width = columns_of(code, np.dtype(dtype).itemsize)
        row = width + 3
        values, D = integers(400, dtype), integers(5 + 128 * row, dtype)
        places = np.arange(3, 3 + 3 * 130, 3)  # of row n: 3 * (n + 2), behind two that are not its
        before, moved = places.copy(), places.copy()
        C = integers(width + 10, dtype)
        expected = C.copy()
        add_a_column(code, C, 4, values, places, 2, low, high, D, 5, row)
        for n in rows:
            expected[4 : 4 + width] += values[before[2 + n]] * D[5 + n * row :][:width]
            moved[2 + n] += 1
        np.testing.assert_array_equal(C, expected)
        np.testing.assert_array_equal(places, moved)
