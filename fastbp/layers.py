"""The layers of the book's chapter 5, with compiled kernels.

Each layer checks its input, allocates the output, calls its kernel, and keeps what ``backward``
needs.  No layer writes to an array it was given (the book's ``Relu.backward`` does).  The floating
point type is kept: float64 in, float64 out, and float32 likewise; integers count as float64.
An array that is not C-contiguous, aligned, writable and of native byte order costs one copy.

``backward`` belongs to the last ``forward``; before any it raises RuntimeError.  What forward keeps
are references: an input changed in place between forward and backward changes the gradient.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy import dot, empty

from ._arrays import (
    Array,
    as_array,
    as_gradient,
    as_kernel_array,
    as_parameter,
    as_targets,
    single_target,
)
from .kernels.affine import bias_backward, bias_forward
from .kernels.relu import relu_backward, relu_forward
from .kernels.sigmoid import sigmoid_backward, sigmoid_forward
from .kernels.softmax_loss import (
    softmax_loss_backward,
    softmax_loss_forward,
    softmax_loss_rows_backward,
    softmax_loss_rows_forward,
)

__all__ = ["AddLayer", "Affine", "MulLayer", "Relu", "Sigmoid", "SoftmaxWithLoss"]


def _forward_first(where: str) -> RuntimeError:
    return RuntimeError(f"{where}: call forward first, backward belongs to its result")


class MulLayer:
    """``z = x * y``, of scalars or arrays (section 5.4.1).

    Attributes
    ----------
    x, y : number or array
        The last inputs.
    """

    def __init__(self) -> None:
        self.x: Any = None
        self.y: Any = None

    def forward(self, x: Any, y: Any) -> Any:
        """Return ``x * y``.

        Parameters
        ----------
        x, y : number or array_like
            Of one shape, or of shapes that broadcast.

        Returns
        -------
        number or array
        """
        self.x, self.y = _operand("MulLayer.forward", "x", x), _operand("MulLayer.forward", "y", y)
        return self.x * self.y

    def backward(self, dout: Any) -> tuple[Any, Any]:
        """Return ``(dx, dy) = (dout * y, dout * x)``, each of the shape of its input.

        Where forward broadcast an input, its gradient is summed over the copies.

        Parameters
        ----------
        dout : number or array_like
            Like forward's result.

        Returns
        -------
        dx, dy : number or array

        Raises
        ------
        RuntimeError
            Before forward.
        """
        if self.x is None:
            raise _forward_first("MulLayer.backward")
        dout = _operand("MulLayer.backward", "dout", dout)
        return _sum_to(np.shape(self.x), dout * self.y), _sum_to(np.shape(self.y), dout * self.x)


class AddLayer:
    """``z = x + y``, of scalars or arrays (section 5.4.2)."""

    def __init__(self) -> None:
        self._shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def forward(self, x: Any, y: Any) -> Any:
        """Return ``x + y``.

        Parameters
        ----------
        x, y : number or array_like
            Of one shape, or of shapes that broadcast.

        Returns
        -------
        number or array
        """
        x, y = _operand("AddLayer.forward", "x", x), _operand("AddLayer.forward", "y", y)
        self._shapes = np.shape(x), np.shape(y)
        return x + y

    def backward(self, dout: Any) -> tuple[Any, Any]:
        """Return ``(dx, dy) = (dout, dout)``, each of the shape of its input.

        Parameters
        ----------
        dout : number or array_like
            Like forward's result.

        Returns
        -------
        dx, dy : number or array
            New arrays; where forward broadcast an input, summed over the copies.

        Raises
        ------
        RuntimeError
            Before forward.
        """
        if self._shapes is None:
            raise _forward_first("AddLayer.backward")
        dout = _operand("AddLayer.backward", "dout", dout)
        dx, dy = (_sum_to(shape, dout * 1) for shape in self._shapes)
        return dx, dy


class Relu:
    """Rectified linear unit, ``max(0, x)`` (section 5.5.1).

    NaN passes through; the derivative at 0 is 0.

    Attributes
    ----------
    mask : array of bool or None
        True where the last x <= 0; of its shape.
    """

    def __init__(self) -> None:
        self._mask: Array | None = None
        self._shape: tuple[int, ...] = ()
        self._dtype: np.dtype[Any] | None = None

    @property
    def mask(self) -> Array | None:
        """True where the last x <= 0."""
        return self._mask

    def forward(self, x: Any) -> Array:
        """Return ``max(0, x)``.

        Parameters
        ----------
        x : array_like of any shape
            float32 or float64; integers count as float64.

        Returns
        -------
        array
            Like x, new.

        Raises
        ------
        TypeError
            For an array of another type, or a masked one.
        """
        x = as_kernel_array("Relu.forward", "x", x)
        shape, dtype = x.shape, x.dtype
        out, mask = empty(shape, dtype), empty(shape, np.bool_)
        if x.ndim == 2:
            relu_forward(out, mask, x)
        else:
            relu_forward(*_as_matrices(out, mask, x))
        self._mask, self._shape, self._dtype = mask, shape, dtype
        return out

    def backward(self, dout: Any) -> Array:
        """Return ``dout`` where x > 0, else 0.

        Parameters
        ----------
        dout : array_like
            Of x's shape; computed in x's type.

        Returns
        -------
        array
            Like x, new.

        Raises
        ------
        RuntimeError
            Before forward.
        ValueError
            When dout has another shape than x.
        """
        mask = self._mask
        if mask is None:
            raise _forward_first("Relu.backward")
        shape, dtype = self._shape, self._dtype
        dout = as_gradient("Relu.backward", dout, dtype, shape)
        dx = empty(shape, dtype)
        if dx.ndim == 2:
            relu_backward(dx, mask, dout)
        else:
            relu_backward(*_as_matrices(dx, mask, dout))
        return dx


class Sigmoid:
    """``1 / (1 + exp(-x))`` (section 5.5.2).

    No input overflows: very negative ones give 0 or the subnormal number it should be.

    Attributes
    ----------
    out : array or None
        The last result.
    """

    def __init__(self) -> None:
        self._out: Array | None = None

    @property
    def out(self) -> Array | None:
        """The last result."""
        return self._out

    def forward(self, x: Any) -> Array:
        """Return ``1 / (1 + exp(-x))``.

        Parameters
        ----------
        x : array_like of any shape
            float32 or float64; integers count as float64.

        Returns
        -------
        array
            Like x; the layer keeps the same array as ``out``.

        Raises
        ------
        TypeError
            For an array of another type, or a masked one.
        """
        x = as_kernel_array("Sigmoid.forward", "x", x)
        self._out = out = empty(x.shape, x.dtype)
        if x.ndim == 2:
            sigmoid_forward(out, x)
        else:
            sigmoid_forward(*_as_matrices(out, x))
        return out

    def backward(self, dout: Any) -> Array:
        """Return ``dout * (1 - out) * out``.

        Parameters
        ----------
        dout : array_like
            Of x's shape; computed in x's type.

        Returns
        -------
        array
            Like x, new.

        Raises
        ------
        RuntimeError
            Before forward.
        ValueError
            When dout has another shape than x.
        """
        out = self._out
        if out is None:
            raise _forward_first("Sigmoid.backward")
        dout = as_gradient("Sigmoid.backward", dout, out.dtype, out.shape)
        dx = empty(out.shape, out.dtype)
        if out.ndim == 2:
            sigmoid_backward(dx, out, dout)
        else:
            sigmoid_backward(*_as_matrices(dx, out, dout))
        return dx


class Affine:
    """``x @ W + b`` (section 5.6).

    Everything is computed in the type of W: an x or b of another type is converted.

    Parameters
    ----------
    W : (D, H) float32 or float64
        Kept as it is, not copied: an in-place update of the caller's array is an update of the
        layer.  Integers become a new float64 array.
    b : (H,) likewise

    Attributes
    ----------
    W, b : array
        The parameters; may be replaced by others at any time.
    x : (N, D) array or None
        The last input, its dimensions after the first flattened.
    dW, db : array or None
        The gradients of the last backward, new arrays each time.

    Raises
    ------
    TypeError, ValueError
        For parameters that are no such arrays.
    """

    def __init__(self, W: Any, b: Any) -> None:
        self.W = W
        self.b = b
        self._bias("Affine")
        self._x: Array | None = None
        self._x_shape: tuple[int, ...] = ()
        self.dW: Array | None = None
        self.db: Array | None = None

    @property
    def W(self) -> Array:
        """The weights, (D, H)."""
        return self._W

    @W.setter
    def W(self, W: Any) -> None:
        self._W = as_parameter("Affine", "W", W, 2)

    @property
    def b(self) -> Array:
        """The bias, (H,)."""
        return self._b

    @b.setter
    def b(self, b: Any) -> None:
        self._b = as_parameter("Affine", "b", b, 1)

    @property
    def x(self) -> Array | None:
        """The last input, (N, D)."""
        return self._x

    def _bias(self, where: str) -> Array:
        """Return b in the type of W and for a kernel; each may have been replaced since."""
        W, b = self._W, self._b
        if b.shape[0] != W.shape[1]:
            raise ValueError(
                f"{where}: b has shape {b.shape}, expected ({W.shape[1]},), "
                f"as W has shape {W.shape}"
            )
        return as_kernel_array(where, "b", b, W.dtype)

    def forward(self, x: Any) -> Array:
        """Return ``x @ W + b``.

        Parameters
        ----------
        x : (D,), (N, D) or (N, ...) array_like
            With more than two dimensions, all but the first are flattened into D.

        Returns
        -------
        (H,) or (N, H) array
            New.

        Raises
        ------
        TypeError
            For an array that is not of numbers, or a masked one.
        ValueError
            When D is not the number of rows of W.
        """
        W, b = self._W, self._bias("Affine.forward")
        x = as_array("Affine.forward", "x", x, W.dtype)
        rows = x if x.ndim == 2 else _as_rows(x)
        if rows.shape[1] != W.shape[0]:
            raise ValueError(
                f"Affine.forward: x has shape {x.shape}, expected (N, {W.shape[0]}), "
                f"as W has shape {W.shape}"
            )
        out = empty((rows.shape[0], W.shape[1]), W.dtype)
        dot(rows, W, out)
        bias_forward(out, b)
        self._x, self._x_shape = rows, x.shape
        return out[0] if x.ndim == 1 else out

    def backward(self, dout: Any) -> Array:
        """Return ``dout @ W.T``; leave ``x.T @ dout`` in dW and the sum over the rows in db.

        Parameters
        ----------
        dout : (H,) or (N, H) array_like
            Like forward's result; computed in the type of W.

        Returns
        -------
        array
            Of x's shape, new.

        Raises
        ------
        RuntimeError
            Before forward.
        ValueError
            When dout has another shape than forward's result, or W another than it had.
        """
        dout = self.backward_parameters(dout)
        return dot(dout, self._W.T).reshape(self._x_shape)

    def backward_parameters(self, dout: Any) -> Array:
        """Leave the gradients in dW and db, and return dout as (N, H), without computing dx.

        Half of the work of :meth:`backward`, for the layer with nothing before it.

        Parameters
        ----------
        dout : (H,) or (N, H) array_like
            Like forward's result.

        Returns
        -------
        (N, H) array

        Raises
        ------
        RuntimeError, ValueError
            As :meth:`backward`.
        """
        x, W = self._x, self._W
        if x is None:
            raise _forward_first("Affine.backward")
        (N, D), H = x.shape, W.shape[1]
        if W.shape[0] != D:
            raise ValueError(f"Affine.backward: W has shape {W.shape}, expected ({D}, H), as x had")
        shape = (H,) if len(self._x_shape) == 1 else (N, H)
        dout = as_gradient("Affine.backward", dout, W.dtype, shape)
        if dout.ndim == 1:
            dout = dout.reshape(1, H)
        self.dW = dot(as_array("Affine.backward", "x", x, W.dtype).T, dout)
        self.db = empty(H, W.dtype)
        bias_backward(self.db, dout)
        return dout


def _as_matrices(*arrays: Array) -> tuple[Array, ...]:
    """Return arrays of any shape as the matrices element-wise kernels take."""
    return tuple(array.reshape(1, -1) for array in arrays)


def _as_rows(x: Array) -> Array:
    """Return x as (N, D): one row of a vector, all dimensions after the first flattened."""
    if x.ndim < 2:
        return x.reshape(1, -1)
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


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
        if not 0 <= eps < 1:
            raise ValueError(f"SoftmaxWithLoss: eps is {eps}, expected a number in [0, 1)")
        self.eps = eps
        self.loss: float | None = None
        self._y: Array | None = None
        self._t: Array | None = None

    @property
    def y(self) -> Array | None:
        """Softmax of the last x, of its shape."""
        return self._y

    @property
    def t(self) -> Array | None:
        """The last targets: (N,) int64 labels, also of one-hot rows; or (N, C) probabilities."""
        return self._t

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
        single = x.ndim == 1
        if single:
            x, t = x.reshape(1, -1), single_target(where, t, x.size)
        if x.ndim != 2 or not x.size:
            raise ValueError(
                f"{where}: x has shape {x.shape}, expected (N, C) with at least one row and class"
            )
        N, C = x.shape
        t = as_targets(where, t, N, C, x.dtype)
        y = empty((N, C), x.dtype)
        kernel = softmax_loss_forward if t.ndim == 1 else softmax_loss_rows_forward
        self.loss = kernel(y, x, t) / N
        if self.eps:
            self.loss = float(-np.log(_probability(y, t) + self.eps).sum() / N)
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
        """
        y, t = self._y, self._t
        if y is None or t is None:
            raise _forward_first("SoftmaxWithLoss.backward")
        rows = y if y.ndim == 2 else y.reshape(1, -1)
        dx = empty(rows.shape, y.dtype)
        kernel = softmax_loss_backward if t.ndim == 1 else softmax_loss_rows_backward
        kernel(dx, rows, t, y.dtype.type(dout / rows.shape[0]))
        return dx if y.ndim == 2 else dx[0]


def _probability(y: Array, t: Array) -> Array:
    """Return what y gives the targets, (N,)."""
    return y[np.arange(len(t)), t] if t.ndim == 1 else (y * t).sum(axis=1)


def _operand(where: str, name: str, value: Any) -> Any:
    """Return a number as it is, an array or list as an array of numbers, its type kept."""
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and type(value) is np.ndarray:
        return value
    return as_array(where, name, value)


def _sum_to(shape: tuple[int, ...], gradient: Any) -> Any:
    """Sum a gradient over the axes along which forward repeated an input of this shape."""
    if np.shape(gradient) == shape:
        return gradient
    gradient = np.asarray(gradient)
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and gradient.shape[i] != 1)
    return gradient.sum(axis=axes, keepdims=True)
