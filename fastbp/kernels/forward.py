"""Forward through the layers: the batch gathered, multiplied, activated; its softmax and loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .ahead import has_update, prefetch_rows, rows_in_advance
from .exp import exp_nonpositive, logistic
from .gemm import DOTS_CODE, SINGLE, TILE_ROWS, columns_of_code, tile_at
from .jit import inlined, part
from .rows import row_max, row_sum
from .simd import address_of, prefetch, row_of, view
from .softmax_loss import reciprocal
from .tables import (
    ACTIVATION,
    BIAS,
    CODE,
    COLUMN,
    DZ,
    EXAMPLES_AHEAD,
    FIRST,
    FLOATS,
    GROUP,
    H_ROW,
    INPUTS,
    LAST,
    LINE,
    OUTPUTS,
    RELU,
    ROW,
    SGD,
    SIGMOID,
    SOFTMAX_BLOCK,
    START,
    SUMS,
    THIN_START,
    WIDTH,
    X_ROW,
    ZEROS,
    H,
    X,
    half_of_inputs,
    rows_of_inputs,
)
from .thin import turn_columns, turned_rows, width_of


@part
def gather(
    net: Any, data: Any, rows: Any, begin: int, end: int, n0: int, n1: int, half: int, k0: int,
    k1: int,
) -> None:  # fmt: skip
    """Note where rows n0 to n1 of the batch ``rows[begin:end]`` are, for a half of the inputs.

    Where the user has them, if they are floats, else where their columns k0 to k1 are copied to.
    Tiles read up to TILE_ROWS - 1 numbers behind a row, and thin ones, of longer rows, up to a
    vector more: the last examples of all are copied, too.
    """
    layer = row_of(net.layers, 0)
    K, to, stride = layer[INPUTS], layer[X], layer[X_ROW]
    table = rows_of_inputs(layer, half)
    in_place = data.x.size // K - (LINE - 1) // (K * net.buffer.itemsize) - 1
    examples = address_of(data.bytes, k0)
    for n in range(n0, n1):
        example = rows[begin + n] if n < end - begin else 0  # rows that fill a tile: any numbers
        net.rows[table + n] = address_of(net.buffer, to + n * stride)
        if data.labels.size and n < end - begin:
            prefetch(address_of(data.labels, example))
        if data.source == FLOATS and example < in_place:
            net.rows[table + n] = address_of(data.x, example * K)
        elif n < end - begin:
            target = view(net.buffer, to + k0 + n * stride, min(k1, K) - k0)
            if data.source == FLOATS:
                source = view(data.x, example * K + k0, target.size)
                for k in range(target.size):
                    target[k] = source[k]
            else:
                soon = examples + rows[min(begin + n + EXAMPLES_AHEAD, end - 1)] * K
                for byte in range(0, target.size, LINE):
                    prefetch(soon + byte)
                source_bytes = view(data.bytes, example * K + k0, target.size)
                for k in range(target.size):
                    target[k] = source_bytes[k]


@part
def forward(
    net: Any, l: int, B: int, halves: bool, half: int, n0: int, n1: int, p0: int, p1: int,
    thread: int,
) -> None:  # fmt: skip
    """``h = activation(x @ W + b)`` for rows n0 to n1 of a batch of B, and panels p0 to p1.

    Or, of the first layer, the sums over one half of the inputs, the first with the bias: with two
    threads each core has its half of x and of W, and neither ever moves: only the sums do.  One
    thread adds the same halves, so the bits are the same.
    """
    buffer, layer = net.buffer, row_of(net.layers, l)
    K, relu = layer[INPUTS], layer[ACTIVATION] == RELU
    k0, k1 = half_of_inputs(layer, half) if halves else (0, K)
    k1 = min(k1, K)
    to = sums_of_half(net, half) if halves else layer[H]
    least = buffer.dtype.type(0 if relu and not halves else -math.inf)
    table, fetched = rows_of_inputs(layer, half), rows_in_advance(K, buffer.itemsize)
    in_order = not (halves or has_update(net))  # then examples lie one behind the other
    for p in range(p0, p1):
        panel = row_of(net.panels, p)
        h = to + panel[COLUMN]
        begin = layer[BIAS] + panel[COLUMN] if half == 0 else net.sizes[ZEROS]
        width = width_of(panel, buffer)
        if panel[THIN_START]:
            turn_columns(net, panel, k0, k1, thread)
        for n in range(n0, n1, TILE_ROWS):
            at, x_rows = h + n * layer[H_ROW], address_of(net.rows, table + n)
            ahead, ahead_step = address_of(buffer, at), 0
            if l == 0 and p == p0 and in_order:
                # The next tile's rows, or this thread's in the next batch; of copies it is nothing.
                following = n + TILE_ROWS if n + TILE_ROWS < n1 else n0 + B
                ahead = net.rows[table + n] + (following - n) * K * buffer.itemsize
                ahead_step = TILE_ROWS * buffer.itemsize
            elif l == 0 and p == p0 and n >= fetched:
                prefetch_rows(net, table, n + TILE_ROWS, min(n + 2 * TILE_ROWS, n1), k0, k1)
            tile = panel[CODE] + (SINGLE if n == B - 1 else 0)
            multiply(
                net, panel, tile, at, layer[H_ROW], x_rows, k0, k1, begin, least, thread, ahead,
                ahead_step,
            )  # fmt: skip
            # Padding too: nobody reads it.
            for i in range(TILE_ROWS if layer[ACTIVATION] == SIGMOID and not halves else 0):
                row = at + i * layer[H_ROW]
                activate(view(buffer, row, width), layer[ACTIVATION])


@inlined
def multiply(
    net: Any, panel: Any, tile: int, h: int, h_row: int, x_rows: int, k0: int, k1: int, begin: int,
    least: Any, thread: int, ahead: int, ahead_step: int,
) -> None:  # fmt: skip
    """``h = max(least, begin + x @ W)`` for a tile's rows, inputs k0 to k1 and a panel of W.

    The thin columns for TILE_ROWS rows, of which nobody reads those behind the batch.  Meanwhile
    what lies at ``ahead`` comes from memory, ``ahead_step`` bytes further for each input.
    """
    buffer = net.buffer
    one = buffer.dtype.type(1)
    tile_at(
        net.tile,
        tile,
        buffer, h, h_row,
        x_rows, k0,
        buffer, panel[START] + k0 * panel[ROW], panel[ROW], 0, k1 - k0,
        buffer, begin, 0, one, least, ahead, ahead, ahead_step,
    )  # fmt: skip
    if panel[THIN_START]:
        turned, turned_row = turned_rows(net, thread)
        thin = columns_of_code(panel[CODE], buffer)
        tile_at(
            net.tile,
            DOTS_CODE,
            buffer, h + thin, h_row,
            x_rows, k0,
            buffer, turned, turned_row, 0, k1 - k0,
            buffer, begin + thin, 0, one, least, ahead, ahead, 0,
        )  # fmt: skip


@part
def sums_of_half(net: Any, half: int) -> int:
    """Return the offset of the sums over a half of the inputs of the first layer."""
    return net.sizes[SUMS] + half * net.work.shape[1] * net.layers[0, H_ROW]


@part
def join_halves(net: Any, l: int, n0: int, n1: int) -> None:
    """``h = activation(sum of the halves)`` for rows n0 to n1."""
    buffer, layer = net.buffer, row_of(net.layers, l)
    for n in range(n0, n1):
        h = view(buffer, layer[H] + n * layer[H_ROW], layer[WIDTH])
        one = view(buffer, sums_of_half(net, 0) + n * layer[H_ROW], layer[WIDTH])
        other = view(buffer, sums_of_half(net, 1) + n * layer[H_ROW], layer[WIDTH])
        for j in range(h.size):
            h[j] = one[j] + other[j]
        activate(h, layer[ACTIVATION])


@part
def activate(h: Any, activation: int) -> None:
    """Apply the activation to a row, in place."""
    zero = h.dtype.type(0)
    if activation == RELU:
        for j in range(h.size):
            h[j] = zero if h[j] <= zero else h[j]  # NaN is not <= 0 and passes
    elif activation == SIGMOID:
        for j in range(h.size):
            h[j] = logistic(h[j])


@part
def softmax_loss(
    net: Any, data: Any, rule: Any, rows: Any, begin: int, end: int, n0: int, n1: int, measure: bool
) -> None:
    """Softmax of rows n0 to n1, their gradient times the scale, and what the loss is made of.

    Leaves for each row the total of the exponentials and the target's shifted logit, in ``work``:
    the row's loss is ``log(total) - logit``.  Some rows at a time are exponentiated as one run of
    numbers: the chain of operations behind one row, 100 cycles and more, then waits for no other.
    Whole rows, with their padding of -inf, of which the exponential is 0.
    """
    buffer, layer = net.buffer, row_of(net.layers, net.layers.shape[0] - 1)
    T = buffer.dtype.type
    scale = T((-rule.lr if rule.kind == SGD else 1.0) / (end - begin))
    # Locals: what is loaded from a table is loaded again after a store.
    h, d, row, outputs = layer[H], layer[DZ], layer[H_ROW], layer[OUTPUTS]
    stop, block = min(n1, end - begin), max(1, SOFTMAX_BLOCK // row)
    for first in range(n0, stop, block):
        last = min(first + block, stop)
        for n in range(first, last):
            logits, dz = view(buffer, h + n * row, row), view(buffer, d + n * row, row)
            highest = row_max(logits)
            for c in range(dz.size):
                dz[c] = logits[c] - highest
            net.work[1, n] = np.float64(highest)
        run = view(buffer, d + first * row, (last - first) * row)
        for i in range(run.size):
            run[i] = exp_nonpositive(run[i])
        for n in range(first, last):
            logits, dz = view(buffer, h + n * row, row), view(buffer, d + n * row, row)
            example = rows[begin + n]
            highest, total = T(net.work[1, n]), row_sum(dz)
            if data.labels.size:
                label = data.labels[example]
                logit = np.float64(logits[label] - highest)
                factor = scale * reciprocal(total)
                for c in range(dz.size):
                    dz[c] *= factor
                dz[label] -= scale
                if rule.loss_eps > 0.0:
                    y = math.exp(logit) / np.float64(total)
                    total, logit = T(1), math.log(y + rule.loss_eps)
            else:
                target = row_of(data.targets, example)
                label = 0
                weight, expected = T(0), 0.0
                for c in range(target.size):
                    weight += target[c]
                    label = c if target[c] > target[label] else label
                    if target[c] != T(0):  # 0 * -inf would be NaN
                        if rule.loss_eps > 0.0:
                            y = np.float64(dz[c]) / np.float64(total)
                            expected += np.float64(target[c]) * math.log(y + rule.loss_eps)
                        else:
                            expected += np.float64(target[c]) * np.float64(logits[c] - highest)
                factor = scale * weight * reciprocal(total)
                for c in range(target.size):
                    dz[c] = dz[c] * factor - scale * target[c]
                logit = expected
                if rule.loss_eps == 0.0:
                    logit -= np.float64(weight) * math.log(np.float64(total))
                total = T(1)
            net.work[0, n] = np.float64(total)
            net.work[1, n] = logit
            if measure:
                answer = 0
                for c in range(outputs - 1, -1, -1):  # the first of the largest
                    answer = answer if logits[c] < highest else c
                net.work[2, n] = 1.0 if answer == label else 0.0


@part
def total_loss(net: Any, rule: Any, B: int) -> float:
    """Mean loss of the batch just computed, and the weight decay, summed in the order of the rows.

    The logarithm of a product, now and then, stands for a sum of logarithms.
    """
    loss, product = 0.0, 1.0
    for n in range(B):
        loss -= net.work[1, n]
        product *= net.work[0, n]
        if product > 1e200:
            loss += math.log(product)
            product = 1.0
    loss = (loss + math.log(product)) / B
    if rule.decay > 0.0:
        squares = 0.0
        for l in range(net.layers.shape[0]):
            layer = row_of(net.layers, l)
            for p in range(layer[FIRST], layer[LAST]):
                for i in range((layer[INPUTS] + GROUP - 1) // GROUP):
                    squares += net.squares[p, i]
        loss += 0.5 * rule.decay * squares
    return loss


@part
def store(net: Any, data: Any, rows: Any, begin: int, end: int, n0: int, n1: int) -> None:
    """Copy the logits of rows n0 to n1 to where they are wanted."""
    layer = row_of(net.layers, net.layers.shape[0] - 1)
    for n in range(n0, min(n1, end - begin)):
        at = layer[H] + n * layer[H_ROW]
        logits = view(net.buffer, at, layer[OUTPUTS])
        out = row_of(data.out, rows[begin + n])
        for c in range(logits.size):
            out[c] = logits[c]
