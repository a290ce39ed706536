"""Backward through the layers: gradients of inputs, and the update of the weights."""

from __future__ import annotations

import math
from typing import Any

from .ahead import prefetch_rows, rows_in_advance
from .gemm import THIN, TILE_ROWS, TRANSPOSED, columns_of_code, tile_at
from .jit import part
from .panels import transpose_weights
from .rule import apply_rule_at
from .simd import address_of, row_of, view
from .tables import (
    ACTIVATION,
    BIAS,
    BLOCK,
    CODE,
    COLUMN,
    DZ,
    DZ_ROWS,
    FIRST,
    FLOATS,
    GROUP,
    H_ROW,
    INPUTS,
    KEEP,
    LAST,
    LINE,
    OUTPUTS,
    PARAMETERS,
    RELU,
    ROW,
    SCRATCH,
    SCRATCH_SIZE,
    SGD,
    SIGMOID,
    START,
    THIN_START,
    ZEROS,
    H,
    rows_of_inputs,
)
from .thin import update_thin, width_of

# Rows of the next block that are fetched with each tile of a group: with all of them, a block.
ROWS_A_TILE = BLOCK * TILE_ROWS // GROUP


@part
def backward(net: Any, l: int, n0: int, n1: int, p0: int, p1: int) -> None:
    """``dz of the layer before = (dz @ W.T) * activation'`` for some rows and panels of W.T."""
    buffer, layer, before = net.buffer, row_of(net.layers, l), row_of(net.layers, l - 1)
    one, least = buffer.dtype.type(1), buffer.dtype.type(-math.inf)
    for p in range(p0, p1):
        panel = row_of(net.panels, p)
        width = columns_of_code(panel[CODE], buffer)
        for n in range(n0, n1, TILE_ROWS):
            at = n * before[H_ROW] + panel[COLUMN]
            tile_at(
                net.tile,
                panel[CODE],
                buffer, before[DZ] + at, before[H_ROW],
                address_of(net.rows, layer[DZ_ROWS] + n), 0,
                buffer, panel[START], panel[ROW], 0, layer[OUTPUTS],
                buffer, net.sizes[ZEROS], 0, one, least,
                address_of(buffer, net.sizes[ZEROS]), address_of(buffer, net.sizes[ZEROS]), 0,
            )  # fmt: skip
            for i in range(TILE_ROWS):
                dz = before[DZ] + at + i * before[H_ROW]
                h = before[H] + at + i * before[H_ROW]
                differentiate(view(buffer, dz, width), view(buffer, h, width), before[ACTIVATION])


@part
def differentiate(dz: Any, h: Any, activation: int) -> None:
    """Multiply a row by the derivative of the activation, whose result was h, in place."""
    zero, one = h.dtype.type(0), h.dtype.type(1)
    if activation == RELU:
        for j in range(h.size):
            dz[j] = zero if h[j] <= zero else dz[j]  # a selection: inf * 0 would be NaN
    elif activation == SIGMOID:
        for j in range(h.size):
            dz[j] = dz[j] * (one - h[j]) * h[j]


@part
def update(
    net: Any, data: Any, rule: Any, rows: Any, first: int, last: int, B: int, l: int,
    half: int, k0: int, k1: int, p0: int, p1: int, thread: int, step: int,
) -> None:  # fmt: skip
    """Gradient of rows k0 to k1 of W in panels p0 to p1, and the step along it.

    Plain SGD needs no gradient in memory: dz carries ``-lr / B`` already, so the product is summed
    straight into W.  Meanwhile examples of the next batch, ``rows[first:last]``, are on their way
    from memory: each tile of the first layer prefetches two, of their inputs k0 to k1 if the inputs
    are divided.
    """
    buffer, state, layer = net.buffer, net.state, row_of(net.layers, l)
    T = buffer.dtype.type
    scratch = net.sizes[SCRATCH] + thread * net.sizes[SCRATCH_SIZE]
    x_rows = rows_of_inputs(layer, half)
    decay, least = T(1.0 - rule.lr * rule.decay), T(-math.inf)
    rounds = min(B, BLOCK)
    size = net.buffer.itemsize if data.source == FLOATS else 1
    example = layer[INPUTS] * size
    wanted = (min(k1, layer[INPUTS]) - k0) * size
    ahead_step = min(LINE, (wanted + rounds - 1) // rounds)
    pieces = 0 if wanted <= 0 else (wanted + rounds * ahead_step - 1) // (rounds * ahead_step)
    examples = address_of(data.x, 0) if data.source == FLOATS else address_of(data.bytes, 0)
    examples += k0 * size
    last = min(last, rows.size, first + rows_in_advance(layer[INPUTS], size)) if l == 0 else first
    asked, questions = 0, (last - first) * pieces
    for p in range(p0, p1):
        panel = row_of(net.panels, p)
        row, thin = panel[ROW], panel[THIN_START]
        if rule.kind > SGD:
            clear_padding(net, panel, scratch)
        for g in range(k0, k1, GROUP):
            stop = min(g + GROUP, k1)
            weights = panel[START] + g * row
            if rule.kind == KEEP:
                result, to, to_thin = state, weights, thin + g * THIN
            elif rule.kind == SGD:
                result, to, to_thin = buffer, weights, thin + g * THIN
            else:
                result, to, to_thin = buffer, scratch, scratch + GROUP * row
            for b in range(0, B, BLOCK):
                dz = layer[DZ] + b * layer[H_ROW] + panel[COLUMN]
                for k in range(g, stop, TILE_ROWS):
                    soon = b + BLOCK + (k - g) // TILE_ROWS * ROWS_A_TILE
                    prefetch_rows(net, x_rows, soon, min(soon + ROWS_A_TILE, B), g, stop)
                    at = to + (k - g) * row
                    source, origin, origin_row, factor = result, at, row, T(1)
                    if b == 0 and rule.kind == SGD:
                        factor = decay
                    elif b == 0:
                        source, origin, origin_row = buffer, net.sizes[ZEROS], 0
                    ahead = ahead_too = examples
                    if asked + 1 < questions:
                        ahead += rows[first + asked // pieces] * example
                        ahead += asked % pieces * rounds * ahead_step
                        asked += 1
                        ahead_too += rows[first + asked // pieces] * example
                        ahead_too += asked % pieces * rounds * ahead_step
                        asked += 1
                    tile_at(
                        net.tile,
                        panel[CODE] + TRANSPOSED,
                        result, at, row,
                        address_of(net.rows, x_rows + b), k,
                        buffer, dz, layer[H_ROW], 0, min(BLOCK, B - b),
                        source, origin, origin_row, factor, least, ahead, ahead_too, ahead_step,
                    )  # fmt: skip
            if thin:
                factor = decay if rule.kind == SGD else T(0)
                update_thin(net, layer, panel, result, to_thin, factor, x_rows, g, stop, B, thread)
            if rule.kind > SGD or (rule.kind == KEEP and rule.decay > 0.0):
                start, gradient, width = weights, to, row
                # In one place: each call is compiled into this function.
                for _ in range(2 if thin else 1):
                    apply_rule_at(
                        net.rule, buffer, state, rule, start, net.sizes[PARAMETERS] + start,
                        gradient, (stop - g) * width, rule.decay, step,
                    )  # fmt: skip
                    start, gradient, width = thin + g * THIN, to_thin, THIN
            if rule.kind != KEEP and l > 0:
                transpose_weights(net, l, p, g, min(stop, layer[INPUTS]))


@part
def clear_padding(net: Any, panel: Any, scratch: int) -> None:
    """Zero what tiles leave as it is between the rows of a gradient, so that W's stays zero."""
    width = columns_of_code(panel[CODE], net.buffer)
    for i in range(GROUP if width < panel[ROW] else 0):
        padding = view(net.buffer, scratch + i * panel[ROW] + width, panel[ROW] - width)
        for j in range(padding.size):
            padding[j] = padding.dtype.type(0)


@part
def sum_squares(net: Any, l: int, k0: int, k1: int) -> None:
    """Sums of the squares of rows k0 to k1 of W, a group at a time: what weight decay costs."""
    layer = row_of(net.layers, l)
    for p in range(layer[FIRST], layer[LAST]):
        panel = row_of(net.panels, p)
        start, row, thin = panel[START], panel[ROW], panel[THIN_START]
        for k in range(k0, min(k1, layer[INPUTS]), GROUP):
            rows = min(k + GROUP, layer[INPUTS]) - k
            # One run of numbers, with the zeros between the rows: an addition of lanes each row,
            # or a loop over short rows, takes longer than the multiplications.
            squares = square_of(view(net.buffer, start + k * row, rows * row))
            if thin:
                squares += square_of(view(net.buffer, thin + k * THIN, rows * THIN))
            net.squares[p, k // GROUP] = squares


@part
def square_of(values: Any) -> float:
    """Return the sum of the squares of some numbers."""
    squares = values.dtype.type(0)
    for i in range(values.size):
        squares += values[i] * values[i]
    return squares


@part
def update_bias(
    net: Any, rule: Any, l: int, B: int, p0: int, p1: int, thread: int, step: int
) -> None:
    """Gradient of the bias in panels p0 to p1, and the step along it."""
    buffer, layer = net.buffer, row_of(net.layers, l)
    zero = buffer.dtype.type(0)
    scratch = net.sizes[SCRATCH] + thread * net.sizes[SCRATCH_SIZE]
    for p in range(p0, p1):
        panel = row_of(net.panels, p)
        width = width_of(panel, buffer)
        bias = layer[BIAS] + panel[COLUMN]
        if rule.kind == KEEP:
            db = view(net.state, bias, width)
        elif rule.kind == SGD:
            db = view(buffer, bias, width)
        else:
            db = view(buffer, scratch, width)
        if rule.kind != SGD:
            for j in range(db.size):
                db[j] = zero
        for n in range(B):
            at = layer[DZ] + n * layer[H_ROW] + panel[COLUMN]
            dz = view(buffer, at, width)
            for j in range(db.size):
                db[j] += dz[j]
        if rule.kind > SGD:
            apply_rule_at(
                net.rule, buffer, net.state, rule, bias, net.sizes[PARAMETERS] + bias, scratch,
                width, 0.0, step,
            )  # fmt: skip
