"""What the loop is told, left in memory: threads, and kernels within it, get its address."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from .jit import JIT_DISABLED, intrinsic, kernel, types_in
from .record import PLACE, Record, leave, places_of, read
from .simd import address_of, constant, data_pointer
from .tables import STEP, TUPLES

# Numbers and addresses there are, at most.
ROOM = 512


@intrinsic
def _leave_all(typing: Any, memory: Any, net: Any, data: Any, rule: Any, rows: Any) -> Any:
    """Write arguments to memory; whoever calls keeps their arrays alive."""
    given = (net, data, rule, rows)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = data_pointer(context, builder, memory, arguments[0], constant(0))
        place = 0
        for value in arguments[1:]:
            leave(builder, value, pointer, place)
            place += places_of(value.type)
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

    The first two, most of all that is left, as records.  ``one`` is any number of the network's
    type.
    """
    net, data, rule, rows = types_in(STEP, one, TUPLES)
    kind = types.Tuple((Record(net), Record(data), rule, rows))  # type: ignore[attr-defined]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, place = ir.Constant(context.get_value_type(kind), ir.Undefined), 0
        for i, left in enumerate((net, data, rule, rows)):
            value_type = context.get_value_type(left)
            if isinstance(kind[i], Record):
                value = builder.add(arguments[0], constant(PLACE * place))
            else:
                value = read(builder, value_type, arguments[0], place)
            result = builder.insert_value(result, value, i)
            place += places_of(value_type)
        return result

    return kind(types.intp, one), generate


if JIT_DISABLED:

    def leave_arguments(memory: Any, net: Any, data: Any, rule: Any, rows: Any) -> Any:
        """Return the arguments, where nothing is compiled."""
        return net, data, rule, rows

    def arguments_at(address: Any, one: Any) -> Any:
        """Return the arguments."""
        return address
