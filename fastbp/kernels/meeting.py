"""Where threads meet: one waits for the others before it goes on.

The threads of a training step meet two or three times in it, in 50 us.  A parallel loop of Numba
that ends and begins anew takes 1 us for that, and 4 where the cores have no cache in common; a
meeting takes what a cache line needs from core to core and back, 0.1 and 0.3 us.  So the threads
are started once for many steps, and meet by themselves.

They *disseminate*: in each round everybody tells one of the others, twice as far away as in the
round before, that it is here, and waits for the one who tells it.  After one round of two threads,
three rounds of eight, everybody knows of everybody.  In a round nobody writes where anybody else
does.  (Hensgen, Finkel, Manber: Two algorithms for barrier synchronization, 1988.)

Who waits for a thread that does not run waits for ever.  That is why they first come together
(:func:`all_come`); if one does not come, all of them leave.

The array of a meeting has ``room_to_meet`` int64, from a cache line on: zeros, and at ``YIELD`` the
address of the system's function to give up the core, or 0.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, types

from .jit import JIT_DISABLED, intrinsic, part
from .simd import INT32, constant, data_pointer

# Looks at a flag until others may have the core, 20 us or so: it takes turns with whom it waits
# for, where there are more threads than cores.
LOOKS = 1_000
# Looks until who has not come will not come: some milliseconds, in which a core would wake up; and
# after how many others may have the core, which a busy one takes for milliseconds.
LOOKS_AT_FIRST, LOOKS_A_TURN = 100_000, 5_000
# Places in the array of a meeting, cache lines apart: how to give up the core, how many have come,
# and for each round and thread how often it was told.
WORDS = 8
YIELD, COME, TOLD = 0, WORDS, 2 * WORDS
# What tells a processor that it is waiting: LLVM's functions, and what they take.
PAUSES: dict[str, tuple[Any, ...]] = {
    "x86_64": ("llvm.x86.sse2.pause",),
    "aarch64": ("llvm.aarch64.hint", 1),
    "arm64": ("llvm.aarch64.hint", 1),
}
# Of additions and comparisons where nothing is compiled.
_lock = threading.Lock()
NOBODY = -(2**32)  # has come: who comes now is too late


def room_to_meet(threads: int) -> int:
    """Return how many int64 so many threads need to meet."""
    rounds = (threads - 1).bit_length()
    return TOLD + rounds * threads * WORDS


def _place(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Return the address of the number that an intrinsic of an array and a place is about."""
    return data_pointer(context, builder, signature.args[0], *arguments[:2])


@intrinsic
def _look(typing: Any, numbers: Any, place: Any) -> Any:
    """Read a number that another thread writes; what it wrote before is then there, too."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _place(context, builder, signature, arguments)
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(numbers, types.intp), generate


@intrinsic
def _tell(typing: Any, numbers: Any, place: Any, value: Any) -> Any:
    """Write a number that another thread waits for, after all that was written before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _place(context, builder, signature, arguments)
        builder.store_atomic(arguments[2], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(numbers, types.intp, types.int64), generate


@intrinsic
def _add_one(typing: Any, numbers: Any, place: Any) -> Any:
    """Add 1 to a number that others add to at the same time; returns the sum."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _place(context, builder, signature, arguments)
        before = builder.atomic_rmw("add", pointer, constant(1), "acq_rel")
        return builder.add(before, constant(1))

    return types.int64(numbers, types.intp), generate


@intrinsic
def _replace(typing: Any, numbers: Any, place: Any, expected: Any, value: Any) -> Any:
    """Write a number if what is there is the expected one; returns whether it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _place(context, builder, signature, arguments)
        done = builder.cmpxchg(pointer, *arguments[2:], "acq_rel", "acquire")
        return builder.extract_value(done, 1)

    return types.boolean(numbers, types.intp, types.int64, types.int64), generate


@intrinsic
def _pause(typing: Any, function: Any) -> Any:
    """Wait some cycles; or, if a function's address is given, call it to give up the core."""
    machine = llvm.get_default_triple().partition("-")[0]
    name, *hint = PAUSES.get(machine, ("llvm.donothing",))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (address,) = arguments
        with builder.if_else(builder.icmp_signed("!=", address, constant(0))) as (given, none):
            with given:
                kind = ir.FunctionType(ir.IntType(32), [])
                builder.call(builder.inttoptr(address, kind.as_pointer()), [])
            with none:
                kind = ir.FunctionType(ir.VoidType(), [INT32] * len(hint))
                pause = cgutils.get_or_insert_function(builder.module, kind, name)
                builder.call(pause, [ir.Constant(INT32, number) for number in hint])
        return context.get_dummy_value()

    return types.void(types.intp), generate


if JIT_DISABLED:  # one Python thread at a time, and no order to mind

    def _look(numbers: Any, place: int) -> int:
        """Return a number that another thread writes."""
        return int(numbers[place])

    def _tell(numbers: Any, place: int, value: int) -> None:
        """Write a number that another thread waits for."""
        numbers[place] = value

    def _add_one(numbers: Any, place: int) -> int:
        """Add 1 to a number; returns the sum."""
        with _lock:
            numbers[place] += 1
            return int(numbers[place])

    def _replace(numbers: Any, place: int, expected: int, value: int) -> bool:
        """Write a number if what is there is the expected one; returns whether it was."""
        with _lock:
            found = int(numbers[place]) == expected
            if found:
                numbers[place] = value
        return found

    def _pause(function: int) -> None:
        """Let another thread run."""
        time.sleep(0)


@part
def all_come(meeting: Any, threads: int) -> bool:
    """Return whether all threads come, the same to all of them: or nobody is to wait for anybody.

    They do not where one works off what was meant for two.
    """
    come = _add_one(meeting, COME)
    looks = 0
    while 0 < come < threads:
        looks += 1
        if looks > LOOKS_AT_FIRST and _replace(meeting, COME, come, NOBODY):
            return False
        _pause(meeting[YIELD] if looks % LOOKS_A_TURN == LOOKS else 0)
        come = _look(meeting, COME)
    return come > 0


@part
def meet(meeting: Any, thread: int, threads: int, times: int) -> None:
    """Wait until all threads are here for the ``times``-th time."""
    far, told = 1, TOLD
    while far < threads:
        _tell(meeting, told + (thread + far) % threads * WORDS, times)
        looks = 0
        while _look(meeting, told + thread * WORDS) < times:
            looks += 1
            _pause(meeting[YIELD] if looks > LOOKS else 0)
        far, told = 2 * far, told + threads * WORDS
