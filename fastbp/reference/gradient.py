"""Differentiation by differences, and descent along it (the book, chapter 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .functions import Array


def numerical_diff(f: Callable[[float], float], x: float) -> float:
    """``(f(x + h) - f(x - h)) / 2h`` with h = 1e-4."""
    h = 1e-4
    return (f(x + h) - f(x - h)) / (2 * h)


def numerical_gradient(f: Callable[[Array], Any], x: Array) -> Array:
    """Central differences with h = 1e-4 in every element of x, which f may be looking at."""
    h = 1e-4
    grad = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        value = x[index]
        x[index] = value + h
        above = f(x)
        x[index] = value - h
        below = f(x)
        grad[index] = (above - below) / (2 * h)
        x[index] = value
    return grad


def gradient_descent(
    f: Callable[[Array], Any], init_x: Array, lr: float = 0.01, step_num: int = 100
) -> Array:
    """``step_num`` times ``x -= lr * numerical_gradient(f, x)``, from a copy of init_x."""
    x = init_x.copy()
    for _ in range(step_num):
        x -= lr * numerical_gradient(f, x)
    return x
