"""The activations and losses of the book's chapters 3 and 4, with compiled kernels.

Element-wise functions take numbers and arrays of any shape, empty ones too, and keep float32 and
float64; integers count as float64.  No function writes to its input.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import empty

from ._arrays import (
    Array,
    as_array,
    as_kernel_array,
    as_matrices,
    as_targets,
    single_target,
)
from .kernels.sigmoid import sigmoid_forward
from .kernels.softmax_loss import softmax_forward
from .layers import SoftmaxWithLoss
from .layers.relu import rectify
from .layers.sigmoid import PARALLEL_SIZE as SIGMOID_SIZE
from .layers.softmax_with_loss import PARALLEL_SIZE as SOFTMAX_SIZE
from .layers.softmax_with_loss import guard, guarded_cross_entropy
from .parallel import over_elements, over_rows

__all__ = [
    "cross_entropy_error",
    "identity_function",
    "mean_squared_error",
    "relu",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]


def identity_function(x: Any) -> Any:
    """Return x itself (section 3.5).

    Parameters
    ----------
    x : anything

    Returns
    -------
    anything
    """
    return x


def step_function(x: Any) -> Any:
    """``1 where x > 0, else 0`` (section 3.2.2).

    Parameters
    ----------
    x : number or array_like of any shape

    Returns
    -------
    int or array of int
        NaN gives 0.

    Raises
    ------
    TypeError
        For what is not an array of real numbers.
    """
    return np.array(as_array("step_function", "x", x) > 0, dtype=int)[()]


def sigmoid(x: Any) -> Any:
    """``1 / (1 + exp(-x))`` (section 3.2.4), without overflow.

    Parameters
    ----------
    x : number or array_like of any shape
        float32 or float64; integers count as float64.

    Returns
    -------
    number or array
        Like x, new.

    Raises
    ------
    TypeError
        For what is not an array of real numbers.
    """
    return _sigmoid("sigmoid", x)


def _sigmoid(where: str, x: Any) -> Any:
    x = as_kernel_array(where, "x", x)
    out = empty(x.shape, x.dtype)
    if x.size < SIGMOID_SIZE:
        sigmoid_forward(*as_matrices(out, x))
    else:
        over_elements(sigmoid_forward, out, x)
    return out[()]


def sigmoid_grad(x: Any) -> Any:
    """Derivative of the sigmoid at x: ``(1 - y) * y`` with ``y = sigmoid(x)``.

    Parameters
    ----------
    x : number or array_like of any shape

    Returns
    -------
    number or array
        Like x, new.

    Raises
    ------
    TypeError
        For what is not an array of real numbers.
    """
    y = _sigmoid("sigmoid_grad", x)
    return (1 - y) * y


def relu(x: Any) -> Any:
    """``max(0, x)`` (section 3.2.7); NaN stays NaN.

    Parameters
    ----------
    x : number or array_like of any shape

    Returns
    -------
    number or array
        Like x, new.

    Raises
    ------
    TypeError
        For what is not an array of real numbers.
    """
    out, _ = rectify(as_kernel_array("relu", "x", x))
    return out[()]


def relu_grad(x: Any) -> Any:
    """Derivative of ReLU at x: ``0 where x <= 0, else 1``.

    At 0 itself it is 0, as in the layer; the book's function says 1 there and its layer 0.

    Parameters
    ----------
    x : number or array_like of any shape

    Returns
    -------
    number or array
        Like x, new.

    Raises
    ------
    TypeError
        For what is not an array of real numbers.
    """
    x = as_array("relu_grad", "x", x)
    return np.where(x <= 0, x.dtype.type(0), x.dtype.type(1))[()]


def softmax(x: Any) -> Array:
    """``exp(x) / sum(exp(x))`` along the last axis, shifted by the maximum (section 3.5.2).

    Parameters
    ----------
    x : (..., C) array_like
        Logits, float32 or float64; integers count as float64.

    Returns
    -------
    (..., C) array
        Like x, new; the last axis sums to 1.  A row with NaN or +inf, or of nothing but -inf, is
        NaN; other rows are not touched by it.

    Raises
    ------
    TypeError
        For what is not an array of real numbers.
    ValueError
        For a number without an axis, or no classes (C = 0).
    """
    x = as_kernel_array("softmax", "x", x)
    if not x.ndim or not x.shape[-1]:
        raise ValueError(f"softmax: x has shape {x.shape}, expected (..., C) with C >= 1")
    y = empty(x.shape, x.dtype)
    rows = y.reshape(-1, x.shape[-1]), x.reshape(-1, x.shape[-1])
    if x.size < SOFTMAX_SIZE:
        softmax_forward(*rows)
    else:
        over_rows(softmax_forward, *rows)
    return y


def sum_squared_error(y: Any, t: Any) -> float:
    """``sum((y - t)**2) / 2`` over all elements (section 4.2.1).

    Parameters
    ----------
    y, t : array_like of one shape

    Returns
    -------
    float

    Raises
    ------
    TypeError
        For what is not an array of real numbers.
    ValueError
        When the shapes differ.
    """
    return _half_square_sum("sum_squared_error", y, t)


def mean_squared_error(y: Any, t: Any) -> float:
    """``sum((y - t)**2) / 2``: the book's first edition gives this sum the name of a mean.

    Parameters
    ----------
    y, t : array_like of one shape

    Returns
    -------
    float

    Raises
    ------
    TypeError
        For what is not an array of real numbers.
    ValueError
        When the shapes differ.
    """
    return _half_square_sum("mean_squared_error", y, t)


def _half_square_sum(where: str, y: Any, t: Any) -> float:
    y, t = as_array(where, "y", y), as_array(where, "t", t)
    if y.shape != t.shape:
        raise ValueError(f"{where}: y has shape {y.shape} and t {t.shape}, expected the same")
    with np.errstate(over="ignore", invalid="ignore"):
        return float(0.5 * np.sum((y - t) ** 2))


def cross_entropy_error(y: Any, t: Any, eps: float = 1e-7) -> float:
    """``-mean_n sum_c t[n, c] log(y[n, c] + eps)`` of probabilities (section 4.2.4), in nats.

    Of logits, :func:`softmax_loss` is exact and needs no ``eps``.

    Parameters
    ----------
    y : (N, C) or (C,) array_like
        Probabilities.
    t : (N,) integers in [0, C), or (N, C) rows
        Labels, or one-hot rows or probabilities; for y of shape (C,) a label or one row.
    eps : float, default 1e-7
        The book's guard against log(0), in [0, 1).

    Returns
    -------
    float

    Raises
    ------
    IndexError
        For a label outside [0, C).
    TypeError
        For labels that are not integers, and for arrays that are not of numbers.
    ValueError
        For an empty batch, other shapes, rows that do not sum to 1 (to 1e-3), or another eps.
    """
    where = "cross_entropy_error"
    eps = guard(where, eps)
    y = as_array(where, "y", y)
    if y.ndim not in (1, 2) or not y.size:
        raise ValueError(
            f"{where}: y has shape {y.shape}, expected (N, C) with at least one row and class"
        )
    if y.ndim == 1:
        y, t = y.reshape(1, -1), single_target(where, t, y.size)
    N, C = y.shape
    t = as_targets(where, t, N, C, y.dtype)
    return guarded_cross_entropy(y, t, eps)


def softmax_loss(x: Any, t: Any) -> float:
    """``mean_n( log sum_c exp(x[n, c]) - x[n, t[n]] )``: softmax and cross-entropy in one, exactly.

    Parameters
    ----------
    x : (N, C) or (C,) array_like
        Logits.
    t : (N,) integers in [0, C), or (N, C) rows
        As for :class:`fastbp.layers.SoftmaxWithLoss`, which raises the same errors.

    Returns
    -------
    float
    """
    return SoftmaxWithLoss().forward(x, t)
