"""Softmax and its loss: the edges of the blocks of rows, extreme logits, accuracy."""

import numpy as np
import pytest
from closeness import assert_close

from fastbp import reference
from fastbp.kernels.jit import JIT_DISABLED
from fastbp.kernels.softmax_loss import (
    BLOCK,
    softmax_forward,
    softmax_loss_backward,
    softmax_loss_forward,
    softmax_loss_rows_backward,
    softmax_loss_rows_forward,
)

by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
NAN, INF = np.nan, np.inf

# One block of rows, a row less, a row more, two blocks; rows as long as a block and longer.
EDGES = [(BLOCK // C + more, C) for C in (1, 2, 3, 10, 1000) for more in (-1, 0, 1)]
EDGES += [(2 * (BLOCK // 10) + more, 10) for more in (-1, 0, 1)]
EDGES += [(N, C) for C in (BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3) for N in (1, 2, 3)]
by_edge = pytest.mark.parametrize("shape", EDGES, ids=str)


def log_softmax(a):
    a = a.astype(np.float64)
    a = a - a.max(axis=1, keepdims=True)
    return a - np.log(np.exp(a).sum(axis=1, keepdims=True))


def logits(shape, dtype):
    return np.random.default_rng(0).normal(0, 3, shape).astype(dtype)


@by_dtype
@by_edge
def test_softmax_at_the_edges_of_its_blocks(shape, dtype):
    a = logits(shape, dtype)
    y = np.full_like(a, NAN)
    softmax_forward(y, a)
    assert_close(y, reference.softmax(a.astype(np.float64)))


@by_dtype
@by_edge
def test_loss_of_labels_at_the_edges_of_its_blocks(shape, dtype):
    a, t = logits(shape, dtype), np.random.default_rng(1).integers(shape[1], size=shape[0])
    y = np.full_like(a, NAN)
    loss = softmax_loss_forward(y, a, t)
    expected = -log_softmax(a)[np.arange(len(t)), t].sum()
    assert loss == pytest.approx(expected, rel=1e-12 if dtype == np.float64 else 1e-6, abs=1e-7)
    assert_close(y, np.exp(log_softmax(a)))


@by_dtype
@by_edge
def test_loss_of_rows_at_the_edges_of_its_blocks(shape, dtype):
    a = logits(shape, dtype)
    t = reference.softmax(logits(shape, np.float64)[::-1]).astype(dtype)
    y = np.full_like(a, NAN)
    loss = softmax_loss_rows_forward(y, a, t)
    expected = -(t * log_softmax(a)).sum()
    assert loss == pytest.approx(expected, rel=1e-12 if dtype == np.float64 else 1e-6, abs=1e-7)
    assert_close(y, np.exp(log_softmax(a)))


@by_dtype
def test_loss_of_rows_of_any_sum(dtype):
    # a few that sum to 1, whose logarithms are taken together, among others
    a, t = logits((20, 4), dtype), np.random.default_rng(1).random((20, 4)).astype(dtype)
    t[::3] = np.eye(4, dtype=dtype)[[0, 1, 2, 3, 0, 1, 2]]
    loss = softmax_loss_rows_forward(np.full_like(a, NAN), a, t)
    expected = -(t * log_softmax(a)).sum()
    assert loss == pytest.approx(expected, rel=1e-12 if dtype == np.float64 else 1e-6)


@by_dtype
@pytest.mark.parametrize("N", [100, 199, 200, 201, 1000])
def test_the_product_of_row_sums_does_not_overflow(N, dtype):
    a, t = np.zeros((N, 10), dtype), np.zeros(N, np.int64)  # 10**N would
    assert softmax_loss_forward(np.empty_like(a), a, t) == pytest.approx(N * np.log(10), rel=1e-13)


@by_dtype
def test_a_loss_is_added_up_in_float64(dtype):
    N = 500 if JIT_DISABLED else 100_000
    a, t = np.tile(np.array([0, -1000], dtype), (N, 1)), np.ones(N, np.int64)
    assert softmax_loss_forward(np.empty_like(a), a, t) == 1000.0 * N


# row: (softmax, log-softmax)
ROWS = {
    "[-inf, 0]": ([-INF, 0], [0, 1], [-INF, 0]),
    "[0, -1e4]": ([0, -1e4], [1, 0], [0, -1e4]),
    "[inf, 0]": ([INF, 0], [NAN, NAN], [NAN, NAN]),
    "[0, inf]": ([0, INF], [NAN, NAN], [NAN, NAN]),
    "[inf, inf]": ([INF, INF], [NAN, NAN], [NAN, NAN]),
    "[-inf, -inf]": ([-INF, -INF], [NAN, NAN], [NAN, NAN]),
    "[inf, -inf]": ([INF, -INF], [NAN, NAN], [NAN, NAN]),
    "[nan, 0]": ([NAN, 0], [NAN, NAN], [NAN, NAN]),
    "[0, -nan]": ([0, -NAN], [NAN, NAN], [NAN, NAN]),
    "[3e38, -3e38]": ([3e38, -3e38], [1, 0], [0, -6e38]),
    "[-0.0, 0.0]": ([-0.0, 0.0], [0.5, 0.5], [-np.log(2), -np.log(2)]),
}
by_row = pytest.mark.parametrize("row", ROWS)


@by_dtype
@by_row
def test_softmax_of_extreme_rows(row, dtype):
    a, y, _ = ROWS[row]
    given = np.array([[1, 2], a, [2, 1]], dtype)
    actual = np.zeros_like(given)
    softmax_forward(actual, given)
    np.testing.assert_array_equal(actual[1], y)
    assert_close(actual[[0, 2]], reference.softmax(np.array([[1.0, 2.0], [2.0, 1.0]])))


@by_dtype
@pytest.mark.parametrize("label", [0, 1])
@by_row
def test_loss_of_extreme_rows(row, label, dtype):
    a, _, log_y = ROWS[row]
    given = np.array([a], dtype)
    loss = softmax_loss_forward(np.empty_like(given), given, np.array([label]))
    expected = -INF if log_y[label] < -1e38 and dtype == np.float32 else log_y[label]
    assert loss == pytest.approx(-expected, rel=1e-6, nan_ok=True)


@by_dtype
@pytest.mark.parametrize("label", [0, 1])
@by_row
def test_loss_of_extreme_rows_with_one_hot_targets(row, label, dtype):
    given, t = np.array([ROWS[row][0]], dtype), np.eye(2, dtype=dtype)[[label]]
    of_rows = softmax_loss_rows_forward(np.empty_like(given), given, t)
    of_labels = softmax_loss_forward(np.empty_like(given), given, np.array([label]))
    assert of_rows == pytest.approx(of_labels, rel=1e-6, nan_ok=True)


def test_softmax_keeps_subnormal_probabilities():
    a = np.array([[0, -90], [0, -100]], np.float32)
    y = np.empty_like(a)
    softmax_forward(y, a)
    np.testing.assert_array_equal(y[:, 1], np.exp([-90.0, -100.0]).astype(np.float32))


@by_dtype
def test_gradients_of_labels_and_of_one_hot_rows_are_the_same(dtype):
    y, t = reference.softmax(logits((50, 7), dtype)), np.arange(50) % 7
    of_labels, of_rows = np.full((2, 50, 7), NAN, dtype)
    softmax_loss_backward(of_labels, y, t, 0.02)
    softmax_loss_rows_backward(of_rows, y, np.eye(7, dtype=dtype)[t], 0.02)
    np.testing.assert_allclose(of_labels, of_rows, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("C", [2, 10, 100])
def test_log_softmax_of_float32_is_accurate(C):
    # the loss of a single row is minus its log-softmax
    N = 20 if JIT_DISABLED else 5000
    a = np.random.default_rng(0).uniform(-20, 20, (N, C)).astype(np.float32)
    t = np.random.default_rng(1).integers(C, size=N)
    y = np.empty((1, C), np.float32)
    actual = np.array([softmax_loss_forward(y, a[n : n + 1], t[n : n + 1]) for n in range(N)])
    expected = -log_softmax(a)[np.arange(N), t]
    bound = 2 * 2.0**-23 * np.maximum(1, expected)
    np.testing.assert_array_less(np.abs(actual - expected), bound)
