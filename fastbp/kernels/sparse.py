"""Products with matrices that are mostly zeros: only what is not zero is touched.

    forward     C[:] = C0[:] + sum_p values[p] * B[index[p], :]     for first <= p < last
    update      B[index[p], :] += values[p] * C[:]                  for first <= p < last

The inputs lie in compressed rows: column and value of each number that is not zero.  A row is cut
into segments, ranges of columns so narrow that the rows of W they need fit the first-level cache;
the segments of one range are done for the whole batch before the next range begins.

Below a third of non-zeros this beats the dense product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import types

from . import simd
from .gemm import CODES, columns_of, widths_of
from .jit import JIT_DISABLED, intrinsic, kernel, part
from .simd import MASK_BITS, lowest_bit, nonzero_bits, view


def _write_rows(
    emit: simd.Emitter, widths: list[int], forward: bool, C: Any, C0: Any,
    index: Any, values: Any, first: Any, last: Any, B: Any, b_row: Any,
) -> None:  # fmt: skip
    """Write the loop over p for one width, with C in registers."""
    builder = emit.builder
    offsets = [simd.constant(sum(widths[:j])) for j in range(len(widths))]
    columns = list(zip(offsets, widths, strict=True))
    begin = [emit.load(emit.at(C0, offset), width) for offset, width in columns]
    before = builder.block
    loop = builder.append_basic_block("p")
    after = builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed("<", first, last), loop, after)

    builder.position_at_end(loop)
    p = builder.phi(simd.INT64)
    sums = [builder.phi(emit.vector(width)) for width in widths] if forward else begin
    k = builder.zext(builder.load(builder.gep(index, [p])), simd.INT64)
    number = emit.load(emit.at(values, p))
    row = emit.at(B, builder.mul(k, b_row))
    new = []
    for (offset, width), held in zip(columns, sums, strict=True):
        factor, there = emit.splat(number, width), emit.at(row, offset)
        if forward:
            new.append(emit.multiply_add(factor, emit.load(there, width), held, width))
        else:
            changed = emit.multiply_add(factor, held, emit.load(there, width), width)
            emit.store(changed, there, width)
    following = builder.add(p, simd.constant(1))
    p.add_incoming(first, before)
    p.add_incoming(following, loop)
    emit.loop_back(builder.icmp_signed("<", following, last), loop, after)

    builder.position_at_end(after)
    if not forward:
        return
    ends = [builder.phi(emit.vector(width)) for width in widths]
    for j in range(len(widths)):
        for phi in (sums[j], ends[j]):
            phi.add_incoming(begin[j], before)
            phi.add_incoming(new[j], loop)
    for (offset, width), end in zip(columns, ends, strict=True):
        emit.store(end, emit.at(C, offset), width)


def _over_rows(forward: bool) -> Callable[..., Any]:
    """Return the intrinsic of one of the two products: a branch for every width."""

    @intrinsic
    def over_rows(
        typing: Any, code: Any, C: Any, c: Any, C0: Any, c0: Any,
        index: Any, values: Any, first: Any, last: Any, B: Any, b: Any, b_row: Any,
    ) -> Any:  # fmt: skip
        floats = (C, C0, values, B)
        if not simd.is_flat(index, *floats) or len({a.dtype for a in floats}) > 1:
            return None
        itemsize = C.dtype.bitwidth // 8

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            code, C_, c, C0_, c0, index_, values_, first, last, B_, b, b_row = arguments
            emit = simd.Emitter(builder, itemsize)

            def start(array_type: Any, array: Any, offset: Any) -> Any:
                return simd.data_pointer(context, builder, array_type, array, offset)

            zero = simd.constant(0)
            pointers = (
                start(C, C_, c), start(C0, C0_, c0),
                start(index, index_, zero), start(values, values_, zero), first, last,
                start(B, B_, b), b_row,
            )  # fmt: skip
            finish = builder.append_basic_block("finish")
            switch = builder.switch(code, finish)
            for value in CODES:
                block = builder.append_basic_block(f"code{value}")
                switch.add_case(simd.constant(value), block)
                builder.position_at_end(block)
                _write_rows(emit, widths_of(value, itemsize), forward, *pointers)
                builder.branch(finish)
            builder.position_at_end(finish)
            return context.get_dummy_value()

        n = types.intp
        return types.void(n, C, n, C0, n, index, values, n, n, B, n, n), generate

    return over_rows


sum_rows = _over_rows(forward=True)
add_to_rows = _over_rows(forward=False)


if JIT_DISABLED:

    def sum_rows(
        code: int, C: Any, c: int, C0: Any, c0: int,
        index: Any, values: Any, first: int, last: int, B: Any, b: int, b_row: int,
    ) -> None:  # fmt: skip
        """``C[:] = C0[:] + sum_p values[p] * B[index[p], :]``, in NumPy."""
        columns = np.arange(columns_of(code, C.itemsize))
        rows = B[b + index[first:last, None].astype(np.int64) * b_row + columns]
        C[c + columns] = C0[c0 + columns] + values[first:last] @ rows

    def add_to_rows(
        code: int, C: Any, c: int, C0: Any, c0: int,
        index: Any, values: Any, first: int, last: int, B: Any, b: int, b_row: int,
    ) -> None:  # fmt: skip
        """``B[index[p], :] += values[p] * C[:]``, in NumPy."""
        columns = np.arange(columns_of(code, C.itemsize))
        rows = b + index[first:last, None].astype(np.int64) * b_row + columns
        np.add.at(B, rows, values[first:last, None] * C0[c0 + columns])


@kernel("int64[:, ::1], T[:, ::1], int64[::1]")
def count_nonzeros(counts: Any, x: Any, edges: Any) -> None:
    """Number of non-zeros of each row in each range of columns.

    Parameters
    ----------
    counts : (N, S) int64 - overwritten
    x : (N, D) float32 or float64
    edges : (S + 1,) int64 - where the ranges begin, and where the last one ends
    """
    zero = x.dtype.type(0)
    for n in range(x.shape[0]):
        for s in range(counts.shape[1]):
            row = x[n, edges[s] : edges[s + 1]]
            count = 0
            for k in range(row.size):
                count += row[k] != zero
            counts[n, s] = count


@part
def compress_segment(
    columns: Any, values: Any, p: int, stop: int, x: Any, row: int, k0: int, k1: int
) -> int:
    """Put the non-zeros in columns k0 to k1 of a row to places p to stop; returns where they end.

    The row begins ``row`` elements behind the first of x.
    """
    flat = view(x, 0, x.size)
    for k in range(k0, k1, MASK_BITS):
        bits = nonzero_bits(flat, row + k)
        if k1 - k < MASK_BITS:
            bits &= (1 << (k1 - k)) - 1
        while bits != 0 and p < stop:
            column = k + lowest_bit(bits)
            columns[p] = np.uint16(column)
            values[p] = flat[row + column]
            bits &= bits - 1
            p += 1
    return p


@kernel("uint16[::1], T[::1], T[:, ::1], int64[::1], int64[::1]")
def compress(columns: Any, values: Any, x: Any, starts: Any, edges: Any) -> None:
    """Columns and values of the non-zeros of all rows, segment by segment.

    Many elements are compared with zero at once, and the rest is done for non-zeros alone.  A
    segment never takes more than its place, and is filled up with zeros, should somebody have
    changed x since it was counted.

    Parameters
    ----------
    columns, values : (nonzeros,) - overwritten from ``starts[0]`` on
    x : (N, D) float32 or float64, D <= 65536
    starts : (N * S + 1,) int64 - where the segments of these rows begin, and the last one ends
    edges : (S + 1,) int64 - the columns between which a row is cut
    """
    zero, D = x.dtype.type(0), x.shape[1]
    segments = edges.size - 1
    for n in range(x.shape[0]):
        for s in range(segments):
            p, stop = starts[n * segments + s], starts[n * segments + s + 1]
            p = compress_segment(columns, values, p, stop, x, n * D, edges[s], edges[s + 1])
            for q in range(p, stop):
                columns[q] = np.uint16(edges[s])
                values[q] = zero


@kernel("int64[:, ::1], int64[::1], int64[::1], int64[::1]")
def count_segments(counts: Any, starts: Any, columns: Any, edges: Any) -> None:
    """Number of stored elements of each row of a CSR matrix in each range of columns.

    Parameters
    ----------
    counts : (N, S) int64 - overwritten
    starts : (N + 1,) int64 - where each row begins, and where the last one ends
    columns : (nonzeros,) int64, in [0, D), ascending within a row
    edges : (S + 1,) int64, from 0 to D
    """
    for n in range(counts.shape[0]):
        s = 0
        counts[n, :] = 0
        for p in range(starts[n], starts[n + 1]):
            while columns[p] >= edges[s + 1]:
                s += 1
            counts[n, s] += 1
