"""The first layer where most of its inputs are zero: forward and update without them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .ahead import has_update
from .arguments import arguments_at
from .calls import call_at
from .forward import sums_of_half
from .gemm import THIN
from .jit import JIT_DISABLED, inlined, intrinsic, kernel, part
from .panels import scale
from .rule import apply_rule_at
from .simd import MASK_BITS, address_of, for_bytes, prefetch, row_of, transpose_bits, view
from .sparse import WITH_THIN, add_columns, add_to_rows, sum_rows
from .tables import (
    BIAS,
    CODE,
    COLUMN,
    COLUMN_ROWS,
    DZ,
    EXAMPLES_AHEAD,
    FIRST,
    FORWARD,
    H_ROW,
    HALVES,
    KEEP,
    LAST,
    LINE,
    MASKS,
    NUMBERS_A_COLUMN,
    PARAMETERS,
    ROW,
    SCRATCH,
    SCRATCH_SIZE,
    SGD,
    START,
    THIN_START,
    UPDATE,
    ZEROS,
)

# Columns done in one call, a divisor of MASK_BITS: between two calls examples are prefetched.
COLUMNS_A_CALL = 16
# Cache lines of an example that are prefetched whether it is so long or not.
LINES_AT_ONCE = 3


def _operate_codes(
    arguments: int, one: Any, begin: int, B: int, n0: int, n1: int, r0: int, r1: int, half: int,
    thread: int, step: int, what: int,
) -> None:  # fmt: skip
    """Do one thread's share of one operation on inputs that are kept as codes.

    Rows n0 to n1 of the batch and ranges r0 to r1 of the inputs, of what was left at ``arguments``;
    ``one`` is any number of the network's type.  A kernel of its own, for those who have such
    inputs: compiling it takes half as long as the loop does.
    """
    operate(arguments, one, np.uint8(0), begin, B, n0, n1, r0, r1, half, thread, step, what)


def _operate_values(
    arguments: int, one: Any, begin: int, B: int, n0: int, n1: int, r0: int, r1: int, half: int,
    thread: int, step: int, what: int,
) -> None:  # fmt: skip
    """Do the same on inputs that are kept as numbers, with their columns."""
    operate(arguments, one, one, begin, B, n0, n1, r0, r1, half, thread, step, what)


@part
def operate(
    arguments: int, one: Any, like: Any, begin: int, B: int, n0: int, n1: int, r0: int, r1: int,
    half: int, thread: int, step: int, what: int,
) -> None:  # fmt: skip
    """Do what the two above say; ``like`` has the type of what is kept: here, and in all below."""
    net, data, rule, rows = arguments_at(arguments, one)
    if what == FORWARD:
        forward_sparse(net, data, like, rows, begin, n0, n1, r0, r1)
    elif what == UPDATE:
        update_sparse(net, data, like, rule, rows, begin, B, half, thread, step)


@part
def forward_sparse(
    net: Any, data: Any, like: Any, rows: Any, begin: int, n0: int, n1: int, r0: int, r1: int
) -> None:
    """``x @ W`` of the first layer for rows n0 to n1, without the zeros of x.

    Over ranges r0 to r1 of the inputs: those of one half, or all.  The sums over each half are
    joined later.
    """
    buffer, layer, words = net.buffer, row_of(net.layers, 0), net.sizes[MASKS]
    # An update has fetched them already, and what was compressed a moment ago is in the cache.
    ahead = data.x.size == 0 and not (begin > 0 and has_update(net))
    where = for_bytes(like, data.masks, data.columns)
    numbers, table = kept(data, like)
    for p in range(layer[FIRST], layer[LAST]):
        panel = row_of(net.panels, p)
        code, stride = code_of_panel(panel), panel[ROW]
        start, thin = panel[START], panel[THIN_START]
        h_row = layer[H_ROW]  # a local: what is loaded from a table is loaded again after a store
        for r in range(r0, r1):
            to, bias, begins = sums_over_range(net, data, panel, r)
            k0 = for_bytes(like, data.edges[r], 0)
            for n in range(n0, n1):
                if r == r0 and ahead:
                    soon = segment_of(data, rows, begin, min(n + EXAMPLES_AHEAD, n1 - 1), r)
                    prefetch_segments(data, soon, soon + r1 - r0, words)
                segment = segment_of(data, rows, begin, n, r)
                h = to + n * h_row
                h0 = bias if begins else h
                sum_rows(
                    code, buffer, h, buffer, h0, where, for_bytes(like, segment * words, 0),
                    numbers, table, data.starts[segment], data.stops[segment],
                    buffer, start + k0 * stride, stride, thin + k0 * THIN,
                )  # fmt: skip
    prefetch_labels(data, rows, begin, n0, n1)


@part
def sums_over_range(net: Any, data: Any, panel: Any, r: int) -> tuple[int, int, bool]:
    """Return where sums over range r of the inputs go, where a half's begin, and whether here.

    They begin with the bias, those of the second half with zeros; else they go on where they are.
    """
    segments = data.edges.size - 1
    half = int(2 * r >= segments)
    begin = net.layers[0, BIAS] + panel[COLUMN] if half == 0 else net.sizes[ZEROS]
    return sums_of_half(net, half) + panel[COLUMN], begin, 2 * r == half * segments


@part
def prefetch_labels(data: Any, rows: Any, begin: int, n0: int, n1: int) -> None:
    """Prefetch the labels of rows n0 to n1 of the batch, if there are any."""
    if data.labels.size:
        for n in range(n0, n1):
            prefetch(address_of(data.labels, rows[begin + n]))


@part
def update_sparse(
    net: Any, data: Any, like: Any, rule: Any, rows: Any, begin: int, B: int, half: int,
    thread: int, step: int,
) -> None:  # fmt: skip
    """Gradient of the rows of W, the first, in one half of the inputs, and the step along it.

    The examples of the next batch are prefetched meanwhile, in the first range.
    """
    buffer, state, layer = net.buffer, net.state, row_of(net.layers, 0)
    T = buffer.dtype.type
    scratch = net.sizes[SCRATCH] + thread * net.sizes[SCRATCH_SIZE]
    ranges = (data.edges.size - 1) // 2
    for p in range(layer[FIRST], layer[LAST]):
        panel = row_of(net.panels, p)
        stride, thin = panel[ROW], panel[THIN_START]
        for r in range(half * ranges, (half + 1) * ranges):
            first, count = data.edges[r], data.edges[r + 1] - data.edges[r]
            weights, weights_apart = panel[START] + first * stride, thin + first * THIN
            factor = T(0)
            if rule.kind == KEEP:
                result, to, to_apart = state, weights, weights_apart
            elif rule.kind == SGD:
                result, to, to_apart = buffer, weights, weights_apart
                factor = T(1.0 - rule.lr * rule.decay)
            else:
                result, to, to_apart = buffer, scratch, scratch + count * stride
            scale(view(result, to, count * stride), factor)
            if thin:
                scale(view(result, to_apart, count * THIN), factor)
            # Where the row of column 0 would be.
            origin, origin_apart = to - first * stride, to_apart - first * THIN
            ahead = 0
            if p == layer[FIRST] and r == half * ranges:
                ahead = ranges
                prefetch_starts(data, rows, begin, B, r)
            if is_by_columns(data, rows, begin, B, r):
                for n0 in range(0, B, COLUMN_ROWS):
                    add_by_columns(
                        net, data, like, rows, begin, B, n0, p, r, thread, result, origin,
                        origin_apart, ahead if n0 == 0 else 0,
                    )  # fmt: skip
            else:
                add_by_rows(
                    net, data, like, rows, begin, B, p, r, result, origin, origin_apart, ahead
                )
            if rule.kind > SGD or (rule.kind == KEEP and rule.decay > 0.0):
                start, gradient, width = weights, to, stride
                # In one place: each call is compiled into this function.
                for _ in range(2 if thin else 1):
                    apply_rule_at(
                        net.rule, buffer, state, rule, start, net.sizes[PARAMETERS] + start,
                        gradient, count * width, rule.decay, step,
                    )  # fmt: skip
                    start, gradient, width = weights_apart, to_apart, THIN


@part
def code_of_panel(panel: Any) -> int:
    """Return the code of a panel's rows in the products without zeros."""
    return panel[CODE] + (WITH_THIN if panel[THIN_START] else 0)


@part
def is_by_columns(data: Any, rows: Any, begin: int, B: int, r: int) -> bool:
    """Whether the update in range r goes by columns, and not by rows.

    The columns must be known, and have a few numbers each in the examples that are done together.
    """
    if data.masks.size == 0:
        return False
    numbers = 0
    for n in range(B):
        segment = segment_of(data, rows, begin, n, r)
        numbers += data.stops[segment] - data.starts[segment]
    columns = data.edges[r + 1] - data.edges[r]
    return numbers * min(B, COLUMN_ROWS) >= NUMBERS_A_COLUMN * columns * B


@part
def add_by_rows(
    net: Any, data: Any, like: Any, rows: Any, begin: int, B: int, p: int, r: int,
    result: Any, origin: int, origin_apart: int, ahead: int,
) -> None:  # fmt: skip
    """Add what the batch gives to the gradient, example by example: panel p, range r of W.

    ``ahead`` is as for :func:`add_by_columns`.
    """
    layer, panel = row_of(net.layers, 0), row_of(net.panels, p)
    code, stride, h_row = code_of_panel(panel), panel[ROW], layer[H_ROW]
    gradient, words = layer[DZ] + panel[COLUMN], net.sizes[MASKS]
    where, k0 = for_bytes(like, data.masks, data.columns), for_bytes(like, data.edges[r], 0)
    numbers, table = kept(data, like)
    for n in range(B):
        if ahead and begin + B + n < rows.size:
            soon = segment_of(data, rows, begin, B + n, r)
            prefetch_segments(data, soon, soon + ahead, words)
        segment = segment_of(data, rows, begin, n, r)
        dz = gradient + n * h_row
        add_to_rows(
            code, net.buffer, dz, net.buffer, dz, where, for_bytes(like, segment * words, 0),
            numbers, table, data.starts[segment], data.stops[segment],
            result, origin + k0 * stride, stride, origin_apart + k0 * THIN,
        )  # fmt: skip


@part
def add_by_columns(
    net: Any, data: Any, like: Any, rows: Any, begin: int, B: int, n0: int, p: int, r: int,
    thread: int, result: Any, origin: int, origin_apart: int, ahead: int,
) -> None:  # fmt: skip
    """Add what some rows of the batch, from n0 on, give to the gradient: panel p, range r of W.

    Meanwhile so many ranges (``ahead``) of the examples of the next batch are on their way from
    memory.
    """
    layer, panel = row_of(net.layers, 0), row_of(net.panels, p)
    code, stride, h_row = code_of_panel(panel), panel[ROW], layer[H_ROW]
    dz = layer[DZ] + panel[COLUMN] + n0 * h_row
    first, last = data.edges[r], data.edges[r + 1]
    words = net.sizes[MASKS]
    places = thread * (net.columns.size // HALVES)
    masks = places + COLUMN_ROWS
    n1 = min(n0 + COLUMN_ROWS, B)
    note_columns(net, data, rows, begin, n0, n1, r, places)
    numbers, table = kept(data, like)
    asked, due, questions = 0, 0, 0
    if ahead:
        questions = min(B, rows.size - begin - B)
    for k0 in range(first, last, MASK_BITS):
        transpose_bits(net.columns, masks)
        if n1 - n0 > MASK_BITS:
            transpose_bits(net.columns, masks + MASK_BITS)
        for k in range(k0, min(k0 + MASK_BITS, last), COLUMNS_A_CALL):
            count = min(COLUMNS_A_CALL, last - k)
            due += questions * count
            while due >= last - first:
                due -= last - first
                soon = segment_of(data, rows, begin, B + asked, r)
                prefetch_segments(data, soon, soon + ahead, words)
                asked += 1
            C, apart, square = origin + k * stride, origin_apart + k * THIN, masks + k - k0
            add_columns(
                code, count, result, C, stride, apart, numbers, table, net.columns, places,
                net.columns, square, net.buffer, dz, h_row,
            )  # fmt: skip
        masks += COLUMN_ROWS


@part
def note_columns(
    net: Any, data: Any, rows: Any, begin: int, n0: int, n1: int, r: int, places: int
) -> None:
    """Note where range r of rows n0 to n1 of the batch begins, and behind that its masks.

    The first mask of all rows, the second of all, ...: squares of bits, ready to be transposed.
    """
    words = net.sizes[MASKS]
    used = (data.edges[r + 1] - data.edges[r] + MASK_BITS - 1) // MASK_BITS
    to = places + COLUMN_ROWS
    for i in range(n1 - n0):
        segment = segment_of(data, rows, begin, n0 + i, r)
        net.columns[places + i] = data.starts[segment]
        for word in range(used):
            net.columns[to + word * COLUMN_ROWS + i] = data.masks[segment * words + word]
    for i in range(n1 - n0, COLUMN_ROWS):
        for word in range(used):
            net.columns[to + word * COLUMN_ROWS + i] = 0


@part
def segment_of(data: Any, rows: Any, begin: int, n: int, r: int) -> int:
    """Return which segment is range r of row n of the batch."""
    row = rows[begin + n] if data.x.size == 0 else n  # else it was compressed a moment ago
    return row * (data.edges.size - 1) + r


@part
def prefetch_starts(data: Any, rows: Any, begin: int, B: int, r: int) -> None:
    """Prefetch where the examples of the next batch begin, which to wait for would take long."""
    for n in range(min(B, rows.size - begin - B)):
        prefetch(address_of(data.starts, segment_of(data, rows, begin, B + n, r)))


@inlined
def prefetch_segments(data: Any, first: int, last: int, words: int) -> None:
    """Prefetch the numbers of segments first to last, and their masks, so many words of each."""
    start, stop = data.starts[first], data.stops[last - 1]
    if data.masks.size:
        prefetch_lines(address_of(data.masks, first * words), address_of(data.masks, last * words))
    if data.codes.size:
        prefetch_lines(address_of(data.codes, start), address_of(data.codes, stop))
    else:
        prefetch_lines(address_of(data.columns, start), address_of(data.columns, stop))
        prefetch_lines(address_of(data.values, start), address_of(data.values, stop))


@part
def prefetch_lines(first: int, last: int) -> None:
    """Prefetch every cache line between two addresses.

    The first ones without a question: the processor guesses the end of such short loops wrongly.
    """
    for i in range(LINES_AT_ONCE):
        prefetch(min(first + i * LINE, last - 1))
    for address in range(first + LINES_AT_ONCE * LINE, last, LINE):
        prefetch(address)
    prefetch(last - 1)


@inlined
def kept(data: Any, like: Any) -> tuple[Any, Any]:
    """Return the numbers that are not zero, and the table of which they are codes, if they are."""
    return for_bytes(like, data.codes, data.values), for_bytes(like, data.table, data.values)


_SHARE = "int64, T" + ", int64" * 10
operate_codes = kernel(_SHARE, by_address=True)(_operate_codes)
operate_values = kernel(_SHARE, by_address=True)(_operate_values)


@intrinsic
def operate_sparse_at(
    typing: Any, address: Any, arguments: Any, one: Any, begin: Any, B: Any, n0: Any, n1: Any,
    r0: Any, r1: Any, half: Any, thread: Any, step: Any, what: Any,
) -> Any:  # fmt: skip
    """Call one of the compiled kernels above at its address."""
    return call_at(arguments, one, begin, B, n0, n1, r0, r1, half, thread, step, what)


def _operate_sparse_in_python(code: int, arguments: Any, *share: Any) -> None:
    """Do what the intrinsic does, where nothing is compiled and no kernel has an address."""
    _, data, *_ = arguments
    (_operate_codes if data.codes.size else _operate_values)(arguments, *share)


if JIT_DISABLED:
    operate_sparse_at = _operate_sparse_in_python
