"""Vector registers: the few LLVM instructions from which the matrix kernels are made.

Numba compiles loops and lets LLVM find the vectors in them.  A matrix product at the limit of the
machine needs more say than that: which numbers stay in which registers.  An *intrinsic* is a
function that writes LLVM's intermediate code itself; :class:`Emitter` is the vocabulary it uses.

Widths are the host's: 16 float32 (8 float64) with AVX-512, 8 with AVX2, 4 with SSE or NEON.
"""

from __future__ import annotations

import ctypes
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.np.arrayobj import populate_array

from .jit import JIT_DISABLED, intrinsic, part, target_features

# Numbers that are compared with zero at once: bits of a mask, which is an int64.
MASK_BITS = 64

INT32, INT64 = ir.IntType(32), ir.IntType(64)


def _registers() -> tuple[int, int]:
    """Return the bytes in a vector register and the number of registers, of the target."""
    features = target_features()
    if "avx512f" in features:
        return 64, 32
    if "avx" in features:
        return 32, 16
    aarch64 = llvm.get_default_triple().startswith(("aarch64", "arm64"))
    return 16, 32 if aarch64 else 16


REGISTER_BYTES, REGISTERS = _registers()


def lanes(itemsize: int) -> int:
    """Return how many numbers of so many bytes a register holds."""
    return REGISTER_BYTES // itemsize


@part
def vector_lanes(array: Any) -> int:
    """Return how many of an array's elements a register holds."""
    return REGISTER_BYTES // array.itemsize


class Emitter:
    """Writes vector instructions for one floating point type.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
        Where the instructions go.
    itemsize : int
        4 for float32, 8 for float64.
    """

    def __init__(self, builder: Any, itemsize: int) -> None:
        self.builder = builder
        self.itemsize = itemsize
        self.scalar = ir.FloatType() if itemsize == 4 else ir.DoubleType()

    def vector(self, width: int) -> Any:
        """Return the type of ``width`` numbers; of one number, the number's own."""
        return ir.VectorType(self.scalar, width) if width > 1 else self.scalar

    def load(self, pointer: Any, width: int = 1) -> Any:
        """Read ``width`` numbers from an address that need not be aligned."""
        typed = self.builder.bitcast(pointer, self.vector(width).as_pointer())
        value = self.builder.load(typed)
        value.align = self.itemsize
        return value

    def store(self, value: Any, pointer: Any, width: int) -> None:
        """Write ``width`` numbers."""
        typed = self.builder.bitcast(pointer, self.vector(width).as_pointer())
        self.builder.store(value, typed).align = self.itemsize

    def load_some(self, pointer: Any, count: Any, rest: Any) -> Any:
        """Read ``count`` numbers and touch nothing behind them; the other lanes are ``rest``'s."""
        width = rest.type.count
        pointer = self.builder.bitcast(pointer, rest.type.as_pointer())
        mask_type = ir.VectorType(ir.IntType(1), width)
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(rest.type, [pointer.type, INT32, mask_type, rest.type]),
            f"llvm.masked.load.v{width}f{8 * self.itemsize}.p0",
        )
        lane = ir.Constant(ir.VectorType(INT64, width), list(range(width)))
        mask = self.builder.icmp_signed("<", lane, self.splat(count, width))
        return self.builder.call(function, [pointer, ir.Constant(INT32, self.itemsize), mask, rest])

    def splat(self, number: Any, width: int) -> Any:
        """Repeat one number in all lanes."""
        if width == 1:
            return number
        undefined = ir.Constant(ir.VectorType(number.type, width), ir.Undefined)
        first = self.builder.insert_element(undefined, number, ir.Constant(INT32, 0))
        zeros = ir.Constant(ir.VectorType(INT32, width), [0] * width)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def multiply_add(self, a: Any, b: Any, c: Any, width: int) -> Any:
        """``a * b + c``: one instruction where the target has it, two where not.

        ``llvm.fma`` would call the C library on a target without the instruction.
        """
        kind = self.vector(width)
        name = f"v{width}f{8 * self.itemsize}" if width > 1 else f"f{8 * self.itemsize}"
        function = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fmuladd.{name}"
        )
        return self.builder.call(function, [a, b, c])

    def multiply(self, a: Any, b: Any) -> Any:
        """``a * b``."""
        return self.builder.fmul(a, b)

    def at_least(self, least: Any, value: Any) -> Any:
        """``value``, or ``least`` where that is more; NaN stays NaN.

        In this order of the two it is one instruction.
        """
        return self.builder.select(self.builder.fcmp_ordered(">", least, value), least, value)

    def select_lanes(self, a: Any, b: Any, lanes: list[int]) -> Any:
        """Take lanes from two vectors laid end to end."""
        mask = ir.Constant(ir.VectorType(INT32, len(lanes)), lanes)
        return self.builder.shuffle_vector(a, b, mask)

    def prefetch(self, address: Any) -> None:
        """Bring the cache line at an address, an integer, into the second-level cache."""
        byte_pointer = ir.IntType(8).as_pointer()
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(ir.VoidType(), [byte_pointer, INT32, INT32, INT32]),
            "llvm.prefetch.p0",
        )
        read, second_level, data = (ir.Constant(INT32, v) for v in (0, 2, 1))
        pointer = self.builder.inttoptr(address, byte_pointer)
        self.builder.call(function, [pointer, read, second_level, data])

    def loop_back(self, again: Any, loop: Any, after: Any) -> None:
        """Branch back to a loop while ``again`` holds, and forbid LLVM to unroll it.

        Two rounds of a loop that fills the registers do not fit into them: unrolled, tiles with a
        narrow last vector took twice the time.
        """
        module = self.builder.module
        disable = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
        identity = module.add_metadata([disable, disable])
        identity.operands = (identity, disable)  # LLVM wants a loop's name to begin with itself
        self.builder.cbranch(again, loop, after).set_metadata("llvm.loop", identity)

    def at(self, pointer: Any, offset: Any) -> Any:
        """Return the address so many numbers further on."""
        return self.builder.gep(pointer, [offset])


def constant(value: int) -> Any:
    """Return an integer constant, of the width of an index."""
    return ir.Constant(INT64, value)


def data_pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    """Return the address of element ``offset`` of a contiguous array, within an intrinsic."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [offset])


def is_flat(*arguments: Any) -> bool:
    """Whether all Numba types are contiguous one-dimensional arrays."""
    return all(isinstance(a, types.Array) and a.ndim == 1 and a.layout == "C" for a in arguments)


def _flat_array(context: Any, builder: Any, flat: Any, pointer: Any, size: Any) -> Any:
    """Return an array that owns nothing, within an intrinsic."""
    result = context.make_array(flat)(context, builder)
    itemsize = constant(flat.dtype.bitwidth // 8)
    populate_array(
        result, data=pointer, shape=[size], strides=[itemsize], itemsize=itemsize, meminfo=None
    )
    return result._getvalue()


@intrinsic
def view(typing: Any, array: Any, start: Any, size: Any) -> Any:
    """``array.reshape(-1)[start : start + size]`` of a contiguous array, which owns nothing."""
    if not isinstance(array, types.Array) or array.layout != "C":
        return None
    flat = types.Array(array.dtype, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, start, size = arguments
        pointer = data_pointer(context, builder, array, source, start)
        return _flat_array(context, builder, flat, pointer, size)

    return flat(array, types.intp, types.intp), generate


@intrinsic
def view_at(typing: Any, like: Any, address: Any, size: Any) -> Any:
    """Return ``size`` numbers at an address as a flat array, of the type of another array.

    Whoever knows the address keeps alive what lies there.
    """
    if not isinstance(like, types.Array):
        return None
    flat = types.Array(like.dtype, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, address, size = arguments
        number = context.get_data_type(like.dtype)
        return _flat_array(
            context, builder, flat, builder.inttoptr(address, number.as_pointer()), size
        )

    return flat(like, types.intp, types.intp), generate


@intrinsic
def row_of(typing: Any, matrix: Any, i: Any) -> Any:
    """``matrix[i]``, as :func:`view` takes it."""
    if not isinstance(matrix, types.Array) or matrix.layout != "C" or matrix.ndim != 2:
        return None
    flat = types.Array(matrix.dtype, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, i = arguments
        shape = context.make_array(matrix)(context, builder, source).shape
        columns = builder.extract_value(shape, 1)
        pointer = data_pointer(context, builder, matrix, source, builder.mul(i, columns))
        return _flat_array(context, builder, flat, pointer, columns)

    return flat(matrix, types.intp), generate


@intrinsic
def address_of(typing: Any, array: Any, offset: Any) -> Any:
    """Return the address of element ``offset`` of a contiguous array, as an integer."""
    if not isinstance(array, types.Array) or array.layout != "C":
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = data_pointer(context, builder, array, *arguments)
        return builder.ptrtoint(pointer, INT64)

    return types.intp(array, types.intp), generate


@intrinsic
def for_bytes(typing: Any, like: Any, these: Any, others: Any) -> Any:
    """Return ``these`` where ``like`` is a byte, else ``others``: decided while it is compiled."""
    place = 1 if like == types.uint8 else 2
    kind = (these, others)[place - 1]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return arguments[place]

    return kind(like, these, others), generate


@intrinsic
def prefetch(typing: Any, address: Any) -> Any:
    """Ask the processor to bring a cache line into the second-level cache.

    A hint: no result, and no fault whatever the address.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        Emitter(builder, 4).prefetch(arguments[0])
        return context.get_dummy_value()

    return types.void(types.intp), generate


@intrinsic
def _nonzero_bits(typing: Any, array: Any, start: Any) -> Any:
    """Compare MASK_BITS numbers with zero; the lowest bit of the result is the first one's."""
    if not is_flat(array):
        return None
    itemsize = array.dtype.bitwidth // 8

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, itemsize)
        pointer = data_pointer(context, builder, array, *arguments)
        zeros = ir.Constant(emit.vector(MASK_BITS), [0.0] * MASK_BITS)
        mask = builder.fcmp_unordered("!=", emit.load(pointer, MASK_BITS), zeros)
        return builder.bitcast(mask, INT64)

    return types.int64(array, types.intp), generate


@part
def nonzero_bits(array: Any, start: int) -> int:
    """Return which of the next MASK_BITS numbers are not zero, NaN among them, as a mask.

    The lowest bit is the first number's; bits beyond the end of the array are 0.
    """
    if start + MASK_BITS <= array.size:
        return _nonzero_bits(array, start)
    bits = 0
    for j in range(array.size - start):
        bits |= (1 if array[start + j] != 0 else 0) << j
    return bits


@intrinsic
def lowest_bit(typing: Any, bits: Any) -> Any:
    """Return the place of the lowest bit that is 1, of a mask that has one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


@part
def without_lowest_bit(bits: int) -> int:
    """Return a mask without the lowest bit that is 1."""
    return bits & (bits - 1)


@part
def bit(place: int) -> int:
    """Return the mask of one bit."""
    return 1 << place


@part
def low_bits(count: int) -> int:
    """Return the mask of the lowest bits, fewer than all."""
    return (1 << count) - 1


@intrinsic
def transpose_bits(typing: Any, masks: Any, start: Any) -> Any:
    """Transpose a square of MASK_BITS masks from ``start`` on: bit j of mask i and bit i of mask j.

    Six rounds of exchanging halves, quarters, ... of pairs of masks (Hacker's Delight, 7-3).
    """
    if not is_flat(masks) or masks.dtype != types.int64:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        square, indices = (ir.VectorType(number, MASK_BITS) for number in (INT64, INT32))
        pointer = data_pointer(context, builder, masks, *arguments)
        pointer = builder.bitcast(pointer, square.as_pointer())

        def all_are(value: int) -> Any:
            return ir.Constant(square, [value] * MASK_BITS)

        rows = builder.load(pointer)
        rows.align = 8
        step, low = MASK_BITS // 2, (1 << MASK_BITS // 2) - 1
        while step:
            order = ir.Constant(indices, [i ^ step for i in range(MASK_BITS)])
            others = builder.shuffle_vector(rows, rows, order)
            to_left = builder.shl(builder.and_(others, all_are(low)), all_are(step))
            to_right = builder.and_(builder.lshr(others, all_are(step)), all_are(low))
            upper = builder.or_(builder.and_(rows, all_are(low)), to_left)
            lower = builder.or_(builder.and_(rows, all_are(low << step)), to_right)
            which = [i + (MASK_BITS if i & step else 0) for i in range(MASK_BITS)]
            rows = builder.shuffle_vector(upper, lower, ir.Constant(indices, which))
            step //= 2
            low = (low ^ low << step) & ((1 << MASK_BITS) - 1)
        builder.store(rows, pointer).align = 8
        return context.get_dummy_value()

    return types.void(masks, types.intp), generate


@intrinsic
def transpose_block(
    typing: Any, target: Any, t: Any, target_row: Any, source: Any, s: Any, source_row: Any
) -> Any:
    """``target[t + j*target_row + i] = source[s + i*source_row + j]`` for a register-wide square.

    The square is as wide as a vector register: V rows of V numbers.  log2(V) rounds of exchanging
    halves, quarters, ... between pairs of rows, all in registers.
    """
    if not is_flat(target, source) or target.dtype != source.dtype:
        return None
    itemsize = target.dtype.bitwidth // 8
    width = lanes(itemsize)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, t, to_row, origin, s, origin_row = arguments
        emit = Emitter(builder, itemsize)
        into = data_pointer(context, builder, target, to, t)
        start = data_pointer(context, builder, source, origin, s)
        rows = [
            emit.load(emit.at(start, builder.mul(origin_row, constant(i))), width)
            for i in range(width)
        ]
        step = 1
        while step < width:
            exchanged = list(rows)
            for i in range(width):
                if i & step:
                    continue
                a, b = rows[i], rows[i | step]
                low = [j if not j & step else width + (j ^ step) for j in range(width)]
                high = [(j | step) if not j & step else width + j for j in range(width)]
                exchanged[i] = emit.select_lanes(a, b, low)
                exchanged[i | step] = emit.select_lanes(a, b, high)
            rows = exchanged
            step *= 2
        for j in range(width):
            emit.store(rows[j], emit.at(into, builder.mul(to_row, constant(j))), width)
        return context.get_dummy_value()

    i = types.intp
    return types.void(target, i, i, source, i, i), generate


if JIT_DISABLED:

    def row_of(matrix: Any, i: int) -> Any:
        """Return a row."""
        return matrix[i]

    def view(array: Any, start: int, size: int) -> Any:
        """Return a slice."""
        return array.reshape(-1)[start : start + size]

    def view_at(like: Any, address: int, size: int) -> Any:
        """Return the array."""
        memory = (ctypes.c_byte * (int(size) * like.itemsize)).from_address(int(address))
        return np.frombuffer(memory, like.dtype)

    def address_of(array: Any, offset: int) -> int:
        """Return the address."""
        return int(array.ctypes.data) + offset * array.itemsize

    def _nonzero_bits(array: Any, start: int) -> int:
        """Return the mask, in NumPy."""
        return _mask(sum(1 << int(j) for j in np.flatnonzero(array[start : start + MASK_BITS])))

    def _mask(bits: int) -> int:
        """Return bits as the signed number of 64 bits that they are in compiled code."""
        return (int(bits) + (1 << 63)) % (1 << 64) - (1 << 63)

    def lowest_bit(bits: int) -> int:
        """Return the place of the lowest bit that is 1."""
        return (int(bits) & -int(bits)).bit_length() - 1

    def without_lowest_bit(bits: int) -> int:
        """Return a mask without the lowest bit that is 1."""
        return _mask(int(bits) & (int(bits) - 1))

    def bit(place: int) -> int:
        """Return the mask of one bit."""
        return _mask(1 << int(place))

    def low_bits(count: int) -> int:
        """Return the mask of the lowest bits."""
        return (1 << int(count)) - 1

    def transpose_bits(masks: Any, start: int) -> None:
        """Transpose the bits, as a matrix of them, on a processor whose lowest byte comes first."""
        square = masks[start : start + MASK_BITS]
        bits = np.unpackbits(
            square.view(np.uint8).reshape(MASK_BITS, -1), axis=1, bitorder="little"
        )
        turned = np.packbits(np.ascontiguousarray(bits.T), axis=1, bitorder="little")
        square[:] = np.ascontiguousarray(turned).view(np.int64).reshape(-1)

    def for_bytes(like: Any, these: Any, others: Any) -> Any:
        """Return what is asked for."""
        return these if isinstance(like, np.uint8) else others

    def prefetch(address: int) -> None:
        """Do nothing: there is no compiled code to be in time for."""

    def transpose_block(
        target: Any, t: int, target_row: int, source: Any, s: int, source_row: int
    ) -> None:
        """Transpose a square, element by element."""
        width = lanes(target.itemsize)
        for i in range(width):
            for j in range(width):
                target[t + j * target_row + i] = source[s + i * source_row + j]
