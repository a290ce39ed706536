"""What the loop is told, left in memory: threads get its address instead of all of its arrays.

Numba copies every field of every array for each of its threads, each time it starts them: 0.4 us.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from .jit import JIT_DISABLED, intrinsic, kernel, types_in
from .simd import address_of, constant, data_pointer
from .tables import STEP, TUPLES

# Numbers of 8 bytes there are, at most.
ROOM = 512


def _leave(builder: Any, value: Any, pointer: Any, place: int) -> int:
    """Write a value to memory, each of its numbers and addresses to a place of 8 bytes.

    Returns the place behind them.
    """
    if isinstance(value.type, ir.LiteralStructType | ir.ArrayType):
        for i in range(len(value.type)):
            place = _leave(builder, builder.extract_value(value, i), pointer, place)
        return place
    there = builder.bitcast(builder.gep(pointer, [constant(place)]), value.type.as_pointer())
    builder.store(value, there)
    return place + 1


def _find(builder: Any, kind: Any, pointer: Any, place: int) -> tuple[Any, int]:
    """Read a value that was left in memory; returns it and the place behind."""
    if isinstance(kind, ir.LiteralStructType | ir.ArrayType):
        value = ir.Constant(kind, ir.Undefined)
        for i in range(len(kind)):
            member = kind.elements[i] if isinstance(kind, ir.LiteralStructType) else kind.element
            found, place = _find(builder, member, pointer, place)
            value = builder.insert_value(value, found, i)
        return value, place
    there = builder.bitcast(builder.gep(pointer, [constant(place)]), kind.as_pointer())
    return builder.load(there), place + 1


@intrinsic
def _leave_all(typing: Any, memory: Any, net: Any, data: Any, rule: Any, rows: Any) -> Any:
    """Write arguments to memory; whoever calls keeps their arrays alive."""
    given = (net, data, rule, rows)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = data_pointer(context, builder, memory, arguments[0], constant(0))
        place = 0
        for value in arguments[1:]:
            place = _leave(builder, value, pointer, place)
        assert place <= ROOM, place  # noqa: S101 - while this is compiled
        return context.get_dummy_value()

    return types.void(memory, *given), generate


@kernel(f"int64[::1], {STEP}", tuples=TUPLES)
def leave_arguments(memory: Any, net: Any, data: Any, rule: Any, rows: Any) -> Any:
    """Leave the arguments of the loop in memory, ROOM int64; returns where that is."""
    _leave_all(memory, net, data, rule, rows)
    return address_of(memory, 0)


@intrinsic
def arguments_at(typing: Any, address: Any, one: Any) -> Any:
    """Return the arguments that were left at an address: net, data, rule and rows.

    ``one`` is any number of the network's type.
    """
    kind = types.Tuple(types_in(STEP, one, TUPLES))  # type: ignore[attr-defined]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return _find(builder, context.get_value_type(kind), pointer, 0)[0]

    return kind(types.intp, one), generate


if JIT_DISABLED:

    def leave_arguments(memory: Any, net: Any, data: Any, rule: Any, rows: Any) -> Any:
        """Return the arguments, where nothing is compiled."""
        return net, data, rule, rows

    def arguments_at(address: Any, one: Any) -> Any:
        """Return the arguments."""
        return address
