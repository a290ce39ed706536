"""Products with matrices that are mostly zeros: only what is not zero is touched.

    forward             C[:] = C0[:] + sum_p values[p] * B[index[p], :]     first <= p < last
    update, by rows     B[index[p], :] += values[p] * C[:]                  first <= p < last
    update, by columns  C[:] += sum_n values[places[n]] * D[n, :]           each bit n of a mask

The inputs lie in compressed rows: column and value of each number that is not zero.  A row is cut
into segments, ranges of columns so narrow that the rows of W they need fit a core's cache; the
segments of one range are done for the whole batch before the next range begins.

The update by rows, of the inputs, loads and stores a row of W for each number.  By columns it does
so once, for all examples that have a number there: worth it if they are some.  Which are they?
Each segment has a mask of its columns, a bit each, and squares of 64 x 64 bits are transposed in
registers: 64 columns of 64 examples at once.  The values need no second list: columns are walked in
ascending order, so an example's next value is the next in its row.  Both ways sum in the order of
the examples, and give the same bits.

Below a third of non-zeros this beats the dense product.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from . import simd
from .gemm import CODES, columns_of, widths_of
from .jit import JIT_DISABLED, intrinsic, kernel, part
from .simd import MASK_BITS, bit, low_bits, lowest_bit, nonzero_bits, view, without_lowest_bit


class _Row:
    """A row in registers, vector by vector."""

    def __init__(self, emit: simd.Emitter, widths: list[int], pointer: Any) -> None:
        self.emit = emit
        offsets = [simd.constant(sum(widths[:j])) for j in range(len(widths))]
        self.columns = list(zip(offsets, widths, strict=True))
        # LLVM keeps in registers what nobody has the address of.
        self.vectors = [cgutils.alloca_once(emit.builder, emit.vector(width)) for width in widths]
        for (offset, width), vector in zip(self.columns, self.vectors, strict=True):
            emit.builder.store(emit.load(emit.at(pointer, offset), width), vector)

    def add(self, number: Any, pointer: Any) -> None:
        """Add ``number`` times the row in memory."""
        emit, builder = self.emit, self.emit.builder
        for (offset, width), vector in zip(self.columns, self.vectors, strict=True):
            factor, other = emit.splat(number, width), emit.load(emit.at(pointer, offset), width)
            builder.store(emit.multiply_add(factor, other, builder.load(vector), width), vector)

    def add_to(self, pointer: Any, number: Any) -> None:
        """Add ``number`` times this row to the one in memory."""
        emit = self.emit
        for (offset, width), vector in zip(self.columns, self.vectors, strict=True):
            factor, there = emit.splat(number, width), emit.at(pointer, offset)
            held, other = emit.builder.load(vector), emit.load(there, width)
            emit.store(emit.multiply_add(factor, held, other, width), there, width)

    def store(self, pointer: Any) -> None:
        """Write the row to memory."""
        for (offset, width), vector in zip(self.columns, self.vectors, strict=True):
            held = self.emit.builder.load(vector)
            self.emit.store(held, self.emit.at(pointer, offset), width)


def _for_each_place(
    emit: simd.Emitter, first: Any, last: Any, visit: Callable[[Any], None]
) -> None:
    """Write the loop over the places from first to last."""
    builder = emit.builder
    before, loop = builder.block, builder.append_basic_block("place")
    after = builder.append_basic_block("no_place")
    builder.cbranch(builder.icmp_signed("<", first, last), loop, after)

    builder.position_at_end(loop)
    p = builder.phi(simd.INT64)
    visit(p)
    following = builder.add(p, simd.constant(1))
    p.add_incoming(first, before)
    p.add_incoming(following, loop)
    emit.loop_back(builder.icmp_signed("<", following, last), loop, after)
    builder.position_at_end(after)


def _for_each_bit(emit: simd.Emitter, low: Any, high: Any, visit: Callable[[Any], None]) -> None:
    """Write the loop over the places, 0 to 127, of the bits of two masks.

    One loop, not two: the processor guesses wrongly when a loop ends, and there is one for each row
    of W.
    """
    builder = emit.builder
    zero, far = simd.constant(0), simd.constant(MASK_BITS)

    def is_zero(mask: Any) -> Any:
        return builder.icmp_signed("==", mask, zero)

    none = is_zero(low)
    first = builder.select(none, high, low)
    start = first, builder.select(none, zero, high), builder.select(none, far, zero)
    before, loop = builder.block, builder.append_basic_block("bit")
    after = builder.append_basic_block("no_bit")
    builder.cbranch(is_zero(first), after, loop)

    builder.position_at_end(loop)
    counters = bits, rest, base = [builder.phi(simd.INT64) for _ in start]
    visit(builder.add(base, builder.cttz(bits, ir.Constant(ir.IntType(1), 1))))
    left = builder.and_(bits, builder.sub(bits, simd.constant(1)))
    done = is_zero(left)
    following = (
        builder.select(done, rest, left),
        builder.select(done, zero, rest),
        builder.select(done, far, base),
    )
    for counter, value, next_value in zip(counters, start, following, strict=True):
        counter.add_incoming(value, before)
        counter.add_incoming(next_value, loop)
    emit.loop_back(builder.not_(is_zero(following[0])), loop, after)
    builder.position_at_end(after)


def _for_each_width(
    context: Any, builder: Any, code: Any, itemsize: int, write: Callable[..., None]
) -> Any:
    """Write a branch for every width of a panel."""
    emit = simd.Emitter(builder, itemsize)
    finish = builder.append_basic_block("finish")
    switch = builder.switch(code, finish)
    for value in CODES:
        block = builder.append_basic_block(f"code{value}")
        switch.add_case(simd.constant(value), block)
        builder.position_at_end(block)
        write(emit, widths_of(value, itemsize))
        builder.branch(finish)
    builder.position_at_end(finish)
    return context.get_dummy_value()


def _over_rows(forward: bool) -> Callable[..., Any]:
    """Return the intrinsic of one of the two products that walk a segment of the inputs."""

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
            start = functools.partial(simd.data_pointer, context, builder)
            zero = simd.constant(0)
            to, origin, rows = start(C, C_, c), start(C0, C0_, c0), start(B, B_, b)
            columns, numbers = start(index, index_, zero), start(values, values_, zero)

            def write(emit: simd.Emitter, widths: list[int]) -> None:
                held = _Row(emit, widths, origin)

                def visit(p: Any) -> None:
                    k = builder.zext(builder.load(builder.gep(columns, [p])), simd.INT64)
                    number = emit.load(emit.at(numbers, p))
                    there = emit.at(rows, builder.mul(k, b_row))
                    if forward:
                        held.add(number, there)
                    else:
                        held.add_to(there, number)

                _for_each_place(emit, first, last, visit)
                if forward:
                    held.store(to)

            return _for_each_width(context, builder, code, itemsize, write)

        n = types.intp
        return types.void(n, C, n, C0, n, index, values, n, n, B, n, n), generate

    return over_rows


sum_rows = _over_rows(forward=True)
add_to_rows = _over_rows(forward=False)


@intrinsic
def add_column(
    typing: Any, code: Any, C: Any, c: Any, values: Any, places: Any, q: Any, low: Any, high: Any,
    D: Any, d: Any, d_row: Any,
) -> Any:  # fmt: skip
    """``C[:] += sum_n values[places[n]] * D[n, :]``, n from the bits of two masks.

    The bits of ``low`` are rows 0 to 63 of D, those of ``high`` the 64 behind; the places, which
    begin at ``q``, are moved on by 1 where a bit is set.
    """
    floats = (C, values, D)
    if not simd.is_flat(places, *floats) or len({a.dtype for a in floats}) > 1:
        return None
    itemsize = C.dtype.bitwidth // 8

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code, C_, c, values_, places_, q, low, high, D_, d, d_row = arguments
        start = functools.partial(simd.data_pointer, context, builder)
        to, rows = start(C, C_, c), start(D, D_, d)
        numbers, begins = start(values, values_, simd.constant(0)), start(places, places_, q)

        def write(emit: simd.Emitter, widths: list[int]) -> None:
            held = _Row(emit, widths, to)

            def visit(n: Any) -> None:
                place = builder.gep(begins, [n])
                p = builder.load(place)
                builder.store(builder.add(p, simd.constant(1)), place)
                held.add(emit.load(emit.at(numbers, p)), emit.at(rows, builder.mul(n, d_row)))

            _for_each_bit(emit, low, high, visit)
            held.store(to)

        return _for_each_width(context, builder, code, itemsize, write)

    n = types.intp
    return types.void(n, C, n, values, places, n, n, n, D, n, n), generate


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
        """``B[index[p], :] += values[p] * C0[:]``, in NumPy."""
        columns = np.arange(columns_of(code, C.itemsize))
        rows = b + index[first:last, None].astype(np.int64) * b_row + columns
        np.add.at(B, rows, values[first:last, None] * C0[c0 + columns])

    def add_column(
        code: int, C: Any, c: int, values: Any, places: Any, q: int, low: int, high: int,
        D: Any, d: int, d_row: int,
    ) -> None:  # fmt: skip
        """``C[:] += sum_n values[places[n]] * D[n, :]``, in NumPy."""
        mask = int(low) % 2**MASK_BITS + (int(high) % 2**MASK_BITS << MASK_BITS)
        columns = np.arange(columns_of(code, C.itemsize))
        for n in range(2 * MASK_BITS):
            if mask >> n & 1:
                C[c + columns] += values[places[q + n]] * D[d + n * d_row + columns]
                places[q + n] += 1


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
    columns: Any, values: Any, p: int, stop: int, masks: Any, mask: int,
    x: Any, row: int, k0: int, k1: int,
) -> int:  # fmt: skip
    """Put the non-zeros in columns k0 to k1 of a row to places p to stop; returns where they end.

    Their masks go to ``masks`` from ``mask`` on, if there are any.  The row begins ``row`` elements
    behind the first of x.
    """
    flat = view(x, 0, x.size)
    for k in range(k0, k1, MASK_BITS):
        bits = nonzero_bits(flat, row + k)
        if k1 - k < MASK_BITS:
            bits &= low_bits(k1 - k)
        rest = bits
        while rest != 0 and p < stop:
            column = k + lowest_bit(rest)
            columns[p] = np.uint16(column)
            values[p] = flat[row + column]
            rest = without_lowest_bit(rest)
            p += 1
        if masks.size:
            masks[mask + (k - k0) // MASK_BITS] = bits ^ rest  # those that have a place
    return p


@kernel("uint16[::1], T[::1], int64[::1], T[:, ::1], int64[::1], int64[::1]")
def compress(columns: Any, values: Any, masks: Any, x: Any, starts: Any, edges: Any) -> None:
    """Columns, values and masks of the non-zeros of all rows, segment by segment.

    Many elements are compared with zero at once, and the rest is done for non-zeros alone.  A
    segment never takes more than its place, and is filled up with zeros, should somebody have
    changed x since it was counted.

    Parameters
    ----------
    columns, values : (nonzeros,) - overwritten from ``starts[0]`` on
    masks : (N * S * M,) int64 - overwritten: a bit for each column of a segment; or empty
    x : (N, D) float32 or float64, D <= 65536
    starts : (N * S + 1,) int64 - where the segments of these rows begin, and the last one ends
    edges : (S + 1,) int64 - the columns between which a row is cut
    """
    zero, D = x.dtype.type(0), x.shape[1]
    segments = edges.size - 1
    words = masks.size // max(1, x.shape[0] * segments)
    masks[:] = 0
    for n in range(x.shape[0]):
        for s in range(segments):
            p, stop = starts[n * segments + s], starts[n * segments + s + 1]
            mask = (n * segments + s) * words
            p = compress_segment(
                columns, values, p, stop, masks, mask, x, n * D, edges[s], edges[s + 1]
            )
            for q in range(p, stop):
                columns[q] = np.uint16(edges[s])
                values[q] = zero


@kernel("int64[:, ::1], int64[::1], int64[::1], int64[::1], int64[::1]")
def count_segments(counts: Any, masks: Any, starts: Any, columns: Any, edges: Any) -> None:
    """Number and masks of the stored elements of each row of a CSR matrix in each range of columns.

    Parameters
    ----------
    counts : (N, S) int64 - overwritten
    masks : (N * S * M,) int64 - overwritten: a bit for each column of a segment; or empty
    starts : (N + 1,) int64 - where each row begins, and where the last one ends
    columns : (nonzeros,) int64, in [0, D), ascending within a row
    edges : (S + 1,) int64, from 0 to D
    """
    segments = counts.shape[1]
    words = masks.size // max(1, counts.size)
    masks[:] = 0
    for n in range(counts.shape[0]):
        s = 0
        counts[n, :] = 0
        for p in range(starts[n], starts[n + 1]):
            while columns[p] >= edges[s + 1]:
                s += 1
            if words:
                k = columns[p] - edges[s]
                masks[(n * segments + s) * words + k // MASK_BITS] |= bit(k % MASK_BITS)
            counts[n, s] += 1
