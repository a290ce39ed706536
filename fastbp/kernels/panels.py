"""Weights in panels: their copy turned around, and copies from and to users' arrays.

Each thread fetches the weights and delivers the gradients of the rows it works on.  If one thread
did it for all, half of them would have to go from one core's cache to the other's.
"""

from __future__ import annotations

from typing import Any

from .gemm import columns_of_code
from .jit import kernel, part
from .simd import address_of, row_of, transpose_block, vector_lanes, view, view_at
from .tables import (
    BACK_FIRST,
    BACK_LAST,
    BIAS,
    CODE,
    COLUMN,
    FIRST,
    INPUTS,
    LAST,
    OUTPUTS,
    ROW,
    START,
)


@part
def transpose_weights(net: Any, l: int, p: int, k0: int, k1: int) -> None:
    """Bring W.T up to date with rows k0 to k1 of panel p of W.

    Squares of a register's width go through the registers: whole ones over the columns, whose
    padding they take along into rows of W.T that nobody reads.  Rows that fill no square go one by
    one.
    """
    buffer, layer, panel = net.buffer, row_of(net.layers, l), row_of(net.panels, p)
    V = vector_lanes(buffer)
    n0 = panel[COLUMN]
    n1 = min(n0 + columns_of_code(panel[CODE], buffer), layer[OUTPUTS])
    for q in range(layer[BACK_FIRST], layer[BACK_LAST]):
        back = row_of(net.panels, q)
        first = max(k0, back[COLUMN])
        last = min(k1, back[COLUMN] + columns_of_code(back[CODE], buffer))
        begin = min((first + V - 1) // V * V, max(first, last))
        end = max(begin, last // V * V)
        for k in range(first, last):
            if begin <= k < end:
                continue
            target = back[START] + k - back[COLUMN]
            source = panel[START] + k * panel[ROW] - n0
            for n in range(n0, n1):
                buffer[target + n * back[ROW]] = buffer[source + n]
        for k in range(begin, end, V):
            for n in range(n0, n1, V):
                transpose_block(
                    buffer, back[START] + n * back[ROW] + k - back[COLUMN], back[ROW],
                    buffer, panel[START] + k * panel[ROW] + n - n0, panel[ROW],
                )  # fmt: skip


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
        column, row, start = panel[COLUMN], panel[ROW], panel[START]
        width = min(columns_of_code(panel[CODE], buffer), N - column)
        from_here = data.params[2 * l] + column * buffer.itemsize
        for k in range(k0, min(k1, K)):
            source = view_at(buffer, from_here + k * N * buffer.itemsize, width)
            target = view(buffer, start + k * row, width)
            for j in range(source.size):
                target[j] = source[j]
                finite += source[j] * zero
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
    K, N, column, row, start = (
        layer[INPUTS], layer[OUTPUTS], panel[COLUMN], panel[ROW], panel[START],
    )  # fmt: skip
    width = min(columns_of_code(panel[CODE], net.buffer), N - column)
    to_here = data.grads[2 * l] + column * net.buffer.itemsize
    for k in range(k0, min(k1, K)):
        source = view(net.state, start + k * row, width)
        target = view_at(net.buffer, to_here + k * N * net.buffer.itemsize, width)
        for j in range(source.size):
            target[j] = source[j]


@part
def deliver_bias(net: Any, data: Any, l: int, p: int) -> None:
    """Copy the gradient of b, in the columns of panel p."""
    layer, panel = row_of(net.layers, l), row_of(net.panels, p)
    column = panel[COLUMN]
    width = min(columns_of_code(panel[CODE], net.buffer), layer[OUTPUTS] - column)
    source = view(net.state, layer[BIAS] + column, width)
    to = data.grads[2 * l + 1] + column * net.buffer.itemsize
    target = view_at(net.buffer, to, width)
    for j in range(source.size):
        target[j] = source[j]
