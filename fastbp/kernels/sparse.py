"""Products with matrices that are mostly zeros: only what is not zero is touched.

    forward             C[:] = C0[:] + sum_p values[p] * B[index[p], :]     first <= p < last
    forward, once       C[:] = C0[:] + sum_k x[k] * B[k, :]                 each bit k of a mask
    update, by rows     B[index[p], :] += values[p] * C[:]                  first <= p < last
    update, by columns  C[:] += sum_n values[places[n]] * D[n, :]           each bit n of a mask

The inputs lie in compressed rows: column and value of each number that is not zero.  A row is cut
into segments, ranges of columns so narrow that the rows of W they need fit a core's cache; the
segments of one range are done for the whole batch before the next range begins.

Columns take 2 bytes a number and values 4 or 8.  Most inputs need less: a mask, a bit for each
column of a segment, says as much as the columns; and where at most 256 values occur, as in images,
a byte for each number, a *code*, is its place in a table of them.  Examples come from memory in
random order, and the wait for them is as long as half of the arithmetic: 15 pixels of MNIST take 27
bytes instead of 90.

The update by rows, of the inputs, loads and stores a row of W for each number.  By columns it does
so once, for all examples that have a number there: worth it if they are some.  Which are they?  The
masks say: squares of 64 x 64 bits are transposed in registers, 64 columns of 64 examples at once.
The values need no second list: columns are walked in ascending order, so an example's next value is
the next in its row.  Both ways sum in the order of the examples, and give the same bits.

Inputs that are looked at once are not compressed.  Their zeros are skipped as they are met: a mask
of the next 64 numbers, and the sum over its bits.

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
from .calls import call_apart
from .gemm import CODES, columns_of, widths_of
from .jit import JIT_DISABLED, intrinsic
from .simd import MASK_BITS


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

    def add_to(self, number: Any, pointer: Any) -> None:
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


def _number(emit: simd.Emitter, numbers: Any, table: Any, place: Any) -> Any:
    """Return the number at a place of floats, or of codes of floats in a table."""
    if numbers.type.pointee == emit.scalar:
        return emit.load(emit.at(numbers, place))
    code = emit.builder.load(emit.at(numbers, place))
    return emit.load(emit.at(table, emit.builder.zext(code, simd.INT64)))


def _for_each_place(
    emit: simd.Emitter, columns: Any, numbers: Any, first: Any, last: Any, rows: Any, row: Any,
    visit: Callable[[Any, Any], None],
) -> None:  # fmt: skip
    """Write the loop over the places from first to last: numbers, and rows of their columns."""
    builder = emit.builder
    before, loop = builder.block, builder.append_basic_block("place")
    after = builder.append_basic_block("no_place")
    builder.cbranch(builder.icmp_signed("<", first, last), loop, after)

    builder.position_at_end(loop)
    p = builder.phi(simd.INT64)
    k = builder.zext(builder.load(emit.at(columns, p)), simd.INT64)
    visit(_number(emit, numbers, None, p), emit.at(rows, builder.mul(k, row)))
    following = builder.add(p, simd.constant(1))
    p.add_incoming(first, before)
    p.add_incoming(following, loop)
    emit.loop_back(builder.icmp_signed("<", following, last), loop, after)
    builder.position_at_end(after)


def _for_each_code(
    emit: simd.Emitter, masks: Any, codes: Any, table: Any, first: Any, last: Any, rows: Any,
    row: Any, visit: Callable[[Any, Any], None],
) -> None:  # fmt: skip
    """Write the same loop for codes; the columns are the bits of masks, one for each place.

    It moves addresses on instead of counting: fewer registers are used.
    """
    builder = emit.builder
    zero, one = simd.constant(0), simd.constant(1)
    before, word = builder.block, builder.append_basic_block("mask")
    loop, rest = builder.append_basic_block("code"), builder.append_basic_block("rest")
    after = builder.append_basic_block("no_code")
    end = emit.at(codes, last)
    rows_a_word = builder.mul(row, simd.constant(MASK_BITS))
    start = emit.at(codes, first)
    builder.cbranch(builder.icmp_signed("<", first, last), word, after)

    builder.position_at_end(word)
    mask, first_row, begin = (builder.phi(p.type) for p in (masks, rows, codes))
    all_bits = builder.load(mask)
    next_mask, next_row = emit.at(mask, one), emit.at(first_row, rows_a_word)
    builder.cbranch(builder.icmp_signed("==", all_bits, zero), word, loop)

    builder.position_at_end(loop)
    code, bits = builder.phi(codes.type), builder.phi(simd.INT64)
    k = builder.cttz(bits, ir.Constant(ir.IntType(1), 1))
    visit(_number(emit, code, table, zero), emit.at(first_row, builder.mul(k, row)))
    next_code = emit.at(code, one)
    left = builder.and_(bits, builder.sub(bits, one))
    builder.cbranch(builder.icmp_unsigned("==", next_code, end), after, rest)

    builder.position_at_end(rest)
    emit.loop_back(builder.icmp_signed("!=", left, zero), loop, word)
    for phi, sources in (
        (mask, ((masks, before), (next_mask, word), (next_mask, rest))),
        (first_row, ((rows, before), (next_row, word), (next_row, rest))),
        (begin, ((start, before), (begin, word), (next_code, rest))),
        (code, ((begin, word), (next_code, rest))),
        (bits, ((all_bits, word), (left, rest))),
    ):
        for value, block in sources:
            phi.add_incoming(value, block)
    builder.position_at_end(after)


def _for_each_nonzero(
    emit: simd.Emitter, masks: Any, words: Any, numbers: Any, rows: Any, row: Any,
    visit: Callable[[Any, Any], None],
) -> None:  # fmt: skip
    """Write the loop over the bits of some masks: numbers at their places, and rows of them."""
    builder = emit.builder
    with cgutils.for_range(builder, words) as loop:
        first = builder.mul(loop.index, simd.constant(MASK_BITS))

        def visit_place(i: Any) -> None:
            k = builder.add(first, i)
            visit(emit.load(emit.at(numbers, k)), emit.at(rows, builder.mul(k, row)))

        _for_each_bit(emit, builder.load(emit.at(masks, loop.index)), visit_place)


def _for_each_bit(emit: simd.Emitter, mask: Any, visit: Callable[[Any], None]) -> None:
    """Write the loop over the places of the bits of a mask.

    Two masks are two loops.  In one, that selected the next mask, each bit waited for the one
    before; at the end of a loop the processor guesses wrongly, and yet is faster: a step of 65 us
    took 13 less.
    """
    builder = emit.builder
    zero = simd.constant(0)
    before, loop = builder.block, builder.append_basic_block("bit")
    after = builder.append_basic_block("no_bit")
    builder.cbranch(builder.icmp_signed("==", mask, zero), after, loop)

    builder.position_at_end(loop)
    bits = builder.phi(simd.INT64)
    visit(builder.cttz(bits, ir.Constant(ir.IntType(1), 1)))
    left = builder.and_(bits, builder.sub(bits, simd.constant(1)))
    bits.add_incoming(mask, before)
    bits.add_incoming(left, builder.block)
    emit.loop_back(builder.icmp_signed("!=", left, zero), loop, after)
    builder.position_at_end(after)


def _for_each_width(
    context: Any, builder: Any, code: Any, itemsize: int, given: list[Any],
    write: Callable[..., None],
) -> Any:  # fmt: skip
    """Write a branch for every width of a panel, in a function of their own."""

    def write_all(own: Any, code: Any, *given: Any) -> None:
        emit = simd.Emitter(own, itemsize)
        finish = own.append_basic_block("finish")
        switch = own.switch(code, finish)
        for value in CODES:
            block = own.append_basic_block(f"code{value}")
            switch.add_case(simd.constant(value), block)
            own.position_at_end(block)
            write(emit, widths_of(value, itemsize), *given)
            own.branch(finish)
        own.position_at_end(finish)

    call_apart(builder, write.__name__, [code, *given], write_all)
    return context.get_dummy_value()


def _over_rows(forward: bool) -> Callable[..., Any]:
    """Return the intrinsic of one of the two products that walk a segment of the inputs.

    ``numbers`` are floats and ``where`` their columns; or they are codes, ``where`` has the masks
    of the segment from ``w`` on, whose first bit is the row of B at ``b``.
    """

    @intrinsic
    def over_rows(
        typing: Any, code: Any, C: Any, c: Any, C0: Any, c0: Any,
        where: Any, w: Any, numbers: Any, table: Any, first: Any, last: Any,
        B: Any, b: Any, b_row: Any,
    ) -> Any:  # fmt: skip
        floats = (C, C0, table, B)
        if not simd.is_flat(where, numbers, *floats) or len({a.dtype for a in floats}) > 1:
            return None
        itemsize = C.dtype.bitwidth // 8

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            (code, C_, c, C0_, c0, where_, w, numbers_, table_, first, last, B_, b,
             b_row) = arguments  # fmt: skip
            start = functools.partial(simd.data_pointer, context, builder)
            zero = simd.constant(0)

            def over_rows(
                emit: simd.Emitter, widths: list[int], to: Any, origin: Any, where: Any,
                values: Any, table: Any, *others: Any,
            ) -> None:  # fmt: skip
                held = _Row(emit, widths, origin)

                def visit(number: Any, there: Any) -> None:
                    if forward:
                        held.add(number, there)
                    else:
                        held.add_to(number, there)

                first, last, rows, row = others
                if numbers.dtype == types.uint8:
                    _for_each_code(emit, where, values, table, first, last, rows, row, visit)
                else:
                    _for_each_place(emit, where, values, first, last, rows, row, visit)
                if forward:
                    held.store(to)

            given = [
                start(C, C_, c), start(C0, C0_, c0), start(where, where_, w),
                start(numbers, numbers_, zero), start(table, table_, zero), first, last,
                start(B, B_, b), b_row,
            ]  # fmt: skip
            return _for_each_width(context, builder, code, itemsize, given, over_rows)

        n = types.intp
        return types.void(n, C, n, C0, n, where, n, numbers, table, n, n, B, n, n), generate

    return over_rows


sum_rows = _over_rows(forward=True)
add_to_rows = _over_rows(forward=False)


@intrinsic
def sum_nonzeros(
    typing: Any, code: Any, C: Any, c: Any, C0: Any, c0: Any, masks: Any, m: Any, words: Any,
    x: Any, first: Any, B: Any, b: Any, b_row: Any,
) -> Any:  # fmt: skip
    """``C[:] = C0[:] + sum_k x[first + k] * B[k, :]`` for the bits k of so many masks from m on."""
    floats = (C, C0, x, B)
    if not simd.is_flat(masks, C, C0, B) or len({a.dtype for a in floats}) > 1:
        return None
    itemsize = C.dtype.bitwidth // 8

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code, C_, c, C0_, c0, masks_, m, words, x_, first, B_, b, b_row = arguments
        start = functools.partial(simd.data_pointer, context, builder)

        def sum_nonzeros(
            emit: simd.Emitter, widths: list[int], to: Any, origin: Any, masks: Any, words: Any,
            numbers: Any, rows: Any, row: Any,
        ) -> None:  # fmt: skip
            held = _Row(emit, widths, origin)
            _for_each_nonzero(emit, masks, words, numbers, rows, row, held.add)
            held.store(to)

        given = [
            start(C, C_, c), start(C0, C0_, c0), start(masks, masks_, m), words,
            start(x, x_, first), start(B, B_, b), b_row,
        ]  # fmt: skip
        return _for_each_width(context, builder, code, itemsize, given, sum_nonzeros)

    n = types.intp
    return types.void(n, C, n, C0, n, masks, n, n, x, n, B, n, n), generate


@intrinsic
def add_columns(
    typing: Any, code: Any, count: Any, C: Any, c: Any, c_row: Any, numbers: Any, table: Any,
    places: Any, q: Any, masks: Any, m: Any, D: Any, d: Any, d_row: Any,
) -> Any:  # fmt: skip
    """``C[k, :] += sum_n values[places[n]] * D[n, :]`` for k < count, n from the bits of masks.

    The values are ``numbers``, or if these are bytes ``table[numbers]``.  The bits of mask k, the
    first at ``m``, are rows 0 to 63 of D, those of mask k + 64 the 64 behind; the places, which
    begin at ``q``, are moved on by 1 where a bit is set.
    """
    floats = (C, table, D)
    if not simd.is_flat(numbers, places, masks, *floats) or len({a.dtype for a in floats}) > 1:
        return None
    itemsize = C.dtype.bitwidth // 8

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (code, count, C_, c, c_row, numbers_, table_, places_, q, masks_, m, D_, d,
         d_row) = arguments  # fmt: skip
        start = functools.partial(simd.data_pointer, context, builder)
        zero = simd.constant(0)

        def add_columns(
            emit: simd.Emitter, widths: list[int], count: Any, to: Any, to_row: Any, numbers: Any,
            table: Any, places: Any, masks: Any, rows: Any, row: Any,
        ) -> None:  # fmt: skip
            own = emit.builder
            with cgutils.for_range(own, count) as loop:
                column = emit.at(to, own.mul(loop.index, to_row))
                held = _Row(emit, widths, column)
                for first in (0, MASK_BITS):
                    some = emit.at(masks, own.add(loop.index, simd.constant(first)))

                    def visit(bit: Any, first: int = first, held: _Row = held) -> None:
                        n = own.or_(bit, simd.constant(first))
                        place = emit.at(places, n)
                        p = own.load(place)
                        own.store(own.add(p, simd.constant(1)), place)
                        held.add(_number(emit, numbers, table, p), emit.at(rows, own.mul(n, row)))

                    _for_each_bit(emit, own.load(some), visit)
                held.store(column)

        given = [
            count, start(C, C_, c), c_row, start(numbers, numbers_, zero),
            start(table, table_, zero), start(places, places_, q), start(masks, masks_, m),
            start(D, D_, d), d_row,
        ]  # fmt: skip
        return _for_each_width(context, builder, code, itemsize, given, add_columns)

    n = types.intp
    return types.void(n, n, C, n, n, numbers, table, places, n, masks, n, D, n, n), generate


if JIT_DISABLED:

    def _ones(*masks: int) -> list[int]:
        """Return the places of the bits that are 1, from the lowest bit of the first mask on."""
        bits = ((int(mask) >> j & 1) for mask in masks for j in range(MASK_BITS))
        return [place for place, one in enumerate(bits) if one]

    def _segment(where: Any, w: int, numbers: Any, table: Any, first: int, last: int) -> Any:
        """Return columns and values of a segment."""
        if numbers.dtype != np.uint8:
            return where[first:last].astype(np.int64), numbers[first:last]
        ones = _ones(*where[w:])
        return np.array(ones[: last - first], np.int64), table[numbers[first:last]]

    def sum_rows(
        code: int, C: Any, c: int, C0: Any, c0: int,
        where: Any, w: int, numbers: Any, table: Any, first: int, last: int,
        B: Any, b: int, b_row: int,
    ) -> None:  # fmt: skip
        """``C[:] = C0[:] + sum_p values[p] * B[columns[p], :]``, in NumPy."""
        index, values = _segment(where, w, numbers, table, first, last)
        columns = np.arange(columns_of(code, C.itemsize))
        rows = B[b + index[:, None] * b_row + columns]
        C[c + columns] = C0[c0 + columns] + values @ rows

    def sum_nonzeros(
        code: int, C: Any, c: int, C0: Any, c0: int, masks: Any, m: int, words: int,
        x: Any, first: int, B: Any, b: int, b_row: int,
    ) -> None:  # fmt: skip
        """``C[:] = C0[:] + sum_k x[first + k] * B[k, :]``, in NumPy."""
        k = np.array(_ones(*masks[m : m + words]), np.int64)
        columns = np.arange(columns_of(code, C.itemsize))
        rows = B[b + k[:, None] * b_row + columns]
        C[c + columns] = C0[c0 + columns] + x.reshape(-1)[first + k] @ rows

    def add_to_rows(
        code: int, C: Any, c: int, C0: Any, c0: int,
        where: Any, w: int, numbers: Any, table: Any, first: int, last: int,
        B: Any, b: int, b_row: int,
    ) -> None:  # fmt: skip
        """``B[columns[p], :] += values[p] * C0[:]``, in NumPy."""
        index, values = _segment(where, w, numbers, table, first, last)
        columns = np.arange(columns_of(code, C.itemsize))
        rows = b + index[:, None] * b_row + columns
        np.add.at(B, rows, values[:, None] * C0[c0 + columns])

    def add_columns(
        code: int, count: int, C: Any, c: int, c_row: int, numbers: Any, table: Any,
        places: Any, q: int, masks: Any, m: int, D: Any, d: int, d_row: int,
    ) -> None:  # fmt: skip
        """``C[k, :] += sum_n values[places[n]] * D[n, :]`` for k < count, in NumPy."""
        columns = np.arange(columns_of(code, C.itemsize))
        for k in range(count):
            for n in _ones(masks[m + k], masks[m + k + MASK_BITS]):
                number = numbers[places[q + n]]
                value = table[number] if numbers.dtype == np.uint8 else number
                C[c + k * c_row + columns] += value * D[d + n * d_row + columns]
                places[q + n] += 1
