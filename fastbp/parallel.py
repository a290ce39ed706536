"""Kernels of single layers on several threads, where that is quicker.

The layers call :func:`divided` for arrays above a size, and their kernel itself below.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import threading
import time
from typing import Any

import numpy as np

from . import threads as _threads
from ._arrays import Array
from .kernels import jit, parts
from .pace import Pace

__all__ = ["as_columns", "divided", "part_edges"]

# Parts of a column begin at a multiple of so many numbers.
QUANTUM = 64


def as_columns(*arrays: Array) -> tuple[Array, ...]:
    """Return C-contiguous arrays of any shape as columns, which can be divided anywhere."""
    return tuple(array.reshape(-1, 1) for array in arrays)


@functools.lru_cache(maxsize=64)  # takes a microsecond
def part_edges(rows: int, count: int, quantum: int = 1) -> tuple[int, ...]:
    """Return where so many parts of some rows begin, and where the last one ends.

    Each but the last has a multiple of ``quantum`` rows; with few rows, some have none.
    """
    groups = -(-rows // quantum)
    return tuple(min(rows, groups * i // count * quantum) for i in range(count + 1))


def divided(kernel: Any, *arrays: Array, number: float | None = None,
            edges: tuple[int, ...] | None = None) -> list[float]:  # fmt: skip
    """Call a kernel for all rows of some arrays, on one thread or several.

    Parameters
    ----------
    kernel : compiled kernel
        Treats each row by itself.
    *arrays : C-contiguous arrays with the same number of rows
        As the kernel takes them.
    number : float, optional
        The kernel's last argument.
    edges : tuple of int, optional
        Where the parts begin, and where the last one ends; by default, a part for each thread.

    Returns
    -------
    list of float
        What the kernel returns for each part, where it returns a number.
    """
    most = _threads.compiled_threads()
    if most == 1 or not _threads.can_run_parallel():
        return _on_one(kernel, arrays, number, edges)
    if _threads.is_fixed():
        return _on_threads(most, kernel, arrays, number, edges)
    first = arrays[0]
    key = kernel.__name__, first.dtype.char, first.size.bit_length(), most
    pace = _paces.get(key)
    if pace is None:
        # Now, so that no time to learn from has a compilation in it.
        _load(kernel, arrays, number)
        pace = _paces.setdefault(key, Pace(most, fixed=False))
    with _lock:  # several Python threads may learn from one another
        threads = pace.threads
    if threads > 1:
        _load_shell()
    begin = time.perf_counter()
    if threads == 1:
        results = _on_one(kernel, arrays, number, edges)
    else:
        results = _on_threads(threads, kernel, arrays, number, edges)
    seconds = time.perf_counter() - begin
    with _lock:
        pace.learn(threads, seconds)
    return results


def _on_one(
    kernel: Any, arrays: tuple[Array, ...], number: float | None, edges: tuple[int, ...] | None
) -> list[float]:
    """Call the kernel for each part, one after the other."""
    last = () if number is None else (number,)
    if edges is None:
        return [kernel(*arrays, *last)]
    return [
        kernel(*(array[start:stop] for array in arrays), *last)
        for start, stop in itertools.pairwise(edges)
    ]


def _on_threads(
    threads: int, kernel: Any, arrays: tuple[Array, ...], number: float | None,
    edges: tuple[int, ...] | None,
) -> list[float]:  # fmt: skip
    """Call the kernel's compiled code for each part, on several threads."""
    rows = len(arrays[0])
    if edges is None:
        edges = part_edges(rows, threads, QUANTUM if arrays[0].shape[1] == 1 else 1)
    code, form = _load(kernel, arrays, number)
    table = np.array([(_address(a), a.size // rows, a.itemsize) for a in arrays], np.int64)
    results = np.empty(len(edges) - 1)
    with jit.on_threads(threads):
        parts.run_parts(results, code, form, table, np.array(edges, np.int64), number or 0.0)
    return results.tolist()


def _address(array: Array) -> int:
    """Return where a writable array begins, in 0.3 us; ``array.ctypes.data`` takes 1."""
    return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]


def _load(kernel: Any, arrays: tuple[Array, ...], number: float | None) -> tuple[int, int]:
    """Compile or load a kernel for arrays like these; returns its address and form."""
    key = kernel.__name__, arrays[0].dtype.char
    if key not in _codes:
        last = () if number is None else (number,)
        code = jit.address(kernel, *arrays, *last)
        _codes[key] = code, parts.form_of(kernel.nopython_signatures[0])
    return _codes[key]


@functools.cache
def _load_shell() -> None:
    """Compile or load the parallel shell."""
    nothing = np.empty(0, np.int64)
    parts.run_parts(np.empty(0), 0, 0, nothing.reshape(0, 3), nothing, 0.0)


_lock = threading.Lock()
_paces: dict[tuple[str, str, int, int], Pace] = {}
# Addresses and forms of the kernels that are loaded, by name and type.
_codes: dict[tuple[str, str], tuple[int, int]] = {}
