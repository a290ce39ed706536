"""Calls that compiled code makes: of a kernel at its address, and of loops kept in one piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types


def call_at(*given: Any) -> Any:
    """Return types and writer of a call at an address; the caller keeps its arrays meanwhile."""
    inputs = tuple(types.intp if isinstance(kind, types.Integer) else kind for kind in given)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = context.call_conv.get_function_type(types.none, inputs)
        pointer = builder.inttoptr(arguments[0], function.as_pointer())
        status, _ = context.call_conv.call_function(
            builder, pointer, types.none, inputs, list(arguments[1:])
        )
        with builder.if_then(status.is_error, likely=False):  # where bounds are checked
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.none(types.intp, *inputs), generate


def call_apart(builder: Any, name: str, given: list[Any], write: Callable[..., None]) -> None:
    """Put loops into a function of their own, and call it; ``write`` gets a builder and arguments.

    So that they have the registers to themselves: within a kernel, which has dozens of arrays, they
    read three addresses from memory again for each number.
    """
    kind = ir.FunctionType(ir.VoidType(), [value.type for value in given])
    function = ir.Function(builder.module, kind, builder.module.get_unique_name(name))
    function.linkage = "internal"
    function.attributes.add("noinline")
    own = ir.IRBuilder(function.append_basic_block("entry"))
    write(own, *function.args)
    own.ret_void()
    builder.call(function, given)
