"""The kernels themselves, on arrays that are there already, beside the NumPy they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import reference
from ..kernels import affine, relu, scan, sigmoid, softmax_loss, update
from ..kernels.simd import MASK_BITS
from . import with_numpy
from .with_numpy import DEFAULT_RATE, RATES, Array, Call, LayerData, aligned

# Where each kernel is, and what stands for it in NumPy: a layer and a direction, a rule, or nothing
# that has a name.
KERNELS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "relu_forward": (relu, ("relu", "forward")),
    "relu_backward": (relu, ("relu", "backward")),
    "sigmoid_forward": (sigmoid, ("sigmoid", "forward")),
    "sigmoid_backward": (sigmoid, ("sigmoid", "backward")),
    "softmax_forward": (softmax_loss, ()),
    "softmax_loss_forward": (softmax_loss, ("softmax loss", "forward")),
    "softmax_loss_backward": (softmax_loss, ("softmax loss", "backward")),
    "softmax_loss_rows_forward": (softmax_loss, ("softmax loss, one-hot", "forward")),
    "softmax_loss_rows_backward": (softmax_loss, ("softmax loss, one-hot", "backward")),
    "bias_forward": (affine, ()),
    "bias_backward": (affine, ()),
    "sgd_update": (update, ("SGD",)),
    "momentum_update": (update, ("Momentum",)),
    "nesterov_update": (update, ("Nesterov",)),
    "adagrad_update": (update, ("AdaGrad",)),
    "rmsprop_update": (update, ("RMSprop",)),
    "adam_update": (update, ("Adam",)),
    "first_nonfinite": (scan, ()),
}


def ours(name: str, data: LayerData) -> Call:
    """Return a call of a kernel; those that work in place go on from their last result."""
    kernel = getattr(KERNELS[name][0], name)
    if name.endswith("_update"):
        return _update(kernel, name, data)
    N = len(data.a)
    out, y = aligned(data.a, 2), aligned(data.a, 4)
    mask = aligned(np.empty((1, -(-data.a.size // MASK_BITS)), np.int64), 4)
    b, db = aligned(data.b, 3), aligned(data.b, 4)
    scale = 1 / N
    if name == "relu_backward":
        relu.relu_forward(y, mask, data.a)
    elif name == "sigmoid_backward":
        sigmoid.sigmoid_forward(y, data.a)
    elif name in ("softmax_loss_backward", "softmax_loss_rows_backward"):
        softmax_loss.softmax_forward(y, data.a)
    elif name == "bias_forward":
        out[...] = data.dout
    if name == "first_nonfinite":
        flat = data.a.reshape(-1)
        return lambda: kernel(flat)
    if name in ("softmax_loss_forward", "softmax_loss_rows_forward"):
        targets = data.rows if "rows" in name else data.t
        return lambda: kernel(out, data.a, targets) / N
    arguments: dict[str, tuple[Any, ...]] = {
        "relu_forward": (out, mask, data.a),
        "relu_backward": (out, mask, data.dout),
        "sigmoid_forward": (out, data.a),
        "sigmoid_backward": (out, y, data.dout),
        "softmax_forward": (out, data.a),
        "softmax_loss_backward": (out, y, data.t, scale),
        "softmax_loss_rows_backward": (out, y, data.rows, scale),
        "bias_forward": (out, b),
        "bias_backward": (db, data.dout),
    }
    return _returning(kernel, arguments[name])


def numpys(name: str, data: LayerData) -> Call:
    """Return a call of the same mathematics in NumPy."""
    meaning = KERNELS[name][1]
    if len(meaning) == 2:
        return with_numpy.layer(reference, meaning[0], meaning[1], data)
    if meaning:
        return with_numpy.update(reference, meaning[0], data)
    out = data.dout.copy()

    def add_bias() -> Array:
        np.add(out, data.b, out=out)
        return out

    calls: dict[str, Call] = {
        "softmax_forward": lambda: reference.softmax(data.a),
        "bias_forward": add_bias,
        "bias_backward": lambda: np.sum(data.dout, axis=0),
        "first_nonfinite": lambda: -1 if np.isfinite(data.a).all() else 0,
    }
    return calls[name]


def _returning(kernel: Callable[..., object], arguments: tuple[Any, ...]) -> Call:
    """Return a call of a kernel that returns its first argument, what it has written."""
    written = arguments[0]

    def call() -> Any:
        kernel(*arguments)
        return written

    return call


def _update(kernel: Callable[..., object], name: str, data: LayerData) -> Call:
    """Return a call of an optimizer's kernel, with the numbers of its first step."""
    T = data.a.dtype.type
    param, grad = aligned(data.a, 2), data.dout.reshape(-1)
    flat = param.reshape(-1)
    state = [aligned(np.zeros_like(flat), place) for place in (3, 4)]
    lr = RATES.get(KERNELS[name][1][0], DEFAULT_RATE)
    eps = 1e-7
    slots, numbers = {
        "sgd_update": (0, (lr,)),
        "momentum_update": (1, (lr, 0.9)),
        "nesterov_update": (1, (lr, 0.9)),
        "adagrad_update": (1, (lr, eps)),
        "rmsprop_update": (1, (lr, 0.99, eps)),
        "adam_update": (2, (lr * (1 - 0.999) ** 0.5 / (1 - 0.9), 0.9, 0.999, eps)),
    }[name]
    arguments = (flat, *state[:slots], grad, *map(T, numbers))

    def call() -> Array:
        kernel(*arguments)
        return param

    return call
