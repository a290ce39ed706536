"""Multiplication and addition as layers: the book's first two (section 5.4)."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from .._arrays import as_array, forward_first
from .._quiet import quiet


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
        self._shape: tuple[int, ...] = ()
        self._dtype: np.dtype[Any] | None = None

    def forward(self, x: Any, y: Any) -> Any:
        """Return ``x * y``.

        Parameters
        ----------
        x, y : number or array_like
            Of one shape, or of shapes that broadcast.

        Returns
        -------
        number or array

        Raises
        ------
        TypeError
            For what is not an array of real numbers.
        ValueError
            For shapes that do not broadcast, and for integers too large for floating point.
        """
        where = "MulLayer.forward"
        x, y = _operand(where, "x", x), _operand(where, "y", y)
        out = _combined(where, operator.mul, x, y)
        self.x, self.y = x, y
        self._shape, self._dtype = np.shape(out), _float_type(out)
        return out

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
        ValueError
            When dout is an array of another shape than forward's result.
        """
        if self.x is None:
            raise forward_first("MulLayer.backward")
        dout = _gradient("MulLayer.backward", dout, self._shape, self._dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            dx, dy = dout * self.y, dout * self.x
            return _sum_to(np.shape(self.x), dx), _sum_to(np.shape(self.y), dy)


class AddLayer:
    """``z = x + y``, of scalars or arrays (section 5.4.2)."""

    def __init__(self) -> None:
        self._shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self._shape: tuple[int, ...] = ()
        self._dtype: np.dtype[Any] | None = None

    def forward(self, x: Any, y: Any) -> Any:
        """Return ``x + y``.

        Parameters
        ----------
        x, y : number or array_like
            Of one shape, or of shapes that broadcast.

        Returns
        -------
        number or array

        Raises
        ------
        TypeError
            For what is not an array of real numbers.
        ValueError
            For shapes that do not broadcast, and for integers too large for floating point.
        """
        x, y = _operand("AddLayer.forward", "x", x), _operand("AddLayer.forward", "y", y)
        out = _combined("AddLayer.forward", operator.add, x, y)
        self._shapes = np.shape(x), np.shape(y)
        self._shape, self._dtype = np.shape(out), _float_type(out)
        return out

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
        ValueError
            When dout is an array of another shape than forward's result.
        """
        if self._shapes is None:
            raise forward_first("AddLayer.backward")
        dout = _gradient("AddLayer.backward", dout, self._shape, self._dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            dx, dy = (_sum_to(shape, dout * 1) for shape in self._shapes)
        return dx, dy


def _operand(where: str, name: str, value: Any) -> Any:
    """Return a number as it is, an array or list as an array of floats, which do not overflow."""
    if isinstance(value, (int, float)):
        return value
    return as_array(where, name, value)


def _combined(where: str, combine: Callable[[Any, Any], Any], x: Any, y: Any) -> Any:
    """Return the product or the sum: infinity and NaN where it is that, without a warning."""
    try:
        return quiet.run(combine, x, y)
    except OverflowError as error:  # of Python's integers
        raise ValueError(f"{where}: a number is too large for floating point") from error
    except ValueError as error:
        raise ValueError(
            f"{where}: x has shape {np.shape(x)} and y {np.shape(y)}, "
            "expected shapes that broadcast"
        ) from error


def _float_type(out: Any) -> np.dtype[Any] | None:
    """Return the type of a result that is an array of floats, which its gradient shares."""
    return out.dtype if isinstance(out, (np.ndarray, np.floating)) else None


def _gradient(where: str, dout: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Return dout in the shape of forward's result; a number stands in every place."""
    dout = _operand(where, "dout", dout)
    if dtype is not None and isinstance(dout, np.ndarray):
        dout = as_array(where, "dout", dout, dtype)
    if np.ndim(dout) and np.shape(dout) != shape:
        raise ValueError(f"{where}: dout has shape {np.shape(dout)}, expected {shape}")
    return dout if np.shape(dout) == shape else np.full(shape, dout, dtype)


def _sum_to(shape: tuple[int, ...], gradient: Any) -> Any:
    """Sum a gradient over the axes along which forward repeated an input of this shape."""
    if np.shape(gradient) == shape:
        return gradient
    gradient = np.asarray(gradient)
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and gradient.shape[i] != 1)
    return gradient.sum(axis=axes, keepdims=True)
