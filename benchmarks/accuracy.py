"""The largest errors of exp, log and the sigmoid: ``python -m benchmarks.accuracy [--all]``.

In units in the last place of the exact result (ULP), for fastbp's kernels and for NumPy, for
float32 against float64 and for float64 against the 80-bit type where there is one.  ``--all`` takes
every one of the 2**32 numbers of float32, which lasts ten to fifteen minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numba
import numpy as np
from tqdm import tqdm

from fastbp.kernels.exp import exponential, log_positive, logistic
from fastbp.kernels.jit import SUM_FLAGS

Array = np.ndarray[Any, Any]
Function = Callable[[Array], Array]

CHUNK = 2**15  # numbers: a chunk and what is computed from it stay in the second-level cache


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) in x's type."""
    return x.dtype.type(1) / (x.dtype.type(1) + np.exp(-x))


def compiled(function: Any) -> Function:
    """Apply a number's function to an array, in a loop as the kernels have it."""

    @numba.njit(fastmath=set(SUM_FLAGS), error_model="numpy")
    def loop(out: Array, x: Array) -> None:
        for i in range(x.size):
            out[i] = function(x[i])

    def apply(x: Array) -> Array:
        out = np.empty_like(x)
        loop(out, x)
        return out

    return apply


class Case(NamedTuple):
    """A function, and between which arguments to draw samples: for float32, for float64."""

    fastbp: Function
    numpy: Function
    ranges: dict[str, list[tuple[float, float]]]
    even_exponents: bool = False  # every power of two as often as the next, not every value


CASES = {
    "exp": Case(
        compiled(exponential),
        np.exp,
        {
            "float32": [(-104, 89), (-1, 1), (-104, -87.3)],
            "float64": [(-745.2, 710), (-1, 1), (-745.2, -708.3)],
        },
    ),
    "log": Case(
        compiled(log_positive),
        np.log,
        {
            "float32": [(0.5, 2), (0.99, 1.01), (0, 3.4e38), (0, 1.2e-38)],
            "float64": [(0.5, 2), (0.99, 1.01), (0, 1.7e308), (0, 2.3e-308)],
        },
        even_exponents=True,
    ),
    "sigmoid": Case(
        compiled(logistic),
        sigmoid,
        {
            "float32": [(-104, 20), (-4, 1), (-104, -87.3)],
            "float64": [(-745.2, 40), (-4, 1), (-745.2, -708.3)],
        },
    ),
}


@np.errstate(invalid="ignore")
def ulps(actual: Array, exact: Array) -> Array:
    """Errors in units in the last place of the exact result, in the type of actual."""
    info = np.finfo(actual.dtype)
    # What overflows counts as the next power of two, the number infinity stands for.
    limit = np.ldexp(exact.dtype.type(1), info.maxexp)
    magnitude = np.clip(np.abs(exact), info.smallest_normal, limit / 2)
    unit = np.ldexp(exact.dtype.type(1), np.frexp(magnitude)[1] - 1 - info.nmant)
    near = np.clip(actual.astype(exact.dtype), -limit, limit)
    errors = np.abs(near - np.clip(exact, -limit, limit)) / unit
    unknown = np.isnan(errors)
    if unknown.any():
        agree = np.isnan(actual[unknown]) & np.isnan(exact[unknown])
        errors[unknown] = np.where(agree, 0, np.inf)
    return errors


class Worst:
    """The largest error seen, and where: of normal results and of subnormal ones."""

    def __init__(self) -> None:
        self.normal = (0.0, np.nan)
        self.subnormal = (0.0, np.nan)

    def add(self, x: Array, actual: Array, exact: Array) -> None:
        """Note the results of one chunk."""
        errors = ulps(actual, exact)
        small = (np.abs(exact) < np.finfo(actual.dtype).smallest_normal) & (exact != 0)
        if small.any():
            self.subnormal = max(self.subnormal, _largest(np.where(small, errors, 0), x))
            errors[small] = 0
        self.normal = max(self.normal, _largest(errors, x))


def _largest(errors: Array, x: Array) -> tuple[float, float]:
    i = int(errors.argmax())
    return float(errors[i]), float(x[i])


def every_float32() -> Iterator[Array]:
    """All 2**32 numbers, in chunks, in the order of their bits."""
    for start in range(0, 2**32, CHUNK):
        yield np.arange(start, start + CHUNK, dtype=np.uint32).view(np.float32)


def samples(case: Case, dtype: str, count: int) -> Iterator[Array]:
    """``count`` random numbers of each range, in chunks."""
    random = np.random.default_rng(0)
    bits = "i4" if dtype == "float32" else "i8"
    for low, high in case.ranges[dtype]:
        for start in range(0, count, CHUNK):
            size = min(CHUNK, count - start)
            if case.even_exponents:
                first, last = np.array([low, high], dtype).view(bits)
                yield random.integers(first, last, size, bits).view(dtype)
            else:
                yield random.uniform(low, high, size).astype(dtype)


def measure(name: str, dtype: str, count: int | None) -> dict[str, Worst]:
    """Find the largest errors of fastbp and of NumPy over samples, or without count over all."""
    case = CASES[name]
    wide = np.float64 if dtype == "float32" else np.longdouble
    if count is None:
        chunks, total = every_float32(), 2**32 // CHUNK
    else:
        chunks = samples(case, dtype, count)
        total = -(-count // CHUNK) * len(case.ranges[dtype])
    worst = {"fastbp": Worst(), "NumPy": Worst()}
    with np.errstate(all="ignore"):
        for x in tqdm(chunks, f"{name} {dtype}", total, leave=False, unit="chunk"):
            exact = case.numpy(x.astype(wide))
            worst["fastbp"].add(x, case.fastbp(x), exact)
            worst["NumPy"].add(x, case.numpy(x), exact)
    return worst


def _text(found: tuple[float, float], dtype: str) -> str:
    error, where = found
    return f"{error:.3f} at {np.dtype(dtype).type(where)!s}" if error else "-"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every float32 instead of samples")
    parser.add_argument(
        "--samples", type=int, default=10**6, metavar="N", help="numbers in each range (10**6)"
    )
    parser.add_argument("--only", choices=CASES, help="this function alone")
    parser.add_argument("--dtype", choices=["float32", "float64"], help="this type alone")
    given = parser.parse_args(arguments)
    print(f"{'':28}{'ULP, normal results':36}subnormal results")
    for dtype in [given.dtype] if given.dtype else ["float32", "float64"]:
        if dtype == "float64" and np.finfo(np.longdouble).nmant < 63:
            print("float64: this platform has no wider type to compare with")
            continue
        for name in [given.only] if given.only else CASES:
            count = None if given.all and dtype == "float32" else given.samples
            for of, worst in measure(name, dtype, count).items():
                normal, subnormal = _text(worst.normal, dtype), _text(worst.subnormal, dtype)
                print(f"{name:8} {dtype:9} {of:9} {normal:35} {subnormal}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
