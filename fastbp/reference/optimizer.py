"""The update rules of chapter 6 in plain NumPy."""

from __future__ import annotations

import numpy as np

from .functions import Array

Arrays = dict[str, Array]


class SGD:
    """``p -= lr * g``."""

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = lr

    def update(self, params: Arrays, grads: Arrays) -> None:
        """Step every parameter, in place."""
        for key in params:
            params[key] -= self.lr * grads[key]


class Momentum:
    """``v = momentum * v - lr * g; p += v``."""

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        self.lr = lr
        self.momentum = momentum
        self.v: Arrays = {}

    def update(self, params: Arrays, grads: Arrays) -> None:
        """Step every parameter, in place."""
        self.v = self.v or {key: np.zeros_like(value) for key, value in params.items()}
        for key in params:
            self.v[key] = self.momentum * self.v[key] - self.lr * grads[key]
            params[key] += self.v[key]


class Nesterov:
    """Bengio's form (arXiv:1212.0901): ``p += m*m*v - (1 + m)*lr*g; v = m*v - lr*g``."""

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        self.lr = lr
        self.momentum = momentum
        self.v: Arrays = {}

    def update(self, params: Arrays, grads: Arrays) -> None:
        """Step every parameter, in place."""
        self.v = self.v or {key: np.zeros_like(value) for key, value in params.items()}
        for key in params:
            params[key] += self.momentum * self.momentum * self.v[key]
            params[key] -= (1 + self.momentum) * self.lr * grads[key]
            self.v[key] *= self.momentum
            self.v[key] -= self.lr * grads[key]


class AdaGrad:
    """``h += g*g; p -= lr * g / (sqrt(h) + 1e-7)``."""

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = lr
        self.h: Arrays = {}

    def update(self, params: Arrays, grads: Arrays) -> None:
        """Step every parameter, in place."""
        self.h = self.h or {key: np.zeros_like(value) for key, value in params.items()}
        for key in params:
            self.h[key] += grads[key] * grads[key]
            params[key] -= self.lr * grads[key] / (np.sqrt(self.h[key]) + 1e-7)


class RMSprop:
    """``h = decay_rate*h + (1 - decay_rate)*g*g; p -= lr * g / (sqrt(h) + 1e-7)``."""

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        self.lr = lr
        self.decay_rate = decay_rate
        self.h: Arrays = {}

    def update(self, params: Arrays, grads: Arrays) -> None:
        """Step every parameter, in place."""
        self.h = self.h or {key: np.zeros_like(value) for key, value in params.items()}
        for key in params:
            self.h[key] *= self.decay_rate
            self.h[key] += (1 - self.decay_rate) * grads[key] * grads[key]
            params[key] -= self.lr * grads[key] / (np.sqrt(self.h[key]) + 1e-7)


class Adam:
    """Kingma and Ba's Adam with the bias correction in the rate and epsilon = 1e-7 outside it."""

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        self.lr = lr
        self.beta1 = beta1
        self.beta2 = beta2
        self.iter = 0
        self.m: Arrays = {}
        self.v: Arrays = {}

    def update(self, params: Arrays, grads: Arrays) -> None:
        """Step every parameter, in place."""
        self.m = self.m or {key: np.zeros_like(value) for key, value in params.items()}
        self.v = self.v or {key: np.zeros_like(value) for key, value in params.items()}
        self.iter += 1
        lr_t = self.lr * np.sqrt(1.0 - self.beta2**self.iter) / (1.0 - self.beta1**self.iter)
        for key in params:
            self.m[key] += (1 - self.beta1) * (grads[key] - self.m[key])
            self.v[key] += (1 - self.beta2) * (grads[key] ** 2 - self.v[key])
            params[key] -= lr_t * self.m[key] / (np.sqrt(self.v[key]) + 1e-7)
