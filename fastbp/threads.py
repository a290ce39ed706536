"""How many threads fastbp computes with.

There are two pools: that of NumPy's BLAS, which multiplies the matrices of single layers, and
Numba's, for the compiled loop, and for activations and losses of big arrays.  The number set here
is that of both, for the whole process.  Unless one was set, compiled code finds out by itself how
many are fastest.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from typing import Any

import numpy as np  # also because threadpoolctl finds only libraries that are loaded
from threadpoolctl import ThreadpoolController

__all__ = ["get_num_threads", "set_num_threads"]


def available_cpus() -> int:
    """Return the number of CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_num_threads(n: int) -> None:
    """Compute with n threads from now on, in the whole process.

    The same can be had from the start with the environment variable ``FASTBP_NUM_THREADS``.  Other
    users of NumPy in the process are affected too; NumPy has one pool.  Apple's Accelerate has no
    such control and keeps choosing by itself.

    What the compiled loop computes (:func:`fastbp.fit` of fastbp's networks, and their ``gradient``
    from 16 examples on) has the same bits on any number of threads, and so have activations and
    losses.  A BLAS may add in another order on another number of threads: results of affine
    layers, and of networks that go layer by layer, can then differ in the last bits.

    Parameters
    ----------
    n : int
        From 1 to the number of CPUs this process may use.

    Raises
    ------
    ValueError
        For any other n.
    """
    _set("set_num_threads: n", n, n)


def get_num_threads() -> int:
    """Return the number of threads fastbp computes with.

    Returns
    -------
    int
    """
    return max((pool["num_threads"] for pool in _blas().info()), default=available_cpus())


def blas_info() -> list[dict[str, Any]]:
    """Return what threadpoolctl knows of NumPy's BLAS: name, version, threading layer, threads."""
    return list(_blas().info())


def _blas() -> Any:
    """Return NumPy's BLAS pools: SciPy may have brought one of its own, which is not used here."""
    pools = ThreadpoolController().select(user_api="blas")
    own = [pool["filepath"] for pool in pools.info() if "numpy" in pool["filepath"]]
    return pools.select(filepath=own) if own else pools


def _set(name: str, given: Any, n: Any) -> None:
    cpus = available_cpus()
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= cpus:
        raise ValueError(f"{name} is {given!r}, expected an integer from 1 to {cpus}")
    global _fixed
    _blas().limit(limits=int(n))
    _fixed = int(n)


# --- compiled code -------------------------------------------------------------------------------

_fixed: int | None = None
_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def is_fixed() -> bool:
    """Whether the user has set the number of threads."""
    return _fixed is not None


def compiled_threads() -> int:
    """Return the most threads the user lets compiled code use."""
    return _fixed or available_cpus()


def can_run_parallel() -> bool:
    """Whether parallel kernels may run in this process, and would be quick.

    Not in a forked child, which OpenMP would kill at its first parallel region.
    """
    return not _forked and _has_fast_threads()


@functools.cache
def _has_fast_threads() -> bool:
    from .kernels import jit  # brings Numba, which `fastbp.get_num_threads()` does not need

    return jit.has_fast_threads()


@functools.cache
def address_of_yield() -> int:
    """Return the address of the system's function that lets other threads have the core, or 0."""
    try:
        if sys.platform == "win32":
            function = ctypes.WinDLL("kernel32").SwitchToThread
        else:
            function = ctypes.CDLL(None).sched_yield
    except (OSError, AttributeError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0


# Obeyed when this module is first imported, which the layers do.
if "FASTBP_NUM_THREADS" in os.environ:
    _text = os.environ["FASTBP_NUM_THREADS"]
    _set("FASTBP_NUM_THREADS", _text, int(_text) if _text.isascii() and _text.isdigit() else None)
