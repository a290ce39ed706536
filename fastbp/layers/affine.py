"""The affine layer: a matrix product and a bias."""

from __future__ import annotations

import math
from typing import Any

from numpy import dot, empty, multiply

from .. import threads  # noqa: F401 - obeys FASTBP_NUM_THREADS
from .._arrays import (
    Array,
    as_array,
    as_gradient,
    as_kernel_array,
    as_parameter,
    forward_first,
)
from .._quiet import quiet
from ..kernels.affine import bias_backward, bias_forward


class Affine:
    """``x @ W + b`` (section 5.6).

    Everything is computed in the type of W: an x or b of another type is converted.

    Parameters
    ----------
    W : (D, H) float32 or float64
        Kept as it is, not copied: an in-place update of the caller's array is an update of the
        layer.  Numbers of any other type become a new array, integers a float64 one.
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

    def forget(self) -> None:
        """Let go of what forward kept; a backward is then an error until the next forward."""
        self._x = None

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
        _product(rows, W, out)
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
        return _product(dout, self._W.T).reshape(self._x_shape)

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
            raise forward_first("Affine.backward")
        (N, D), H = x.shape, W.shape[1]
        if W.shape[0] != D:
            raise ValueError(f"Affine.backward: W has shape {W.shape}, expected ({D}, H), as x had")
        shape = (H,) if len(self._x_shape) == 1 else (N, H)
        dout = as_gradient("Affine.backward", dout, W.dtype, shape)
        if dout.ndim == 1:
            dout = dout.reshape(1, H)
        self.dW = _product(as_array("Affine.backward", "x", x, W.dtype).T, dout)
        self.db = empty(H, W.dtype)
        bias_backward(self.db, dout)
        return dout


def _as_rows(x: Array) -> Array:
    """Return x as (N, D): one row of a vector, all dimensions after the first flattened."""
    if x.ndim < 2:
        return x.reshape(1, -1)
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def _product(a: Array, b: Array, out: Array | None = None) -> Array:
    """``a @ b`` without warnings."""
    # A single number is not left to `dot`, which makes 0 of 0 times NaN.
    return quiet.run(multiply if a.size == 1 or b.size == 1 else dot, a, b, out)
