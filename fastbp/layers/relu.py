"""The rectified linear unit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy import empty

from .._arrays import I64, Array, as_gradient, as_kernel_array, as_matrices, forward_first
from ..kernels.relu import relu_backward, relu_forward
from ..kernels.simd import MASK_BITS
from ..parallel import over_elements

# Elements from which two threads are quicker: there they take 25 us and one 28, float64 38 and 53;
# with half as many 16 and 16, 26 and 29.
PARALLEL_SIZE = 1 << 18


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
        """True where the last x <= 0; a new array."""
        if self._mask is None:
            return None
        size = math.prod(self._shape)
        bits = np.unpackbits(self._mask.view(np.uint8), count=size, bitorder="little")
        return bits.view(np.bool_).reshape(self._shape)

    def forget(self) -> None:
        """Let go of what forward kept; a backward is then an error until the next forward."""
        self._mask = None

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
        out, mask = rectify(x)
        self._mask, self._shape, self._dtype = mask, x.shape, x.dtype
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
            raise forward_first("Relu.backward")
        shape, dtype = self._shape, self._dtype
        dout = as_gradient("Relu.backward", dout, dtype, shape)
        dx = empty(shape, dtype)
        if dx.size >= PARALLEL_SIZE:
            over_elements(relu_backward, dx, mask, dout)
        elif dx.ndim == 2:
            relu_backward(dx, mask, dout)
        else:
            relu_backward(*as_matrices(dx, mask, dout))
        return dx


def rectify(x: Array) -> tuple[Array, Array]:
    """Return ``max(0, x)`` of a kernel's array, and the mask: a bit for each number."""
    size = x.size
    out, mask = empty(x.shape, x.dtype), empty((1, -(-size // MASK_BITS)), I64)
    if size >= PARALLEL_SIZE:
        over_elements(relu_forward, out, mask, x)
    elif x.ndim == 2:
        relu_forward(out, mask, x)
    else:
        relu_forward(*as_matrices(out, mask, x))
    return out, mask
