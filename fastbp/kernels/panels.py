"""Weights in panels: scaled, and their copy turned around, for the gradients of the inputs."""

from __future__ import annotations

from typing import Any

from .gemm import THIN, columns_of_code
from .jit import part
from .simd import row_of, transpose_block, vector_lanes
from .tables import (
    BACK_FIRST,
    BACK_LAST,
    CODE,
    COLUMN,
    OUTPUTS,
    ROW,
    START,
    THIN_START,
)


@part
def scale(numbers: Any, factor: Any) -> None:
    """Multiply some numbers; with a factor of 0 they are 0, whatever they were."""
    if factor == numbers.dtype.type(0):
        for i in range(numbers.size):
            numbers[i] = numbers.dtype.type(0)
    elif factor != numbers.dtype.type(1):
        for i in range(numbers.size):
            numbers[i] *= factor


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
    thin = layer[OUTPUTS] - n1 if panel[THIN_START] else 0
    for q in range(layer[BACK_FIRST], layer[BACK_LAST]):
        back = row_of(net.panels, q)
        first = max(k0, back[COLUMN])
        last = min(k1, back[COLUMN] + columns_of_code(back[CODE], buffer))
        for j in range(thin):
            target = back[START] + (n1 + j) * back[ROW] - back[COLUMN]
            for k in range(first, last):
                buffer[target + k] = buffer[panel[THIN_START] + k * THIN + j]
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
