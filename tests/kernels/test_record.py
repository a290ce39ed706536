"""Records: what was left in memory is what compiled code reads there."""

import numpy as np
import pytest
from numba.core.errors import TypingError

import fastbp
from fastbp.examples import as_data
from fastbp.kernels.arguments import ROOM, arguments_at, leave_arguments
from fastbp.kernels.jit import JIT_DISABLED, kernel, part
from fastbp.plan import Plan

both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


@part
def squares(net):
    """Read a field of a record that another function has handed on."""
    total = 0.0
    for i in range(net.state.size):
        total += net.state[i] * net.state[i]
    return total


@kernel("int64, T, float64[::1], int64[::1]")
def read_some(arguments, one, numbers, integers):
    """Read fields of every kind: numbers, flat arrays, matrices, the last ones."""
    net, data, rule, rows = arguments_at(arguments, one)
    numbers[0], numbers[1], numbers[2] = squares(net), data.x[2, 1], rule.loss_eps
    integers[0], integers[1], integers[2] = net.layers[1, 0], net.exchange, data.labels[2]
    integers[3], integers[4], integers[5] = data.x.shape[0], data.x.shape[1], data.grads.size
    integers[6], integers[7] = rows[rows.size - 1], data.source


def left(dtype):
    """Return arguments of the loop, and the examples in them."""
    rng = np.random.default_rng(3)
    plan = Plan([7, 5, 3], "relu", np.dtype(dtype), 4, slots=1)
    plan.state[:] = rng.normal(size=plan.state.size)
    x, t = rng.normal(size=(4, 7)).astype(dtype), np.array([2, 0, 1, 2])
    net = plan.net("train")._replace(exchange=77)
    rule = fastbp.SGD(lr=0.5)._rule()._replace(loss_eps=0.25)
    return net, as_data("fit", x, t, np.dtype(dtype)), rule, np.array([3, 1, 2])


@both_types
def test_fields_of_a_record_are_those_of_the_tuple(dtype):
    net, data, rule, rows = left(dtype)
    numbers, integers = np.zeros(3), np.zeros(8, np.int64)
    memory = np.empty(ROOM, np.int64)
    address = leave_arguments(memory, net, data, rule, rows)
    read_some(address, dtype(1), numbers, integers)
    np.testing.assert_allclose(numbers[0], np.sum(net.state.astype(np.float64) ** 2), rtol=1e-5)
    assert numbers[1:].tolist() == [data.x[2, 1], 0.25]
    assert integers.tolist() == [5, 77, 1, 4, 7, data.grads.size, 2, data.source]


@pytest.mark.skipif(JIT_DISABLED, reason="plain Python has the tuple itself")
def test_a_record_has_no_other_fields():
    @kernel("int64, T")
    def read_another(arguments, one):
        return arguments_at(arguments, one)[0].labels.size

    net, data, rule, rows = left(np.float64)
    memory = np.empty(ROOM, np.int64)
    with pytest.raises(TypingError, match="labels"):
        read_another(leave_arguments(memory, net, data, rule, rows), 1.0)
