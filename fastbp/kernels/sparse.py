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
the next in its row.  Two columns are walked together, over the examples that have a number in one
of them, as most have in both: each row of D is loaded once for two, and while one sum waits for its
last addition the other goes on.  Both ways sum in the order of the examples, and give the same bits
for finite D: a number that is not there is one of 0, which leaves all but the sign of a zero.

Of B, or of C in the update by columns, one or two columns may lie apart, as :mod:`.thin` says.

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
from .gemm import CODES, THIN, vectors_of, widths_of
from .jit import JIT_DISABLED, intrinsic
from .simd import MASK_BITS

# Added to the code of a panel of whole vectors, fewer than a tile's, with thin columns apart.
WITH_THIN = CODES.stop
WITH_THIN_CODES = tuple(code + WITH_THIN for code in CODES[:-1] if code % 2 == 0)


def _widths_of(code: int, itemsize: int) -> tuple[list[int], bool]:
    """Return the widths of the vectors in a row, and whether the last are thin columns."""
    if code in WITH_THIN_CODES:
        return [*widths_of(code - WITH_THIN, itemsize), THIN], True
    return widths_of(code, itemsize), False


class _Row:
    """A row in registers, vector by vector; ``pointers`` are where its vectors are in memory."""

    def __init__(self, emit: simd.Emitter, widths: list[int], pointers: list[Any]) -> None:
        self.emit, self.widths = emit, widths
        # LLVM keeps in registers what nobody has the address of.
        self.vectors = [cgutils.alloca_once(emit.builder, emit.vector(width)) for width in widths]
        for width, vector, pointer in zip(widths, self.vectors, pointers, strict=True):
            emit.builder.store(emit.load(pointer, width), vector)

    def add(self, number: Any, pointers: list[Any]) -> None:
        """Add ``number`` times the row in memory."""
        emit, builder = self.emit, self.emit.builder
        for width, vector, pointer in zip(self.widths, self.vectors, pointers, strict=True):
            factor, other = emit.splat(number, width), emit.load(pointer, width)
            builder.store(emit.multiply_add(factor, other, builder.load(vector), width), vector)

    def add_to(self, number: Any, pointers: list[Any]) -> None:
        """Add ``number`` times this row to the one in memory."""
        emit = self.emit
        for width, vector, pointer in zip(self.widths, self.vectors, pointers, strict=True):
            held, other = emit.builder.load(vector), emit.load(pointer, width)
            product = emit.multiply_add(emit.splat(number, width), held, other, width)
            emit.store(product, pointer, width)

    def store(self, pointers: list[Any]) -> None:
        """Write the row to memory."""
        for width, vector, pointer in zip(self.widths, self.vectors, pointers, strict=True):
            self.emit.store(self.emit.builder.load(vector), pointer, width)


class _Weights:
    """The rows of a panel of W, or of its gradient; thin columns lie apart, if there are any."""

    def __init__(
        self, emit: simd.Emitter, widths: list[int], start: Any, row: Any, thin: Any
    ) -> None:
        self.emit, self.start, self.row, self.thin = emit, start, row, thin
        self.widths = widths

    def row_at(self, k: Any) -> list[Any]:
        """Return where the vectors of row k are."""
        emit, mul = self.emit, self.emit.builder.mul
        pointers = vectors_of(emit, emit.at(self.start, mul(k, self.row)), self.widths)
        if self.thin is not None:
            pointers[-1] = emit.at(self.thin, mul(k, simd.constant(THIN)))
        return pointers


def _number(emit: simd.Emitter, numbers: Any, table: Any, place: Any) -> Any:
    """Return the number at a place of floats, or of codes of floats in a table."""
    if numbers.type.pointee == emit.scalar:
        return emit.load(emit.at(numbers, place))
    code = emit.builder.load(emit.at(numbers, place))
    return emit.load(emit.at(table, emit.builder.zext(code, simd.INT64)))


def _number_if(emit: simd.Emitter, numbers: Any, table: Any, place: Any, is_there: Any) -> Any:
    """Return the number at a place, or 0 where ``is_there`` is 0 and not 1, without a branch."""
    builder = emit.builder
    if numbers.type.pointee == emit.scalar:
        bits = ir.IntType(8 * emit.itemsize)
        number = builder.bitcast(emit.load(emit.at(numbers, place)), bits)
        mask = builder.neg(is_there)
        mask = mask if mask.type == bits else builder.trunc(mask, bits)
        return builder.bitcast(builder.and_(number, mask), emit.scalar)
    code = builder.zext(builder.load(emit.at(numbers, place)), simd.INT64)
    # Code 0 is a 0.
    return emit.load(emit.at(table, builder.and_(code, builder.neg(is_there))))


def _for_each_place(
    emit: simd.Emitter, columns: Any, numbers: Any, first: Any, last: Any,
    visit: Callable[[Any, Any], None],
) -> None:  # fmt: skip
    """Write the loop over the places from first to last: numbers, and their columns."""
    builder = emit.builder
    before, loop = builder.block, builder.append_basic_block("place")
    after = builder.append_basic_block("no_place")
    builder.cbranch(builder.icmp_signed("<", first, last), loop, after)

    builder.position_at_end(loop)
    p = builder.phi(simd.INT64)
    k = builder.zext(builder.load(emit.at(columns, p)), simd.INT64)
    visit(_number(emit, numbers, None, p), k)
    following = builder.add(p, simd.constant(1))
    p.add_incoming(first, before)
    p.add_incoming(following, loop)
    emit.loop_back(builder.icmp_signed("<", following, last), loop, after)
    builder.position_at_end(after)


def _for_each_code(
    emit: simd.Emitter, masks: Any, codes: Any, table: Any, first: Any, last: Any,
    visit: Callable[[Any, Any], None],
) -> None:  # fmt: skip
    """Write the same loop for codes; the columns are the bits of masks, one for each place.

    It moves addresses of masks and codes on instead of counting: fewer registers are used.
    """
    builder = emit.builder
    zero, one = simd.constant(0), simd.constant(1)
    before, word = builder.block, builder.append_basic_block("mask")
    loop, rest = builder.append_basic_block("code"), builder.append_basic_block("rest")
    after = builder.append_basic_block("no_code")
    end = emit.at(codes, last)
    start = emit.at(codes, first)
    builder.cbranch(builder.icmp_signed("<", first, last), word, after)

    builder.position_at_end(word)
    mask, begin = (builder.phi(p.type) for p in (masks, codes))
    first_column = builder.phi(simd.INT64)
    all_bits = builder.load(mask)
    next_mask = emit.at(mask, one)
    next_column = builder.add(first_column, simd.constant(MASK_BITS))
    builder.cbranch(builder.icmp_signed("==", all_bits, zero), word, loop)

    builder.position_at_end(loop)
    code, bits = builder.phi(codes.type), builder.phi(simd.INT64)
    k = builder.or_(first_column, builder.cttz(bits, ir.Constant(ir.IntType(1), 1)))
    visit(_number(emit, code, table, zero), k)
    next_code = emit.at(code, one)
    left = builder.and_(bits, builder.sub(bits, one))
    builder.cbranch(builder.icmp_unsigned("==", next_code, end), after, rest)

    builder.position_at_end(rest)
    emit.loop_back(builder.icmp_signed("!=", left, zero), loop, word)
    for phi, sources in (
        (mask, ((masks, before), (next_mask, word), (next_mask, rest))),
        (first_column, ((zero, before), (next_column, word), (next_column, rest))),
        (begin, ((start, before), (begin, word), (next_code, rest))),
        (code, ((begin, word), (next_code, rest))),
        (bits, ((all_bits, word), (left, rest))),
    ):
        for value, block in sources:
            phi.add_incoming(value, block)
    builder.position_at_end(after)


def _for_each_nonzero(
    emit: simd.Emitter, masks: Any, words: Any, numbers: Any, visit: Callable[[Any, Any], None]
) -> None:
    """Write the loop over the bits of some masks: numbers at their places, and these places."""
    builder = emit.builder
    with cgutils.for_range(builder, words) as loop:
        first = builder.mul(loop.index, simd.constant(MASK_BITS))

        def visit_place(i: Any) -> None:
            k = builder.or_(first, i)
            visit(emit.load(emit.at(numbers, k)), k)

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
    """Write a branch for every width of a panel, in a function of their own.

    ``write`` gets the widths of a row's vectors, and whether the last are thin columns.
    """

    def write_all(own: Any, code: Any, *given: Any) -> None:
        emit = simd.Emitter(own, itemsize)
        finish = own.append_basic_block("finish")
        switch = own.switch(code, finish)
        for value in (*CODES, *WITH_THIN_CODES):
            block = own.append_basic_block(f"code{value}")
            switch.add_case(simd.constant(value), block)
            own.position_at_end(block)
            write(emit, *_widths_of(value, itemsize), *given)
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
        B: Any, b: Any, b_row: Any, b_thin: Any,
    ) -> Any:  # fmt: skip
        floats = (C, C0, table, B)
        if not simd.is_flat(where, numbers, *floats) or len({a.dtype for a in floats}) > 1:
            return None
        itemsize = C.dtype.bitwidth // 8

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            (code, C_, c, C0_, c0, where_, w, numbers_, table_, first, last, B_, b, b_row,
             b_thin) = arguments  # fmt: skip
            start = functools.partial(simd.data_pointer, context, builder)
            zero = simd.constant(0)

            def over_rows(
                emit: simd.Emitter, widths: list[int], is_thin: bool, to: Any, origin: Any,
                where: Any, values: Any, table: Any, first: Any, last: Any, rows: Any, row: Any,
                thin: Any,
            ) -> None:  # fmt: skip
                held = _Row(emit, widths, vectors_of(emit, origin, widths))
                weights = _Weights(emit, widths, rows, row, thin if is_thin else None)

                def visit(number: Any, k: Any) -> None:
                    (held.add if forward else held.add_to)(number, weights.row_at(k))

                if numbers.dtype == types.uint8:
                    _for_each_code(emit, where, values, table, first, last, visit)
                else:
                    _for_each_place(emit, where, values, first, last, visit)
                if forward:
                    held.store(vectors_of(emit, to, widths))

            given = [
                start(C, C_, c), start(C0, C0_, c0), start(where, where_, w),
                start(numbers, numbers_, zero), start(table, table_, zero), first, last,
                start(B, B_, b), b_row, start(B, B_, b_thin),
            ]  # fmt: skip
            return _for_each_width(context, builder, code, itemsize, given, over_rows)

        n = types.intp
        return types.void(n, C, n, C0, n, where, n, numbers, table, n, n, B, n, n, n), generate

    return over_rows


sum_rows = _over_rows(forward=True)
add_to_rows = _over_rows(forward=False)


@intrinsic
def sum_nonzeros(
    typing: Any, code: Any, C: Any, c: Any, C0: Any, c0: Any, masks: Any, m: Any, words: Any,
    x: Any, first: Any, B: Any, b: Any, b_row: Any, b_thin: Any,
) -> Any:  # fmt: skip
    """``C[:] = C0[:] + sum_k x[first + k] * B[k, :]`` for the bits k of so many masks from m on."""
    floats = (C, C0, x, B)
    if not simd.is_flat(masks, C, C0, B) or len({a.dtype for a in floats}) > 1:
        return None
    itemsize = C.dtype.bitwidth // 8

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code, C_, c, C0_, c0, masks_, m, words, x_, first, B_, b, b_row, b_thin = arguments
        start = functools.partial(simd.data_pointer, context, builder)

        def sum_nonzeros(
            emit: simd.Emitter, widths: list[int], is_thin: bool, to: Any, origin: Any, masks: Any,
            words: Any, numbers: Any, rows: Any, row: Any, thin: Any,
        ) -> None:  # fmt: skip
            held = _Row(emit, widths, vectors_of(emit, origin, widths))
            weights = _Weights(emit, widths, rows, row, thin if is_thin else None)

            def visit(number: Any, k: Any) -> None:
                held.add(number, weights.row_at(k))

            _for_each_nonzero(emit, masks, words, numbers, visit)
            held.store(vectors_of(emit, to, widths))

        given = [
            start(C, C_, c), start(C0, C0_, c0), start(masks, masks_, m), words,
            start(x, x_, first), start(B, B_, b), b_row, start(B, B_, b_thin),
        ]  # fmt: skip
        return _for_each_width(context, builder, code, itemsize, given, sum_nonzeros)

    n = types.intp
    return types.void(n, C, n, C0, n, masks, n, n, x, n, B, n, n, n), generate


@intrinsic
def add_columns(
    typing: Any, code: Any, count: Any, C: Any, c: Any, c_row: Any, c_thin: Any, numbers: Any,
    table: Any, places: Any, q: Any, masks: Any, m: Any, D: Any, d: Any, d_row: Any,
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
        (code, count, C_, c, c_row, c_thin, numbers_, table_, places_, q, masks_, m, D_, d,
         d_row) = arguments  # fmt: skip
        start = functools.partial(simd.data_pointer, context, builder)
        zero = simd.constant(0)

        def add_columns(
            emit: simd.Emitter, widths: list[int], is_thin: bool, count: Any, to: Any, to_row: Any,
            thin: Any, numbers: Any, table: Any, places: Any, masks: Any, rows: Any, row: Any,
        ) -> None:  # fmt: skip
            own, one = emit.builder, simd.constant(1)
            weights = _Weights(emit, widths, to, to_row, thin if is_thin else None)
            with cgutils.for_range(own, own.lshr(own.add(count, one), one)) as loop:
                k = own.shl(loop.index, one)
                is_pair = own.icmp_signed("<", own.add(k, one), count)
                # A last column without a neighbour is its own, which gets nothing.
                neighbour = own.add(k, own.zext(is_pair, simd.INT64))
                columns = [weights.row_at(k), weights.row_at(neighbour)]
                held = [_Row(emit, widths, column) for column in columns]
                for first in (0, MASK_BITS):
                    some = own.load(emit.at(masks, own.add(k, simd.constant(first))))
                    others = own.load(emit.at(masks, own.add(neighbour, simd.constant(first))))
                    masks_of_two = some, own.select(is_pair, others, zero)

                    def visit(
                        bit: Any, first: int = first, held: Any = held, both: Any = masks_of_two
                    ) -> None:
                        n = own.or_(bit, simd.constant(first))
                        place = emit.at(places, n)
                        p = own.load(place)
                        here, there = (own.and_(own.lshr(mask, bit), one) for mask in both)
                        own.store(own.add(p, own.add(here, there)), place)
                        dout = vectors_of(emit, emit.at(rows, own.mul(n, row)), widths)
                        held[0].add(_number_if(emit, numbers, table, p, here), dout)
                        q = own.add(p, own.and_(here, there))
                        held[1].add(_number_if(emit, numbers, table, q, there), dout)

                    _for_each_bit(emit, own.or_(*masks_of_two), visit)
                for vectors, column in zip(reversed(held), reversed(columns), strict=True):
                    vectors.store(column)

        given = [
            count, start(C, C_, c), c_row, start(C, C_, c_thin), start(numbers, numbers_, zero),
            start(table, table_, zero), start(places, places_, q), start(masks, masks_, m),
            start(D, D_, d), d_row,
        ]  # fmt: skip
        return _for_each_width(context, builder, code, itemsize, given, add_columns)

    n = types.intp
    return types.void(n, n, C, n, n, n, numbers, table, places, n, masks, n, D, n, n), generate


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

    def _columns(code: int, itemsize: int) -> Any:
        """Return the columns of a row."""
        return np.arange(sum(_widths_of(code, itemsize)[0]))

    def _places(code: int, itemsize: int, start: int, row: int, thin: int, k: Any) -> Any:
        """Return where the numbers of rows k of W are, (len(k), columns)."""
        columns, k = _columns(code, itemsize), np.asarray(k, np.int64)[:, None]
        if code not in WITH_THIN_CODES:
            return start + k * row + columns
        apart = thin + k * THIN + np.arange(THIN)
        return np.hstack([start + k * row + columns[:-THIN], apart])

    def sum_rows(
        code: int, C: Any, c: int, C0: Any, c0: int,
        where: Any, w: int, numbers: Any, table: Any, first: int, last: int,
        B: Any, b: int, b_row: int, b_thin: int,
    ) -> None:  # fmt: skip
        """``C[:] = C0[:] + sum_p values[p] * B[columns[p], :]``, in NumPy."""
        index, values = _segment(where, w, numbers, table, first, last)
        columns = _columns(code, C.itemsize)
        rows = B[_places(code, C.itemsize, b, b_row, b_thin, index)]
        C[c + columns] = C0[c0 + columns] + values @ rows

    def sum_nonzeros(
        code: int, C: Any, c: int, C0: Any, c0: int, masks: Any, m: int, words: int,
        x: Any, first: int, B: Any, b: int, b_row: int, b_thin: int,
    ) -> None:  # fmt: skip
        """``C[:] = C0[:] + sum_k x[first + k] * B[k, :]``, in NumPy."""
        k = np.array(_ones(*masks[m : m + words]), np.int64)
        columns = _columns(code, C.itemsize)
        rows = B[_places(code, C.itemsize, b, b_row, b_thin, k)]
        C[c + columns] = C0[c0 + columns] + x.reshape(-1)[first + k] @ rows

    def add_to_rows(
        code: int, C: Any, c: int, C0: Any, c0: int,
        where: Any, w: int, numbers: Any, table: Any, first: int, last: int,
        B: Any, b: int, b_row: int, b_thin: int,
    ) -> None:  # fmt: skip
        """``B[columns[p], :] += values[p] * C0[:]``, in NumPy."""
        index, values = _segment(where, w, numbers, table, first, last)
        places = _places(code, C.itemsize, b, b_row, b_thin, index)
        np.add.at(B, places, values[:, None] * C0[c0 + _columns(code, C.itemsize)])

    def add_columns(
        code: int, count: int, C: Any, c: int, c_row: int, c_thin: int, numbers: Any, table: Any,
        places: Any, q: int, masks: Any, m: int, D: Any, d: int, d_row: int,
    ) -> None:  # fmt: skip
        """``C[k, :] += sum_n values[places[n]] * D[n, :]`` for k < count, in NumPy."""
        columns = _columns(code, C.itemsize)
        for k in range(count):
            there = _places(code, C.itemsize, c, c_row, c_thin, [k])[0]
            for n in _ones(masks[m + k], masks[m + k + MASK_BITS]):
                number = numbers[places[q + n]]
                value = table[number] if numbers.dtype == np.uint8 else number
                C[there] += value * D[d + n * d_row + columns]
                places[q + n] += 1
