"""A network in NumPy, in float64, and valid networks of fastbp's beside it."""

import numpy as np

import fastbp
from fastbp import reference
from fastbp.reference import layers as plain

from .judge import Refusal
from .losses import double, guarded_loss, softmax_and_loss


class Affine(plain.Affine):
    """With matmul, since ``numpy.dot`` loses NaN where a matrix is a single number."""

    def forward(self, x):
        self.x = x
        return np.matmul(x, self.W) + self.b

    def backward(self, dout):
        self.dW, self.db = np.matmul(self.x.T, dout), dout.sum(0)
        return np.matmul(dout, self.W.T)


class Adam(reference.Adam):
    """Without the book's difference ``g*g - v``, in which a small g after a large one is lost."""

    def update(self, params, grads):
        self.iter += 1
        lr_t = self.lr * np.sqrt(1 - self.beta2**self.iter) / (1 - self.beta1**self.iter)
        for key, g in grads.items():
            self.m[key] = self.beta1 * self.m.get(key, 0) + (1 - self.beta1) * g
            self.v[key] = self.beta2 * self.v.get(key, 0) + (1 - self.beta2) * g * g
            params[key] -= lr_t * self.m[key] / (np.sqrt(self.v[key]) + 1e-7)


def rule_like(name, *rates):
    """Return an optimizer in NumPy."""
    return Adam(*rates) if name == "Adam" else getattr(reference, name)(*rates)


class Model:
    """What a network should compute, in float64."""

    def __init__(self, sizes, activation, decay, eps=0.0):
        self.sizes, self.activation, self.decay, self.eps = sizes, activation, decay, eps
        self.params = {}

    def take(self, params):
        self.params = {key: double(p).copy() for key, p in params.items()}
        return self

    def logits(self, x):
        """Return the logits of rows and, for bounds, the size of what was added up for them."""
        self.layers = []
        scale = np.abs(x)
        for i in range(1, len(self.sizes)):
            W, b = self.params[f"W{i}"], self.params[f"b{i}"]
            scale = scale @ np.abs(W) + np.abs(b)
            layers = [Affine(W, b)]
            if i < len(self.sizes) - 1:
                layers.append(plain.Relu() if self.activation == "relu" else plain.Sigmoid())
            for layer in layers:
                x = layer.forward(x)
            self.layers += layers
        return x, scale

    def losses(self, x, t):
        """Return the losses of the rows, without decay, and the gradients of their mean."""
        y, _ = self.logits(x)
        p, rows, losses = softmax_and_loss(y, t)
        if self.eps:
            losses = guarded_loss(p, t, self.eps)
        dout = (p * rows.sum(1, keepdims=True) - rows) / len(x)
        self.subtracted = (p * np.abs(rows).sum(1, keepdims=True) + np.abs(rows)) / len(x)
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        grads = {}
        affines = [layer for layer in self.layers if isinstance(layer, plain.Affine)]
        for i, affine in enumerate(affines, start=1):
            grads[f"W{i}"] = affine.dW + self.decay * affine.W
            grads[f"b{i}"] = affine.db
        return losses, grads

    def cancellation(self):
        """Return, after `losses`, how large the gradients were had p and t been added up.

        Where a row is nearly certain, p - t is small, with the rounding errors of numbers near 1.
        """
        dout, sizes = self.subtracted, {}
        affines = sum(isinstance(layer, plain.Affine) for layer in self.layers)
        for layer in reversed(self.layers):
            if isinstance(layer, plain.Affine):
                sizes[f"W{affines}"], sizes[f"b{affines}"] = np.abs(layer.x).T @ dout, dout.sum(0)
                dout, affines = dout @ np.abs(layer.W).T, affines - 1
            else:
                dout = layer.backward(dout)
        return sizes

    def penalty(self):
        weights = (p for key, p in self.params.items() if key[0] == "W")
        return 0.5 * self.decay * sum(float((W * W).sum()) for W in weights)


SIZES = ((4, 5, 3), (7, 9, 10), (1, 1, 2), (16, 3), (2, 16, 1), (7, 5, 9, 3), (2, 2, 2, 2, 2))
POOL = {}


def built(r, dtype=None):
    """Return a valid network and its model.

    Networks are used again, with new parameters: what an earlier case left behind must not matter,
    and it saves the memory of the compiled loop from being made each time.
    """
    sizes, activation = r.choice(SIZES), r.choice(("relu", "sigmoid"))
    dtype = dtype or r.choice((np.float32, np.float64))
    key = sizes, activation, dtype
    if key not in POOL:
        D, *hidden, C = sizes
        POOL[key] = fastbp.MultiLayerNet(D, hidden, C, activation, dtype=dtype, seed=0)
    net = POOL[key]
    net.weight_decay_lambda, net.last_layer.eps = r.choice((0.0, 0.0, 0.1)), 0.0
    rng = np.random.default_rng(r.randrange(1000))
    for name, p in net.params.items():
        size = (2 / p.shape[0]) ** 0.5 if p.ndim == 2 else 1
        net.params[name] = (size * rng.standard_normal(p.shape)).astype(dtype)
    return net, Model(net.sizes, activation, net.weight_decay_lambda).take(net.params)


def units(dtype):
    return 2.0**29 if dtype == np.float32 else 1.0


def require_fitting(t, N, C, single):
    if not N:
        raise Refusal(ValueError, "expected")
    if single and C == 1:
        raise Refusal(ValueError, "t")  # [0] is a row of one class, and no good one
    if t.ndim == 1:
        if len(t) != N:
            raise Refusal(ValueError, "t")
    elif single:
        raise Refusal(ValueError, "t")
    elif t.shape != (N, C):
        raise Refusal(ValueError, "t", str(t.shape))


def near_kink(net, rows):
    model = Model(net.sizes, net.activation, 0.0).take(net.params)
    x, scale = double(rows), np.abs(double(rows))
    for i in range(1, len(net.sizes) - 1):
        W, b = model.params[f"W{i}"], model.params[f"b{i}"]
        x, scale = x @ W + b, scale @ np.abs(W) + np.abs(b)
        if (np.abs(x) < 1e-5 * scale + 1e-30).any():
            return True
        x = np.maximum(x, 0)
    return False
