"""How near the element-wise layers come to memory: ``python -m benchmarks.streams``.

A layer must read its input and write its result.  Beside NumPy's time and fastbp's stands that of
the least any code could do: a loop that reads as many arrays and writes a new one, with at most one
multiplication.  All take turns in one process, on one thread.  Where fastbp takes hardly longer
than that, nothing is left to gain, and "at most" is by what NumPy can be beaten there.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from fastbp import layers, reference
from fastbp.bench.timing import keep_memory

Call = Callable[[], Any]
# Calls in a turn, which are some hundred microseconds for a thousand rows of fifty.
CALLS = 5


@numba.njit(nogil=True, error_model="numpy")
def _copy(out: Any, x: Any) -> None:
    for i in range(out.size):
        out[i] = x[i]


@numba.njit(nogil=True, error_model="numpy")
def _multiply(out: Any, x: Any, y: Any) -> None:
    for i in range(out.size):
        out[i] = x[i] * y[i]


def _streaming(kernel: Callable[..., None], *arrays: Any) -> Call:
    """Return a call that reads some arrays and writes a new one."""
    flat = [array.ravel() for array in arrays]

    def call() -> None:
        kernel(np.empty_like(flat[0]), *flat)

    return call


def cases(shape: tuple[int, int], dtype: str) -> dict[str, dict[str, Call]]:
    """Return for each direction of each layer: NumPy's call, fastbp's, and the least."""
    rng = np.random.default_rng(0)
    x, dout = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    found = {}
    for name in ("Relu", "Sigmoid"):
        plain, ours = getattr(reference, name)(), getattr(layers, name)()
        y = ours.forward(x)
        np.testing.assert_allclose(y, plain.forward(x), rtol=1e-5)
        np.testing.assert_allclose(ours.backward(dout), plain.backward(dout), rtol=1e-4, atol=1e-6)
        # What ReLU's backward reads beside dout is a byte for each number: next to nothing.
        back = _streaming(_multiply, dout, y) if name == "Sigmoid" else _streaming(_copy, dout)
        found[f"{name}.forward"] = {
            "NumPy": lambda plain=plain: plain.forward(x),
            "fastbp": lambda ours=ours: ours.forward(x),
            "least": _streaming(_copy, x),
        }
        found[f"{name}.backward"] = {
            "NumPy": lambda plain=plain: plain.backward(dout),
            "fastbp": lambda ours=ours: ours.backward(dout),
            "least": back,
        }
    return found


def measure(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Return the median microseconds a call of each, which take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(CALLS):
                call()
            times[name].append((time.perf_counter() - begin) / CALLS * 1e6)
    return {name: statistics.median(turns) for name, turns in times.items()}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.streams", description=__doc__.split(":")[0] + "."
    )
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=400)
    options = parser.parse_args(arguments)
    if min(options.rows, options.columns, options.rounds) < 1:
        parser.error("--rows, --columns and --rounds must be at least 1")
    keep_memory()
    print(f"us a call, {options.rows} x {options.columns}, median of {options.rounds} rounds")
    heads = ("NumPy", "fastbp", "least", "faster", "at most")
    print(f"{'':30}" + "".join(f"{head:>9}" for head in heads))
    for dtype in ("float32", "float64"):
        for name, calls in cases((options.rows, options.columns), dtype).items():
            us = measure(calls, options.rounds)
            ratios = us["NumPy"] / us["fastbp"], us["NumPy"] / us["least"]
            print(f"{dtype + ' ' + name:30}" + "".join(f"{us[head]:9.1f}" for head in heads[:3])
                  + "".join(f"{ratio:8.2f}x" for ratio in ratios))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
