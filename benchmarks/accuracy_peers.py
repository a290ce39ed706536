"""The functions whose errors are measured, as fastbp, NumPy, PyTorch and JAX have them.

Each implementation is a class with the same methods, arrays of NumPy in and out; what it needs is
imported when it is built, and ``installed`` says what is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numba
import numpy as np

import fastbp
from fastbp import reference
from fastbp.kernels.exp import exponential, log_positive
from fastbp.kernels.jit import SUM_FLAGS

from .ulp import Array

Gradients = dict[str, Array]


def compiled(function: Any) -> Callable[[Array], Array]:
    """Apply a kernel's function of a number to an array, in a loop as the kernels have it."""

    @numba.njit(fastmath=set(SUM_FLAGS), error_model="numpy")
    def loop(out: Array, x: Array) -> None:
        for i in range(x.size):
            out[i] = function(x[i])

    def apply(x: Array) -> Array:
        out = np.empty_like(x)
        loop(out, x)
        return out

    return apply


class Fastbp:
    """The public functions; exp and log, which are not public, as the kernels use them."""

    def __init__(self) -> None:
        self.exp = compiled(exponential)
        self.log = compiled(log_positive)
        self.sigmoid = fastbp.sigmoid
        self.softmax = fastbp.softmax

    def row_losses(self, a: Array, t: Array) -> Array:
        """-log softmax(a[n])[t[n]], every row a batch of its own."""
        return np.array([fastbp.softmax_loss(a[n : n + 1], t[n : n + 1]) for n in range(len(a))])

    def loss(self, a: Array, t: Array) -> float:
        """Return the mean over the batch."""
        return fastbp.softmax_loss(a, t)

    def gradients(self, params: Gradients, x: Array, t: Array, activation: str) -> Gradients:
        """Return the gradients of a network's loss, as ``network.gradient`` gives them."""
        sizes = [len(b) for name, b in params.items() if name.startswith("b")]
        network = fastbp.MultiLayerNet(
            x.shape[1], sizes[:-1], sizes[-1], activation=activation, dtype=x.dtype
        )
        for name, value in params.items():
            network.params[name][...] = value
        return dict(network.gradient(x, t))


class Numpy:
    """The formulas as one writes them, in the type of the arguments."""

    def __init__(self) -> None:
        self.exp = np.exp
        self.log = np.log
        self.softmax = reference.softmax

    def sigmoid(self, x: Array) -> Array:
        """1 / (1 + exp(-x)) in x's type."""
        return x.dtype.type(1) / (x.dtype.type(1) + np.exp(-x))

    def row_losses(self, a: Array, t: Array) -> Array:
        """-log softmax(a[n])[t[n]], shifted by the maximum."""
        a = a - a.max(axis=1, keepdims=True)
        rows: Array = np.log(np.exp(a).sum(axis=1)) - a[np.arange(len(a)), t]
        return rows

    def loss(self, a: Array, t: Array) -> float:
        """Return the mean over the batch."""
        return self.row_losses(a, t).mean()

    def gradients(self, params: Gradients, x: Array, t: Array, activation: str) -> Gradients:
        """Return the gradients by the book's layers in plain NumPy."""
        hidden = reference.Relu if activation == "relu" else reference.Sigmoid
        depth = len(params) // 2
        affines = [reference.Affine(params[f"W{i}"], params[f"b{i}"]) for i in range(1, depth + 1)]
        layers: list[Any] = []
        for affine in affines:
            layers += [affine, hidden()]
        last = reference.SoftmaxWithLoss()
        logits = x
        for layer in layers[:-1]:
            logits = layer.forward(logits)
        last.forward(logits, t)
        dout = last.backward(1)
        for layer in reversed(layers[:-1]):
            dout = layer.backward(dout)
        found = {}
        for i, affine in enumerate(affines, start=1):
            found |= {f"W{i}": affine.dW, f"b{i}": affine.db}
        return found


class Torch:
    """torch on the processor."""

    def __init__(self) -> None:
        import torch

        self.torch = torch
        torch.set_num_threads(1)
        self.exp = self._on_arrays(torch.exp)
        self.log = self._on_arrays(torch.log)
        self.sigmoid = self._on_arrays(torch.sigmoid)
        self.softmax = self._on_arrays(lambda a: torch.softmax(a, 1))

    def _on_arrays(self, function: Any) -> Callable[[Array], Array]:
        return lambda x: function(self.torch.from_numpy(x)).numpy()

    def _cross_entropy(self, a: Array, t: Array, reduction: str) -> Any:
        of = self.torch.nn.functional.cross_entropy
        return of(self.torch.from_numpy(a), self.torch.from_numpy(t), reduction=reduction)

    def row_losses(self, a: Array, t: Array) -> Array:
        """cross_entropy without its mean."""
        rows: Array = self._cross_entropy(a, t, "none").numpy()
        return rows

    def loss(self, a: Array, t: Array) -> float:
        """cross_entropy."""
        return float(self._cross_entropy(a, t, "mean"))

    def gradients(self, params: Gradients, x: Array, t: Array, activation: str) -> Gradients:
        """Return the gradients by autograd."""
        torch = self.torch
        hidden = torch.relu if activation == "relu" else torch.sigmoid
        p = {name: torch.from_numpy(v.copy()).requires_grad_() for name, v in params.items()}
        y, depth = torch.from_numpy(x), len(params) // 2
        for i in range(1, depth + 1):
            y = y @ p[f"W{i}"] + p[f"b{i}"]
            y = hidden(y) if i < depth else y
        torch.nn.functional.cross_entropy(y, torch.from_numpy(t)).backward()
        return {name: value.grad.numpy() for name, value in p.items()}


class Jax:
    """jax.numpy and jax.nn under jit, on the processor."""

    def __init__(self) -> None:
        import jax

        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
        jax.config.update("jax_cpu_enable_async_dispatch", False)  # no wait for another thread
        self.jax = jax
        self.exp = self._on_arrays(jax.numpy.exp)
        self.log = self._on_arrays(jax.numpy.log)
        self.sigmoid = self._on_arrays(jax.nn.sigmoid)
        self.softmax = self._on_arrays(jax.nn.softmax)
        self._rows = jax.jit(self._row_losses)

    def _on_arrays(self, function: Any) -> Callable[[Array], Array]:
        quick = self.jax.jit(function)
        return lambda x: np.asarray(quick(x))

    def _row_losses(self, a: Any, t: Any) -> Any:
        logs = self.jax.nn.log_softmax(a)
        return -self.jax.numpy.take_along_axis(logs, t[:, None], axis=1)[:, 0]

    def row_losses(self, a: Array, t: Array) -> Array:
        """-log_softmax at the labels."""
        return np.asarray(self._rows(a, t))

    def loss(self, a: Array, t: Array) -> float:
        """Return the mean over the batch."""
        return float(self._rows(a, t).mean())

    def gradients(self, params: Gradients, x: Array, t: Array, activation: str) -> Gradients:
        """Return the gradients by jax.grad."""
        jax = self.jax
        hidden = jax.nn.relu if activation == "relu" else jax.nn.sigmoid

        def loss(p: Any) -> Any:
            y, depth = x, len(params) // 2
            for i in range(1, depth + 1):
                y = y @ p[f"W{i}"] + p[f"b{i}"]
                y = hidden(y) if i < depth else y
            return self._row_losses(y, t).mean()

        with jax.default_matmul_precision("highest"):
            found = jax.jit(jax.grad(loss))(params)
        return {name: np.asarray(value) for name, value in found.items()}


# By the names people know, and the packages they come in.
IMPLEMENTATIONS = {
    "fastbp": ("fastbp", Fastbp),
    "NumPy": ("numpy", Numpy),
    "PyTorch": ("torch", Torch),
    "JAX": ("jax", Jax),
}


def installed() -> dict[str, Any]:
    """Build every implementation there is; say which is missing."""
    found = {}
    for name, (package, kind) in IMPLEMENTATIONS.items():
        if find_spec(package) is None:
            print(f"{name} is left out: {package} is not installed")
        else:
            found[name] = kind()
    return found
