"""One step of each optimizer over one parameter array, in one pass, in place.

The rules are the book's (chapter 6); ``param`` and the optimizer's state are updated, ``grad`` is
read.  All arrays are flat and of one floating point type; the scalars are of that type too.

A kernel that others call is compiled by itself and once more with each of them.  So that all copies
give the same bits, every product and sum is rounded as it is written: which product of two would
become part of a fused multiply-add is the compiler's choice, and it chooses anew in every copy.
"""

from __future__ import annotations

import math
from typing import Any

from .jit import NO_FLAGS, kernel


@kernel("T[::1], T[::1], T", flags=NO_FLAGS)
def sgd_update(param: Any, grad: Any, lr: Any) -> None:
    """``p -= lr * g``."""
    for i in range(param.size):
        param[i] -= lr * grad[i]


@kernel("T[::1], T[::1], T[::1], T, T", flags=NO_FLAGS)
def momentum_update(param: Any, v: Any, grad: Any, lr: Any, momentum: Any) -> None:
    """``v = momentum * v - lr * g;  p += v``."""
    for i in range(param.size):
        v[i] = momentum * v[i] - lr * grad[i]
        param[i] += v[i]


@kernel("T[::1], T[::1], T[::1], T, T", flags=NO_FLAGS)
def nesterov_update(param: Any, v: Any, grad: Any, lr: Any, momentum: Any) -> None:
    """``p += m * m * v - (1 + m) * lr * g;  v = m * v - lr * g``, with the old v in both."""
    one = param.dtype.type(1)
    for i in range(param.size):
        param[i] += momentum * momentum * v[i] - (one + momentum) * lr * grad[i]
        v[i] = momentum * v[i] - lr * grad[i]


@kernel("T[::1], T[::1], T[::1], T, T", flags=NO_FLAGS)
def adagrad_update(param: Any, h: Any, grad: Any, lr: Any, eps: Any) -> None:
    """``h += g * g;  p -= lr * g / (sqrt(h) + eps)``."""
    for i in range(param.size):
        h[i] += grad[i] * grad[i]
        param[i] -= lr * grad[i] / (math.sqrt(h[i]) + eps)


@kernel("T[::1], T[::1], T[::1], T, T, T", flags=NO_FLAGS)
def rmsprop_update(param: Any, h: Any, grad: Any, lr: Any, decay_rate: Any, eps: Any) -> None:
    """``h = d * h + (1 - d) * g * g;  p -= lr * g / (sqrt(h) + eps)``."""
    one = param.dtype.type(1)
    for i in range(param.size):
        h[i] = decay_rate * h[i] + (one - decay_rate) * grad[i] * grad[i]
        param[i] -= lr * grad[i] / (math.sqrt(h[i]) + eps)


@kernel("T[::1], T[::1], T[::1], T[::1], T, T, T, T", flags=NO_FLAGS)
def adam_update(
    param: Any, m: Any, v: Any, grad: Any, lr_t: Any, beta1: Any, beta2: Any, eps: Any
) -> None:
    """``m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g*g;  p -= lr_t * m / (sqrt(v) + eps)``.

    The book's ``v += (1-b2) (g*g - v)`` is the same, but a small g after a large one would be lost
    in the difference where b2 is small.
    """
    one = param.dtype.type(1)
    for i in range(param.size):
        m[i] = beta1 * m[i] + (one - beta1) * grad[i]
        v[i] = beta2 * v[i] + (one - beta2) * grad[i] * grad[i]
        param[i] -= lr_t * m[i] / (math.sqrt(v[i]) + eps)
