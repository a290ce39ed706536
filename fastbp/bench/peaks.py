"""What the machine can do: multiplications and additions a second, and bytes copied a second."""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels.gemm import TILE_ROWS, TILE_VECTORS, columns_of, tile
from ..kernels.jit import kernel
from ..kernels.simd import address_of
from .cases import DTYPES
from .with_numpy import Array

SEED = 1
# Rows of B (16 kB with AVX-512, half of the first-level cache), and products in a turn.
PEAK_K = 64
PEAK_PRODUCTS = 10_000
# More bytes than any cache has, and as many as fit the second-level cache twice.
MEMORY_BYTES = 128 * 2**20
CACHE_BYTES = 256 * 2**10
CACHE_COPIES = 200
ROUNDS = 5


@kernel("T[::1], int64[::1], T[::1], int64, int64, int64, T, int64")
def multiply_add(
    C: Any, a_rows: Any, B: Any, K: int, code: int, width: int, scale: Any, products: int
) -> None:
    """Compute ``C = scale * C + A @ B`` again and again, for one tile.

    Parameters
    ----------
    C : (TILE_ROWS * width,) float32 or float64 - updated
    a_rows : (TILE_ROWS,) int64 - addresses of rows of K numbers like C
    B : (K * width,) like C
    K, code, width : int
    scale : like C
    products : int
    """
    here, least = address_of(C, 0), C.dtype.type(-math.inf)
    for _ in range(products):
        tile(
            code, C, 0, width, address_of(a_rows, 0), 0, B, 0, width, 0, K,
            C, 0, width, scale, least, here, here, 0,
        )  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What one core can do.

    Attributes
    ----------
    flops : dict of type to float
        Floating-point operations a second, everything in registers and the first-level cache.
    memory, cache : float
        Bytes a second that a copy reads and writes, in memory and in the second-level cache.
    """

    flops: dict[str, float]
    memory: float
    cache: float


def peak(dtype: str) -> float:
    """Return the operations a second of one core, measured once."""
    kind = np.dtype(dtype).type
    code = 2 * TILE_VECTORS
    width = columns_of(code, np.dtype(dtype).itemsize)
    K = PEAK_K * 4 // np.dtype(dtype).itemsize
    rng = np.random.default_rng(SEED)
    A, B = rng.random((TILE_ROWS, K)).astype(kind), rng.random(K * width).astype(kind)
    C = np.zeros(TILE_ROWS * width, kind)
    a_rows = np.array([row.ctypes.data for row in A])
    arguments = (C, a_rows, B, K, code, width, kind(0.5))
    multiply_add(*arguments, 1)
    begin = time.perf_counter()
    multiply_add(*arguments, PEAK_PRODUCTS)
    seconds = time.perf_counter() - begin
    return 2 * TILE_ROWS * width * K * PEAK_PRODUCTS / seconds


def bandwidth(source: Array, target: Array, copies: int = 1) -> float:
    """Return the bytes that a copy reads and writes in a second."""
    np.copyto(target, source)
    begin = time.perf_counter()
    for _ in range(copies):
        np.copyto(target, source)
    return 2 * source.nbytes * copies / (time.perf_counter() - begin)


@functools.cache
def limits() -> Limits:
    """Measure once in a process, in turn; returns the best that was seen."""
    big = np.ones(MEMORY_BYTES, np.uint8), np.ones(MEMORY_BYTES, np.uint8)
    small = np.ones(CACHE_BYTES, np.uint8), np.ones(CACHE_BYTES, np.uint8)
    seen: dict[str, list[float]] = {name: [] for name in (*DTYPES, "memory", "cache")}
    for _ in range(ROUNDS):
        for dtype in DTYPES:
            seen[dtype].append(peak(dtype))
        seen["memory"].append(bandwidth(*big))
        seen["cache"].append(bandwidth(*small, CACHE_COPIES))
    best = {name: max(values) for name, values in seen.items()}
    return Limits({dtype: best[dtype] for dtype in DTYPES}, best["memory"], best["cache"])
