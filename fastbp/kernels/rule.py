"""The step of whatever optimizer it is, along a gradient that lies in memory.

A kernel of its own, compiled for those who have another rule than plain SGD: to compile it takes a
tenth as long as the loop.
"""

from __future__ import annotations

import math
from typing import Any

from .calls import call_at
from .jit import JIT_DISABLED, intrinsic, kernel
from .simd import view
from .tables import ADAGRAD, KEEP, MOMENTUM, NESTEROV, RMSPROP, RULE, Rule
from .update import (
    adagrad_update,
    adam_update,
    momentum_update,
    nesterov_update,
    rmsprop_update,
)


def _apply_rule(
    buffer: Any, state: Any, rule: Any, start: int, second: int, gradient: int, size: int,
    decay: float, step: int,
) -> None:  # fmt: skip
    """Update some parameters with the gradient that lies in the buffer.

    Parameters
    ----------
    buffer, state : (n,) float32 or float64 - parameters and state updated, gradient overwritten
    rule : Rule - any but plain SGD; KEEP adds the decay to the gradient in the state
    start, size : int - which parameters; their state begins at the same place
    second : int - where the second slot of their state begins, if there is one
    gradient : int - where their gradient begins in the buffer
    decay : float - lambda of the weight decay
    step : int - updates before this one in this call, for Adam
    """
    T = buffer.dtype.type
    param, first = view(buffer, start, size), view(state, start, size)
    if rule.kind == KEEP:
        for i in range(size):
            first[i] += T(decay) * param[i]
        return
    grad = view(buffer, gradient, size)
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
        n = rule.steps + step + 1
        lr_t = T(rule.lr * math.sqrt(1.0 - rule.second**n) / (1.0 - rule.first**n))
        adam_update(param, first, view(state, second, size), grad, lr_t, a, b, eps)


apply_rule = kernel(
    f"T[::1], T[::1], {RULE}, int64, int64, int64, int64, float64, int64",
    tuples=(Rule,),
    by_address=True,
)(_apply_rule)


@intrinsic
def apply_rule_at(
    typing: Any, address: Any, buffer: Any, state: Any, rule: Any, start: Any, second: Any,
    gradient: Any, size: Any, decay: Any, step: Any,
) -> Any:  # fmt: skip
    """Call the compiled ``apply_rule`` at an address."""
    return call_at(buffer, state, rule, start, second, gradient, size, decay, step)


def _apply_rule_in_python(code: int, *arguments: Any) -> None:
    """Do what the intrinsic does, where nothing is compiled."""
    _apply_rule(*arguments)


if JIT_DISABLED:
    apply_rule_at = _apply_rule_in_python
