"""How many threads fastbp computes with.

The compiled kernels of the layers run on one thread.  The matrix products go through NumPy's BLAS,
which has a pool of its own; the number set here is that pool's, for the whole process.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np  # noqa: F401 - threadpoolctl finds only libraries that are loaded
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

    Parameters
    ----------
    n : int
        From 1 to the number of CPUs this process may use.

    Raises
    ------
    ValueError
        For any other n.
    """
    cpus = available_cpus()
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= cpus:
        raise ValueError(f"set_num_threads: n is {n!r}, expected an integer from 1 to {cpus}")
    _blas().limit(limits=n)


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
    return ThreadpoolController().select(user_api="blas")


def _from_environment() -> None:
    text = os.environ.get("FASTBP_NUM_THREADS")
    if text is None:
        return
    if not text.isdecimal():
        raise ValueError(f"FASTBP_NUM_THREADS is {text!r}, expected a positive integer")
    set_num_threads(int(text))


_from_environment()
