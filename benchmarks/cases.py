"""The table of cases: operation x shape x type x implementation -> a call without arguments.

Everything that times something reads this table, and so does ``tests/test_benchmarks.py``, which
compares the results of all implementations of a case: nothing is timed that is not also checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastbp
from fastbp import reference

# (N, D, H): batch size, inputs, outputs.
LAYER_SHAPES = [(1, 784, 50), (10, 784, 50), (100, 784, 50), (1000, 784, 50), (100, 784, 512)]
DTYPES = ["float32", "float64"]

# Every implementation has the names of the book.
IMPLEMENTATIONS = {"reference": reference, "fastbp": fastbp}

Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One operation on one shape and type, in several implementations.

    Attributes
    ----------
    operation : str
    shape : tuple of int
    dtype : str
    calls : dict of implementation to callable
        Each builds a fresh call, with data of its own from the same seed; what the call returns is
        what the implementations must agree on.
    """

    operation: str
    shape: tuple[int, ...]
    dtype: str
    calls: dict[str, Callable[[], Call]]

    @property
    def name(self) -> str:
        """Operation, shape and type in a word."""
        return f"{self.operation} {'x'.join(map(str, self.shape))} {self.dtype}"


def layer_call(module: Any, layer: str, direction: str, shape: Any, dtype: str) -> Call:
    """Return a call of a layer's forward or backward, the layer and its data built beforehand."""
    N, D, H = shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, D)).astype(dtype)
    a, dout = rng.standard_normal((2, N, H)).astype(dtype)
    W, b = rng.standard_normal((D, H)).astype(dtype), rng.standard_normal(H).astype(dtype)
    t = rng.integers(0, H, N)
    rows = np.eye(H, dtype=dtype)[t]
    build = {
        "Affine": lambda: (module.Affine(W, b), (x,), (dout,)),
        "Relu": lambda: (module.Relu(), (a,), (dout,)),
        "Sigmoid": lambda: (module.Sigmoid(), (a,), (dout,)),
        "SoftmaxWithLoss": lambda: (module.SoftmaxWithLoss(), (a, t), ()),
        "SoftmaxWithLoss one-hot": lambda: (module.SoftmaxWithLoss(), (a, rows), ()),
    }
    instance, inputs, gradients = build[layer]()
    if direction == "forward":
        return lambda: instance.forward(*inputs)
    if direction == "backward":
        instance.forward(*inputs)
        return lambda: instance.backward(*gradients)

    def both() -> Any:
        instance.forward(*inputs)
        return instance.backward(*gradients)

    return both


def network_call(module: Any, operation: str, shape: Any, dtype: str) -> Call:
    """Return a call of something a network of the book does with one batch."""
    N, D, H, C = shape
    np.random.seed(0)  # noqa: NPY002 - the book's weights
    if module is reference:
        network = module.TwoLayerNet(D, H, C)
        for key, p in network.params.items():
            network.params[key] = p.astype(dtype)
        layers = network.layers
        layers["Affine1"].W, layers["Affine1"].b = network.params["W1"], network.params["b1"]
        layers["Affine2"].W, layers["Affine2"].b = network.params["W2"], network.params["b2"]
    else:
        network = module.TwoLayerNet(D, H, C, dtype=dtype)
    rng = np.random.default_rng(0)
    x = (rng.random((N, D)) * (rng.random((N, D)) < 0.2)).astype(dtype)  # as dark as MNIST
    t = rng.integers(0, C, N)
    if operation == "gradient":
        return lambda: network.gradient(x, t)
    if operation == "numerical gradient":
        return lambda: network.numerical_gradient(x, t)
    if operation == "predict":
        return lambda: network.predict(x)
    optimizer = module.SGD(lr=0.1)

    def step() -> Any:
        optimizer.update(network.params, network.gradient(x, t))
        return network.params

    return step


def layer_cases() -> Iterator[Case]:
    """Yield forward and backward of every layer, over shapes and types."""
    layers = ["Affine", "Relu", "Sigmoid", "SoftmaxWithLoss", "SoftmaxWithLoss one-hot"]
    for layer in layers:
        for shape in LAYER_SHAPES:
            for dtype in DTYPES:
                for direction in ("forward", "backward", "forward + backward"):
                    yield Case(
                        f"{layer} {direction}",
                        shape,
                        dtype,
                        _calls(layer_call, layer, direction, shape, dtype),
                    )


def network_cases() -> Iterator[Case]:
    """Yield what the book's network does, 784-50-10, and the gradient two ways."""
    for dtype in DTYPES:
        for operation, N in (("predict", 10_000), ("gradient", 100), ("training step", 100)):
            shape = (N, 784, 50, 10)
            yield Case(operation, shape, dtype, _calls(network_call, operation, shape, dtype))
    for N in (1, 3):
        shape = (N, 64, 50, 10)
        calls = _calls(network_call, "gradient", shape, "float64")
        calls["numerical"] = lambda shape=shape: network_call(
            reference, "numerical gradient", shape, "float64"
        )
        yield Case("gradient, numerically", shape, "float64", calls)
    operation, shape = "numerical gradient", (3, 64, 50, 10)
    yield Case(operation, shape, "float64", _calls(network_call, operation, shape, "float64"))


def all_cases() -> list[Case]:
    """Return the whole table."""
    return [*layer_cases(), *network_cases()]


def _calls(make: Callable[..., Call], *arguments: Any) -> dict[str, Callable[[], Call]]:
    """Return for each implementation what builds its call."""
    return {
        name: (lambda module=module: make(module, *arguments))
        for name, module in IMPLEMENTATIONS.items()
    }
