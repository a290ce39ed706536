"""Kernels of single layers on several threads, where that is quicker.

The layers call these functions for arrays above a size, and their kernels themselves below.
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
from ._arrays import Array, as_matrices
from .kernels import jit, shell
from .kernels.simd import MASK_BITS
from .pace import Pace

__all__ = ["over_elements", "over_rows", "slice_edges"]

# Elements are divided in rows of so many: those whose bits are one number of a mask.
QUANTUM = MASK_BITS
# Of the time of all calls, trials of the number of threads that was slower take so much at most.
TRIALS_SHARE = 0.05


def over_elements(kernel: Any, *arrays: Array) -> None:
    """Call an element-wise kernel for all of some arrays, on one thread or several.

    Parameters
    ----------
    kernel : compiled kernel
        Treats each element by itself.
    *arrays : C-contiguous arrays of one size, at least 1, or masks with a bit for each element
        Of the types and in the order the kernel takes, of any shape.
    """
    _run(kernel, arrays, arrays[0].size, None, None)


def over_rows(
    kernel: Any, *arrays: Array, number: float | None = None, edges: tuple[int, ...] | None = None
) -> list[float]:
    """Call a kernel for all rows of some arrays, on one thread or several.

    Parameters
    ----------
    kernel : compiled kernel
        Treats each row by itself.
    *arrays : C-contiguous arrays with the same number of rows, at least 1
        As the kernel takes them.
    number : float, optional
        The kernel's last argument.
    edges : tuple of int, optional
        Where the slices begin, and where the last one ends; by default there is one for each
        thread.

    Returns
    -------
    list of float
        What the kernel returns for each slice, if it returns numbers.
    """
    return _run(kernel, arrays, 0, number, edges)


@functools.lru_cache(maxsize=64)  # takes a microsecond
def slice_edges(rows: int, count: int) -> tuple[int, ...]:
    """Return where so many slices of some rows begin, and where the last one ends.

    With few rows, some have none.
    """
    return tuple(rows * i // count for i in range(count + 1))


def _run(
    kernel: Any, arrays: tuple[Array, ...], elements: int, number: float | None,
    edges: tuple[int, ...] | None,
) -> list[float]:  # fmt: skip
    """Call a kernel on as many threads as are allowed and seem quickest.

    Parameters
    ----------
    elements : int
        How many there are, where these are divided; 0 where rows are.
    """
    most = min(_threads.compiled_threads(), jit.MAX_THREADS)
    if most == 1 or not _threads.can_run_parallel():
        return _on_one(kernel, arrays, elements, number, edges)
    if _threads.is_fixed():
        return _on_threads(most, kernel, arrays, elements, number, edges)
    first = arrays[0]
    key = kernel.__name__, first.dtype.char, first.size.bit_length(), most
    pace = _paces.get(key)
    if pace is None:
        # On no rows: no time to learn from has a compilation in it, or the start of threads.
        _on_threads(most, kernel, arrays, elements, number, (0,) * (most + 1))
        pace = _paces.setdefault(key, Pace(most, fixed=False, share=TRIALS_SHARE))
    with _lock:  # several Python threads may learn from one another
        threads = pace.threads
    begin = time.perf_counter()
    if threads == 1:
        results = _on_one(kernel, arrays, elements, number, edges)
    else:
        results = _on_threads(threads, kernel, arrays, elements, number, edges)
    seconds = time.perf_counter() - begin
    with _lock:  # for each number: those of one pace differ by up to a factor of two
        pace.learn(threads, seconds / first.size)
    return results


def _on_one(
    kernel: Any, arrays: tuple[Array, ...], elements: int, number: float | None,
    edges: tuple[int, ...] | None,
) -> list[float]:  # fmt: skip
    """Call the kernel for each slice, one after the other."""
    if elements:
        arrays = as_matrices(*arrays)
    last = () if number is None else (number,)
    if edges is None:
        return [kernel(*arrays, *last)]
    return [
        kernel(*(array[start:stop] for array in arrays), *last)
        for start, stop in itertools.pairwise(edges)
    ]


def _on_threads(
    threads: int, kernel: Any, arrays: tuple[Array, ...], elements: int, number: float | None,
    edges: tuple[int, ...] | None,
) -> list[float]:  # fmt: skip
    """Call the kernel's compiled code for each slice, on several threads.

    Between two calls for big arrays nothing of this stays in a cache, and every microsecond here
    is three: what can be known beforehand is.
    """
    rows = elements // QUANTUM if elements else len(arrays[0])
    if edges is None:
        edges = slice_edges(rows, threads)
    code, form = _load(kernel, arrays, elements, number)
    first, second, *third = [_address(a) for a in arrays]
    sizes = tuple([a.size for a in arrays])
    layout, bounds = _layout(sizes, tuple([a.itemsize for a in arrays]), rows, elements, edges)
    results = np.empty(len(edges) - 1)
    shell.run_slices(
        results, code, form, first, second, third[0] if third else 0, layout, bounds,
        number or 0.0, min(threads, jit.MAX_THREADS),
    )  # fmt: skip
    if elements % QUANTUM:  # too few for a row
        columns = layout[:, shell.ITEMS].tolist()
        rest = (a.reshape(-1)[rows * n :] for a, n in zip(arrays, columns, strict=True))
        kernel(*as_matrices(*rest))
    return results.tolist()


@functools.lru_cache(maxsize=64)
def _layout(
    sizes: tuple[int, ...], itemsizes: tuple[int, ...], rows: int, elements: int,
    edges: tuple[int, ...],
) -> tuple[Array, Array]:  # fmt: skip
    """Return how arrays lie, and where the slices of their rows begin, as the shell takes them."""
    if elements:
        columns = [QUANTUM if size == elements else 1 for size in sizes]
    else:
        columns = [size // rows for size in sizes]
    layout = np.array(list(zip(columns, itemsizes, strict=True)), np.int64)
    return layout, np.array(edges, np.int64)


def _address(array: Array) -> int:
    """Return where an array begins, in 0.3 us; ``array.ctypes.data`` takes 1."""
    try:
        return _addressof(_from_buffer(array))  # type: ignore[arg-type]
    except TypeError:
        if not array.flags.c_contiguous:
            raise
        return array.ctypes.data  # only to be read: a result of a layer that its user has closed


def _load(
    kernel: Any, arrays: tuple[Array, ...], elements: int, number: float | None
) -> tuple[int, int]:
    """Compile or load a kernel for arrays like these; returns its address and form."""
    key = kernel.__name__, arrays[0].dtype.char
    if key not in _codes:
        like = as_matrices(*arrays) if elements else arrays
        code = jit.address(kernel, *like, *(() if number is None else (number,)))
        _codes[key] = code, shell.form_of(kernel.nopython_signatures[0])
    return _codes[key]


_addressof, _from_buffer = ctypes.addressof, ctypes.c_char.from_buffer
_lock = threading.Lock()
_paces: dict[tuple[str, str, int, int], Pace] = {}
# Addresses and forms of the kernels that are loaded, by name and type.
_codes: dict[tuple[str, str], tuple[int, int]] = {}
