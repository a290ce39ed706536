"""Central differences of a network's loss: every weight moved up and down by h, one at a time.

Moving the weight from input i to unit j of an affine layer moves unit j alone, and only for the
examples whose input i is not 0.  So the loss is evaluated twice for each weight as the definition
asks, but each evaluation starts at unit j of those examples, and what the move does not reach is
not computed again.

All units of a layer are moved side by side: a *column* is one unit moved up (the first half of the
columns) or down (the second).  Every loop over columns runs along contiguous memory, as many
columns as the layer has units, so the vector registers are full even for a single example.

What goes through the layers is the change of a unit, not its value: beside the value the change
would lose most of its digits.

The layers come as one table, so that there is one version of this code for every network:

    table[m] = (number of units, their place in ``before`` and ``after``, in ``weights``)

The units of hidden layers are filled up with units that nothing depends on to a multiple of
``PADDING``.  ``weights`` holds behind one another, for each layer, what leads from it to the next
units, transposed: (units of the next layer, units); the last layer leads to the logits through the
identity.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .exp import exp_nonpositive, logistic
from .jit import kernel, part

# Units moved side by side, a multiple of PADDING.  128 took as long, 32 a tenth longer.
UNITS = 64
# 8 and 16 fill the vector registers better and took longer: more columns that nobody needs.
PADDING = 4
# What a layer's sums go through; the logits go into the loss as they are.
IDENTITY, RELU, SIGMOID = 0, 1, 2
# Up to this sum of squares all changes of logits count as small: each is below 2**-6, where the
# polynomial is right to 3e-15 of the change.
NEAR = 2.0**-12


@part
def move_units(change: Any, before: Any, after: Any, step: Any, activation: int) -> None:
    """Change of each unit's output when the unit's sum is moved up and down by step."""
    units = before.size
    up, down = change[:units], change[units : 2 * units]
    zero = before.dtype.type(0)
    if activation == SIGMOID:
        for j in range(units):
            up[j] = logistic(before[j] + step) - after[j]
        for j in range(units):
            down[j] = logistic(before[j] - step) - after[j]
    elif activation == RELU:
        for j in range(units):
            up[j] = max(before[j] + step, zero) - after[j]
            down[j] = max(before[j] - step, zero) - after[j]
    else:
        for j in range(units):
            up[j] = step
            down[j] = -step


@part
def spread(out: Any, change: Any, weights: Any, rows: int, stride: int) -> None:
    """Change of the next layer's sums: in each column only that column's own unit has moved."""
    size = change.size
    units = size // 2
    for k in range(rows):
        up = out[k * size : k * size + units]
        down = out[k * size + units : (k + 1) * size]
        w = weights[k * stride : k * stride + units]
        for j in range(units):
            up[j] = w[j] * change[j]
            down[j] = w[j] * change[units + j]


@part
def activate(moved: Any, before: Any, after: Any, size: int, activation: int) -> None:
    """Change of a layer's outputs, from the change of its sums, in place."""
    zero = before.dtype.type(0)
    for k in range(before.size):
        row = moved[k * size : (k + 1) * size]
        b, a = before[k], after[k]
        if activation == SIGMOID:
            for q in range(size):
                row[q] = logistic(b + row[q]) - a
        else:
            for q in range(size):
                row[q] = max(b + row[q], zero) - a


@part
def through_weights(out: Any, moved: Any, weights: Any, rows: int, stride: int, size: int) -> None:
    """Change of the next layer's sums, from that of all outputs, four at a time."""
    zero = moved.dtype.type(0)
    for k in range(rows):
        row = out[k * size : (k + 1) * size]
        for q in range(size):
            row[q] = zero
        for m in range(0, stride, 4):
            w = weights[k * stride + m : k * stride + m + 4]
            w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
            r0 = moved[m * size : (m + 1) * size]
            r1 = moved[(m + 1) * size : (m + 2) * size]
            r2 = moved[(m + 2) * size : (m + 3) * size]
            r3 = moved[(m + 3) * size : (m + 4) * size]
            for q in range(size):
                row[q] += (w0 * r0[q] + w1 * r1[q]) + (w2 * r2[q] + w3 * r3[q])


@part
def add_near_differences(
    total: Any, columns: Any, moved: Any, probabilities: Any, targets: Any, size: int
) -> bool:
    """Do what add_far_differences does, if all changes of logits are small; tell whether they are.

    A column's loss has moved by ``log(1 + u) - change[t]``, u = sum_c p[c] (exp(change[c]) - 1).
    Without the 1 nowhere a digit of the change is lost, and short polynomials do: 10 ms instead of
    28 for 784-50-10 and 100 examples.
    """
    C, units = probabilities.size, size // 2
    sums = columns[1, :size]
    T = moved.dtype.type
    c2, c3, c4, c5, c6 = T(1 / 2), T(1 / 6), T(1 / 24), T(1 / 120), T(1 / 720)
    one, two = T(1), T(2)
    squares = T(0)
    for q in range(size):
        sums[q] = T(0)
    for c in range(C):
        row = moved[c * size : (c + 1) * size]
        p = probabilities[c]
        for q in range(size):
            d = row[q]
            squares += d * d
            e = ((((c6 * d + c5) * d + c4) * d + c3) * d + c2) * d + one
            sums[q] += p * (d * e)
    if squares > T(NEAR):
        return False
    weight = 0.0
    for c in range(C):
        share = targets[c]
        weight += np.float64(share)
        if share != T(0):
            row = moved[c * size : (c + 1) * size]
            for j in range(units):
                total[j] -= share * (row[j] - row[units + j])
    l3, l5, l7 = T(1 / 3), T(1 / 5), T(1 / 7)
    for j in range(units):
        u, v = sums[j], sums[units + j]
        s = (u - v) / (two + u + v)  # log((1 + u) / (1 + v)) = 2 artanh(s)
        z = s * s
        total[j] += weight * (two * s * (((l7 * z + l5) * z + l3) * z + one))
    return True


@part
def add_far_differences(
    total: Any, columns: Any, moved: Any, logits: Any, targets: Any, size: int, eps: float
) -> None:
    """Add one example's loss moved up, less its loss moved down, to each unit's total.

    moved has the changes of the logits; it is used up.
    """
    C, units = logits.size, size // 2
    highest, sums = columns[1, :size], columns[2, :size]
    zero = logits.dtype.type(0)
    lowest = logits.dtype.type(-np.inf)
    weight = 0.0
    for q in range(size):
        highest[q] = lowest
        sums[q] = zero
    for c in range(C):
        row = moved[c * size : (c + 1) * size]
        share = np.float64(targets[c])
        weight += share
        if share != 0.0 and eps == 0.0:
            for j in range(units):
                total[j] -= share * (row[j] - row[units + j])
        logit = logits[c]
        for q in range(size):
            row[q] += logit
            highest[q] = max(highest[q], row[q])
    for c in range(C):
        row = moved[c * size : (c + 1) * size]
        for q in range(size):
            row[q] -= highest[q]
    flat = moved[: C * size]
    for q in range(flat.size):
        flat[q] = exp_nonpositive(flat[q])
    for c in range(C):
        row = moved[c * size : (c + 1) * size]
        for q in range(size):
            sums[q] += row[q]
    if eps == 0.0:
        for j in range(units):
            shift = np.float64(highest[j] - highest[units + j])
            total[j] += weight * (shift + math.log(np.float64(sums[j] / sums[units + j])))
    else:
        for c in range(C):
            share = np.float64(targets[c])
            if share != 0.0:
                row = moved[c * size : (c + 1) * size]
                for j in range(units):
                    above = np.float64(row[j] / sums[j]) + eps
                    below = np.float64(row[units + j] / sums[units + j]) + eps
                    total[j] -= share * math.log(above / below)


@part
def differences_of_input(
    grad: Any,
    total: Any,
    columns: Any,
    moved: Any,
    x: Any,
    before: Any,
    after: Any,
    weights: Any,
    targets: Any,
    table: Any,
    layer: int,
    activation: int,
    h: Any,
    eps: float,
) -> None:
    """One row of central_differences: the weights from one input, x (N,), to a layer's units."""
    N, C = targets.shape
    last = table.shape[0] - 1
    width, place, source = table[layer]
    for first in range(0, width, UNITS):
        units = min(UNITS, width - first)
        for j in range(units):
            total[j] = 0.0
        for n in range(N):
            if x[n] == 0:
                continue
            start = place + first
            change = columns[0, : 2 * units]
            move_units(
                change,
                before[n, start : start + units],
                after[n, start : start + units],
                h * x[n],
                activation if layer < last else IDENTITY,
            )
            a, b = moved[0], moved[1]
            rows = table[layer + 1, 0] if layer < last else C
            spread(a, change, weights[source + first :], rows, width)
            for m in range(layer + 1, last):
                inner, start, place_of_weights = table[m]
                stop = start + inner
                activate(a, before[n, start:stop], after[n, start:stop], 2 * units, activation)
                rows = table[m + 1, 0]
                through_weights(b, a, weights[place_of_weights:], rows, inner, 2 * units)
                a, b = b, a
            start = table[last, 1]
            stop = start + C
            near = eps == 0.0 and add_near_differences(
                total, columns, a, after[n, start:stop], targets[n], 2 * units
            )
            if not near:
                logits = before[n, start:stop]
                add_far_differences(total, columns, a, logits, targets[n], 2 * units, eps)
        for j in range(units):
            grad[first + j] = total[j] / (2.0 * np.float64(h))


@kernel(
    "T[:, ::1], float64[::1], T[:, ::1], T[:, ::1], T[:, ::1], T[:, ::1], T[:, ::1], T[::1], "
    "T[:, ::1], int64[:, ::1], int64, int64, T, float64"
)
def central_differences(
    grad: Any,
    total: Any,
    columns: Any,
    moved: Any,
    x: Any,
    before: Any,
    after: Any,
    weights: Any,
    targets: Any,
    table: Any,
    layer: int,
    activation: int,
    h: Any,
    eps: float,
) -> None:
    """``grad[i, j] = (loss(W[i, j] + h) - loss(W[i, j] - h)) / 2h``, W those of one layer.

    The loss is the examples' sum.  A bias is the weight of an input that is 1.

    Parameters
    ----------
    grad : (I, H) float32 or float64 - overwritten; H is the layer's padded number of units
    total : (UNITS,) float64 - workspace
    columns : (3, 2 * UNITS) like grad - workspace
    moved : (2, R * 2 * UNITS) like grad - workspace; R is the largest padded number of units
    x : (I, N) like grad - some of the layer's inputs, an input a row
    before : (N, P) like grad - the sums of the units of all layers, before the activation
    after : (N, P) like grad - the units' outputs
    weights : (Q,) like grad - what leads from each layer to the next
    targets : (N, C) like grad - one-hot rows, or probabilities
    table : (layers, 3) int64 - number of units, place in before and after, place in weights
    layer : int - in [0, layers)
    activation : int - RELU or SIGMOID
    h : like an element of grad
    eps : float - what the loss adds to a probability
    """
    for i in range(x.shape[0]):
        differences_of_input(
            grad[i],
            total,
            columns,
            moved,
            x[i],
            before,
            after,
            weights,
            targets,
            table,
            layer,
            activation,
            h,
            eps,
        )
