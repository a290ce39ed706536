"""Products with matrices that are mostly zeros: only what is not zero is touched.

    C[:] = C0[:] + sum_p values[p] * B[index[p], :]        for first <= p < last

The inputs lie in compressed rows: column and value of each number that is not zero.  A row is cut
into segments, ranges of columns so narrow that the rows of W they need fit the first-level cache;
the segments of one range are done for the whole batch before the next range begins.  The gradient
of W wants the same numbers by columns, so the forward pass also appends each number to the list of
its column, and the update walks the lists, loading and storing every row of W once.

Below a third of non-zeros this beats the dense product.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from . import simd
from .gemm import CODES, columns_of, widths_of
from .jit import JIT_DISABLED, intrinsic, kernel


def _sum_rows(append: bool) -> Any:
    """Return the intrinsic, with or without the lists of the columns."""

    @intrinsic
    def sum_rows(
        typing: Any, code: Any, C: Any, c: Any, C0: Any, c0: Any,
        index: Any, values: Any, first: Any, last: Any, B: Any, b: Any, b_row: Any,
        counts: Any, listed: Any, list_values: Any, to: Any, list_row: Any, n: Any,
    ) -> Any:  # fmt: skip
        arrays = (C, C0, index, values, B, counts, listed, list_values)
        if not simd.is_flat(*arrays) or len({C.dtype, C0.dtype, values.dtype, B.dtype}) > 1:
            return None
        itemsize = C.dtype.bitwidth // 8

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            (code, C_, c, C0_, c0, index_, values_, first, last, B_, b, b_row,
             counts_, listed_, list_values_, to, list_row, n) = arguments  # fmt: skip
            emit = simd.Emitter(builder, itemsize)
            zero = simd.constant(0)

            def start(array_type: Any, array: Any, offset: Any) -> Any:
                return simd.data_pointer(context, builder, array_type, array, offset)

            C_at, C0_at, B_at = start(C, C_, c), start(C0, C0_, c0), start(B, B_, b)
            index_at, values_at = start(index, index_, zero), start(values, values_, zero)
            counts_at = start(counts, counts_, zero)
            listed_at, listed_values_at = start(listed, listed_, to), start(list_values, list_values_, to)
            finish = builder.append_basic_block("finish")
            switch = builder.switch(code, finish)
            for value in CODES:
                widths = widths_of(value, itemsize)
                offsets = [simd.constant(sum(widths[:j])) for j in range(len(widths))]
                block = builder.append_basic_block(f"code{value}")
                switch.add_case(simd.constant(value), block)
                builder.position_at_end(block)
                begin = [
                    emit.load(emit.at(C0_at, o), w) for o, w in zip(offsets, widths, strict=True)
                ]
                before = builder.block
                loop = builder.append_basic_block("p")
                after = builder.append_basic_block("done")
                builder.cbranch(builder.icmp_signed("<", first, last), loop, after)
                builder.position_at_end(loop)
                p = builder.phi(simd.INT64)
                sums = [builder.phi(emit.vector(w)) for w in widths]
                position = builder.load(builder.gep(index_at, [p]))
                k = builder.zext(position, simd.INT64)
                number = emit.load(emit.at(values_at, p))
                row = emit.at(B_at, builder.mul(k, b_row))
                new = [
                    emit.multiply_add(emit.splat(number, w), emit.load(emit.at(row, o), w), s, w)
                    for o, w, s in zip(offsets, widths, sums, strict=True)
                ]
                if append:
                    count_at = builder.gep(counts_at, [k])
                    count = builder.load(count_at)
                    builder.store(builder.add(count, ir.Constant(count.type, 1)), count_at)
                    slot = builder.add(builder.mul(k, list_row), builder.zext(count, simd.INT64))
                    builder.store(
                        builder.trunc(n, position.type), builder.gep(listed_at, [slot])
                    )
                    emit.store(number, emit.at(listed_values_at, slot), 1)
                following = builder.add(p, simd.constant(1))
                p.add_incoming(first, before)
                p.add_incoming(following, loop)
                emit.loop_back(builder.icmp_signed("<", following, last), loop, after)
                builder.position_at_end(after)
                for j, w in enumerate(widths):
                    end = builder.phi(emit.vector(w))
                    sums[j].add_incoming(begin[j], before)
                    sums[j].add_incoming(new[j], loop)
                    end.add_incoming(begin[j], before)
                    end.add_incoming(new[j], loop)
                    begin[j] = end
                for o, w, end in zip(offsets, widths, begin, strict=True):
                    emit.store(end, emit.at(C_at, o), w)
                builder.branch(finish)
            builder.position_at_end(finish)
            return context.get_dummy_value()

        i = types.intp
        return types.void(
            i, C, i, C0, i, index, values, i, i, B, i, i, counts, listed, list_values, i, i, i
        ), generate

    return sum_rows


sum_rows = _sum_rows(append=False)
sum_rows_and_list = _sum_rows(append=True)


if JIT_DISABLED:

    def sum_rows(
        code: int, C: Any, c: int, C0: Any, c0: int,
        index: Any, values: Any, first: int, last: int, B: Any, b: int, b_row: int,
        counts: Any, listed: Any, list_values: Any, to: int, list_row: int, n: int,
    ) -> None:  # fmt: skip
        """Do what the intrinsic does, in NumPy."""
        columns = np.arange(columns_of(code, C.itemsize))
        rows = B[b + index[first:last, None].astype(np.int64) * b_row + columns]
        C[c + columns] = C0[c0 + columns] + values[first:last] @ rows

    def sum_rows_and_list(*arguments: Any) -> None:
        """Do what the intrinsic does, in NumPy."""
        sum_rows(*arguments)
        index, values, first, last = arguments[5:9]
        counts, listed, list_values, to, list_row, n = arguments[12:]
        for p in range(first, last):
            k = int(index[p])
            listed[to + k * list_row + counts[k]] = n
            list_values[to + k * list_row + counts[k]] = values[p]
            counts[k] += 1


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


@kernel("uint16[::1], T[::1], T[:, ::1], int64")
def compress(columns: Any, values: Any, x: Any, position: int) -> None:
    """Columns and values of the non-zeros of all rows, one behind the other.

    Every element is written and the position moves on only behind a non-zero: no branch, but one
    element behind the last is written too.

    Parameters
    ----------
    columns, values : (nonzeros + 1,) - overwritten from ``position`` on
    x : (N, D) float32 or float64, D <= 65536
    position : int
    """
    zero = x.dtype.type(0)
    p = position
    for n in range(x.shape[0]):
        for k in range(x.shape[1]):
            value = x[n, k]
            columns[p] = np.uint16(k)
            values[p] = value
            p += value != zero


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
