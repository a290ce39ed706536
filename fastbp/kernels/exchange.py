"""Copies between a network's panels and the arrays its user has: weights in, gradients out.

Each thread fetches the weights and delivers the gradients of the rows it works on.  If one thread
did it for all, half of them would have to go from one core's cache to the other's.

A kernel of its own, compiled for those who ask for a gradient: ``fit`` has no use for it.
"""

from __future__ import annotations

from typing import Any

from .arguments import arguments_at
from .calls import call_at
from .gemm import THIN, columns_of_code
from .jit import JIT_DISABLED, intrinsic, kernel, part
from .panels import transpose_weights
from .simd import address_of, row_of, view, view_at
from .tables import (
    BIAS,
    CODE,
    COLUMN,
    FETCH,
    FIRST,
    INPUTS,
    LAST,
    OUTPUTS,
    ROW,
    START,
    THIN_START,
)
from .thin import width_of


def _exchange(
    arguments: int, one: Any, l: int, half: int, k0: int, k1: int, p0: int, p1: int, bias: int,
    what: int,
) -> None:  # fmt: skip
    """Fetch W of a layer, or deliver its gradient.

    Parameters
    ----------
    arguments : int - where what the loop is told was left; FETCH overwrites the network's
        parameters, DELIVER the user's arrays of the gradient
    one : float32 or float64 - any number of the network's type
    l : int - the layer
    half : int - of the inputs, where FETCH notes whether W is finite
    k0, k1, p0, p1 : int - rows of W, and panels, of which FETCH takes all
    bias : int - whether b is this thread's too
    what : int - FETCH or DELIVER
    """
    net, data, _, _ = arguments_at(arguments, one)
    if what == FETCH:
        net.finite[l, half] = fetch_weights(net, data, l, k0, k1)
        if bias != 0:
            fetch_bias(net, data, l)
        return
    for p in range(p0, p1):
        deliver_weights(net, data, l, p, k0, k1)
        if bias != 0:
            deliver_bias(net, data, l, p)


@part
def fetch_weights(net: Any, data: Any, l: int, k0: int, k1: int) -> float:
    """Copy rows k0 to k1 of the user's W into its panels, and their columns into those of W.T.

    Returns 0, or NaN if one of them is not finite.
    """
    buffer, layer = net.buffer, row_of(net.layers, l)
    zero, K, N = buffer.dtype.type(0), layer[INPUTS], layer[OUTPUTS]
    finite = zero
    for p in range(layer[FIRST], layer[LAST]):
        panel = row_of(net.panels, p)
        column, row, start, apart = panel[COLUMN], panel[ROW], panel[START], panel[THIN_START]
        width = min(columns_of_code(panel[CODE], buffer), N - column)
        thin = N - column - width if apart else 0
        from_here = data.params[2 * l] + column * buffer.itemsize
        for k in range(k0, min(k1, K)):
            source = view_at(buffer, from_here + k * N * buffer.itemsize, width + thin)
            target = view(buffer, start + k * row, width)
            for j in range(target.size):
                target[j] = source[j]
                finite += source[j] * zero
            for j in range(thin):
                buffer[apart + k * THIN + j] = source[width + j]
                finite += source[width + j] * zero
            padding = view(buffer, start + k * row + width, row - width)
            for j in range(padding.size):
                padding[j] = zero
        if l > 0:
            transpose_weights(net, l, p, k0, min(k1, K))
    return finite


@part
def fetch_bias(net: Any, data: Any, l: int) -> None:
    """Copy the user's b."""
    layer = row_of(net.layers, l)
    source = view_at(net.buffer, data.params[2 * l + 1], layer[OUTPUTS])
    target = view(net.buffer, layer[BIAS], layer[OUTPUTS])
    for j in range(source.size):
        target[j] = source[j]


@part
def deliver_weights(net: Any, data: Any, l: int, p: int, k0: int, k1: int) -> None:
    """Copy rows k0 to k1 of the gradient of W, in panel p, into the user's array."""
    layer, panel = row_of(net.layers, l), row_of(net.panels, p)
    K, N, column, row, start, apart = (
        layer[INPUTS], layer[OUTPUTS], panel[COLUMN], panel[ROW], panel[START], panel[THIN_START],
    )  # fmt: skip
    width = min(columns_of_code(panel[CODE], net.buffer), N - column)
    thin = N - column - width if apart else 0
    to_here = data.grads[2 * l] + column * net.buffer.itemsize
    for k in range(k0, min(k1, K)):
        source = view(net.state, start + k * row, width)
        target = view_at(net.buffer, to_here + k * N * net.buffer.itemsize, width + thin)
        for j in range(source.size):
            target[j] = source[j]
        for j in range(thin):
            target[width + j] = net.state[apart + k * THIN + j]


@part
def deliver_bias(net: Any, data: Any, l: int, p: int) -> None:
    """Copy the gradient of b, in the columns of panel p."""
    layer, panel = row_of(net.layers, l), row_of(net.panels, p)
    column = panel[COLUMN]
    width = min(width_of(panel, net.buffer), layer[OUTPUTS] - column)
    source = view(net.state, layer[BIAS] + column, width)
    to = data.grads[2 * l + 1] + column * net.buffer.itemsize
    target = view_at(net.buffer, to, width)
    for j in range(source.size):
        target[j] = source[j]


exchange = kernel("int64, T, " + "int64, " * 7 + "int64", by_address=True)(_exchange)


@intrinsic
def exchange_at(
    typing: Any, address: Any, arguments: Any, one: Any, l: Any, half: Any, k0: Any, k1: Any,
    p0: Any, p1: Any, bias: Any, what: Any,
) -> Any:  # fmt: skip
    """Call the compiled ``exchange`` at an address."""
    return call_at(arguments, one, l, half, k0, k1, p0, p1, bias, what)


def _exchange_in_python(code: int, *arguments: Any) -> None:
    """Do what the intrinsic does, where nothing is compiled."""
    _exchange(*arguments)


if JIT_DISABLED:
    exchange_at = _exchange_in_python


@kernel("int64[::1], int64[::1], int64, T[:, ::1], T[::1], T[:, ::1], T[::1]")
def note_addresses(params: Any, grads: Any, l: int, W: Any, b: Any, dW: Any, db: Any) -> None:
    """Write down where arrays lie: ``Data.params`` and ``Data.grads`` of a layer.

    NumPy tells it too, and takes longer than to copy a bias.

    Parameters
    ----------
    params, grads : (2 L,) int64 - places 2 l and 2 l + 1 overwritten
    l : int
    W, b : (K, N) and (N,) float32 or float64 - parameters
    dW, db : like W and b - their gradients
    """
    params[2 * l], params[2 * l + 1] = address_of(W, 0), address_of(b, 0)
    grads[2 * l], grads[2 * l + 1] = address_of(dW, 0), address_of(db, 0)
