"""The one gate between users' arrays and compiled code, and the home of every message about them.

Compiled code checks no bounds, so nothing reaches a kernel that has not come through here.  The
functions return an array a kernel can take as it is: the caller's own wherever possible, otherwise
one converted copy.  They never change their input.

``where`` is the function the user called and ``name`` the argument, for the message:
``Affine.forward: x has shape (8, 5), expected (N, 784)``.
"""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

import numpy as np
from numpy import ndarray

from .kernels.scan import (
    first_nonfinite,
    first_not_distribution,
    first_not_one_hot,
    first_outside,
)

Array = np.ndarray[Any, np.dtype[Any]]

F32 = np.dtype(np.float32)
F64 = np.dtype(np.float64)
FLOATS = np.float32, np.float64
I64 = np.dtype(np.int64)

# How far the sum of a row of targets may be from 1.
ROW_SUM_TOLERANCE = 1e-3


def as_array(where: str, name: str, x: Any, dtype: np.dtype[Any] | None = None) -> Array:
    """Return x as a float32 or float64 array in any memory layout.

    Parameters
    ----------
    where, name : str
        For the message.
    x : array_like
        Floats, integers or booleans.
    dtype : numpy.dtype, optional
        float32 or float64, the type to convert to.  Without it float32 and float64 are kept,
        float16 becomes float32, integers and booleans become float64.

    Returns
    -------
    numpy.ndarray
        x itself where it is a plain array of that type already.

    Raises
    ------
    TypeError
        For complex, object, string, longdouble and masked arrays, and for ragged lists.
    """
    if type(x) is ndarray and (
        x.dtype is dtype or (dtype is None and (x.dtype is F64 or x.dtype is F32))
    ):
        return x
    array = as_plain(where, name, x)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f" and array.dtype.type is not np.longdouble:
        with np.errstate(over="ignore", invalid="ignore"):  # 1e300 in float32 is inf
            return array.astype(dtype or (F64 if size == 8 else F32), copy=False)
    if kind in "iub":
        return array.astype(dtype or F64)
    raise TypeError(
        f"{where}: {name} has dtype {array.dtype}, expected float32, float64 or integers"
    )


def float_type(where: str, dtype: Any) -> np.dtype[Any]:
    """Return float32 or float64, whatever names it; raise TypeError for anything else."""
    try:
        known = np.dtype(dtype)
    except TypeError:
        known = None
    if known not in FLOATS:
        raise TypeError(f"{where}: dtype is {dtype!r}, expected float32 or float64")
    return known


def as_kernel_array(
    where: str,
    name: str,
    x: Any,
    dtype: np.dtype[Any] | None = None,
    shape: tuple[int, ...] | None = None,
) -> Array:
    """Return x as :func:`as_array` does, laid out for a kernel; with ``shape``, of exactly that.

    Returns
    -------
    numpy.ndarray
        float32 or float64, native byte order, C-contiguous, aligned and writable.  Nothing writes
        to it, but read-only arrays would be one more compiled version of every kernel.

    Raises
    ------
    TypeError
        As :func:`as_array`.
    ValueError
        When the shape is another.
    """
    if (  # what nearly always comes, in as few steps as Python allows: 0.2 us
        type(x) is ndarray
        and (x.dtype is dtype or (dtype is None and (x.dtype is F64 or x.dtype is F32)))
        and (shape is None or x.shape == shape)
        and x.flags.carray
    ):
        return x
    array = as_array(where, name, x, dtype)
    if not array.flags.carray:
        array = np.array(array, order="C", copy=True)
    if shape is not None and array.shape != shape:
        raise ValueError(f"{where}: {name} has shape {array.shape}, expected {shape}")
    return array


def as_gradient(
    where: str, dout: Any, dtype: np.dtype[Any] | None, shape: tuple[int, ...]
) -> Array:
    """Return the gradient of a layer's output for a kernel: ``as_kernel_array`` for ``dout``.

    Raises
    ------
    TypeError, ValueError
        As :func:`as_kernel_array`.
    """
    if (  # a small batch's backward takes 1 us in all
        type(dout) is ndarray and dout.dtype is dtype and dout.shape == shape and dout.flags.carray
    ):
        return dout
    return as_kernel_array(where, "dout", dout, dtype, shape)


def as_parameter(where: str, name: str, x: Any, ndim: int) -> Array:
    """Return a layer's weight or bias: the caller's own array wherever it is one.

    Integers become a new float64 array.

    Raises
    ------
    TypeError
        As :func:`as_array`.
    ValueError
        When x has not ``ndim`` dimensions.
    """
    array = as_array(where, name, x)
    if array.ndim != ndim:
        expected = "(H,)" if ndim == 1 else "(D, H)"
        raise ValueError(f"{where}: {name} has shape {array.shape}, expected {expected}")
    return array


def as_targets(where: str, t: Any, N: int, C: int, dtype: np.dtype[Any], name: str = "t") -> Array:
    """Return targets as labels, or as rows where they are no labels.

    One dimension means labels, two mean rows.  One-hot rows come back as the labels they stand for.

    Parameters
    ----------
    where : str
        For the message.
    t : array_like
        (N,) integer labels in [0, C), or (N, C) one-hot rows or probabilities.
    N, C : int
        Batch size and number of classes.
    dtype : numpy.dtype
        float32 or float64, for rows.
    name : str
        Of the argument, for the message.

    Returns
    -------
    numpy.ndarray
        (N,) int64, always new, or (N, C) probabilities of ``dtype``; C-contiguous.

    Raises
    ------
    IndexError
        For a label outside [0, C), with its row.
    TypeError
        For labels that are not integers, and as :func:`as_array`.
    ValueError
        For another shape, and for a row that does not sum to 1 (to 1e-3) or has negative elements
        that sum to more than half of that.
    """
    t = as_plain(where, name, t)
    if t.ndim == 1:
        return _labels(where, name, t, N, C)
    if t.ndim != 2:
        raise ValueError(
            f"{where}: {name} has shape {t.shape}, "
            f"expected ({N},) labels or ({N}, {C}) one-hot rows"
        )
    rows = as_kernel_array(where, name, t, dtype, (N, C))
    labels = np.empty(N, I64)
    if first_not_one_hot(labels, rows) < 0:
        return labels
    bad = first_not_distribution(rows, ROW_SUM_TOLERANCE)
    if bad >= 0:
        with np.errstate(invalid="ignore"):  # inf - inf
            total, least = rows[bad].sum(), rows[bad].min()
        raise ValueError(
            f"{where}: {name}[{bad}] sums to {total:g} with minimum {least:g}, "
            "expected a one-hot row or probabilities that sum to 1"
        )
    return rows


def single_target(where: str, t: Any, C: int) -> Array:
    """Return the target of one example of shape (C,) as that of a batch: (1,) or (1, C)."""
    t = as_plain(where, "t", t)
    if t.ndim == 0 or t.shape == (1,) != (C,):
        return t.reshape(1)
    if t.ndim == 1:
        return t.reshape(1, -1)
    raise ValueError(f"{where}: t has shape {t.shape}, expected a label or ({C},) for one example")


def _labels(where: str, name: str, t: Array, N: int, C: int) -> Array:
    if t.dtype.kind not in "iu":
        raise TypeError(
            f"{where}: {name} has dtype {t.dtype} and one dimension, expected integer labels; "
            f"one-hot rows have shape ({N}, {C})"
        )
    if t.shape[0] != N:
        raise ValueError(
            f"{where}: {name} has shape {t.shape} and x has {N} rows, "
            "expected as many labels as rows"
        )
    # Always a copy: kernels index by labels, so nobody may change them after they were checked.
    # Of the integer types only uint64 does not fit, and what is too large becomes negative.
    labels = np.array(t, I64, order="C")
    bad = first_outside(labels, C)
    if bad >= 0:
        raise IndexError(f"{where}: {name}[{bad}] is {t[bad]}, expected a label in [0, {C})")
    return labels


def as_matrices(*arrays: Array) -> tuple[Array, ...]:
    """Return C-contiguous arrays of any shape as the matrices that element-wise kernels take."""
    return tuple(array.reshape(1, -1) for array in arrays)


def forward_first(where: str) -> RuntimeError:
    """Return the error for a backward before any forward."""
    return RuntimeError(f"{where}: call forward first, backward belongs to its result")


def positive_int(where: str, name: str, value: Any) -> int:
    """Return a size or a count, or raise ValueError."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise ValueError(f"{where}: {name} is {value!r}, expected a positive integer")
    return number


def as_float(value: Any) -> float:
    """Return a real number as a float: infinity where it is too large, NaN for what is none."""
    number: Any = value
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        return float(number)
    except OverflowError:  # integers and fractions
        return math.inf if number > 0 else -math.inf


def nonnegative(where: str, name: str, value: Any) -> float:
    """Return a number that is 0 or more, or raise TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{where}: {name} is {value!r}, expected a number")
    number = as_float(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{where}: {name} is {value!r}, expected a number >= 0")
    return number


def require_numbers(where: str, name: str, x: Any) -> None:
    """Raise TypeError when an array's type is none that :func:`as_array` converts."""
    as_array(where, name, np.empty(0, x.dtype))


def is_finite(x: Array) -> bool:
    """Whether no element of x, floats, is NaN or infinite."""
    return first_nonfinite(as_kernel_array("is_finite", "x", x).ravel()) < 0


def require_finite(where: str, name: str, x: Array) -> None:
    """Raise ValueError with the first place where x, (N, ...) floats, is NaN or infinite."""
    rows = max(1, (1 << 20) // max(1, x[:1].size))
    for start in range(0, x.shape[0], rows):  # in pieces: a strided x is copied piece by piece
        piece = as_kernel_array(where, name, x[start : start + rows])
        bad = first_nonfinite(piece.ravel())
        if bad >= 0:
            row, column = divmod(bad, piece[0].size)
            raise nonfinite(where, name, start + row, column, float(piece.ravel()[bad]))


def nonfinite(where: str, name: str, row: int, column: int, value: float) -> ValueError:
    """Return the error for NaN or infinity among the inputs."""
    return ValueError(
        f"{where}: {name} is {value} in row {row}, column {column}; "
        "expected finite numbers (allow_nonfinite=True trains on them all the same)"
    )


def as_plain(where: str, name: str, x: Any) -> Array:
    """Return x as a base-class array of any type, in any layout, without a copy if it is one.

    Raises
    ------
    TypeError
        For masked arrays, whose mask would be lost, and for ragged lists.
    """
    if type(x) is ndarray:
        return x
    try:
        masked = _is_masked(x)
    except RecursionError as error:
        raise TypeError(f"{where}: {name} is a list nested too deeply") from error
    if masked:
        raise TypeError(
            f"{where}: {name} is a masked array, whose mask would be lost; "
            "fill it first (x.filled(value))"
        )
    try:
        return np.asarray(x)
    except ValueError as error:
        raise TypeError(f"{where}: {name} is not a rectangular array of numbers") from error


def _is_masked(x: Any) -> bool:
    """Whether x is a masked array, or a list with one in it."""
    if isinstance(x, (list, tuple)):
        return any(_is_masked(item) for item in x)
    return isinstance(x, np.ma.MaskedArray)
