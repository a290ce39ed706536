"""The law of kernels for central differences; their numbers are in tests/test_differences.py."""

import numpy as np
import pytest

from fastbp import MultiLayerNet, _differences

GUARDS, GUARD = 16, 77
by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
by_net = pytest.mark.parametrize(
    ("hidden", "activation", "eps"),
    [
        ([], "relu", 0.0),
        ([5], "relu", 0.0),
        ([5], "sigmoid", 0.01),
        ([5, 9, 3], "relu", 0.01),
        ([5, 9, 3], "sigmoid", 0.0),
    ],
)
OUTPUTS, ARRAYS = 4, 10


def guarded(values, fill=None):
    """Return a copy of the values, or as many fills, between guards, and the buffer with both."""
    buffer = np.full(values.size + 2 * GUARDS, GUARD, values.dtype)
    array = buffer[GUARDS : GUARDS + values.size].reshape(values.shape)
    array[...] = values if fill is None else fill
    return array, buffer


def run(monkeypatch, hidden, activation, eps, dtype, fill, size=1.0):
    """Return every call's gradient, inputs before and after, and buffers, outputs full of fill."""
    kernel, calls = _differences.central_differences, []

    def call(*arguments):
        pairs = [
            guarded(a, fill if i < OUTPUTS else None) for i, a in enumerate(arguments[:ARRAYS])
        ]
        arrays = [array for array, _ in pairs]
        assert kernel(*arrays, *arguments[ARRAYS:]) is None
        arguments[0][...] = arrays[0]
        inputs = list(zip(arguments[OUTPUTS:ARRAYS], arrays[OUTPUTS:], strict=True))
        calls.append((arrays[0], inputs, [buffer for _, buffer in pairs]))

    monkeypatch.setattr(_differences, "central_differences", call)
    monkeypatch.setattr(_differences, "warn_of_float32", lambda *args, **kwargs: None)
    rng = np.random.default_rng(0)
    net = MultiLayerNet(6, hidden, 3, activation, 1.0, dtype=dtype, seed=0)
    net.last_layer.eps = eps
    net.numerical_gradient(size * rng.normal(size=(4, 6)), np.array([0, 1, 2, 0]))
    return calls


@by_dtype
@by_net
@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_overwrites_its_outputs_whole(hidden, activation, eps, dtype, size, monkeypatch):
    arguments = (hidden, activation, eps, dtype)
    with monkeypatch.context() as patch:
        ones = run(patch, *arguments, np.nan, size)
    others = run(monkeypatch, *arguments, -1e30, size)
    assert len(ones) == len(hidden) + 1
    for (one, _, _), (other, _, _) in zip(ones, others, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
        assert np.isfinite(one).all()


@by_dtype
@by_net
@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_leaves_its_inputs_and_everything_else_alone(
    hidden, activation, eps, dtype, size, monkeypatch
):
    for _, inputs, buffers in run(monkeypatch, hidden, activation, eps, dtype, np.nan, size):
        for given, after in inputs:
            assert given.tobytes() == after.tobytes()
        for buffer in buffers:
            guards = np.concatenate([buffer[:GUARDS], buffer[len(buffer) - GUARDS :]])
            np.testing.assert_array_equal(guards, np.full(2 * GUARDS, GUARD, buffer.dtype))
