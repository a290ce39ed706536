"""The compile policy: flags, signatures and threads, on one page.

This is the only module that imports Numba's decorators.  ``kernel`` compiles a function the first
time it is called, has :mod:`fastbp.kernels.cache` keep the machine code, and notes the signature
the kernel is meant for, so that ``fastbp warmup`` can compile everything beforehand and a test can
see that nothing else was ever compiled.

Environment
-----------
FASTBP_CACHE
    ``0`` keeps compiled code in memory only.
FASTBP_CACHE_DIR
    The folder for compiled code, instead of ``kernels`` in the user's cache folder.
NUMBA_DISABLE_JIT
    ``1`` runs the kernels as plain Python: slow, but a debugger and a coverage tool can see them.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import event
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic as _numba_intrinsic
from numba.extending import overload
from numba.np.ufunc import parallel as _pool

from .._interrupt import Answered
from .cache import KernelCache, cache_folder
from .parts import KernelCompiler, PartCompiler

__all__ = [
    "EXACT_FLAGS",
    "JIT_DISABLED",
    "KERNELS",
    "MAX_THREADS",
    "NO_FLAGS",
    "SUM_FLAGS",
    "address",
    "cache_folder",
    "compile_all",
    "count_all",
    "get_num_threads",
    "has_fast_threads",
    "has_gil",
    "inlined",
    "intrinsic",
    "kernel",
    "part",
    "prange",
    "scalar_part",
    "set_num_threads",
    "target_features",
    "threading_layer",
    "types_in",
]

Function = TypeVar("Function", bound=Callable[..., Any])

prange = numba.prange

# Never fastmath=True: NaN and infinity must come out as they went in.  "contract" lets a * b + c
# become one instruction, "reassoc" lets sums run in vector lanes, "nsz" ignores the sign of zero.
SUM_FLAGS = frozenset({"contract", "reassoc", "nsz"})
# Without "reassoc", which would fold the two-part ln 2 of an exponential into one (210 ULP wrong).
EXACT_FLAGS = frozenset({"contract", "nsz"})
# Each operation by itself, as it is written: for kernels of which there are several copies.
NO_FLAGS: frozenset[str] = frozenset()

JIT_DISABLED = bool(numba.config.DISABLE_JIT)
MAX_THREADS = int(numba.config.NUMBA_NUM_THREADS)  # that Numba can have

# The kernels of this folder: (compiled function, its signature with T for the floating point type,
# the NamedTuple classes in it), in order of definition.
KERNELS: list[tuple[Any, str, tuple[type, ...]]] = []


def kernel(
    signature: str,
    flags: frozenset[str] = SUM_FLAGS,
    tuples: tuple[type, ...] = (),
    parallel: bool = False,
    by_address: bool = False,
) -> Callable[[Function], Function]:
    """Compile a function on its first call, for float32 and float64 arrays.

    References to arrays are not counted (``_nrt``): whoever calls a kernel has its arrays until it
    returns, and no kernel makes one.  Numba would count them in the middle of inner loops.

    Parameters
    ----------
    signature : str
        Numba argument types with ``T`` for the floating point type: ``"T[::1], b1[::1], T[::1]"``.
    flags : frozenset of str
        LLVM's floating point freedoms in this kernel.
    tuples : tuple of NamedTuple classes
        Those the signature names, as ``Name(types of its fields)``.
    parallel : bool
        Whether ``prange`` loops run on several threads.  Such a function is slow to compile: keep
        it a thin shell around serial parts.
    by_address : bool
        Whether compiled code alone calls it, at its ``address``: the entry from Python, which takes
        every field of a tuple apart, is left out.

    Returns
    -------
    callable
        The decorator.
    """

    def decorate(function: Function) -> Function:
        options = {"nogil": True, "error_model": "numpy", "fastmath": set(flags), "_nrt": False}
        options |= {"pipeline_class": KernelCompiler}
        if not JIT_DISABLED:  # without an entry from C, where nobody is
            options |= {"no_cfunc_wrapper": True, "no_cpython_wrapper": by_address}
        compiled = numba.njit(function, parallel=parallel, **options)
        # The cache knows the sources of this folder only; what stands elsewhere is compiled anew.
        if not JIT_DISABLED and function.__module__.startswith(f"{__package__}."):
            folder = cache_folder()
            if folder is not None:
                compiled._cache = KernelCache(function, parallel, folder)
            KERNELS.append((compiled, signature, tuples))
        return compiled

    return decorate


class _Compilations(event.Listener):  # type: ignore[misc]
    """Sees to it that Ctrl-C while a kernel is compiled is answered, and the kernel not kept."""

    def __init__(self) -> None:
        self._running: list[Answered] = []  # one within the other: there is a lock around all

    def on_start(self, event: Any) -> None:
        self._running.append(Answered())
        # Of everybody's code in this process; a lifted loop, for one, has no cache.
        dispatcher = (event.data or {}).get("dispatcher")
        if isinstance(getattr(dispatcher, "_cache", None), KernelCache):
            self._running[-1].__enter__()

    def on_end(self, event: Any) -> None:
        self._running.pop().__exit__()


event.register("numba:compile", _Compilations())


def part(function: Callable[..., Any]) -> Any:
    """Compile a piece that several kernels share; LLVM inlines it into each of them."""
    options: dict[str, Any] = {"pipeline_class": PartCompiler, "_nrt": False}
    if not JIT_DISABLED:  # no entry points from Python and C, and no machine code: nobody calls it
        options |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return numba.njit(function, nogil=True, error_model="numpy", fastmath=set(SUM_FLAGS), **options)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a piece as part of its callers: as one of its own it would be called, not inlined."""
    return numba.njit(function, inline="always")


def scalar_part(single: Function, double: Function) -> Function:
    """One function of a number made of two, for 32 and for 64 bits, for use inside kernels.

    Both are compiled with ``EXACT_FLAGS`` whatever the flags of the kernel they end up in.
    """

    def function(x: Any) -> Any:
        return (single if x.itemsize == 4 else double)(x)

    if not JIT_DISABLED:
        options = {"fastmath": set(EXACT_FLAGS), "error_model": "numpy"}

        @overload(function, jit_options=options)  # type: ignore[untyped-decorator]
        def choose(x: Any) -> Any:
            return single if x.bitwidth == 32 else double

    return function  # type: ignore[return-value]


def intrinsic(function: Callable[..., Any]) -> Any:
    """Make a function that writes LLVM code into a piece other compiled functions can call."""
    return _numba_intrinsic(function)


def target_features() -> frozenset[str]:
    """Return what the processor code is generated for can do, in LLVM's names: ``avx512f``."""
    text = cpu_target.target_context.codegen()._tm_features or ""
    return frozenset(feature[1:] for feature in text.split(",") if feature.startswith("+"))


def has_gil() -> bool:
    """Whether this Python runs one thread at a time, as all did before free threading."""
    return getattr(sys, "_is_gil_enabled", lambda: True)()


if not has_gil():
    warnings.warn(
        "fastbp has not been tested without Python's global interpreter lock; PYTHON_GIL=1 brings "
        "it back",
        RuntimeWarning,
        stacklevel=2,
    )

if hasattr(os, "register_at_fork"):
    # A child that is forked while another thread compiles would wait for that thread for ever: it
    # has the lock, and is not there.  So a fork waits until nobody compiles.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


# In the flags of /proc/self/stat: forked, and no other program started since.
_FORKED = 0x40


def _has_threads_of_a_parent() -> bool:
    """Whether Numba's threads may be those of a process from which this one was forked.

    OpenMP would kill the child at its first parallel region.  For forks before fastbp was loaded,
    of which nobody told it: another user of Numba may have started the threads.
    """
    if not _pool._is_initialized:
        return False
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return bool(int(fields[6]) & _FORKED)
    except (OSError, ValueError, IndexError):  # no Linux; other OpenMPs survive a fork
        return False


_inherited = _has_threads_of_a_parent()  # now, before fastbp starts threads of its own


@functools.cache
def has_fast_threads() -> bool:
    """Whether Numba has a threading layer that can serve the compiled loop.

    Its own "workqueue" takes 80 us to start a region, where OpenMP and TBB take one, and aborts
    the process when two Python threads use it at once.
    """
    return not _inherited and threading_layer() in ("omp", "tbb")


@functools.cache
def threading_layer() -> str | None:
    """Return the name of the threads Numba could start, or None."""
    if JIT_DISABLED:
        return None
    try:
        numba.get_num_threads()  # starts the layer, so that Numba knows which one it took
        return str(numba.threading_layer())
    except (ValueError, ImportError):  # the one NUMBA_THREADING_LAYER asks for is not here, or none
        return None


# Numba's own functions of these names, for parallel kernels: from Python they take a microsecond.
# The number is that of the Python thread that asks.
get_num_threads = numba.types.ExternalFunction("get_num_threads", numba.types.intp())
set_num_threads = numba.types.ExternalFunction(
    "set_num_threads", numba.types.void(numba.types.intc)
)


def address(compiled: Any, *arguments: Any) -> int:
    """Compile a kernel for arguments like these, or load it; returns where its code begins."""
    if JIT_DISABLED:
        return 0
    signature = tuple(numba.typeof(a) for a in arguments)
    ours = global_compiler_lock.is_locked()
    try:
        with global_compiler_lock:  # LLVM has a lock of its own, which no fork may find taken
            compiled.compile(signature)
            code = compiled.overloads[signature]
            return int(code.library.get_pointer_to_function(code.fndesc.llvm_func_name))
    except KeyboardInterrupt:
        # Ctrl-C between a lock that is taken and its block leaves it taken, and others waiting.
        while global_compiler_lock.is_locked() and not ours:
            global_compiler_lock.release()
        raise


def compile_all() -> Iterator[str]:
    """Compile every imported kernel for float32 and float64, or load it from the cache.

    Yields
    ------
    str
        The name of each kernel and type once it is ready; there are ``count_all()``.
    """
    for compiled, template, tuples in _compilable():
        for name in _types_of(template):
            compiled.compile(types_in(template, getattr(numba.types, name), tuples))
            yield f"{compiled.__name__} {name}"


def count_all() -> int:
    """Return the number of kernels, each type counted."""
    return sum(len(_types_of(template)) for _, template, _ in _compilable())


def _compilable() -> list[tuple[Any, str, tuple[type, ...]]]:
    """Return the kernels that can be compiled here: without threads, no parallel ones."""
    serial = threading_layer() is None
    return [k for k in KERNELS if not (serial and k[0].targetoptions.get("parallel"))]


def types_in(template: str, T: Any, tuples: tuple[type, ...]) -> Any:
    """Return the types a signature names, where T and the NamedTuple classes in it are these."""
    named = {kind.__name__: functools.partial(_tuple_type, kind) for kind in tuples}
    signature = ast.parse(f"({template},)", mode="eval")  # may have several lines
    return _types(signature.body, {**vars(numba.types), **named, "T": T})


def _types(node: ast.expr, names: dict[str, Any]) -> Any:
    """Return the types a signature names: names, calls, subscripts, and nothing else."""
    match node:
        case ast.Name(id=name):
            return names[name]
        case ast.Tuple(elts=parts):
            return tuple(_types(part, names) for part in parts)
        case ast.Call(func=called, args=arguments):
            return _types(called, names)(*(_types(argument, names) for argument in arguments))
        case ast.Subscript(value=value, slice=place):
            return _types(value, names)[_types(place, names)]
        case ast.Slice(lower=None, upper=None, step=step):
            return slice(None, None, None if step is None else _types(step, names))
        case ast.Constant(value=value):
            return value
    raise ValueError(f"a signature cannot have {ast.unparse(node)}")


def _tuple_type(kind: type, *fields: Any) -> Any:
    """Return Numba's type of a NamedTuple with fields of these types."""
    return numba.types.NamedTuple(fields, kind)


def _types_of(template: str) -> tuple[str, ...]:
    """Return what T stands for; a kernel without T needs compiling only once."""
    return ("float32", "float64") if re.search(r"\bT\b", template) else ("float64",)
