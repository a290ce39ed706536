"""ReLU, max(0, x), and its gradient.

Element-wise kernels take matrices, the shape a batch comes in, and walk them as one flat run.
"""

from __future__ import annotations

from typing import Any

from .jit import kernel


@kernel("T[:, ::1], b1[:, ::1], T[:, ::1]")
def relu_forward(out: Any, mask: Any, x: Any) -> None:
    """``mask = x <= 0;  out = 0 where mask else x``.  NaN is not <= 0 and passes.

    Parameters
    ----------
    out : (N, H) float32 or float64 - overwritten
    mask : (N, H) bool - overwritten, what backward needs
    x : (N, H) like out
    """
    zero = x.dtype.type(0)
    flat_out, flat_mask, flat_x = out.flat, mask.flat, x.flat
    for i in range(x.size):
        value = flat_x[i]  # read first, then select: a conditional read would not vectorise
        masked = value <= zero
        flat_mask[i] = masked
        flat_out[i] = zero if masked else value


@kernel("T[:, ::1], b1[:, ::1], T[:, ::1]")
def relu_backward(dx: Any, mask: Any, dout: Any) -> None:
    """``dx = 0 where mask else dout``.  A selection, not a product: inf * 0 would be NaN.

    Parameters
    ----------
    dx : (N, H) float32 or float64 - overwritten
    mask : (N, H) bool, from forward
    dout : (N, H) like dx
    """
    zero = dout.dtype.type(0)
    flat_dx, flat_mask, flat_dout = dx.flat, mask.flat, dout.flat
    for i in range(dout.size):
        value = flat_dout[i]
        flat_dx[i] = zero if flat_mask[i] else value
