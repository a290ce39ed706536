"""The kernels that look for what is not zero."""

from itertools import pairwise

import numpy as np
import pytest

from fastbp.kernels.sparse import compress, count_nonzeros, count_segments

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


@by_dtype
@pytest.mark.parametrize("density", [0, 0.2, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_compress_keeps_what_is_not_zero(shape, density, dtype):
    x, edges = matrix(shape, dtype, density), np.array(EDGES[shape[1]])
    nonzeros = np.count_nonzero(x)
    columns, values = np.full(nonzeros + 5, 777, np.uint16), np.full(nonzeros + 5, 777, dtype)
    compress(columns, values, x, segment_starts(x, edges, 2), edges)
    rows, expected = np.nonzero(x)
    np.testing.assert_array_equal(columns[2 : nonzeros + 2], expected)
    np.testing.assert_array_equal(values[2 : nonzeros + 2], x[rows, expected])
    for array in (values, columns):  # what is before the first place and behind the last
        np.testing.assert_array_equal(np.delete(array, np.s_[2 : nonzeros + 2]), 777)


@by_dtype
def test_compress_stays_in_its_places_when_x_has_changed_since_it_was_counted(dtype):
    x, edges = matrix((20, 65), dtype, 0.2), np.array(EDGES[65])
    starts = segment_starts(x, edges, 0)
    for changed in np.ones_like(x), np.zeros_like(x):
        columns, values = np.full(starts[-1] + 5, 777, np.uint16), np.full(starts[-1] + 5, 7, dtype)
        compress(columns, values, changed, starts, edges)
        assert (values[starts[-1] :] == 7).all()
        for segment, (start, stop) in enumerate(pairwise(starts)):
            low, high = edges[segment % 4], edges[segment % 4 + 1]
            assert ((columns[start:stop] >= low) & (columns[start:stop] < max(high, 1))).all()
            assert (values[start:stop] == changed[0, 0]).all()


@pytest.mark.parametrize("density", [0, 0.2, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_count_segments(shape, density):
    x, edges = matrix(shape, float, density), np.array(EDGES[shape[1]])
    starts = np.concatenate([[0], np.cumsum(np.count_nonzero(x, 1))])
    counts = np.full((shape[0], len(edges) - 1), -77)
    count_segments(counts, starts, np.nonzero(x)[1], edges)
    expected = [np.count_nonzero(x[:, a:b], 1) for a, b in pairwise(edges)]
    np.testing.assert_array_equal(counts, np.array(expected).T)
