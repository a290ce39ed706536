"""Kernels of layers on several threads: each slice is a call of the serial kernel for some rows.

One parallel shell serves all of them, for float32 and float64.  It is compiled once, and calls the
serial kernel's own machine code by its address: so a row has the same bits in any slice.

In compiled code an array is a row of numbers, whatever its type: who counts its references, its
size, where it lies, its shape and strides.  So one shell can call kernels for arrays of any type.
"""

from __future__ import annotations

import itertools
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from .jit import get_num_threads, intrinsic, kernel, prange, set_num_threads
from .simd import constant, data_pointer

# What kernels take and return: the axes of their arrays, whether a float64 follows, whether one
# comes back.
FORMS = (
    ((2, 2), False, False),  # sigmoid_forward, softmax_forward
    ((2, 2, 2), False, False),  # relu_forward, relu_backward, sigmoid_backward
    ((2, 2, 1), False, True),  # softmax_loss_forward
    ((2, 2, 2), False, True),  # softmax_loss_rows_forward
    ((2, 2, 1), True, False),  # softmax_loss_backward
    ((2, 2, 2), True, False),  # softmax_loss_rows_backward
)
# Columns of the layout of arrays: numbers a row, and bytes a number.
COLUMNS = 2
ITEMS, ITEMSIZE = range(COLUMNS)


def form_of(signature: Any) -> int:
    """Return the place in FORMS of a compiled kernel.

    Parameters
    ----------
    signature : Numba's Signature
        Contiguous arrays, and perhaps a float64 after them.

    Raises
    ------
    ValueError
        For a kernel that no form fits.
    """
    arrays = list(itertools.takewhile(lambda a: isinstance(a, types.Array), signature.args))
    rest, returned = signature.args[len(arrays) :], signature.return_type
    for place, (axes, takes, gives) in enumerate(FORMS):
        if (
            tuple(a.ndim for a in arrays) == axes
            and all(a.layout == "C" for a in arrays)
            and rest == (types.float64,) * takes
            and returned == (types.float64 if gives else types.none)
        ):
            return place
    raise ValueError(f"no form for a kernel with the signature {signature}")


def _rows(builder: Any, place: Any, layout: Any, axes: int, start: Any, rows: Any) -> list[Any]:
    """Return rows of an array as a compiled function takes it, in the order of Numba's fields."""
    items, itemsize = (builder.load(builder.gep(layout, [constant(j)])) for j in (ITEMS, ITEMSIZE))
    step = builder.mul(items, itemsize)
    place = builder.add(place, builder.mul(start, step))
    nobody = constant(0)  # counts references: the caller holds the array all the while
    size = builder.mul(rows, items)
    if axes == 1:
        return [nobody, nobody, size, itemsize, place, rows, step]
    return [nobody, nobody, size, itemsize, place, rows, items, step, itemsize]


@intrinsic
def _call(
    typing: Any, code: Any, form: Any, first: Any, second: Any, third: Any, layout: Any,
    start: Any, stop: Any, number: Any,
) -> Any:  # fmt: skip
    """Call the kernel at an address for some rows of arrays; returns what it does.

    The addresses go as integers, which every calling convention passes like pointers.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code, form, *places, layout_, start, stop, number = arguments
        rows = builder.sub(stop, start)
        result = cgutils.alloca_once_value(builder, ir.Constant(ir.DoubleType(), 0.0))
        for which, (axes, takes, gives) in enumerate(FORMS):
            with builder.if_then(builder.icmp_signed("==", form, constant(which))):
                words = []
                for k, n in enumerate(axes):
                    row = data_pointer(context, builder, layout, layout_, constant(COLUMNS * k))
                    words += _rows(builder, places[k], row, n, start, rows)
                inputs = (types.intp,) * len(words) + (types.float64,) * takes
                output = types.float64 if gives else types.none
                kind = context.call_conv.get_function_type(output, inputs)
                pointer = builder.inttoptr(code, kind.as_pointer())
                status, value = context.call_conv.call_function(
                    builder, pointer, output, inputs, words + [number] * takes
                )
                with builder.if_then(status.is_error, likely=False):  # where bounds are checked
                    context.call_conv.return_status_propagate(builder, status)
                if gives:
                    builder.store(value, result)
        return builder.load(result)

    i = types.intp
    return types.float64(i, i, i, i, i, layout, i, i, types.float64), generate


@kernel(
    "float64[::1], int64, int64, int64, int64, int64, int64[:, ::1], int64[::1], float64, int64",
    parallel=True,
)
def run_slices(
    results: Any, code: int, form: int, first: int, second: int, third: int, layout: Any,
    edges: Any, number: float, threads: int,
) -> None:  # fmt: skip
    """Call a kernel once for each slice, on several threads.

    Parameters
    ----------
    results : (P,) float64 - overwritten with what the kernel returned for each, 0 for nothing
    code : int - the address of the compiled kernel
    form : int - its place in FORMS
    first, second, third : int - where each array begins; 0 where there is no third
    layout : (K, 2) int64 - of each array: numbers a row, bytes a number
    edges : (P + 1,) int64 - the row where each slice begins, and where the last one ends
    number : float - the kernel's last argument, if its form has one
    threads : int - at most as many as Numba has
    """
    before = get_num_threads()
    set_num_threads(threads)
    for i in prange(results.size):
        start, stop = edges[i], edges[i + 1]
        results[i] = _call(code, form, first, second, third, layout, start, stop, number)
    set_num_threads(before)
