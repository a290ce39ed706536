"""The last one or two columns of a layer, where a register is filled across, with parts of a sum.

50 float32 columns are 3 registers and 2 numbers.  A narrow vector for these 2 takes a multiply-add
like any other, and half of its time: a seventh of the product for a 25th of the numbers.  So such
*thin* columns lie apart, a row of THIN numbers for each row of W, and tiles do without them.
Turned to rows, W's and its gradient's, they are products along whole registers:

=====================  =====================================================================
forward                ``h[n, j] = sum_k x[n, k] * turned[j, k]``, with k along the registers
gradient of weights    ``turned[j, :] = sum_n dout[n, j] * x[n, :]``, a tile of THIN rows
=====================  =====================================================================

The forward sum is one of the lanes' sums, the gradient's are as tiles compute them.  Either order
depends on the sizes alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .gemm import THIN, THIN_CODE, THIN_VECTORS, columns_of_code, tile_at
from .jit import part
from .panels import scale
from .simd import address_of, vector_lanes, view
from .tables import (
    BLOCK,
    CODE,
    COLUMN,
    DZ_ROWS,
    SCRATCH,
    SCRATCH_SIZE,
    THIN_START,
    TURNED,
    ZEROS,
)


@part
def width_of(panel: Any, array: Any) -> int:
    """Return how many columns of a panel are computed, thin ones included."""
    return columns_of_code(panel[CODE], array) + (THIN if panel[THIN_START] else 0)


@part
def turned_rows(net: Any, thread: int) -> tuple[int, int]:
    """Return where a thread's thin columns lie, turned to rows, and the stride of these."""
    begin, end = net.sizes[TURNED], net.sizes[SCRATCH_SIZE]
    return net.sizes[SCRATCH] + thread * end + begin, (end - begin) // THIN


@part
def turn_columns(net: Any, panel: Any, k0: int, k1: int, thread: int) -> None:
    """Copy the thin columns of rows k0 to k1 of a panel of W, turned to rows."""
    to, to_row = turned_rows(net, thread)
    pairs = view(net.buffer, panel[THIN_START] + k0 * THIN, (k1 - k0) * THIN)
    first, second = view(net.buffer, to, k1 - k0), view(net.buffer, to + to_row, k1 - k0)
    for i in range(first.size):
        first[i] = pairs[2 * i]
        second[i] = pairs[2 * i + 1]


@part
def update_thin(
    net: Any, layer: Any, panel: Any, result: Any, to: int, factor: Any, x_rows: int, k0: int,
    k1: int, B: int, thread: int,
) -> None:  # fmt: skip
    """Gradient of the thin columns of rows k0 to k1 of W, added to ``factor`` times the result.

    Row k0 of the result is at ``to``.  With a factor of 0 it is overwritten, whatever it was.
    """
    buffer = net.buffer
    T = buffer.dtype.type
    column = panel[COLUMN] + columns_of_code(panel[CODE], buffer)
    turned, turned_row = turned_rows(net, thread)
    V = vector_lanes(buffer)
    nothing = address_of(buffer, net.sizes[ZEROS])
    for k in range(k0, k1, THIN_VECTORS * V):
        last = min(k + THIN_VECTORS * V, k1)
        code = THIN_CODE - 1 + (last - k + V - 1) // V
        for b in range(0, B, BLOCK):
            origin, origin_row = (net.sizes[ZEROS], 0) if b == 0 else (turned, turned_row)
            tile_at(
                net.tile,
                code,
                buffer, turned, turned_row,
                address_of(net.rows, layer[DZ_ROWS] + b), column,
                buffer, k, 0, address_of(net.rows, x_rows + b), min(BLOCK, B - b),
                buffer, origin, origin_row, T(1), T(-np.inf), nothing, nothing, 0,
            )  # fmt: skip
        pairs = view(result, to + (k - k0) * THIN, (last - k) * THIN)
        scale(pairs, factor)
        first, second = view(buffer, turned, last - k), view(buffer, turned + turned_row, last - k)
        for i in range(first.size):
            pairs[2 * i] += first[i]
            pairs[2 * i + 1] += second[i]
