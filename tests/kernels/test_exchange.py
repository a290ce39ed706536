"""Users' arrays as the loop finds them: where they lie, and what is copied in and out."""

import numpy as np
import pytest

from fastbp.kernels.exchange import note_addresses
from fastbp.kernels.jit import kernel
from fastbp.kernels.simd import view_at

both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


@kernel("T[::1], T[::1], int64")
def copy_from(out, like, address):
    """Copy what lies at an address."""
    source = view_at(like, address, out.size)
    for i in range(source.size):
        out[i] = source[i]


@both_types
def test_the_addresses_noted_are_those_of_the_arrays(dtype):
    layers = [(7, 3), (3, 5)]
    arrays = [
        [np.ones((K, N), dtype), np.ones(N, dtype), np.ones((K, N), dtype), np.ones(N, dtype)]
        for K, N in layers
    ]
    params, grads = np.zeros(4, np.int64), np.zeros(4, np.int64)
    for l, four in enumerate(arrays):
        note_addresses(params, grads, l, *four)
    assert params.tolist() == [a.ctypes.data for W, b, _, _ in arrays for a in (W, b)]
    assert grads.tolist() == [a.ctypes.data for _, _, dW, db in arrays for a in (dW, db)]


@both_types
def test_a_view_at_an_address_is_what_lies_there(dtype):
    numbers = np.arange(20).astype(dtype)
    out = np.full(6, np.nan, dtype)
    copy_from(out, numbers[:1], numbers[5:].ctypes.data)
    np.testing.assert_array_equal(out, numbers[5:11])
