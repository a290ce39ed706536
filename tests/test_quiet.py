"""NumPy's calls without warnings, in every thread, and nothing else changed."""

import contextvars
import threading

import numpy as np
import pytest

import fastbp
from fastbp._quiet import _run_quietly, quiet

INF = np.array([[np.inf, 1e308]])
ZERO = np.array([[0.0, 0.0], [1e308, 1e308]])


@pytest.mark.parametrize("run", [quiet.run, _run_quietly])
def test_infinity_and_nan_come_without_a_warning(run):
    before = np.geterr()
    assert not np.isfinite(run(np.dot, INF, ZERO)).any()
    assert np.geterr() == before
    with pytest.warns(RuntimeWarning, match="dot"):
        np.dot(INF, ZERO)


def test_what_is_raised_passes():
    with pytest.raises(ValueError, match="not aligned"):
        quiet.run(np.dot, INF, INF)
    assert quiet.run(np.add, 1, 1) == 2


def test_every_thread_has_its_own():
    results, barrier = [], threading.Barrier(4)

    def work():
        barrier.wait()
        for _ in range(200):
            results.append(bool(np.isnan(quiet.run(np.dot, INF, ZERO)).all()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [False] * 800 or all(results)
    assert len(results) == 800


def test_a_layer_may_be_called_in_any_context():
    layer = fastbp.Affine(np.zeros((1, 1)), np.zeros(1))
    contexts = [contextvars.copy_context(), contextvars.Context()]
    for context in contexts:
        assert np.isnan(context.run(layer.forward, [[np.inf]])).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("N", "D", "H"), [(1, 1, 1), (5, 1, 1), (1, 1, 4), (1, 3, 1), (2, 3, 4)])
def test_zero_times_nan_is_nan_in_every_shape(dtype, N, D, H):
    x, W = np.zeros((N, D), dtype), np.full((D, H), np.nan, dtype)
    for x_is, W_is in ((0, np.nan), (np.nan, 0), (np.inf, 0), (0, np.inf)):
        x[...], W[...] = x_is, W_is
        layer = fastbp.Affine(W, np.zeros(H))
        assert np.isnan(layer.forward(x)).all()
        dout = np.full((N, H), x_is, dtype)
        assert np.isnan(layer.backward(dout)).all()
        x[...] = W_is
        layer.forward(x)
        layer.backward(dout)
        assert np.isnan(layer.dW).all()
