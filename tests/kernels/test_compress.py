"""The kernels that look for what is not zero, and the values that fit a byte."""

from itertools import pairwise

import numba
import numpy as np
import pytest

from fastbp.kernels.compress import (
    compress,
    compress_segment,
    count_nonzeros,
    count_segments,
    encode,
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


def no_values(dtype):
    return np.zeros(256, dtype)


@by_dtype
def test_a_code_is_the_place_of_its_value(dtype):
    pixels = np.arange(1, 256).astype(dtype)
    for values, scale in (pixels, 1.0), (pixels / 255, 255.0), (pixels / 256, 256.0):
        codes, table = np.zeros(255, np.uint8), no_values(dtype)
        assert encode(codes, table, values, scale)
        np.testing.assert_array_equal(table[codes], values)
        np.testing.assert_array_equal(codes, np.arange(1, 256))
        again = np.zeros(3, np.uint8)
        assert encode(again, table, values[[7, 254, 7]], scale)
        assert again.tolist() == [8, 255, 8]


@by_dtype
@pytest.mark.parametrize(
    "value", [0.0, -0.0, 0.25, -1.0, 256.0, 255.5, 1.25, np.nan, np.inf, -np.inf, 1e30]
)
def test_no_code_for_what_is_no_place_or_another_values(value, dtype):
    codes, table = np.full(5, 77, np.uint8), no_values(dtype)
    values = np.array([1, 3, value, 2], dtype)
    assert not encode(codes[:4], table, values, 1.0)
    assert codes.tolist() == [1, 3, 77, 77, 77]
    assert np.flatnonzero(table).tolist() == [1, 3]


@by_dtype
def test_no_values_have_codes(dtype):
    assert encode(np.empty(0, np.uint8), no_values(dtype), np.empty(0, dtype), 1.0)
