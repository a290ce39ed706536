"""Records: NamedTuples left in memory, of which compiled code reads the fields it asks for.

Numba hands a tuple on field by field, an array as seven numbers or nine: of all that the loop is
told over 200, taken apart and put together again at each call of a part.  Of a record it hands on
the address.  The loop compiles in a tenth less time by that, and a step of 10 us takes 9.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, models, register_model

from .simd import INT64, constant

PLACE = 8  # bytes of a place, which has one number or address


class Record(types.Type):
    """Numba's type of a record: compiled code reads its fields as those of the NamedTuple.

    Parameters
    ----------
    kind : numba.types.NamedTuple
        What was left in memory.
    """

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        super().__init__(name=f"Record({kind})")

    def field(self, name: str) -> Any:
        """Return the type of a field."""
        return self.kind[self.kind.fields.index(name)]


@register_model(Record)
class _AsAddress(models.PrimitiveModel):  # type: ignore[misc]
    """A record is its address."""

    def __init__(self, manager: Any, record: Record) -> None:
        super().__init__(manager, record, INT64)


@infer_getattr
class _Fields(AttributeTemplate):  # type: ignore[misc]
    """What compiled code may ask a record for."""

    key = Record

    def generic_resolve(self, record: Record, name: str) -> Any:
        """Return the type of a field, or None where there is none of the name."""
        return record.field(name) if name in record.kind.fields else None


@lower_getattr_generic(Record)  # type: ignore[untyped-decorator]
def _read_field(context: Any, builder: Any, record: Record, address: Any, name: str) -> Any:
    """Write the code that reads a field."""
    before = record.kind.types[: record.kind.fields.index(name)]
    place = sum(places_of(context.get_value_type(kind)) for kind in before)
    return read(builder, context.get_value_type(record.field(name)), address, place)


def places_of(kind: Any) -> int:
    """Return how many places a value of one of LLVM's types takes."""
    if isinstance(kind, ir.LiteralStructType | ir.ArrayType):
        return sum(places_of(member) for member in _members(kind))
    return 1


def leave(builder: Any, value: Any, pointer: Any, place: int) -> None:
    """Write a value to memory, each of its numbers and addresses to a place of its own."""
    if isinstance(value.type, ir.LiteralStructType | ir.ArrayType):
        for i, member in enumerate(_members(value.type)):
            leave(builder, builder.extract_value(value, i), pointer, place)
            place += places_of(member)
        return
    there = builder.bitcast(builder.gep(pointer, [constant(place)]), value.type.as_pointer())
    builder.store(value, there)


def read(builder: Any, kind: Any, address: Any, place: int) -> Any:
    """Read a value that was left in memory."""
    if isinstance(kind, ir.LiteralStructType | ir.ArrayType):
        value = ir.Constant(kind, ir.Undefined)
        for i, member in enumerate(_members(kind)):
            value = builder.insert_value(value, read(builder, member, address, place), i)
            place += places_of(member)
        return value
    there = builder.inttoptr(builder.add(address, constant(PLACE * place)), kind.as_pointer())
    number = builder.load(there)
    # Nobody writes there: what is read once need not be read again after a store to elsewhere.
    number.set_metadata("invariant.load", builder.module.add_metadata([]))
    return number


def _members(kind: Any) -> list[Any]:
    """Return the types of the members of a struct or an array, one for each."""
    if isinstance(kind, ir.LiteralStructType):
        return list(kind.elements)
    return [kind.element] * len(kind)
