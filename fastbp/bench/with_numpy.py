"""Operations of single layers in the book's own words: NumPy's (the reference) and fastbp's.

Both modules have the same names, so one function serves both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Call = Callable[[], Any]

SEED = 1
# Bytes; and where in a page arrays may begin, all on cache lines.
PAGE, PLACES = 4096, (0, 832, 1664, 2496, 3328)

# What an optimizer's test parameters are changed by, and how fast.
RATES = {"Adam": 0.001, "RMSprop": 0.001}
DEFAULT_RATE = 0.01


@dataclass(frozen=True)
class LayerData:
    """The arrays an operation of one layer works on, the same for every implementation.

    Attributes
    ----------
    a : (N, H)
        Inputs of element-wise layers, and logits.
    dout : (N, H)
    t : (N,) labels
    rows : (N, H)
        The labels as one-hot rows.
    x : (N, D)
    W : (D, H)
    b : (H,)
    """

    a: Array
    dout: Array
    t: Array
    rows: Array
    x: Array
    W: Array
    b: Array


@functools.lru_cache(maxsize=2)  # every implementation of a case asks for the same
def layer_data(shape: tuple[int, ...], dtype: str) -> LayerData:
    """Return random arrays for a shape (N, H) or (N, D, H); nobody writes to them."""
    N, H = shape[0], shape[-1]
    D = shape[1] if len(shape) == 3 else 1
    rng = np.random.default_rng(SEED)
    a, dout = rng.standard_normal((2, N, H)).astype(dtype)
    t = rng.integers(0, H, N)
    rows = np.zeros((N, H), dtype)
    rows[np.arange(N), t] = 1
    x = rng.standard_normal((N, D)).astype(dtype)
    W, b = rng.standard_normal((D, H)).astype(dtype), rng.standard_normal(H).astype(dtype)
    return LayerData(*(aligned(array, i) for i, array in enumerate((a, dout, t, rows, x, W, b))))


def aligned(array: Array, place: int) -> Array:
    """Return a copy in a chosen place, or its time would depend on where it came to lie.

    A vector that crosses the end of a cache line takes two of them: an update of unlucky arrays
    takes 2.7 times as long.  And a number waits for one just written where the addresses of both
    end alike, within a page: another 1.5 times.  So arrays that are used together have different
    places; those of :class:`LayerData` have them in turn.
    """
    memory = np.empty(array.nbytes + 2 * PAGE, np.uint8)
    start = -memory.ctypes.data % PAGE + PLACES[place % len(PLACES)]
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def layer(module: ModuleType, name: str, direction: str, data: LayerData) -> Call:
    """Return a call of a layer's forward, its backward, or both; built and warmed beforehand."""
    build: dict[str, Callable[[], tuple[Any, tuple[Array, ...], tuple[Array, ...]]]] = {
        "affine": lambda: (module.Affine(data.W, data.b), (data.x,), (data.dout,)),
        "relu": lambda: (module.Relu(), (data.a,), (data.dout,)),
        "sigmoid": lambda: (module.Sigmoid(), (data.a,), (data.dout,)),
        "softmax loss": lambda: (module.SoftmaxWithLoss(), (data.a, data.t), ()),
        "softmax loss, one-hot": lambda: (module.SoftmaxWithLoss(), (data.a, data.rows), ()),
    }
    instance, inputs, gradients = build[name]()
    is_affine = name == "affine"

    def backward() -> Any:
        dx = instance.backward(*gradients)
        return (dx, instance.dW, instance.db) if is_affine else dx

    def both() -> Any:
        instance.forward(*inputs)
        return backward()

    if direction == "forward":
        return lambda: instance.forward(*inputs)
    instance.forward(*inputs)
    return backward if direction == "backward" else both


def softmax(module: ModuleType, data: LayerData) -> Call:
    """Return a call of softmax."""
    return lambda: module.softmax(data.a)


def update(module: ModuleType, rule: str, data: LayerData) -> Call:
    """Return a call of an optimizer's update of one matrix, which goes on from its last result."""
    optimizer = getattr(module, rule)(lr=RATES.get(rule, DEFAULT_RATE))
    params, grads = {"W": data.a.copy()}, {"W": data.dout}

    def call() -> Any:
        optimizer.update(params, grads)
        return params["W"]

    return call
