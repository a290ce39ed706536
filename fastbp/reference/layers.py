"""The layers of chapter 5 in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from .functions import Array, cross_entropy_error, sigmoid, softmax


class MulLayer:
    """``z = x * y``."""

    x: Any
    y: Any

    def forward(self, x: Any, y: Any) -> Any:
        """Return ``x * y``."""
        self.x, self.y = x, y
        return x * y

    def backward(self, dout: Any) -> tuple[Any, Any]:
        """Return ``(dout * y, dout * x)``."""
        return dout * self.y, dout * self.x


class AddLayer:
    """``z = x + y``."""

    def forward(self, x: Any, y: Any) -> Any:
        """Return ``x + y``."""
        return x + y

    def backward(self, dout: Any) -> tuple[Any, Any]:
        """Return ``(dout, dout)``."""
        return dout * 1, dout * 1


class Relu:
    """``max(0, x)``; the mask remembers where x <= 0."""

    mask: Array

    def forward(self, x: Array) -> Array:
        """Return ``max(0, x)``."""
        self.mask = x <= 0
        out = x.copy()
        out[self.mask] = 0
        return out

    def backward(self, dout: Array) -> Array:
        """Return ``dout`` where x > 0, else 0.  (The book writes into ``dout``; this does not.)."""
        dx = dout.copy()
        dx[self.mask] = 0
        return dx


class Sigmoid:
    """``1 / (1 + exp(-x))``."""

    out: Array

    def forward(self, x: Array) -> Array:
        """Return the sigmoid of x."""
        self.out = sigmoid(x)
        return self.out

    def backward(self, dout: Array) -> Array:
        """Return ``dout * (1 - out) * out``."""
        return dout * (1.0 - self.out) * self.out


class Affine:
    """``x @ W + b``."""

    x: Array
    dW: Array
    db: Array

    def __init__(self, W: Array, b: Array) -> None:
        self.W = W
        self.b = b

    def forward(self, x: Array) -> Array:
        """Return ``x @ W + b`` for x of shape (N, D) or (N, C, H, W)."""
        self.original_x_shape = x.shape
        self.x = x.reshape(x.shape[0], -1)
        return np.dot(self.x, self.W) + self.b

    def backward(self, dout: Array) -> Array:
        """Return ``dout @ W.T``; leave ``x.T @ dout`` in dW and the column sums of dout in db."""
        dx = np.dot(dout, self.W.T)
        self.dW = np.dot(self.x.T, dout)
        self.db = np.sum(dout, axis=0)
        return dx.reshape(*self.original_x_shape)


class SoftmaxWithLoss:
    """Softmax and cross-entropy in one.  ``eps=1e-7`` gives the book's value."""

    loss: float
    y: Array
    t: Array

    def __init__(self, eps: float = 0.0) -> None:
        self.eps = eps

    def forward(self, x: Array, t: Array) -> float:
        """Return the mean cross-entropy of softmax(x) against t, labels (N,) or rows (N, C)."""
        self.t = t
        if self.eps:
            self.y = softmax(x)
            self.loss = cross_entropy_error(self.y, t, self.eps)
            return self.loss
        x = x - np.max(x, axis=1, keepdims=True)
        exp_x = np.exp(x)
        sum_exp = np.sum(exp_x, axis=1)
        self.y = exp_x / sum_exp[:, None]
        labels = t.argmax(axis=1) if t.ndim == 2 else t
        batch_size = x.shape[0]
        log_y = x[np.arange(batch_size), labels] - np.log(sum_exp)
        self.loss = float(-np.sum(log_y) / batch_size)
        return self.loss

    def backward(self, dout: float = 1) -> Array:
        """Return ``dout * (y - t) / N``."""
        batch_size = self.t.shape[0]
        if self.t.size == self.y.size and self.t.ndim == self.y.ndim:
            return dout * (self.y - self.t) / batch_size
        dx = self.y.copy()
        dx[np.arange(batch_size), self.t] -= 1
        return dout * dx / batch_size
