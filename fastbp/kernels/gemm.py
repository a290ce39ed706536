"""The matrix product, a tile of the result at a time held in vector registers.

    C[i, :] = max(least, scale * C0[i, :] + sum_k A[i, k] * B[k, :])        for TILE_ROWS rows i

Why this shape.  A multiply-add unit wants two new vectors each cycle, the first-level cache gives
about two loads a cycle, so every number loaded must be used several times.  A tile of 6 rows by 4
vectors uses each vector of B 6 times and each number of A 4 times: 10 loads for 24 multiply-adds.
The 24 sums never leave their registers, and they are 24 independent chains, which hides the 4
cycles each addition takes.  24 + 4 (a row of B) + 1 (a number of A) = 29 of 32 registers; targets
with 16 registers take 6 by 2.

The three products of a layer are this one kernel with other strides:

====================  ==========================  ==========================
forward               out = x @ W                 rows of x, rows of W
gradient of weights   dW = x.T @ dout             columns of x, rows of dout
gradient of inputs    dx = dout @ W.T             rows of dout, rows of W.T
====================  ==========================  ==========================

of which x and dout are given by the addresses of their rows: examples are read where the user has
them.  The first term begins from the bias (row stride 0), from W itself (an update in place), or
from zeros.  Panels of B are as wide as a tile.  A ragged last panel is a list of whole vectors and
perhaps a quarter of one: 52 float32 columns are 16 + 16 + 16 + 4, an eighth less work than 64.

Every sum runs over k in order, in one chain: its bits do not depend on the tile it falls into.
Those of DOTS_CODE alone are added up in the lanes of a register first.

A tile of a few rows and more vectors serves the columns that :mod:`.thin` computes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numpy.lib.stride_tricks import as_strided

from . import simd
from .calls import call_at
from .jit import JIT_DISABLED, intrinsic, kernel, part
from .rows import write_dots

TILE_ROWS = 6
# The largest number of vectors with TILE_ROWS * n sums, n of B and one of A in the registers.
TILE_VECTORS = (simd.REGISTERS - 1) // (TILE_ROWS + 1)


def tail_lanes(itemsize: int) -> int:
    """Return the width of the narrow vector a panel may end with: a quarter of a whole one."""
    return max(1, simd.lanes(itemsize) // 4)


def code_of(columns: int, itemsize: int) -> int:
    """Return the code of the narrowest tile with so many columns: ``2 * vectors + tail``."""
    vectors, rest = divmod(columns, simd.lanes(itemsize))
    if rest > tail_lanes(itemsize):
        return 2 * (vectors + 1)
    return 2 * vectors + (1 if rest else 0)


# Every code there is: one narrow vector up to a full tile.
CODES = range(1, 2 * TILE_VECTORS + 1)

# Columns behind whole vectors, at most so many, that tiles may leave to :mod:`.thin`.
THIN = 2
# Added to a code where A is transposed.
TRANSPOSED = CODES.stop
# Tiles with a row for each thin column, A transposed, of 1 to THIN_VECTORS vectors: as many as fit
# the registers with THIN * n sums, n of B and one of A, and divide the rows updated together.
THIN_VECTORS = 6 if simd.REGISTERS >= 32 else 4
THIN_CODE = 2 * TRANSPOSED  # of one vector
THIN_CODES = range(THIN_CODE, THIN_CODE + THIN_VECTORS)
# TILE_ROWS rows and THIN columns, of THIN rows of B: products along whole registers.
DOTS_CODE = THIN_CODES.stop
# Added to a code for a tile of one row, where no more are left: with all six a step of one example
# takes a sixth more.
SINGLE = 3 * TRANSPOSED


def columns_of(code: int, itemsize: int) -> int:
    """Return the number of columns a tile computes."""
    return sum(widths_of(code, itemsize))


@part
def columns_of_code(code: int, array: Any) -> int:
    """Return the number of columns a tile computes, in the type of an array."""
    whole = simd.REGISTER_BYTES // array.itemsize
    return code // 2 * whole + code % 2 * max(1, whole // 4)


def rows_of(code: int) -> int:
    """Return the number of rows of a tile."""
    if code > SINGLE:
        return 1
    return THIN if code in THIN_CODES else TILE_ROWS


def widths_of(code: int, itemsize: int) -> list[int]:
    """Return the widths of the vectors in a row of a tile."""
    if code == DOTS_CODE:
        return [1] * THIN
    if code in THIN_CODES:
        return [simd.lanes(itemsize)] * (code - THIN_CODE + 1)
    vectors, tail = divmod(code % TRANSPOSED, 2)
    return [simd.lanes(itemsize)] * vectors + [tail_lanes(itemsize)] * tail


def vectors_of(emit: simd.Emitter, row: Any, widths: list[int]) -> list[Any]:
    """Return the addresses of the vectors of one row, while an intrinsic is being written."""
    return [emit.at(row, simd.constant(sum(widths[:j]))) for j in range(len(widths))]


class _Matrix:
    """The addresses of a matrix in a flat array, while an intrinsic is being written."""

    def __init__(self, emit: simd.Emitter, start: Any, row: Any) -> None:
        self.emit, self.start, self.row = emit, start, row

    def row_at(self, i: Any) -> Any:
        return self.emit.at(self.start, self.emit.builder.mul(self.row, i))

    def tile(self, rows: int, widths: list[int]) -> list[list[Any]]:
        """Return the addresses of all vectors of a tile at the start."""
        return [vectors_of(self.emit, self.row_at(simd.constant(i)), widths) for i in range(rows)]


class _Rows:
    """The addresses of rows that lie anywhere, from a table of them."""

    def __init__(self, emit: simd.Emitter, table: Any, column: Any) -> None:
        self.emit, self.column = emit, column
        self.table = emit.builder.inttoptr(table, simd.INT64.as_pointer())

    def row_at(self, i: Any) -> Any:
        address = self.emit.builder.load(self.emit.at(self.table, i))
        pointer = self.emit.builder.inttoptr(address, self.emit.scalar.as_pointer())
        return self.emit.at(pointer, self.column)


def _write_tile(
    emit: simd.Emitter, code: int, C: _Matrix, A: _Rows, B: _Matrix | _Rows, K: Any,
    C0: _Matrix, scale: Any, least: Any, ahead: Any, ahead_too: Any, ahead_step: Any,
) -> None:  # fmt: skip
    """Write the code of a tile of one size: first sums, the loop over k, the stores."""
    builder, rows, widths = emit.builder, range(rows_of(code)), widths_of(code, emit.itemsize)
    first = [
        [
            emit.multiply(emit.splat(scale, width), emit.load(pointer, width))
            for pointer, width in zip(row, widths, strict=True)
        ]
        for row in C0.tile(len(rows), widths)
    ]
    transposed = TRANSPOSED < code < SINGLE
    rows_of_a = [] if transposed else [A.row_at(simd.constant(i)) for i in rows]

    before = builder.block
    loop = builder.append_basic_block("k")
    after = builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed(">", K, simd.constant(0)), loop, after)

    builder.position_at_end(loop)
    k = builder.phi(simd.INT64)  # all phi nodes come first in a block
    sums = [[builder.phi(emit.vector(width)) for width in widths] for _ in rows]
    row_of_b = [
        emit.load(pointer, width)
        for pointer, width in zip(vectors_of(emit, B.row_at(k), widths), widths, strict=True)
    ]
    column_of_a = A.row_at(k) if transposed else None
    new = []
    for i in rows:
        where = (column_of_a, simd.constant(i)) if transposed else (rows_of_a[i], k)
        number = emit.load(emit.at(*where))
        new.append(
            [
                emit.multiply_add(emit.splat(number, width), vector, total, width)
                for width, vector, total in zip(widths, row_of_b, sums[i], strict=True)
            ]
        )
    for address in (ahead, ahead_too):
        emit.prefetch(builder.add(address, builder.mul(k, ahead_step)))
    next_k = builder.add(k, simd.constant(1))
    k.add_incoming(simd.constant(0), before)
    k.add_incoming(next_k, loop)
    emit.loop_back(builder.icmp_signed("<", next_k, K), loop, after)

    builder.position_at_end(after)
    results = [[builder.phi(emit.vector(width)) for width in widths] for _ in rows]
    for i in rows:
        for j in range(len(widths)):
            for phi in (sums[i][j], results[i][j]):
                phi.add_incoming(first[i][j], before)
                phi.add_incoming(new[i][j], loop)
    for results_of_row, pointers in zip(results, C.tile(len(rows), widths), strict=True):
        for value, pointer, width in zip(results_of_row, pointers, widths, strict=True):
            emit.store(emit.at_least(emit.splat(least, width), value), pointer, width)


def _write_dots(
    emit: simd.Emitter, C: _Matrix, A: _Rows, B: _Matrix, K: Any,
    C0: _Matrix, scale: Any, least: Any, *ahead: Any,
) -> None:  # fmt: skip
    """Write the code of a tile whose B is turned: a row for each of its THIN columns."""

    def rows(matrix: _Matrix | _Rows, count: int) -> list[Any]:
        return [matrix.row_at(simd.constant(i)) for i in range(count)]

    write_dots(emit, rows(C, TILE_ROWS), rows(A, TILE_ROWS), rows(B, THIN), K, C0.start, least)


@intrinsic
def _tile(
    typing: Any, code: Any,
    C: Any, c: Any, c_row: Any,
    a_rows: Any, a: Any,
    B: Any, b: Any, b_row: Any, b_rows: Any, K: Any,
    C0: Any, c0: Any, c0_row: Any, scale: Any, least: Any,
    ahead: Any, ahead_too: Any, ahead_step: Any,
) -> Any:  # fmt: skip
    """Write a branch for every code, and a switch in front of them."""
    if not simd.is_flat(C, B, C0) or len({C.dtype, B.dtype, C0.dtype}) > 1:
        return None
    itemsize = C.dtype.bitwidth // 8

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (code, C_, c, c_row, a_rows, a, B_, b, b_row, b_rows, K, C0_, c0, c0_row, scale, least,
         ahead, ahead_too, ahead_step) = arguments  # fmt: skip
        emit = simd.Emitter(builder, itemsize)

        def matrix(array_type: Any, array: Any, offset: Any, row: Any) -> _Matrix:
            start = simd.data_pointer(context, builder, array_type, array, offset)
            return _Matrix(emit, start, row)

        result, begin = matrix(C, C_, c, c_row), matrix(C0, C0_, c0, c0_row)
        rows_of_a, rows_of_b = _Rows(emit, a_rows, a), _Rows(emit, b_rows, b)
        matrix_b = matrix(B, B_, b, b_row)
        others = K, begin, scale, least, ahead, ahead_too, ahead_step
        finish = builder.append_basic_block("finish")
        switch = builder.switch(code, finish)
        others_of_a_width = [code + other for other in (TRANSPOSED, SINGLE) for code in CODES]
        for value in (*CODES, *others_of_a_width, *THIN_CODES, DOTS_CODE):
            block = builder.append_basic_block(f"code{value}")
            switch.add_case(simd.constant(value), block)
            builder.position_at_end(block)
            if value == DOTS_CODE:
                _write_dots(emit, result, rows_of_a, matrix_b, *others)
            else:
                factor = rows_of_b if value in THIN_CODES else matrix_b
                _write_tile(emit, value, result, rows_of_a, factor, *others)
            builder.branch(finish)
        builder.position_at_end(finish)
        return context.get_dummy_value()

    n = types.intp
    T = C.dtype
    return types.void(n, C, n, n, n, n, B, n, n, n, n, C0, n, n, T, T, n, n, n), generate


@kernel(
    "int64, T[::1], int64, int64, int64, int64, T[::1], int64, int64, int64, int64,"
    "T[::1], int64, int64, T, T, int64, int64, int64"
)
def tile(
    code: int,
    C: Any, c: int, c_row: int,
    a_rows: int, a: int,
    B: Any, b: int, b_row: int, b_rows: int, K: int,
    C0: Any, c0: int, c0_row: int, scale: Any, least: Any,
    ahead: int, ahead_too: int, ahead_step: int,
) -> None:  # fmt: skip
    """``C[i, :] = max(least, scale * C0[i, :] + sum_k A[i, k] * B[k, :])`` for the tile's rows.

    A matrix is a flat array, the offset of its first element, and its row stride; or the address
    of a table with the addresses of its rows, int64, and the offset of its first column.

    Parameters
    ----------
    code : int
        The columns, as ``code_of`` gives them, with TRANSPOSED added where A is, or SINGLE for one
        row instead of TILE_ROWS; one of THIN_CODES, of THIN rows, with A transposed; or DOTS_CODE:
        then B has a row of K numbers for each of THIN columns, and the sums begin from one row,
        unscaled.
    C, c, c_row
        The result.
    a_rows, a
        Its rows, or if it is transposed its columns: the next number is another row's.
    B, b, b_row, b_rows, K
        K rows; of THIN_CODES those in a table.
    C0, c0, c0_row, scale
        What the sums begin from: C itself to accumulate, one row with ``c0_row = 0`` for all rows
        alike.  May be C.
    least
        0 for the ReLU, in passing; -inf for all numbers as they are.  NaN stays NaN.
    ahead, ahead_too, ahead_step
        Two addresses and a number of bytes: round k prefetches what lies k steps on, so that
        memory is read while the arithmetic has nothing to read.
    """
    _tile(code, C, c, c_row, a_rows, a, B, b, b_row, b_rows, K, C0, c0, c0_row, scale, least,
          ahead, ahead_too, ahead_step)  # fmt: skip


@intrinsic
def tile_at(
    typing: Any, address: Any, code: Any,
    C: Any, c: Any, c_row: Any,
    a_rows: Any, a: Any,
    B: Any, b: Any, b_row: Any, b_rows: Any, K: Any,
    C0: Any, c0: Any, c0_row: Any, scale: Any, least: Any,
    ahead: Any, ahead_too: Any, ahead_step: Any,
) -> Any:  # fmt: skip
    """Call the compiled ``tile`` at an address.

    It is most of what there is to compile, and would be compiled again in each of its callers, and
    in each of theirs.
    """
    return call_at(code, C, c, c_row, a_rows, a, B, b, b_row, b_rows, K, C0, c0, c0_row,
                        C.dtype, C.dtype, ahead, ahead_too, ahead_step)  # fmt: skip


def _tile_in_numpy(
    code: int,
    C: Any, c: int, c_row: int,
    a_rows: int, a: int,
    B: Any, b: int, b_row: int, b_rows: int, K: int,
    C0: Any, c0: int, c0_row: int, scale: Any, least: Any,
    ahead: int, ahead_too: int, ahead_step: int,
) -> None:  # fmt: skip
    """Do what a tile does, where nothing is compiled."""
    rows, width, size = rows_of(code), columns_of(code, C.itemsize), C.itemsize

    def view(array: Any, offset: int, shape: tuple[int, int], row: int, column: int) -> Any:
        return as_strided(array[offset:], shape, (row * size, column * size))

    def rows_at(table: int, count: int, offset: int, columns: int) -> Any:
        addresses = simd.view_at(np.empty(0, np.int64), table, count)
        return np.array([simd.view_at(C, at + offset * size, columns) for at in addresses])

    if TRANSPOSED < code < DOTS_CODE:
        factor = rows_at(a_rows, K, a, rows).reshape(K, rows).T
    else:
        factor = rows_at(a_rows, rows, a, K)
    if code == DOTS_CODE:
        other = view(B, b, (THIN, K), b_row, 1).T
    elif code in THIN_CODES:
        other = rows_at(b_rows, K, b, width).reshape(K, width)
    else:
        other = view(B, b, (K, width), b_row, 1)
    begin = view(C0, c0, (rows, width), c0_row, 1)
    product = factor @ other
    view(C, c, (rows, width), c_row, 1)[...] = np.maximum(least, scale * begin + product)


if JIT_DISABLED:
    tile = _tile_in_numpy

    def tile_at(address: int, *arguments: Any) -> None:
        """Do what the intrinsic does."""
        tile(*arguments)
