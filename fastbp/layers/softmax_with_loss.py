"""Softmax and cross-entropy in one layer."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy import empty

from .._arrays import (
    F64,
    Array,
    as_float,
    as_kernel_array,
    as_plain,
    as_targets,
    forward_first,
    single_target,
)
from ..kernels.softmax_loss import (
    softmax_loss_backward,
    softmax_loss_forward,
    softmax_loss_rows_backward,
    softmax_loss_rows_forward,
)
from ..parallel import over_rows, slice_edges

# Elements from which two threads are quicker: at 64 classes forward takes 71 us on one and 47 on
# two, backward 16 and 18; with half as many 37 and 28, 8 and 13.
PARALLEL_SIZE = 1 << 17
# From there on the loss is the sum of that of sections, each on one thread: at least two, and at
# most so many, of so many elements.
SECTIONS, SECTION_SIZE = 16, 1 << 17


class SoftmaxWithLoss:
    """Softmax followed by the mean cross-entropy, in nats (section 5.6.3).

        loss = mean_n( log sum_c exp(x[n, c]) - x[n, t[n]] )

    This is exact: the book adds 1e-7 inside the logarithm, which caps the loss at 16.118 and makes
    its value disagree with its gradient.  Targets that are probabilities give
    ``mean_n sum_c t[n, c] (log sum_k exp(x[n, k]) - x[n, c])``.

    Parameters
    ----------
    eps : float, default 0
        ``1e-7`` gives the book's value of the loss.  The gradient is the same.

    Attributes
    ----------
    loss : float or None
        The last loss.
    y : array or None
        Softmax of the last x.
    t : array or None
        The last targets: (N,) int64 labels, also of one-hot rows; or (N, C) probabilities.
    """

    def __init__(self, eps: float = 0.0) -> None:
        self.eps: float = guard("SoftmaxWithLoss", eps)
        self.loss: float | None = None
        self._y: Array | None = None
        self._t: Array | None = None

    @property
    def y(self) -> Array | None:
        """Softmax of the last x, of its shape."""
        return None if self._y is None else self._y.view()

    @property
    def t(self) -> Array | None:
        """The last targets: (N,) int64 labels, also of one-hot rows; or (N, C) probabilities."""
        # A copy: backward indexes by the labels, which therefore nobody else may hold.
        return None if self._t is None else self._t.copy()

    def forget(self) -> None:
        """Let go of what forward kept; a backward is then an error until the next forward."""
        self._y = self._t = None

    def forward(self, x: Any, t: Any) -> float:
        """Return the loss of logits x against targets t.

        Parameters
        ----------
        x : (N, C) or (C,) array_like
            float32 or float64 logits; integers count as float64.
        t : (N,) integers in [0, C), or (N, C) rows
            One-hot rows or probabilities; for x of shape (C,) a label or one row.

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
            For an empty batch, no classes, other shapes, or rows that do not sum to 1 (to 1e-3).
        """
        where = "SoftmaxWithLoss.forward"
        x = as_kernel_array(where, "x", x)
        if x.ndim not in (1, 2) or not x.size:
            raise ValueError(
                f"{where}: x has shape {x.shape}, expected (N, C) with at least one row and class"
            )
        single = x.ndim == 1
        if single:
            x, t = x.reshape(1, -1), single_target(where, t, x.size)
        N, C = x.shape
        t = as_targets(where, t, N, C, x.dtype)
        y = empty((N, C), x.dtype)
        kernel = softmax_loss_forward if t.ndim == 1 else softmax_loss_rows_forward
        if x.size < PARALLEL_SIZE:
            loss = kernel(y, x, t)
        else:
            loss = 0.0
            # One by one: `sum` adds in ways of its own since Python 3.12.
            for part in over_rows(kernel, y, x, t, edges=_sections(N, x.size)):
                loss += part
        self.loss = loss / N
        if self.eps:
            self.loss = guarded_cross_entropy(y, t, self.eps)
        self._y, self._t = (y[0] if single else y), t
        return self.loss

    def backward(self, dout: float = 1) -> Array:
        """Return ``dout * (y - t) / N``, t as one-hot rows.

        Parameters
        ----------
        dout : float, default 1
            The gradient of what the loss goes into.

        Returns
        -------
        array
            Of x's shape, new.

        Raises
        ------
        RuntimeError
            Before forward.
        TypeError
            When dout is no number.
        """
        y, t = self._y, self._t
        if y is None or t is None:
            raise forward_first("SoftmaxWithLoss.backward")
        if (type(dout) is not int and type(dout) is not float) or not -1e30 < dout < 1e30:
            dout = _factor(dout, y.dtype)  # takes 1 us
        rows = y if y.ndim == 2 else y.reshape(1, -1)
        dx = empty(rows.shape, y.dtype)
        kernel = softmax_loss_backward if t.ndim == 1 else softmax_loss_rows_backward
        scale = float(dout / rows.shape[0])
        if dx.size < PARALLEL_SIZE:
            kernel(dx, rows, t, scale)
        else:
            over_rows(kernel, dx, rows, t, number=scale)
        return dx if y.ndim == 2 else dx[0]


def _sections(rows: int, size: int) -> tuple[int, ...]:
    """Return the edges of the sections of so many rows, which do not depend on the threads."""
    return slice_edges(rows, max(2, min(SECTIONS, size // SECTION_SIZE)))


def _factor(dout: Any, dtype: np.dtype[Any]) -> float:
    """Return a number of any kind, also an array without axes, as one that dtype can hold."""
    where = "SoftmaxWithLoss.backward"
    if not isinstance(dout, Real):
        array = as_plain(where, "dout", dout)
        if array.ndim or array.dtype.kind not in "fiub":
            raise TypeError(
                f"{where}: dout is of type {type(dout).__name__} and shape {array.shape}, "
                "expected a number"
            )
        dout = array.item()
    with np.errstate(over="ignore"):
        return float(dtype.type(as_float(float(dout) if isinstance(dout, bool) else dout)))


def guard(where: str, eps: Any) -> float:
    """Return the number that is added inside a logarithm, or raise ValueError."""
    number = as_float(eps)
    if not 0 <= number < 1:
        raise ValueError(f"{where}: eps is {eps!r}, expected a number in [0, 1)")
    return number


def guarded_cross_entropy(y: Array, t: Array, eps: float) -> float:
    """``-mean_n sum_c t[n, c] log(y[n, c] + eps)`` of checked probabilities and targets."""
    # In float64, because eps may be no float32.
    # log(0) = -inf is the answer when eps is 0, and NaN that for what is no probability.
    with np.errstate(divide="ignore", invalid="ignore"):
        if t.ndim == 1:
            return float(-np.log(y[np.arange(len(t)), t].astype(F64) + eps).sum() / len(t))
        return float(-(t[t != 0] * np.log(y[t != 0].astype(F64) + eps)).sum() / len(t))
