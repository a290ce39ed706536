"""The first layer where most inputs are zero and nobody has compressed them beforehand.

Predictions skip zeros as they meet them.  A single gradient, whose update needs its inputs once
more, compresses its batch.  This is a kernel of its own: training never needs it, and predictions
need no other of those in :mod:`.sparse_layer`, which take twice as long to compile.
"""

from __future__ import annotations

from typing import Any

from .arguments import arguments_at
from .calls import call_at
from .compress import compress_segment, note_nonzeros
from .gemm import THIN
from .jit import JIT_DISABLED, intrinsic, kernel, part
from .simd import MASK_BITS, address_of, row_of
from .sparse import sum_nonzeros
from .sparse_layer import (
    code_of_panel,
    prefetch_labels,
    prefetch_lines,
    segment_of,
    sums_over_range,
)
from .tables import COMPRESS, FIRST, H_ROW, INPUTS, LAST, MASKS, ROW, START, THIN_START

# Rows that are fetched from memory before they are looked at: some thousand bytes each.
ROWS_AHEAD = 4


def _operate_once(
    arguments: int, one: Any, begin: int, n0: int, n1: int, r0: int, r1: int, what: int
) -> None:
    """Do one thread's share of one operation: rows n0 to n1, ranges r0 to r1 of the inputs.

    ``arguments`` and ``one`` are as for the kernels of :mod:`.sparse_layer`.
    """
    net, data, _, rows = arguments_at(arguments, one)
    if what == COMPRESS:
        compress_batch(net, data, rows, begin, n0, n1, r0, r1)
    else:
        forward_once(net, data, rows, begin, n0, n1)


@part
def forward_once(net: Any, data: Any, rows: Any, begin: int, n0: int, n1: int) -> None:
    """``x @ W`` of the first layer for rows n0 to n1, skipping zeros of x; by halves of the inputs.

    Which of the inputs are not zero is noted for the first panel, and read for the others.
    """
    buffer, layer, words = net.buffer, row_of(net.layers, 0), net.sizes[MASKS]
    for p in range(layer[FIRST], layer[LAST]):
        panel = row_of(net.panels, p)
        code, stride, h_row = code_of_panel(panel), panel[ROW], layer[H_ROW]
        for r in range(data.edges.size - 1):
            to, bias, begins = sums_over_range(net, data, panel, r)
            k0, k1 = data.edges[r], data.edges[r + 1]
            used = (k1 - k0 + MASK_BITS - 1) // MASK_BITS
            start, thin = panel[START] + k0 * stride, panel[THIN_START] + k0 * THIN
            for n in range(n0, n1):
                masks = segment_of(data, rows, begin, n, r) * words
                row = rows[begin + n] * layer[INPUTS]
                if p == layer[FIRST]:
                    soon = rows[begin + min(n + ROWS_AHEAD, n1 - 1)] * layer[INPUTS]
                    prefetch_lines(address_of(data.x, soon + k0), address_of(data.x, soon + k1))
                    note_nonzeros(data.masks, masks, data.x, row, k0, k1)
                h = to + n * h_row
                sum_nonzeros(
                    code, buffer, h, buffer, bias if begins else h, data.masks, masks, used,
                    data.x, row + k0, buffer, start, stride, thin,
                )  # fmt: skip
    prefetch_labels(data, rows, begin, n0, n1)


@part
def compress_batch(
    net: Any, data: Any, rows: Any, begin: int, n0: int, n1: int, r0: int, r1: int
) -> None:
    """Note what is not zero in rows n0 to n1 of the batch and ranges r0 to r1 of the inputs.

    The segments lie by their places in the batch, and each has room for all of its inputs.
    """
    D, segments = net.layers[0, INPUTS], data.edges.size - 1
    words = net.sizes[MASKS]
    for n in range(n0, n1):
        source = rows[begin + n] * D
        for r in range(r0, r1):
            k0, k1, segment = data.edges[r], data.edges[r + 1], n * segments + r
            p = n * D + k0
            data.starts[segment] = p
            data.stops[segment] = compress_segment(
                data.columns, data.values, p, p + k1 - k0, data.masks, segment * words,
                data.x, source, k0, k1,
            )  # fmt: skip


operate_once = kernel("int64, T" + ", int64" * 6, by_address=True)(_operate_once)


@intrinsic
def operate_once_at(
    typing: Any, address: Any, arguments: Any, one: Any, begin: Any, n0: Any, n1: Any,
    r0: Any, r1: Any, what: Any,
) -> Any:  # fmt: skip
    """Call the compiled ``operate_once`` at an address."""
    return call_at(arguments, one, begin, n0, n1, r0, r1, what)


def _operate_once_in_python(code: int, *arguments: Any) -> None:
    """Do what the intrinsic does, where nothing is compiled."""
    _operate_once(*arguments)


if JIT_DISABLED:
    operate_once_at = _operate_once_in_python
