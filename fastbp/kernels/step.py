"""Training steps, over a table of layers: compiled once, for every network.

A step is a short *program*: gather a batch, forward through each layer, loss, backward, update.
The network is data: a table of layers, a table of panels, and one flat buffer in which everything
lies (:mod:`fastbp.plan` lays it out).  So one compilation serves every network, and evaluation,
prediction and a single gradient are only other programs.

Threads divide an operation by what it writes: rows of the batch, rows of W, or panels of W where a
layer is too big for one core's cache.  Every sum is computed whole, by one thread, in one order:
the number of threads does not change a bit.  Neighbouring operations that divide the batch alike
share one parallel region.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .exp import exp_nonpositive, logistic
from .gemm import TILE_ROWS, columns_of_code, tile
from numba.core import types

from .jit import JIT_DISABLED, intrinsic, kernel, part, prange
from .simd import address_of, prefetch, row_of, transpose_block, vector_lanes, view
from .softmax_loss import largest
from .sparse import add_to_rows, sum_rows
from .update import (
    adagrad_update,
    adam_update,
    momentum_update,
    nesterov_update,
    rmsprop_update,
)

# Operations of a program; its columns; how an operation is divided among threads.
GATHER, GATHER_REST, SQUARES, FORWARD, JOIN, LOSS, MEASURE, STORE, BACKWARD, UPDATE = range(10)
OPERATION, LAYER, DIVISION, BEGINS_REGION = range(4)
BY_ROWS, BY_PANELS, BY_INPUTS = range(3)

# Columns of the table of layers.  Offsets count elements of the buffer.
(
    INPUTS,  # K
    OUTPUTS,  # N
    WIDTH,  # N rounded up to what the tiles compute
    ACTIVATION,
    X,  # offset of the inputs: the gathered batch, or the layer before
    X_ROW,  # elements from a row to the next
    H,  # offset of the outputs, after the activation
    DZ,  # offset of the gradient of what goes into the activation
    H_ROW,  # elements from a row to the next, of both
    BIAS,
    HALF,  # where the second half of the inputs begins, if they are divided
    FIRST, LAST,  # its panels of W: FIRST <= p < LAST
    BACK_FIRST, BACK_LAST,  # its panels of W.T
) = range(15)  # fmt: skip
LAYER_COLUMNS = 15

# Columns of the table of panels.
COLUMN, CODE, START, ROW = range(4)  # first column of the matrix, width, offset, row stride

IDENTITY, RELU, SIGMOID = range(3)

# What becomes of a gradient: it is kept in the state, or a rule updates the parameters.
KEEP, SGD, MOMENTUM, NESTEROV, ADAGRAD, RMSPROP, ADAM = range(7)

# Where inputs come from.
FLOATS, BYTES, SPARSE = range(3)

# Rows of W updated together, a multiple of TILE_ROWS: their gradient (96 rows of 64 float32 are
# 24 kB) stays in the first-level cache until the rule has used it.
GROUP = 96
# Rows of the batch summed at a time: 128 rows of a panel of dout are 32 kB.
BLOCK = 256


LINE = 64  # bytes in a cache line
# How many examples in front of the one it copies `gather` prefetches.
EXAMPLES_AHEAD = 8


class Net(NamedTuple):
    """A network as the kernels see it.

    buffer : T[::1] - parameters, then activations and what else a step needs
    state : T[::1] - for each slot of the optimizer as many elements as there are parameters
    layers, panels, program : int64[:, ::1] - the tables
    work : float64[:, ::1] - a column for each row of the batch: total, logit, right
    squares : float64[:, ::1] - a row for each panel: the sum of squares of each tile of W
    sizes : int64[::1] - parameters, offset of zeros, of scratch, scratch a thread, offset of sums
        over the second half of the inputs
    """

    buffer: Any
    state: Any
    layers: Any
    panels: Any
    program: Any
    work: Any
    squares: Any
    sizes: Any


PARAMETERS, ZEROS, SCRATCH, SCRATCH_SIZE, OTHER_HALF = range(5)


class Data(NamedTuple):
    """Examples: inputs of one kind, targets of one kind; the others are empty.

    source : int - FLOATS, BYTES or SPARSE
    x : T[:, ::1]
    bytes : uint8[:, ::1]
    columns, values : uint16[::1], T[::1] - the non-zeros, row by row
    starts : int64[::1] - where the segments of the rows begin, and where the last one ends
    edges : int64[::1] - the columns between which a row is cut into segments; half of the segments
        are in the first half of the inputs
    labels : int64[::1]
    targets : T[:, ::1] - probabilities
    out : T[:, ::1] - where logits are stored
    """

    source: int
    x: Any
    bytes: Any
    columns: Any
    values: Any
    starts: Any
    edges: Any
    labels: Any
    targets: Any
    out: Any


class Rule(NamedTuple):
    """What an update does.

    kind : int - KEEP, SGD, ...
    lr, first, second, eps : float - learning rate; momentum, decay rate or betas
    decay : float - lambda of the weight decay
    steps : int - updates before this call, for Adam
    stop : int - whether to stop at a loss that is not finite, before the update
    loss_eps : float - the book's addend inside the logarithm, or 0
    """

    kind: int
    lr: float
    first: float
    second: float
    eps: float
    decay: float
    steps: int
    stop: int
    loss_eps: float


@part
def share(n: int, quantum: int, thread: int, threads: int) -> tuple[int, int]:
    """Return a thread's range of n things that are dealt out ``quantum`` at a time."""
    groups = (n + quantum - 1) // quantum
    return groups * thread // threads * quantum, groups * (thread + 1) // threads * quantum


@part
def gather(
    net: Any, data: Any, rows: Any, begin: int, end: int, n0: int, n1: int, k0: int, k1: int
) -> None:
    """Copy rows n0 to n1 and columns k0 to k1 of the batch ``rows[begin:end]``."""
    layer = row_of(net.layers, 0)
    K, to, stride = layer[INPUTS], layer[X] + k0, layer[X_ROW]
    size = net.buffer.itemsize if data.source == FLOATS else 1
    examples = address_of(data.x, k0) if data.source == FLOATS else address_of(data.bytes, k0)
    for n in range(n0, min(n1, end - begin)):
        target = view(net.buffer, to + n * stride, min(k1, K) - k0)
        soon = examples + rows[min(begin + n + EXAMPLES_AHEAD, end - 1)] * K * size
        for byte in range(0, target.size * size, LINE):
            prefetch(soon + byte)
        if data.labels.size:
            prefetch(address_of(data.labels, rows[begin + n]))
        if data.source == FLOATS:
            source = view(data.x, rows[begin + n] * K + k0, target.size)
            for k in range(target.size):
                target[k] = source[k]
        else:
            source_bytes = view(data.bytes, rows[begin + n] * K + k0, target.size)
            for k in range(target.size):
                target[k] = source_bytes[k]


@part
def forward(
    net: Any, data: Any, example: int, B: int, l: int, n0: int, n1: int, p0: int, p1: int
) -> None:
    """``h = activation(x @ W + b)`` for rows n0 to n1 and panels p0 to p1.

    With ``example`` >= 0 the batch is B consecutive examples from there on, and whole tiles of the
    first layer read them where the user has them.
    """
    buffer, layer = net.buffer, row_of(net.layers, l)
    one = buffer.dtype.type(1)
    examples = view(data.x, 0, data.x.size)
    for p in range(p0, p1):
        panel = row_of(net.panels, p)
        bias, h = layer[BIAS] + panel[COLUMN], layer[H] + panel[COLUMN]
        width = columns_of_code(panel[CODE], buffer)
        for n in range(n0, n1, TILE_ROWS):
            at = h + n * layer[H_ROW]
            x, x_at, x_row = buffer, layer[X] + n * layer[X_ROW], layer[X_ROW]
            if example >= 0 and n + TILE_ROWS <= B:
                x, x_at, x_row = examples, (example + n) * layer[INPUTS], layer[INPUTS]
            tile(
                panel[CODE],
                buffer, at, layer[H_ROW],
                x, x_at, x_row, 1,
                buffer, panel[START], panel[ROW], layer[INPUTS],
                buffer, bias, 0, one, address_of(buffer, at), address_of(buffer, at), 0,
            )  # fmt: skip
            for i in range(TILE_ROWS):
                row = at + i * layer[H_ROW]
                activate(view(buffer, row, width), layer[ACTIVATION])


@part
def forward_half(net: Any, l: int, B: int, half: int) -> None:
    """``x @ W`` over one half of the inputs, with the bias in the first half.

    With two threads each core has its half of x and of W, and neither ever moves: only the sums
    do.  One thread adds the same halves, so the bits are the same.
    """
    buffer, layer = net.buffer, row_of(net.layers, l)
    one = buffer.dtype.type(1)
    k0, k1 = (0, layer[HALF]) if half == 0 else (layer[HALF], layer[INPUTS])
    to = layer[H] if half == 0 else net.sizes[OTHER_HALF]
    for p in range(layer[FIRST], layer[LAST]):
        panel = row_of(net.panels, p)
        begin = layer[BIAS] + panel[COLUMN] if half == 0 else net.sizes[ZEROS]
        for n in range(0, B, TILE_ROWS):
            at = to + panel[COLUMN] + n * layer[H_ROW]
            tile(
                panel[CODE],
                buffer, at, layer[H_ROW],
                buffer, layer[X] + n * layer[X_ROW] + k0, layer[X_ROW], 1,
                buffer, panel[START] + k0 * panel[ROW], panel[ROW], k1 - k0,
                buffer, begin, 0, one, address_of(buffer, at), address_of(buffer, at), 0,
            )  # fmt: skip


@part
def forward_sparse(net: Any, data: Any, rows: Any, begin: int, B: int, half: int) -> None:
    """``x @ W`` of the first layer over one half of the inputs, without their zeros."""
    buffer, layer = net.buffer, row_of(net.layers, 0)
    to = layer[H] if half == 0 else net.sizes[OTHER_HALF]
    segments = data.edges.size - 1
    ranges = segments // 2
    for p in range(layer[FIRST], layer[LAST]):
        panel = row_of(net.panels, p)
        code, column, start, stride = panel[CODE], panel[COLUMN], panel[START], panel[ROW]
        bias = layer[BIAS] + column if half == 0 else net.sizes[ZEROS]
        h_row = layer[H_ROW]  # a local: what is loaded from a table is loaded again after a store
        for r in range(half * ranges, (half + 1) * ranges):
            for n in range(B):
                if r == half * ranges:
                    soon = rows[begin + min(n + EXAMPLES_AHEAD, B - 1)] * segments + r
                    prefetch_segments(data, soon, soon + ranges)
                segment = rows[begin + n] * segments + r
                h = to + n * h_row + column
                sum_rows(
                    code, buffer, h, buffer, bias if r == half * ranges else h,
                    data.columns, data.values, data.starts[segment], data.starts[segment + 1],
                    buffer, start, stride,
                )  # fmt: skip
    if data.labels.size:
        for n in range(B):
            prefetch(address_of(data.labels, rows[begin + n]))


@part
def prefetch_segments(data: Any, first: int, last: int) -> None:
    """Prefetch the numbers of segments first to last."""
    start, stop = data.starts[first], data.starts[last]
    for p in range(start, stop, LINE // 2):
        prefetch(address_of(data.columns, p))
    for p in range(start, stop, LINE // data.values.itemsize):
        prefetch(address_of(data.values, p))


@part
def join_halves(net: Any, l: int, n0: int, n1: int) -> None:
    """``h = activation(sum of the halves)`` for rows n0 to n1."""
    buffer, layer = net.buffer, row_of(net.layers, l)
    for n in range(n0, n1):
        h = view(buffer, layer[H] + n * layer[H_ROW], layer[WIDTH])
        other = view(buffer, net.sizes[OTHER_HALF] + n * layer[H_ROW], layer[WIDTH])
        for j in range(h.size):
            h[j] += other[j]
        activate(h, layer[ACTIVATION])


@part
def activate(h: Any, activation: int) -> None:
    """Apply the activation to a row, in place."""
    zero, one = h.dtype.type(0), h.dtype.type(1)
    if activation == RELU:
        for j in range(h.size):
            h[j] = zero if h[j] <= zero else h[j]  # NaN is not <= 0 and passes
    elif activation == SIGMOID:
        for j in range(h.size):
            h[j] = logistic(h[j])


@part
def backward(net: Any, l: int, n0: int, n1: int, p0: int, p1: int) -> None:
    """``dz of the layer before = (dz @ W.T) * activation'`` for some rows and panels of W.T."""
    buffer, layer, before = net.buffer, row_of(net.layers, l), row_of(net.layers, l - 1)
    one = buffer.dtype.type(1)
    for p in range(p0, p1):
        panel = row_of(net.panels, p)
        width = columns_of_code(panel[CODE], buffer)
        for n in range(n0, n1, TILE_ROWS):
            at = n * before[H_ROW] + panel[COLUMN]
            tile(
                panel[CODE],
                buffer, before[DZ] + at, before[H_ROW],
                buffer, layer[DZ] + n * layer[H_ROW], layer[H_ROW], 1,
                buffer, panel[START], panel[ROW], layer[OUTPUTS],
                buffer, net.sizes[ZEROS], 0, one,
                address_of(buffer, net.sizes[ZEROS]), address_of(buffer, net.sizes[ZEROS]), 0,
            )  # fmt: skip
            for i in range(TILE_ROWS):
                dz = before[DZ] + at + i * before[H_ROW]
                h = before[H] + at + i * before[H_ROW]
                differentiate(
                    view(buffer, dz, width), view(buffer, h, width), before[ACTIVATION]
                )


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
def softmax_loss(
    net: Any, data: Any, rule: Any, rows: Any, begin: int, end: int, n0: int, n1: int, measure: bool
) -> None:
    """Softmax of rows n0 to n1, their gradient times the scale, and what the loss is made of.

    Leaves for each row the total of the exponentials and the target's shifted logit, in ``work``:
    the row's loss is ``log(total) - logit``.  The logits' padding is -inf, of which the exponential
    is 0.
    """
    buffer, layer = net.buffer, row_of(net.layers, net.layers.shape[0] - 1)
    T = buffer.dtype.type
    one = T(1)
    scale = T((-rule.lr if rule.kind == SGD else 1.0) / (end - begin))
    for n in range(n0, min(n1, end - begin)):
        at = n * layer[H_ROW]
        logits = view(buffer, layer[H] + at, layer[WIDTH])
        dz = view(buffer, layer[DZ] + at, layer[WIDTH])
        example = rows[begin + n]
        highest = largest(logits)
        total = T(0)
        for c in range(dz.size):
            e = exp_nonpositive(logits[c] - highest)
            dz[c] = e
            total += e
        if data.labels.size:
            label = data.labels[example]
            logit = np.float64(logits[label] - highest)
            factor = scale / total
            for c in range(dz.size):
                dz[c] *= factor
            dz[label] -= scale
            if rule.loss_eps > 0.0:
                y = math.exp(logit) / np.float64(total)
                total, logit = one, math.log(y + rule.loss_eps)
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
            factor = scale / total * weight
            for c in range(target.size):
                dz[c] = dz[c] * factor - scale * target[c]
            logit = expected
            if rule.loss_eps == 0.0:
                logit -= np.float64(weight) * math.log(np.float64(total))
            total = one
        net.work[0, n] = np.float64(total)
        net.work[1, n] = logit
        if measure:
            c = 0
            while c < layer[OUTPUTS] - 1 and not logits[c] == highest:
                c += 1
            net.work[2, n] = 1.0 if c == label else 0.0


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


@part
def update(
    net: Any, data: Any, rule: Any, rows: Any, first: int, last: int, B: int, l: int,
    k0: int, k1: int, p0: int, p1: int, thread: int, step: int,
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
    decay = T(1.0 - rule.lr * rule.decay)
    rounds = min(B, BLOCK)
    size = net.buffer.itemsize if data.source == FLOATS else 1
    example = layer[INPUTS] * size
    wanted = (min(k1, layer[INPUTS]) - k0) * size
    ahead_step = min(LINE, (wanted + rounds - 1) // rounds)
    pieces = (wanted + rounds * ahead_step - 1) // (rounds * ahead_step)
    examples = address_of(data.x, 0) if data.source == FLOATS else address_of(data.bytes, 0)
    examples += k0 * size
    last = min(last, rows.size) if l == 0 else first
    asked, questions = 0, (last - first) * pieces
    for p in range(p0, p1):
        panel = row_of(net.panels, p)
        row = panel[ROW]
        for g in range(k0, k1, GROUP):
            stop = min(g + GROUP, k1)
            weights = panel[START] + g * row
            if rule.kind == KEEP:
                result, to = state, weights
            elif rule.kind == SGD:
                result, to = buffer, weights
            else:
                result, to = buffer, scratch
            for b in range(0, B, BLOCK):
                dz = layer[DZ] + b * layer[H_ROW] + panel[COLUMN]
                for k in range(g, stop, TILE_ROWS):
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
                    tile(
                        panel[CODE],
                        result, at, row,
                        buffer, layer[X] + b * layer[X_ROW] + k, 1, layer[X_ROW],
                        buffer, dz, layer[H_ROW], min(BLOCK, B - b),
                        source, origin, origin_row, factor, ahead, ahead_too, ahead_step,
                    )  # fmt: skip
            if rule.kind > SGD or (rule.kind == KEEP and rule.decay > 0.0):
                apply_rule(net, rule, weights, to, (stop - g) * row, rule.decay, step)
            if l > 0 and rule.kind != KEEP:
                transpose_weights(net, l, p, g, min(stop, layer[INPUTS]))


@part
def update_sparse(
    net: Any, data: Any, rule: Any, rows: Any, begin: int, B: int, half: int, thread: int, step: int
) -> None:
    """Gradient of the rows of the first W in one half of the inputs, and the step along it.

    The examples of the next batch are prefetched meanwhile, in the first range.
    """
    buffer, state, layer = net.buffer, net.state, row_of(net.layers, 0)
    T = buffer.dtype.type
    scratch = net.sizes[SCRATCH] + thread * net.sizes[SCRATCH_SIZE]
    segments = data.edges.size - 1
    ranges = segments // 2
    for p in range(layer[FIRST], layer[LAST]):
        panel = row_of(net.panels, p)
        code, stride, h_row = panel[CODE], panel[ROW], layer[H_ROW]
        gradient = layer[DZ] + panel[COLUMN]
        for r in range(half * ranges, (half + 1) * ranges):
            weights = panel[START] + data.edges[r] * stride
            size = (data.edges[r + 1] - data.edges[r]) * stride
            factor = T(0)
            if rule.kind == KEEP:
                result, to = state, weights
            elif rule.kind == SGD:
                result, to, factor = buffer, weights, T(1.0 - rule.lr * rule.decay)
            else:
                result, to = buffer, scratch
            origin = to - data.edges[r] * stride  # where the row of column 0 would be
            start = view(result, to, size)
            if factor == T(0):
                for i in range(size):
                    start[i] = T(0)
            elif factor != T(1):
                for i in range(size):
                    start[i] *= factor
            for n in range(B):
                following = begin + B + n
                if r == half * ranges and p == layer[FIRST] and following < rows.size:
                    soon = rows[following] * segments + r
                    prefetch_segments(data, soon, soon + ranges)
                segment = rows[begin + n] * segments + r
                dz = gradient + n * h_row
                add_to_rows(
                    code, buffer, dz, buffer, dz,
                    data.columns, data.values, data.starts[segment], data.starts[segment + 1],
                    result, origin, stride,
                )  # fmt: skip
            if rule.kind > SGD or (rule.kind == KEEP and rule.decay > 0.0):
                apply_rule(net, rule, weights, scratch, size, rule.decay, step)


@part
def sum_squares(net: Any, l: int, k0: int, k1: int) -> None:
    """Sums of the squares of rows k0 to k1 of W, a tile at a time: what weight decay costs."""
    buffer, layer = net.buffer, row_of(net.layers, l)
    for p in range(layer[FIRST], layer[LAST]):
        panel = row_of(net.panels, p)
        width = columns_of_code(panel[CODE], buffer)
        for k in range(k0, k1, TILE_ROWS):
            total = 0.0
            for i in range(k, min(k + TILE_ROWS, layer[INPUTS])):
                at = panel[START] + i * panel[ROW]
                values = view(buffer, at, width)
                squares = values.dtype.type(0)
                for j in range(values.size):
                    squares += values[j] * values[j]
                total += np.float64(squares)
            net.squares[p, k // TILE_ROWS] = total


@part
def update_bias(net: Any, rule: Any, l: int, B: int, p0: int, p1: int, thread: int, step: int) -> None:
    """Gradient of the bias in panels p0 to p1, and the step along it."""
    buffer, layer = net.buffer, row_of(net.layers, l)
    zero = buffer.dtype.type(0)
    scratch = net.sizes[SCRATCH] + thread * net.sizes[SCRATCH_SIZE]
    for p in range(p0, p1):
        panel = row_of(net.panels, p)
        width = columns_of_code(panel[CODE], buffer)
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
            apply_rule(net, rule, bias, scratch, width, 0.0, step)


@part
def apply_rule(
    net: Any, rule: Any, start: int, gradient: int, size: int, decay: float, step: int
) -> None:
    """Update ``size`` parameters from ``start`` on, with the gradient that lies at ``gradient``."""
    T = net.buffer.dtype.type
    param = view(net.buffer, start, size)
    first = view(net.state, start, size)
    if rule.kind == KEEP:
        for i in range(size):
            first[i] += T(decay) * param[i]
        return
    grad = view(net.buffer, gradient, size)
    if decay > 0.0:
        for i in range(size):
            grad[i] += T(decay) * param[i]
    lr, a, b, eps = T(rule.lr), T(rule.first), T(rule.second), T(rule.eps)
    if rule.kind == MOMENTUM:
        momentum_update(param, first, grad, lr, a)
    elif rule.kind == NESTEROV:
        nesterov_update(param, first, grad, lr, a)
    elif rule.kind == ADAGRAD:
        adagrad_update(param, first, grad, lr, eps)
    elif rule.kind == RMSPROP:
        rmsprop_update(param, first, grad, lr, a, eps)
    else:
        second_start = net.sizes[PARAMETERS] + start
        second = view(net.state, second_start, size)
        n = rule.steps + step + 1
        lr_t = T(rule.lr * math.sqrt(1.0 - rule.second**n) / (1.0 - rule.first**n))
        adam_update(param, first, second, grad, lr_t, a, b, eps)


@part
def transpose_weights(net: Any, l: int, p: int, k0: int, k1: int) -> None:
    """Bring W.T up to date with rows k0 to k1 of panel p of W.

    Squares of a register's width go through the registers; what is left at the edges one by one.
    """
    buffer, layer, panel = net.buffer, row_of(net.layers, l), row_of(net.panels, p)
    V = vector_lanes(buffer)
    n0 = panel[COLUMN]
    n1 = min(n0 + columns_of_code(panel[CODE], buffer), layer[OUTPUTS])
    whole = n0 + (n1 - n0) // V * V
    for q in range(layer[BACK_FIRST], layer[BACK_LAST]):
        back = row_of(net.panels, q)
        first = max(k0, back[COLUMN])
        last = min(k1, back[COLUMN] + columns_of_code(back[CODE], buffer))
        begin = min((first + V - 1) // V * V, max(first, last))
        end = max(begin, last // V * V)
        for k in range(first, last):
            inside = begin <= k < end
            target = back[START] + k - back[COLUMN]
            source = panel[START] + k * panel[ROW] - n0
            for n in range(whole if inside else n0, n1):
                buffer[target + n * back[ROW]] = buffer[source + n]
        for k in range(begin, end, V):
            for n in range(n0, whole, V):
                transpose_block(
                    buffer, back[START] + n * back[ROW] + k - back[COLUMN], back[ROW],
                    buffer, panel[START] + k * panel[ROW] + n - n0, panel[ROW],
                )  # fmt: skip


@part
def operate(
    net: Any, data: Any, rule: Any, rows: Any, begin: int, end: int, step: int,
    operation: Any, thread: int, threads: int,
) -> None:  # fmt: skip
    """Do one thread's share of one operation of the program."""
    what, l, division = operation[OPERATION], operation[LAYER], operation[DIVISION]
    layer = row_of(net.layers, l)
    B = end - begin
    n0, n1 = share(B, TILE_ROWS, thread, threads)
    if what == GATHER:
        if division == BY_INPUTS:
            for half in range(2):
                if half % threads == thread:
                    k0, k1 = half_of_inputs(layer, half)
                    gather(net, data, rows, begin, end, 0, B, k0, k1)
        else:
            gather(net, data, rows, begin, end, n0, n1, 0, layer[INPUTS])
    elif what == GATHER_REST:
        rest = B // TILE_ROWS * TILE_ROWS if data.source == FLOATS else 0
        gather(net, data, rows, begin, end, max(n0, rest), n1, 0, layer[INPUTS])
    elif what == SQUARES:
        k0, k1 = share(layer[INPUTS], TILE_ROWS, thread, threads)
        sum_squares(net, l, k0, k1)
    elif what == FORWARD and division == BY_INPUTS:
        for half in range(2):
            if half % threads != thread:
                continue
            if data.source == SPARSE:
                forward_sparse(net, data, rows, begin, B, half)
            else:
                forward_half(net, l, B, half)
    elif what == JOIN:
        join_halves(net, l, n0, n1)
    elif what == FORWARD:
        p0, p1 = layer[FIRST], layer[LAST]
        if division == BY_PANELS:
            n0, n1 = share(B, TILE_ROWS, 0, 1)
            q0, q1 = share(p1 - p0, 1, thread, threads)
            p0, p1 = p0 + q0, p0 + q1
        direct = net.program[0, OPERATION] == GATHER_REST and data.source == FLOATS and l == 0
        forward(net, data, rows[begin] if direct else -1, B, l, n0, n1, p0, p1)
    elif what == LOSS or what == MEASURE:
        softmax_loss(net, data, rule, rows, begin, end, n0, n1, what == MEASURE)
    elif what == STORE:
        store(net, data, rows, begin, end, n0, n1)
    elif what == BACKWARD:
        p0, p1 = layer[BACK_FIRST], layer[BACK_LAST]
        if division == BY_PANELS:
            n0, n1 = share(B, TILE_ROWS, 0, 1)
            q0, q1 = share(p1 - p0, 1, thread, threads)
            p0, p1 = p0 + q0, p0 + q1
        backward(net, l, n0, n1, p0, p1)
    else:
        p0, p1 = layer[FIRST], layer[LAST]
        if division == BY_PANELS:
            q0, q1 = share(p1 - p0, 1, thread, threads)
            p0, p1 = p0 + q0, p0 + q1
            k0, k1 = share(layer[INPUTS], TILE_ROWS, 0, 1)
            update_bias(net, rule, l, B, p0, p1, thread, step)
            update(net, data, rule, rows, end + n0, end + n1, B, l, k0, k1, p0, p1, thread, step)
            return
        if thread == 0:
            update_bias(net, rule, l, B, p0, p1, thread, step)
        if division == BY_INPUTS:
            for half in range(2):
                if half % threads != thread:
                    continue
                k0, k1 = half_of_inputs(layer, half)
                if data.source == SPARSE:
                    update_sparse(net, data, rule, rows, begin, B, half, thread, step)
                else:
                    update(net, data, rule, rows, end, end + B, B, l, k0, k1, p0, p1, thread, step)
        else:
            k0, k1 = share(layer[INPUTS], TILE_ROWS, thread, threads)
            update(net, data, rule, rows, end, end, B, l, k0, k1, p0, p1, thread, step)


@part
def half_of_inputs(layer: Any, half: int) -> tuple[int, int]:
    """Return the rows of W in a half of the inputs, padding included."""
    K = (layer[INPUTS] + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS
    return (0, layer[HALF]) if half == 0 else (layer[HALF], K)


def _region(
    net: Any, data: Any, rule: Any, rows: Any, begin: int, end: int, step: int,
    first: int, last: int, thread: int, threads: int,
) -> None:  # fmt: skip
    """Do one thread's share of the operations between two meetings of the threads."""
    for i in range(first, last):
        operate(net, data, rule, rows, begin, end, step, row_of(net.program, i), thread, threads)


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
                for i in range((layer[INPUTS] + TILE_ROWS - 1) // TILE_ROWS):
                    squares += net.squares[p, i]
        loss += 0.5 * rule.decay * squares
    return loss


@intrinsic
def _call_region(
    typing: Any, address: Any, net: Any, data: Any, rule: Any, rows: Any, begin: Any, end: Any,
    step: Any, first: Any, last: Any, thread: Any, threads: Any,
) -> Any:  # fmt: skip
    """Call the compiled ``region`` at an address.

    So it is compiled once, and the serial and the parallel shell around it are thin: both would
    otherwise take in all of it.
    """
    n = types.intp
    inputs = (net, data, rule, rows, n, n, n, n, n, n, n)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = context.call_conv.get_function_type(types.none, inputs)
        pointer = builder.inttoptr(arguments[0], function.as_pointer())
        context.call_conv.call_function(builder, pointer, types.none, inputs, arguments[1:])
        return context.get_dummy_value()

    return types.none(types.intp, *inputs), generate


if JIT_DISABLED:

    def _call_region(code: int, *arguments: Any) -> None:
        _region(*arguments)


def _run(
    losses: Any, right: Any, net: Any, data: Any, rule: Any, rows: Any, begins: Any, code: int,
    threads: int,
) -> int:  # fmt: skip
    """Run the program once for each batch.

    Parameters
    ----------
    losses : (S,) float64 - overwritten with the mean loss of each batch, before the update
    right : (S,) int64 - overwritten with the number of examples right, by 'measure' only
    net : Net - its buffer and state are updated
    data : Data
    rule : Rule
    rows : int64[::1] - examples, one batch behind the other
    begins : (S + 1,) int64 - where in ``rows`` each batch begins, and the last one ends
    code : int - the address of the compiled ``region``
    threads : int

    Returns
    -------
    int
        The number of batches done, all or up to the one whose loss is not finite.
    """
    operations = net.program.shape[0]
    for s in range(losses.size):
        begin, end = begins[s], begins[s + 1]
        first = 0
        while first < operations:
            last = first + 1
            while last < operations and net.program[last, BEGINS_REGION] == 0:
                last += 1
            if net.program[first, OPERATION] == UPDATE:
                losses[s] = total_loss(net, rule, end - begin)
                if rule.stop != 0 and not math.isfinite(losses[s]):
                    return s + 1
            for thread in prange(threads):
                _call_region(
                    code, net, data, rule, rows, begin, end, s, first, last, thread, threads
                )
            first = last
        if net.program[operations - 1, OPERATION] == MEASURE:
            losses[s] = total_loss(net, rule, end - begin)
            hits = 0.0
            for n in range(end - begin):
                hits += net.work[2, n]
            right[s] = np.int64(hits)
    return losses.size


_NET = """
    Net(T[::1], T[::1], int64[:, ::1], int64[:, ::1], int64[:, ::1], float64[:, ::1],
        float64[:, ::1], int64[::1]),
    Data(int64, T[:, ::1], uint8[:, ::1], uint16[::1], T[::1], int64[::1], int64[::1], int64[::1], T[:, ::1], T[:, ::1]),
    Rule(int64, float64, float64, float64, float64, float64, int64, int64, float64),
    int64[::1],
"""
_TUPLES = (Net, Data, Rule)
region = kernel(_NET + "int64, int64, int64, int64, int64, int64, int64", tuples=_TUPLES)(_region)
_RUN = "float64[::1], int64[::1]," + _NET + "int64[::1], int64, int64"
run = kernel(_RUN, tuples=_TUPLES)(_run)
run_parallel = kernel(_RUN, tuples=_TUPLES, parallel=True)(_run)
