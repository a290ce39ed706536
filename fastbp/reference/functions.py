"""Activations and losses in plain NumPy (the book, chapters 3 and 4)."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def identity_function(x: Array) -> Array:
    """Return ``x`` itself."""
    return x


def step_function(x: Array) -> Array:
    """1 where x > 0, else 0, as integers."""
    return np.array(x > 0, dtype=int)


def sigmoid(x: Array) -> Array:
    """``1 / (1 + exp(-x))``."""
    return 1 / (1 + np.exp(-x))


def sigmoid_grad(x: Array) -> Array:
    """Derivative of the sigmoid at x: ``(1 - y) * y`` with ``y = sigmoid(x)``."""
    return (1.0 - sigmoid(x)) * sigmoid(x)


def relu(x: Array) -> Array:
    """``max(0, x)``."""
    return np.maximum(0, x)


def relu_grad(x: Array) -> Array:
    """Derivative of ReLU at x: 1 where x > 0, else 0 (at 0 itself: 0, as the layer's mask says)."""
    grad = np.ones_like(x)
    grad[x <= 0] = 0
    return grad


def softmax(x: Array) -> Array:
    """``exp(x) / sum(exp(x))`` along the last axis, shifted by the maximum."""
    exp_x = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return exp_x / np.sum(exp_x, axis=-1, keepdims=True)


def sum_squared_error(y: Array, t: Array) -> float:
    """``sum((y - t)**2) / 2``."""
    return 0.5 * np.sum((y - t) ** 2)


mean_squared_error = sum_squared_error


def cross_entropy_error(y: Array, t: Array, eps: float = 1e-7) -> float:
    """``-mean_n log(y[n, t[n]] + eps)`` of probabilities y; t: labels (N,) or rows (N, C)."""
    if y.ndim == 1:
        t = np.reshape(t, (1, -1)) if np.ndim(t) else np.reshape(t, 1)
        y = y.reshape(1, y.size)
    if t.ndim == 2:
        t = t.argmax(axis=1)
    batch_size = y.shape[0]
    return -np.sum(np.log(y[np.arange(batch_size), t] + eps)) / batch_size


def softmax_loss(x: Array, t: Array) -> float:
    """Cross-entropy of softmax(x), exactly: ``mean_n(log sum_c exp(x[n, c]) - x[n, t[n]])``."""
    x = np.atleast_2d(x)
    t = t.argmax(axis=1) if t.ndim == 2 else t
    x = x - np.max(x, axis=1, keepdims=True)
    log_y = x - np.log(np.sum(np.exp(x), axis=1, keepdims=True))
    return -np.sum(log_y[np.arange(x.shape[0]), t]) / x.shape[0]
