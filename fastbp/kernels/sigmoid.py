"""The sigmoid, 1 / (1 + exp(-x)), and its gradient."""

from __future__ import annotations

from typing import Any

from .exp import logistic
from .jit import EXACT_FLAGS, kernel


@kernel("T[:, ::1], T[:, ::1]", flags=EXACT_FLAGS)
def sigmoid_forward(out: Any, x: Any) -> None:
    """``out = 1 / (1 + exp(-x))``.

    Parameters
    ----------
    out : (N, H) float32 or float64 - overwritten
    x : (N, H) like out
    """
    flat_out, flat_x = out.flat, x.flat
    for i in range(x.size):
        flat_out[i] = logistic(flat_x[i])


@kernel("T[:, ::1], T[:, ::1], T[:, ::1]", flags=EXACT_FLAGS)
def sigmoid_backward(dx: Any, out: Any, dout: Any) -> None:
    """``dx = dout * (1 - out) * out``.

    Parameters
    ----------
    dx : (N, H) float32 or float64 - overwritten
    out : (N, H) like dx, from forward
    dout : (N, H) like dx
    """
    one = out.dtype.type(1)
    flat_dx, flat_out, flat_dout = dx.flat, out.flat, dout.flat
    for i in range(out.size):
        y = flat_out[i]
        flat_dx[i] = flat_dout[i] * (one - y) * y
