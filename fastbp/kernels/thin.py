"""The last one or two columns of a layer, where a register is filled across, with parts of a sum.

50 float32 columns are 3 registers and 2 numbers.  A narrow vector for these 2 takes a multiply-add
like any other, and half of its time: a seventh of the product for a 25th of the numbers.  So tiles
leave such *thin* columns out.  Turned to rows, W's and its gradient's, they are products along
whole registers:

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
from .simd import address_of, vector_lanes
from .tables import (
    BLOCK,
    CODE,
    COLUMN,
    DZ_ROWS,
    ROW,
    SCRATCH,
    SCRATCH_SIZE,
    THIN_ROWS,
    TILE,
    TURNED,
    ZEROS,
)


@part
def tile_of(panel: Any, B: int) -> int:
    """Return the code of a panel's tiles in a batch of B rows: without thin columns if that pays.

    To turn them takes as long for a few rows as for many.
    """
    return panel[TILE] if B >= THIN_ROWS else panel[CODE]


@part
def turned_rows(net: Any, thread: int) -> tuple[int, int]:
    """Return where a thread's thin columns lie, turned to rows, and the stride of these."""
    begin, end = net.sizes[TURNED], net.sizes[SCRATCH_SIZE]
    return net.sizes[SCRATCH] + thread * end + begin, (end - begin) // THIN


@part
def turn_columns(net: Any, panel: Any, start: int, count: int, thread: int) -> None:
    """Copy the thin columns of some rows of a panel of W, of which the first is at ``start``."""
    buffer = net.buffer
    to, to_row = turned_rows(net, thread)
    thin = start + columns_of_code(panel[TILE], buffer)
    for k in range(count):
        for j in range(THIN):
            buffer[to + j * to_row + k] = buffer[thin + k * panel[ROW] + j]


@part
def update_thin(
    net: Any, layer: Any, panel: Any, result: Any, to: int, factor: Any, x_rows: int, k0: int,
    k1: int, B: int, thread: int,
) -> None:  # fmt: skip
    """Gradient of the thin columns of rows k0 to k1 of W, added to ``factor`` times the result.

    Row k0 of the result is at ``to``.  With a factor of 0 it is overwritten, whatever it was.
    """
    buffer, row = net.buffer, panel[ROW]
    T = buffer.dtype.type
    thin = columns_of_code(panel[TILE], buffer)
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
                address_of(net.rows, layer[DZ_ROWS] + b), panel[COLUMN] + thin,
                buffer, k, 0, address_of(net.rows, x_rows + b), min(BLOCK, B - b),
                buffer, origin, origin_row, T(1), T(-np.inf), nothing, nothing, 0,
            )  # fmt: skip
        for i in range(last - k):
            for j in range(THIN):
                at = to + (k - k0 + i) * row + thin + j
                before = T(0) if factor == T(0) else factor * result[at]
                result[at] = before + buffer[turned + j * turned_row + i]
