"""How near the element-wise layers come to memory: ``python -m benchmarks.streams``.

A layer must read its input and write its result.  Beside NumPy's time and fastbp's stands that of
the least any code could do: a loop that reads as many arrays and writes a new one, with at most one
multiplication.  All take turns in one process, and run on one thread.  Where fastbp takes hardly
longer than that, nothing is left to gain, and "at most" is by what NumPy can be beaten there.

``--big`` times layers of a million numbers and a softmax with loss of four, on one thread and on
two, beside copies of the same input on as many threads.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, TypeVar

import numba
import numpy as np

from fastbp import layers, reference, threads
from fastbp.bench.timing import keep_memory

Call = Callable[[], Any]
Key = TypeVar("Key", bound=Hashable)
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
        # What ReLU's backward reads beside dout is a bit for each number: next to nothing.
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


def measure(calls: Mapping[Key, Call], rounds: int) -> dict[Key, float]:
    """Return the median microseconds a call of each, which take turns."""
    times: dict[Key, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(CALLS):
                call()
            times[name].append((time.perf_counter() - begin) / CALLS * 1e6)
    return {name: statistics.median(turns) for name, turns in times.items()}


# --- big layers, on one thread and on two --------------------------------------------------------


@numba.njit(nogil=True, error_model="numpy", parallel=True)
def _copy_in_halves(out: Any, x: Any) -> None:
    half = x.size // 2
    for part in numba.prange(2):
        source = x[:half] if part == 0 else x[half:]
        target = out[:half] if part == 0 else out[half:]
        for i in range(source.size):
            target[i] = source[i]


def big_cases(side: int = 1000) -> dict[str, dict[str, Call]]:
    """Return calls of fastbp's, and of copies of their input on one thread and on two.

    Parameters
    ----------
    side : int
        The rows and columns of a layer's input; the softmax has four times as many rows.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(side, side)).astype(np.float32)
    logits = rng.normal(size=(4096 * side // 1000, side)).astype(np.float32)
    t = rng.integers(0, side, len(logits))
    relu, sigmoid, loss = layers.Relu(), layers.Sigmoid(), layers.SoftmaxWithLoss()

    def forward_and_backward() -> None:
        loss.forward(logits, t)
        loss.backward()

    relu.forward(x)
    sigmoid.forward(x)
    found: dict[str, tuple[Call, Any]] = {
        "ReLU forward": (lambda: relu.forward(x), x),
        "ReLU backward": (lambda: relu.backward(x), x),
        "sigmoid forward": (lambda: sigmoid.forward(x), x),
        "sigmoid backward": (lambda: sigmoid.backward(x), x),
        "softmax with loss": (forward_and_backward, logits),
    }
    return {
        f"{name}, {like.shape[0]} x {like.shape[1]}": {"fastbp": call, **_copies(like)}
        for name, (call, like) in found.items()
    }


def _copies(x: Any) -> dict[str, Call]:
    """Return copies of an array to one that was written before: NumPy's, and one in halves."""
    out = np.empty_like(x)
    return {
        "copy on 1": lambda: np.copyto(out, x),
        "copy on 2": lambda: _copy_in_halves(out.reshape(-1), x.reshape(-1)),
    }


def on_threads(call: Call, n: int) -> Call:
    """Return a call that tells fastbp to take n threads before.

    Not by ``fastbp.set_num_threads``, which also sets those of NumPy's BLAS and takes longer than
    the layers.
    """

    def told() -> None:
        threads._fixed = n
        call()

    return told


def measure_big(rounds: int) -> Iterator[tuple[str, int, float, float]]:
    """Yield name, threads, and the median microseconds of a copy and of fastbp's."""
    before, numbers = threads._fixed, range(1, min(2, threads.available_cpus()) + 1)
    try:
        for name, calls in big_cases().items():
            timed = {
                (what, n): call
                for n in numbers
                for what, call in (
                    ("copy", calls[f"copy on {n}"]),
                    ("fastbp", on_threads(calls["fastbp"], n)),
                )
            }
            us = measure(timed, rounds)
            for n in numbers:
                yield name, n, us["copy", n], us["fastbp", n]
    finally:
        threads._fixed = before


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.streams", description=__doc__.split(":")[0] + "."
    )
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--big", action="store_true", help="big layers, on one thread and on two")
    options = parser.parse_args(arguments)
    if min(options.rows, options.columns, options.rounds) < 1:
        parser.error("--rows, --columns and --rounds must be at least 1")
    keep_memory()
    if options.big:
        print(f"us a call, float32, median of {options.rounds} rounds")
        print(f"{'':34}threads     copy   fastbp  fastbp/copy")
        for name, n, copy, ours in measure_big(options.rounds):
            print(f"{name:34}{n:7}{copy:9.1f}{ours:9.1f}{ours / copy:12.2f}x", flush=True)
        return 0
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
