"""The compile policy: flags, signatures and the cache on disk, on one page.

This is the only module that imports Numba's decorators.  ``kernel`` compiles a function the first
time it is called, keeps the machine code in the user's cache folder, and notes the signature the
kernel is meant for, so that ``fastbp warmup`` can compile everything beforehand and a test can see
that nothing else was ever compiled.

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
import contextlib
import functools
import hashlib
import os
import re
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.registry import cpu_target
from numba.extending import intrinsic as _numba_intrinsic
from numba.extending import overload

import fastbp

from .._folders import user_cache_dir

Function = TypeVar("Function", bound=Callable[..., Any])

prange = numba.prange

# Never fastmath=True: NaN and infinity must come out as they went in.  "contract" lets a * b + c
# become one instruction, "reassoc" lets sums run in vector lanes, "nsz" ignores the sign of zero.
SUM_FLAGS = frozenset({"contract", "reassoc", "nsz"})
# Without "reassoc", which would fold the two-part ln 2 of an exponential into one (210 ULP wrong).
EXACT_FLAGS = frozenset({"contract", "nsz"})

JIT_DISABLED = bool(numba.config.DISABLE_JIT)

# (compiled function, its signature with T for the floating point type, the named tuples in it), in
# order of definition.
KERNELS: list[tuple[Any, str, dict[str, Any]]] = []


def kernel(
    signature: str,
    flags: frozenset[str] = SUM_FLAGS,
    tuples: tuple[type, ...] = (),
    parallel: bool = False,
) -> Callable[[Function], Function]:
    """Compile a function on its first call, for float32 and float64 arrays.

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

    Returns
    -------
    callable
        The decorator.
    """

    def decorate(function: Function) -> Function:
        options = {"nogil": True, "error_model": "numpy", "fastmath": set(flags)}
        compiled = numba.njit(function, parallel=parallel, **options)
        if not JIT_DISABLED:
            if cache_folder() is not None:
                compiled._cache = _KernelCache(function, parallel)
            named = {t.__name__: functools.partial(_tuple_type, t) for t in tuples}
            KERNELS.append((compiled, signature, named))
        return compiled

    return decorate


def part(function: Callable[..., Any]) -> Any:
    """Compile a piece that several kernels share; LLVM inlines it into each of them."""
    # No entry points from Python and C: nobody calls a piece, and each would take compile time.
    wrappers = {} if JIT_DISABLED else {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return numba.njit(
        function, nogil=True, error_model="numpy", fastmath=set(SUM_FLAGS), **wrappers
    )


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a piece as part of its only caller: by itself it would be compiled once more."""
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


@functools.cache
def has_fast_threads() -> bool:
    """Whether Numba has a threading layer that can serve the compiled loop.

    Its own "workqueue" takes 80 us to start a region, where OpenMP and TBB take one, and aborts
    the process when two Python threads use it at once.
    """
    if JIT_DISABLED:
        return False
    try:
        numba.get_num_threads()  # starts the layer, so that Numba knows which one it took
        return numba.threading_layer() in ("omp", "tbb")
    except ValueError:  # the layer somebody asked for is not here
        return False


@contextlib.contextmanager
def on_threads(n: int) -> Iterator[None]:
    """Run parallel kernels on n threads within a block; every Python thread has its own number."""
    before = numba.get_num_threads()
    numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(before)


def address(compiled: Any, *arguments: Any) -> int:
    """Compile a kernel for arguments like these, or load it; returns where its code begins."""
    if JIT_DISABLED:
        return 0
    signature = tuple(numba.typeof(a) for a in arguments)
    compiled.compile(signature)
    code = compiled.overloads[signature]
    return int(code.library.get_pointer_to_function(code.fndesc.llvm_func_name))


def compile_all() -> Iterator[str]:
    """Compile every imported kernel for float32 and float64, or load it from the cache.

    Yields
    ------
    str
        The name of each kernel and type once it is ready; there are ``count_all()``.
    """
    for compiled, template, tuples in KERNELS:
        for name in _types_of(template):
            names = {**vars(numba.types), **tuples, "T": getattr(numba.types, name)}
            signature = ast.parse(f"({template},)", mode="eval")  # may have several lines
            compiled.compile(_types(signature.body, names))
            yield f"{compiled.__name__} {name}"


def count_all() -> int:
    """Return the number of kernels, each type counted."""
    return sum(len(_types_of(template)) for _, template, _ in KERNELS)


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


@functools.cache
def cache_folder() -> Path | None:
    """Return the folder of the compiled code of exactly these sources, or None where there is none.

    The folder is the user's own and nobody else may write to it: what lies there is run as code.
    Its name holds the version and a digest of all kernel sources, because Numba's own cache does
    not notice a change in a file from which a kernel inlines.
    """
    if os.environ.get("FASTBP_CACHE") == "0":
        return None
    try:
        chosen = os.environ.get("FASTBP_CACHE_DIR")
        base = Path(chosen) if chosen else user_cache_dir() / "kernels"
        # Code with bounds checks is other code from the same sources.
        checked = "-boundscheck" if numba.config.BOUNDSCHECK else ""
        folder = base.absolute() / f"{fastbp.__version__}-{_source_digest()}{checked}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_private(folder)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError) as error:
        _warn_uncached(error)
        return None
    return folder


def _source_digest() -> str:
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _require_private(folder: Path) -> None:
    if not hasattr(os, "getuid"):  # Windows: the profile folder is the user's own
        return
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{folder} can be written by somebody else")


@functools.cache
def _warn_once(reason: str) -> None:
    warnings.warn(
        f"fastbp compiles in memory, anew in every process: {reason}.  FASTBP_CACHE_DIR names "
        "another folder, FASTBP_CACHE=0 turns the cache off without this message.",
        RuntimeWarning,
        stacklevel=2,
    )


def _warn_uncached(error: Exception) -> None:
    _warn_once(str(error))


class _Locator(_CacheLocator):  # type: ignore[misc]
    """Tells Numba's cache to use our folder, whose name already stands for the sources."""

    parallel = False

    def __init__(self, function: Callable[..., Any], source: str) -> None:
        self._line = function.__code__.co_firstlineno

    @classmethod
    def from_function(cls, function: Callable[..., Any], source: str) -> _Locator:
        return cls(function, source)

    def get_cache_path(self) -> str:
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        return fastbp.__version__

    def get_disambiguator(self) -> str:
        return f"{self._line}p" if self.parallel else str(self._line)


class _ParallelLocator(_Locator):
    """The same function compiled with threads is other code."""

    parallel = True


class _KernelCacheImpl(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = [_Locator]  # noqa: RUF012 - Numba's name and type


class _ParallelCacheImpl(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = [_ParallelLocator]  # noqa: RUF012


class _KernelCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache; a file that cannot be read or written costs time, never the result."""

    def __init__(self, function: Callable[..., Any], parallel: bool) -> None:
        self._impl_class = _ParallelCacheImpl if parallel else _KernelCacheImpl
        super().__init__(function)

    def load_overload(self, signature: Any, context: Any) -> Any:
        try:
            return super().load_overload(signature, context)
        except Exception:
            with contextlib.suppress(OSError):
                self.flush()  # an empty index: what is compiled now can be saved
            return None

    def save_overload(self, signature: Any, data: Any) -> None:
        try:
            super().save_overload(signature, data)
        except OSError as error:
            _warn_uncached(error)
