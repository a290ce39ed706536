"""What lies along a row: its largest element, its sum, its products with other rows.

LLVM's own code for such a loop takes what does not fill several registers number by number: all of
a row of ten classes, a third of one of fifty.  Here the end of a row is one more vector, masked.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from .jit import JIT_DISABLED, intrinsic
from .simd import INT32, Emitter, constant, is_flat, lanes

# Vectors added, or compared, side by side: the next addition to one has to wait for the last.
CHAINS = 4


def across(emit: Emitter, vector: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """Combine the lanes of a vector: its halves, and theirs, until one lane is left."""
    width = vector.type.count
    while width > 1:
        width //= 2
        low, high = (
            emit.select_lanes(vector, vector, list(range(i, i + width))) for i in (0, width)
        )
        vector = combine(low, high)
    return emit.builder.extract_element(vector, ir.Constant(INT32, 0))


def write_dots(
    emit: Emitter, C: list[Any], A: list[Any], B: list[Any], K: Any, C0: Any, least: Any
) -> None:
    """Write ``C[i, j] = max(least, C0[j] + sum_k A[i, k] * B[j, k])``, from addresses of rows.

    The registers lie along k: parts of a sum in its lanes, added up at the end.  Nothing is read
    behind the end of a row.
    """
    builder, width = emit.builder, lanes(emit.itemsize)
    zeros = ir.Constant(emit.vector(width), [0.0] * width)
    sums = [[cgutils.alloca_once(builder, zeros.type) for _ in B] for _ in A]

    def add(k: Any, load: Callable[[Any], Any]) -> None:
        vectors = [load(emit.at(row, k)) for row in B]
        for row, totals in zip(A, sums, strict=True):
            x = load(emit.at(row, k))
            for vector, total in zip(vectors, totals, strict=True):
                new = emit.multiply_add(x, vector, builder.load(total), width)
                builder.store(new, total)

    for row in sums:
        for total in row:
            builder.store(zeros, total)
    whole = builder.and_(K, constant(-width))
    step = constant(width)
    with cgutils.for_range_slice(builder, constant(0), whole, step, inc=True) as (k, _):
        add(k, lambda pointer: emit.load(pointer, width))
    with builder.if_then(builder.icmp_signed("<", whole, K)):
        rest = builder.sub(K, whole)
        add(whole, lambda pointer: emit.load_some(pointer, rest, zeros))
    for row, totals in zip(C, sums, strict=True):
        for j, total in enumerate(totals):
            value = across(emit, builder.load(total), builder.fadd)
            value = builder.fadd(emit.load(emit.at(C0, constant(j))), value)
            emit.store(emit.at_least(least, value), emit.at(row, constant(j)), 1)


def _reduction(combine: Callable[[Any, Any, Any], Any], nothing: float) -> Any:
    """Return an intrinsic that combines the elements of a row, in an order of its size alone.

    Parameters
    ----------
    combine : callable
        Writes the combination of two vectors: ``combine(builder, a, b)``.
    nothing : float
        What combines with any number to that number.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = signature.args[0]
        itemsize = array.dtype.bitwidth // 8
        width = lanes(itemsize)
        emit = Emitter(builder, itemsize)
        row = context.make_array(array)(context, builder, arguments[0])
        size = builder.extract_value(row.shape, 0)
        empty = ir.Constant(emit.vector(width), [nothing] * width)
        result = cgutils.alloca_once(builder, emit.vector(width))
        is_short = builder.icmp_signed("<=", size, constant(width))
        with builder.if_else(is_short) as (short, long):
            with short:  # ten classes: one vector
                builder.store(emit.load_some(row.data, size, empty), result)
            with long:
                builder.store(in_chains(builder, emit, row.data, size, empty), result)
        return across(emit, builder.load(result), functools.partial(combine, builder))

    def in_chains(builder: Any, emit: Any, data: Any, size: Any, empty: Any) -> Any:
        """Combine the elements of a row of several vectors to one."""
        width = empty.type.count
        chains = []
        for _ in range(CHAINS):
            chains.append(cgutils.alloca_once(builder, empty.type))
            builder.store(empty, chains[-1])

        def add(chain: Any, value: Any) -> None:
            builder.store(combine(builder, builder.load(chain), value), chain)

        chained = builder.and_(size, constant(-width * CHAINS))
        whole = builder.and_(size, constant(-width))
        step = constant(width * CHAINS)
        with cgutils.for_range_slice(builder, constant(0), chained, step, inc=True) as (start, _):
            for i, chain in enumerate(chains):
                at = builder.add(start, constant(i * width))
                add(chain, emit.load(emit.at(data, at), width))
        step = constant(width)
        with cgutils.for_range_slice(builder, chained, whole, step, inc=True) as (start, _):
            add(chains[0], emit.load(emit.at(data, start), width))
        with builder.if_then(builder.icmp_signed("<", whole, size)):
            rest = builder.sub(size, whole)
            add(chains[0], emit.load_some(emit.at(data, whole), rest, empty))
        first, *others = (builder.load(chain) for chain in chains)
        for other in others:
            first = combine(builder, first, other)
        return first

    def reduce(typing: Any, row: Any) -> Any:
        return (row.dtype(row), generate) if is_flat(row) else None

    return intrinsic(reduce)


if JIT_DISABLED:

    def row_max(row: Any) -> Any:
        """Return the largest element of a row, -inf of none."""
        return row.max(initial=-math.inf)

    def row_sum(row: Any) -> Any:
        """Return the sum of a row."""
        return row.sum()

else:
    # The largest element of a row, -inf of none; NaN only perhaps if there is one.
    row_max = _reduction(
        # In this order of a and b it is one instruction.
        lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b),
        -math.inf,
    )
    row_sum = _reduction(lambda builder, a, b: builder.fadd(a, b), 0.0)
