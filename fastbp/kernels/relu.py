"""ReLU, max(0, x), and its gradient.

Element-wise kernels take matrices, the shape a batch comes in, and walk them as one flat run.

The mask has a bit for each number.  Of float32, one of bytes would be a fifth of what a forward
writes, and memory is what big arrays wait for: a million numbers took a tenth more time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from .jit import JIT_DISABLED, intrinsic, kernel
from .simd import INT64, MASK_BITS, Emitter, constant, data_pointer, is_flat, lanes, view


@kernel("T[:, ::1], int64[:, ::1], T[:, ::1]")
def relu_forward(out: Any, mask: Any, x: Any) -> None:
    """``mask = x <= 0;  out = 0 where mask else x``.  NaN is not <= 0 and passes.

    Parameters
    ----------
    out : (N, H) float32 or float64 - overwritten
    mask : (1, ceil(N * H / 64)) int64 - overwritten, what backward needs: the bit of the first
        number is the lowest one of the first int64; those behind the last number are 0
    x : (N, H) like out
    """
    flat_out, flat_x = view(out, 0, out.size), view(x, 0, x.size)
    flat_mask = view(mask, 0, mask.size)
    whole = x.size // MASK_BITS
    for i in range(whole):
        flat_mask[i] = _forward(flat_out, flat_x, i * MASK_BITS)
    if whole < mask.size:
        zero = x.dtype.type(0)
        bits = 0
        for j in range(x.size - whole * MASK_BITS):
            value = flat_x[whole * MASK_BITS + j]
            masked = value <= zero
            bits |= (1 if masked else 0) << j
            flat_out[whole * MASK_BITS + j] = zero if masked else value
        flat_mask[whole] = bits


@kernel("T[:, ::1], int64[:, ::1], T[:, ::1]")
def relu_backward(dx: Any, mask: Any, dout: Any) -> None:
    """``dx = 0 where mask else dout``.  A selection, not a product: inf * 0 would be NaN.

    Parameters
    ----------
    dx : (N, H) float32 or float64 - overwritten
    mask : (1, ceil(N * H / 64)) int64, from forward
    dout : (N, H) like dx
    """
    flat_dx, flat_dout = view(dx, 0, dx.size), view(dout, 0, dout.size)
    flat_mask = view(mask, 0, mask.size)
    whole = dout.size // MASK_BITS
    for i in range(whole):
        _backward(flat_dx, flat_dout, i * MASK_BITS, flat_mask[i])
    zero = dout.dtype.type(0)
    for j in range(dout.size - whole * MASK_BITS):
        value = flat_dout[whole * MASK_BITS + j]
        flat_dx[whole * MASK_BITS + j] = zero if flat_mask[whole] >> j & 1 else value


# Both go register by register: with all MASK_BITS numbers as one vector, which LLVM would divide,
# float64 took up to half as long again with AVX2 and SSE.


@intrinsic
def _forward(typing: Any, out: Any, x: Any, start: Any) -> Any:
    """Do what forward does for MASK_BITS numbers, and return their mask."""
    if not is_flat(out, x) or out.dtype != x.dtype:
        return None
    itemsize = x.dtype.bitwidth // 8
    width = lanes(itemsize)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, x, start = arguments
        emit = Emitter(builder, itemsize)
        target = data_pointer(context, builder, signature.args[0], out, start)
        source = data_pointer(context, builder, signature.args[1], x, start)
        zeros = ir.Constant(emit.vector(width), [0.0] * width)
        bits = constant(0)
        for k in range(0, MASK_BITS, width):
            values = emit.load(emit.at(source, constant(k)), width)
            masked = builder.fcmp_ordered("<=", values, zeros)
            emit.store(builder.select(masked, zeros, values), emit.at(target, constant(k)), width)
            some = builder.zext(builder.bitcast(masked, ir.IntType(width)), INT64)
            bits = builder.or_(bits, builder.shl(some, constant(k)))
        return bits

    return types.int64(out, x, types.intp), generate


@intrinsic
def _backward(typing: Any, dx: Any, dout: Any, start: Any, bits: Any) -> Any:
    """Do what backward does for MASK_BITS numbers, by their mask."""
    if not is_flat(dx, dout) or dx.dtype != dout.dtype:
        return None
    itemsize = dout.dtype.bitwidth // 8
    width = lanes(itemsize)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dx, dout, start, bits = arguments
        emit = Emitter(builder, itemsize)
        target = data_pointer(context, builder, signature.args[0], dx, start)
        source = data_pointer(context, builder, signature.args[1], dout, start)
        zeros = ir.Constant(emit.vector(width), [0.0] * width)
        for k in range(0, MASK_BITS, width):
            values = emit.load(emit.at(source, constant(k)), width)
            some = builder.trunc(builder.lshr(bits, constant(k)), ir.IntType(width))
            masked = builder.bitcast(some, ir.VectorType(ir.IntType(1), width))
            emit.store(builder.select(masked, zeros, values), emit.at(target, constant(k)), width)
        return context.get_dummy_value()

    return types.void(dx, dout, types.intp, types.int64), generate


if JIT_DISABLED:

    def _forward(out: Any, x: Any, start: int) -> Any:
        """Do it in NumPy."""
        some = slice(start, start + MASK_BITS)
        masked = x[some] <= 0
        out[some] = np.where(masked, 0, x[some])
        return np.packbits(masked, bitorder="little").view(np.int64)[0]

    def _backward(dx: Any, dout: Any, start: int, bits: int) -> None:
        """Do it in NumPy."""
        some = slice(start, start + MASK_BITS)
        masked = np.unpackbits(np.array([bits]).view(np.uint8), bitorder="little")
        dx[some] = np.where(masked, 0, dout[some])
