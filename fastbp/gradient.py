"""Numerical differentiation (the book's chapter 4) and the gradient check (section 5.7.3)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from ._arrays import Array, as_float

__all__ = [
    "GradientCheck",
    "ParameterCheck",
    "check_gradient",
    "gradient_descent",
    "numerical_diff",
    "numerical_gradient",
]

# The book's step.  Central differences are wrong by O(h**2) from the curve and O(1e-16 / h) from
# rounding; for float64 and losses about 1 the two meet near 1e-5.
H = 1e-4


def numerical_diff(f: Callable[[float], Any], x: float) -> Any:
    """``(f(x + h) - f(x - h)) / 2h`` with h = 1e-4 (section 4.3.1).

    Parameters
    ----------
    f : callable
        A function of one number.
    x : float

    Returns
    -------
    float

    Raises
    ------
    TypeError
        When f is not callable, or x no number.
    """
    _require_callable("numerical_diff", f)
    if isinstance(x, (str, bytes)) or np.asarray(x).dtype.kind not in "fiub":
        raise TypeError(f"numerical_diff: x is {x!r}, expected a number")
    return (f(x + H) - f(x - H)) / (2 * H)


def numerical_gradient(f: Callable[[Array], Any], x: Array) -> Array:
    """Gradient of f at x by central differences, h = 1e-4 (section 4.4).

    f is called twice for each element, with that element of x itself moved (so f may also look at x
    from elsewhere, as the book's ``lambda W: net.loss(x, t)`` does).  Afterwards every bit of x is
    as before, even when f raises.

    Parameters
    ----------
    f : callable
        A function of x that returns one number.
    x : float64 array of any shape, writable
        float32 works, with a warning: differences of rounded numbers are mostly noise.

    Returns
    -------
    array
        Like x, new.  NaN where f gave NaN.

    Raises
    ------
    TypeError
        When x is not an array of float64 or float32, or f not callable.
    ValueError
        When x is read-only, or f does not return one number.
    """
    where = "numerical_gradient"
    _require_callable(where, f)
    _require_floats(where, "x", x)
    if not x.flags.writeable:
        raise ValueError(f"{where}: x is read-only, expected an array whose elements can be moved")
    if x.dtype.type is np.float32:
        warn_of_float32("x")
    grad = np.empty(x.shape, x.dtype.newbyteorder("="))
    for index in np.ndindex(x.shape):
        grad[index] = _difference(where, f, x, index, H)
    return grad


def warn_of_float32(name: str, stacklevel: int = 3) -> None:
    """Warn the caller of numerical_gradient that float64 is meant."""
    warnings.warn(
        f"numerical_gradient: {name} has dtype float32, where differences are mostly rounding "
        "noise; float64 is meant",
        UserWarning,
        stacklevel=stacklevel,
    )


def _require_callable(where: str, f: Any) -> None:
    if not callable(f):
        raise TypeError(f"{where}: f is of type {type(f).__name__}, expected a function")


def _require_floats(where: str, name: str, x: Any) -> None:
    if not isinstance(x, np.ndarray) or isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{where}: {name} is of type {type(x).__name__}, expected a float64 array")
    if x.dtype.type not in (np.float64, np.float32):
        raise TypeError(f"{where}: {name} has dtype {x.dtype}, expected float64")


def _difference(
    where: str, f: Callable[[Array], Any], x: Array, index: tuple[int, ...], h: float
) -> float:
    """Central difference of f in one element of x, which is put back whatever happens."""
    value = x[index]
    try:
        x[index] = value + h
        above = _number(where, f(x))
        x[index] = value - h
        below = _number(where, f(x))
    finally:
        x[index] = value
    return (above - below) / (2 * h)


def _one_sided(
    where: str, f: Callable[[Array], Any], x: Array, index: tuple[int, ...], h: float = 1e-7
) -> tuple[float, float]:
    """Slopes of f to the left and to the right in one element of x, which is put back."""
    value, here = x[index], _number(where, f(x))
    try:
        x[index] = value + h
        right = (_number(where, f(x)) - here) / h
        x[index] = value - h
        left = (here - _number(where, f(x))) / h
    finally:
        x[index] = value
    return left, right


def _number(where: str, value: Any) -> float:
    if np.ndim(value) or np.asarray(value).dtype.kind not in "fiub":
        raise ValueError(
            f"{where}: f returned {type(value).__name__} of shape {np.shape(value)}, "
            "expected one number"
        )
    return float(value)


def gradient_descent(
    f: Callable[[Array], Any], init_x: Array, lr: float = 0.01, step_num: int = 100
) -> Array:
    """``step_num`` times ``x -= lr * grad f(x)``, with numerical gradients (section 4.4.1).

    Parameters
    ----------
    f : callable
        A function of x that returns one number.
    init_x : float64 array of any shape
        The start.  It is not changed (the book's function walks away with it).
    lr : float, default 0.01
        Learning rate.
    step_num : int, default 100
        Number of steps.

    Returns
    -------
    array
        The last x, new.

    Raises
    ------
    TypeError, ValueError
        As :func:`numerical_gradient`; and when lr is no finite number or step_num no integer >= 0.
    """
    where = "gradient_descent"
    _require_callable(where, f)
    _require_floats(where, "init_x", init_x)
    rate = as_float(lr)
    if not math.isfinite(rate):
        raise ValueError(f"{where}: lr is {lr!r}, expected a finite number")
    if isinstance(step_num, bool) or not isinstance(step_num, Integral) or step_num < 0:
        raise ValueError(f"{where}: step_num is {step_num!r}, expected an integer >= 0")
    x = np.array(init_x)
    for _ in range(int(step_num)):
        with np.errstate(over="ignore", invalid="ignore"):  # a rate that is too large diverges
            x -= rate * numerical_gradient(f, x)
    return x


# --- the gradient check --------------------------------------------------------------------------

# A gradient counts as wrong in an element when it differs from the central difference by more than
# ABSOLUTE + RELATIVE * |difference|.  Backpropagation in float64 is right to about 1e-15 and the
# difference to about 1e-8 of the larger gradients, so an error of 0.1 % stands out.  In float32 the
# gradient itself carries errors of about 1e-6.
TOLERANCE = {np.dtype(np.float64): (1e-8, 1e-4), np.dtype(np.float32): (1e-6, 5e-4)}

# Where the loss has a kink (ReLU at 0) between x - h and x + h, the difference says nothing; with a
# smaller step the kink is almost surely outside.  Only elements that disagree are tried again, and
# only if they are few, to save time: a wrong gradient is wrong in many.
SMALLER_STEPS = (1e-5, 1e-6, 1e-7)
FEW = 1000


@dataclass(frozen=True)
class ParameterCheck:
    """How well the gradient of one parameter agrees with central differences.

    Attributes
    ----------
    name : str
    shape : tuple of int
    mean_difference, max_difference : float
        Of ``|backpropagation - central difference|`` over the elements.
    wrong : int
        Number of elements that differ by more than the tolerance.
    """

    name: str
    shape: tuple[int, ...]
    mean_difference: float
    max_difference: float
    wrong: int


@dataclass(frozen=True)
class GradientCheck:
    """The result of :func:`check_gradient`; ``str()`` of it is a table.

    Attributes
    ----------
    parameters : tuple of ParameterCheck
    """

    parameters: tuple[ParameterCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether no element of any gradient is wrong."""
        return not any(parameter.wrong for parameter in self.parameters)

    def __str__(self) -> str:
        lines = [f"{'parameter':<10} {'shape':<12} {'mean |diff|':>12} {'max |diff|':>12}  verdict"]
        for p in self.parameters:
            verdict = f"WRONG in {p.wrong:,} of {np.prod(p.shape):,}" if p.wrong else "ok"
            lines.append(
                f"{p.name:<10} {p.shape!s:<12} {p.mean_difference:>12.2e} "
                f"{p.max_difference:>12.2e}  {verdict}"
            )
        return "\n".join(lines)


def check_gradient(
    network: Any,
    x: Any,
    t: Any,
    *,
    progress: Callable[[int], object] | None = None,
) -> GradientCheck:
    """Compare backpropagation with central differences, in every element of every parameter.

    Parameters
    ----------
    network : object
        A fastbp network, or anything like the book's: a dict ``params`` of float64 arrays,
        ``loss(x, t)``, and ``gradient(x, t)`` that returns a dict with the same keys.  Of a fastbp
        network in float32 the differences are taken in a float64 copy.
    x, t : array
        A few examples; the time is two losses for each of the parameters' elements.
    progress : callable, optional
        Called after each row of differences with the number of elements done since.

    Returns
    -------
    GradientCheck
        With ``passed``, and for each parameter the mean and maximum absolute difference.

    Raises
    ------
    KeyError
        When ``gradient`` leaves a parameter out.
    TypeError
        When a parameter is not float64, and the network is not fastbp's own.
    ValueError
        When a gradient has another shape than its parameter.
    """
    grads = network.gradient(x, t)
    # The differences need float64; a fastbp network can be had in it.
    probe = network.astype(np.float64) if hasattr(network, "astype") else network
    checks = []
    for key, parameter in probe.params.items():
        if key not in grads:
            raise KeyError(f"check_gradient: network.gradient returned no {key!r}")
        if parameter.dtype != np.float64:
            raise TypeError(
                f"check_gradient: params[{key!r}] has dtype {parameter.dtype}, expected float64"
            )
        grad = np.asarray(grads[key])
        if grad.shape != parameter.shape:
            raise ValueError(
                f"check_gradient: the gradient of {key!r} has shape {grad.shape}, "
                f"expected {parameter.shape}"
            )
        tolerance = TOLERANCE[np.dtype(np.float32 if grad.dtype == np.float32 else np.float64)]
        checks.append(
            _check_parameter(key, parameter, grad, lambda _: probe.loss(x, t), tolerance, progress)
        )
    return GradientCheck(tuple(checks))


def _check_parameter(
    name: str,
    parameter: Array,
    grad: Array,
    f: Callable[[Array], Any],
    tolerance: tuple[float, float],
    progress: Callable[[int], object] | None,
) -> ParameterCheck:
    where = "check_gradient"
    absolute, relative = tolerance
    numerical = np.empty(parameter.shape)
    row = parameter.shape[-1] if parameter.ndim > 1 else parameter.size
    for done, index in enumerate(np.ndindex(parameter.shape), start=1):
        numerical[index] = _difference(where, f, parameter, index, H)
        if progress is not None and done % row == 0:
            progress(row)

    def agrees(index: tuple[int, ...] | None = None) -> Any:
        n, g = (numerical, grad) if index is None else (numerical[index], grad[index])
        return np.abs(g - n) <= absolute + relative * np.abs(n)  # False for NaN

    wrong = np.argwhere(~agrees())
    if len(wrong) <= max(FEW, parameter.size // 10):
        for index in map(tuple, wrong):
            for h in SMALLER_STEPS:
                at_kink = numerical[index]
                numerical[index] = _difference(where, f, parameter, index, h)
                if agrees(index):
                    break
                numerical[index] = at_kink
            else:
                # On the kink itself every slope between those of the two sides is a gradient.
                low, high = sorted(_one_sided(where, f, parameter, index))
                numerical[index] = np.clip(grad[index], low, high)
                if not agrees(index):
                    numerical[index] = at_kink
    difference = np.abs(grad - numerical)
    return ParameterCheck(
        name,
        parameter.shape,
        float(difference.mean()),
        float(difference.max()),
        int(np.count_nonzero(~agrees())),
    )
