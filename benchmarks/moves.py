"""From the book's training step to fastbp's, one move at a time: ``python -m benchmarks.moves``.

The network is the book's, 784-50-10 with batches of 100, on MNIST or images as dark.  Every move is
timed in every round, in turn, in one process; a time is the median of the rounds.  Before anything
is timed, all take the same steps from the same weights, and their parameters must agree.

GF/s counts the multiplications and additions that the result needs and nothing else a step may do;
where zeros are skipped, those with zeros are not needed.  The peak is measured, too: the tile of
the matrix kernel, over and over, on numbers that stay in the first-level cache.

``--plot FILE`` draws the roofline: how much arithmetic a step does for each byte of inputs it reads
from memory, and how fast it does it, below what the processor and the memory allow.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import fastbp
from fastbp import reference
from fastbp.bench.peaks import MEMORY_BYTES, bandwidth, peak
from fastbp.bench.workloads import BOOK, SEED, Array, batches, data_name, load, weights

from .training import about_machine, machine

LR = BOOK.lr
# Steps of a turn, for the moves that are loops of Python.  `fit` takes an epoch to warm up, and the
# next one is timed.
TURN_STEPS = 60
# The least value of a pixel in the data without zeros.
DARKEST = 1e-3
# Steps in the check of the parameters, and how far they may be apart, as a share of the largest.
CHECK_STEPS = 20
CHECK_TOLERANCE = 1e-4


class BookStep:
    """The book's loop: gradient, update, and the loss a second time.  Float64, one-hot targets."""

    def __init__(self) -> None:
        self.network = reference.TwoLayerNet(*BOOK.sizes)
        self.params = self.network.params
        for key, value in initial_params().items():
            self.params[key][...] = value

    def __call__(self, x: Array, t: Array) -> None:
        """Take a step."""
        for key, grad in self.network.gradient(x, t).items():
            self.params[key] -= LR * grad
        self.network.loss(x, t)


class LeanStep(BookStep):
    """The same without what nobody reads: the second loss, and the gradient of the images."""

    def __call__(self, x: Array, t: Array) -> None:
        """Take a step."""
        layers, params = self.network.layers, self.params
        self.network.loss(x, t)
        dhidden = layers["Affine2"].backward(self.network.lastLayer.backward(1))
        dout = layers["Relu1"].backward(dhidden)
        params["W1"] -= LR * np.dot(x.T, dout)
        params["b1"] -= LR * np.sum(dout, axis=0)
        params["W2"] -= LR * layers["Affine2"].dW
        params["b2"] -= LR * layers["Affine2"].db


class LayerByLayer(fastbp.TwoLayerNet):
    """A network that the compiled loop leaves to its layers."""

    def is_standard(self) -> bool:
        """Return False."""
        return False


class LayersStep:
    """fastbp's layers, each a call, and its optimizer."""

    def __init__(self, dtype: str) -> None:
        self.network = new_network(LayerByLayer, dtype)
        self.params = self.network.params
        self.optimizer = fastbp.SGD(lr=LR)

    def __call__(self, x: Array, t: Array) -> None:
        """Take a step."""
        _, grads = self.network.loss_and_gradient(x, t)
        self.optimizer.update(self.params, grads)


def initial_params() -> dict[str, Array]:
    """Return the initial parameters, by the book's names."""
    params = {}
    for i, (W, b) in enumerate(weights(BOOK), start=1):
        params[f"W{i}"], params[f"b{i}"] = W, b
    return params


def new_network(kind: type[fastbp.TwoLayerNet], dtype: str) -> fastbp.TwoLayerNet:
    """Return a network with the initial parameters."""
    network = kind(*BOOK.sizes, dtype=dtype, seed=SEED)
    for key, value in initial_params().items():
        network.params[key][...] = value
    return network


@dataclass
class Examples:
    """Images, labels, and the labels as one-hot rows."""

    x: Array
    t: Array
    one_hot: Array

    @property
    def density(self) -> float:
        """Share of the pixels that are not zero."""
        return np.count_nonzero(self.x) / self.x.size


@dataclass
class Move:
    """One way to take the step, and what was measured.

    Attributes
    ----------
    name : str
    before : str
        Name of the move that the gain is counted from.
    dtype : {'float64', 'float32'}
        Of the arithmetic.
    step : callable, optional
        Returns a new step; without it the move is `fit`.
    threads : int
    sparse : bool
        Whether the images have their zeros, and ``fit`` skips them.
    us : list of float
        Microseconds a step in each round.
    """

    name: str
    before: str
    dtype: str
    step: Callable[[], Any] | None = None
    threads: int = 1
    sparse: bool = False
    us: list[float] = field(default_factory=list)

    def median(self) -> float:
        """Return the median of the rounds."""
        return statistics.median(self.us)

    def seconds(self, data: Examples) -> float:
        """Take a turn; returns the seconds a step."""
        if self.step is None:
            return self._fit_seconds(data)
        step = self.step()
        targets = data.one_hot if isinstance(step, BookStep) else data.t
        rows = batches(BOOK, 2 * TURN_STEPS)
        for batch in rows[:TURN_STEPS]:
            step(data.x[batch], targets[batch])
        begin = time.perf_counter()
        for batch in rows[TURN_STEPS:]:
            step(data.x[batch], targets[batch])
        return (time.perf_counter() - begin) / TURN_STEPS

    def _fit_seconds(self, data: Examples) -> float:
        stamps: list[float] = []
        self._fit(
            data, epochs=2, seed=SEED, callbacks=[lambda _: stamps.append(time.perf_counter())]
        )
        return (stamps[2] - stamps[1]) / BOOK.per_epoch

    def _fit(self, data: Examples, **options: Any) -> dict[str, Array]:
        network = new_network(fastbp.TwoLayerNet, self.dtype)
        fastbp.fit(
            network,
            data.x,
            data.t,
            optimizer=fastbp.SGD(lr=LR),
            batch_size=BOOK.batch,
            sampling="choice",
            evaluate_sample=1,
            progress=False,
            threads=self.threads,
            **options,
        )
        return network.params

    def params_after(self, data: Examples, steps: int) -> dict[str, Array]:
        """Return the parameters after steps with the batches that everybody takes."""
        if self.step is None:
            np.random.seed(SEED)  # noqa: NPY002 - without a seed `fit` draws as the book does
            return self._fit(data, iterations=steps)
        step = self.step()
        targets = data.one_hot if isinstance(step, BookStep) else data.t
        for batch in batches(BOOK, steps):
            step(data.x[batch], targets[batch])
        return step.params

    def gigaflops(self, density: float) -> float:
        """Return the needed multiplications and additions of a step, in 1e9."""
        first, *rest = [D * H for D, H in pairwise(BOOK.sizes)]
        products = 2 * first * (density if self.sparse else 1.0) + 3 * sum(rest)
        return 2e-9 * BOOK.batch * products

    def input_bytes(self, density: float) -> float:
        """Return the bytes of the batch's images: what no step can keep in a cache."""
        pixels = BOOK.batch * BOOK.sizes[0]
        if self.sparse:
            return pixels * density * (np.dtype(self.dtype).itemsize + 2)
        # The loops of Python read float32, as the data come, whatever they compute in.
        return pixels * (np.dtype(self.dtype).itemsize if self.step is None else 4)


def all_moves() -> list[Move]:
    """Return the moves, in the order of the story."""
    book, lean = "the book's loop, NumPy", "without what nobody reads"
    layers64, layers32 = "fastbp's layers", "the same layers"
    fit64, fit32 = "the compiled loop, through fit", "the same loop"
    dense2, sparse1, sparse2 = "on 2 threads", "zeros skipped", "zeros skipped, on 2 threads"
    return [
        Move(book, "", "float64", BookStep),
        Move(lean, book, "float64", LeanStep),
        Move(layers64, lean, "float64", lambda: LayersStep("float64")),
        Move(layers32, layers64, "float32", lambda: LayersStep("float32")),
        Move(fit64, layers64, "float64"),
        Move(fit32, fit64, "float32"),
        Move(dense2, fit32, "float32", threads=2),
        Move(sparse1, fit32, "float32", sparse=True),
        Move(sparse2, sparse1, "float32", threads=2, sparse=True),
    ]


def load_examples() -> tuple[Examples, Examples]:
    """Return the data without zeros, and as they are."""
    (x, t), _ = load(BOOK)
    one_hot = np.eye(BOOK.sizes[-1])[t]
    return Examples(np.maximum(x, x.dtype.type(DARKEST)), t, one_hot), Examples(x, t, one_hot)


def check(moves: list[Move], dense: Examples, sparse: Examples) -> None:
    """Compare everybody's parameters with the book's, on the same data.

    Raises
    ------
    RuntimeError
        When a move trains another network.
    """
    book = moves[0]
    for data, group in (
        (dense, [m for m in moves if not m.sparse]),
        (sparse, [m for m in moves if m.sparse]),
    ):
        expected = book.params_after(data, CHECK_STEPS)
        for move in group:
            params = move.params_after(data, CHECK_STEPS)
            for key, value in expected.items():
                apart = np.abs(params[key] - value).max() / np.abs(value).max()
                if not apart <= CHECK_TOLERANCE:
                    raise RuntimeError(f"{move.name}: {key} is off by {apart:.1e}")


@dataclass
class Limits:
    """What the machine can do: GF/s of one core by type, and GB/s of a copy."""

    peak: dict[str, float]
    bandwidth: float


def measure(moves: list[Move], dense: Examples, sparse: Examples, rounds: int) -> Limits:
    """Time everything in every round; returns the best that was seen of the machine."""
    peaks: dict[str, list[float]] = {"float32": [], "float64": []}
    copies = []
    source, target = np.ones(MEMORY_BYTES, np.uint8), np.ones(MEMORY_BYTES, np.uint8)
    gc.collect()
    gc.disable()
    for _ in tqdm(range(rounds), unit="round", disable=None, leave=False):
        for dtype, seen in peaks.items():
            seen.append(1e-9 * peak(dtype))
        copies.append(1e-9 * bandwidth(source, target))
        for move in moves:
            move.us.append(1e6 * move.seconds(sparse if move.sparse else dense))
    gc.enable()
    return Limits({dtype: max(seen) for dtype, seen in peaks.items()}, max(copies))


def show(moves: list[Move], limits: Limits, density: float) -> Iterator[str]:
    """Yield the lines of a table, in Markdown."""
    named = {move.name: move for move in moves}
    yield "| | | type | threads | µs a step | saved | compared with | GF/s | of the peak |"
    yield "|--:|---|---|--:|--:|--:|:-:|--:|--:|"
    numbers = {move.name: i for i, move in enumerate(moves, start=1)}
    for i, move in enumerate(moves, start=1):
        speed = move.gigaflops(density) / move.median() * 1e6
        share = speed / (move.threads * limits.peak[move.dtype])
        before = named.get(move.before)
        saved = f"{before.median() - move.median():,.0f}" if before else ""
        yield (
            f"| {i} | {move.name} | {move.dtype} | {move.threads} | {move.median():,.0f} "
            f"| {saved} | {numbers.get(move.before, '')} | {speed:.0f} | {100 * share:.0f} % |"
        )


def record(moves: list[Move], limits: Limits, density: float) -> dict[str, Any]:
    """Return everything measured, for a file."""
    results = [
        {
            "move": move.name,
            "before": move.before,
            "dtype": move.dtype,
            "threads": move.threads,
            "us": move.us,
            "gigaflop": move.gigaflops(density),
            "input bytes": move.input_bytes(density),
        }
        for move in moves
    ]
    about = {"date": time.strftime("%Y-%m-%d"), "density": density, "data": data_name(BOOK.data)}
    return {"machine": machine(), **about, "peak": limits.peak, "copy": limits.bandwidth,
            "results": results}  # fmt: skip


def plot(path: Path, moves: list[Move], limits: Limits, density: float) -> None:
    """Draw the roofline."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    left, right = 1.0, 1000.0
    single, double = limits.peak["float32"], limits.peak["float64"]
    ridge = single / limits.bandwidth
    roofs = [
        ([left, ridge, right], [left * limits.bandwidth, single, single], "-"),
        ([ridge, right], [2 * single, 2 * single], "--"),
        ([double / limits.bandwidth, right], [double, double], ":"),
    ]
    for x, y, style in roofs:
        axes.plot(x, y, style, color="#555555", linewidth=1)
    for level, name in (
        (2 * single, "twice that, 2 threads"),
        (single, "peak, float32"),
        (double, "peak, float64"),
    ):
        axes.annotate(
            f"{name}: {level:.0f} GF/s", (right, level), xytext=(-2, 3), fontsize=8, ha="right",
            textcoords="offset points", color="#555555",
        )  # fmt: skip
    axes.annotate(
        f"a copy in memory: {limits.bandwidth:.0f} GB/s", (2, 1.1 * limits.bandwidth),
        fontsize=8, color="#555555",
    )  # fmt: skip
    for i, move in enumerate(moves, start=1):
        work = move.gigaflops(density)
        x, y = 1e9 * work / move.input_bytes(density), work / move.median() * 1e6
        color = "#4269d0" if move.threads == 1 else "#ff725c"
        axes.plot(x, y, "o", color=color, markersize=5)
        side = (-7, "right") if i % 2 else (7, "left")  # so that neighbours leave each other room
        axes.annotate(
            str(i), (x, y), xytext=(side[0], -3), fontsize=8, ha=side[1],
            textcoords="offset points",
        )  # fmt: skip
    names = "\n".join(f"{i}  {move.name}, {move.dtype}" for i, move in enumerate(moves, start=1))
    axes.text(0.66, 0.04, names, transform=axes.transAxes, fontsize=8)
    axes.set(
        xscale="log", yscale="log", xlim=(left, right), ylim=(4, 4 * single),
        xlabel="floating-point operations for each byte of images read from memory",
        ylabel="GF/s",
    )  # fmt: skip
    # Text as text, and nothing that differs from run to run but the points.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "moves"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.moves", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the roofline, as SVG")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    options = parser.parse_args()
    print(about_machine())
    fastbp.set_num_threads(1)  # NumPy's; `fit` is told each time
    dense, sparse = load_examples()
    density = sparse.density
    moves = all_moves()
    check(moves, dense, sparse)
    limits = measure(moves, dense, sparse, options.rounds)
    print(
        f"{data_name(BOOK.data)}, {100 * density:.0f} % of the pixels not zero; "
        f"{time.strftime('%Y-%m-%d')}, median of {options.rounds} rounds\n"
        f"one core's peak {limits.peak['float32']:.0f} GF/s in float32, "
        f"{limits.peak['float64']:.0f} in float64; a copy {limits.bandwidth:.1f} GB/s\n"
    )
    print("\n".join(show(moves, limits, density)))
    if options.json:
        options.json.write_text(json.dumps(record(moves, limits, density), indent=1))
    if options.plot:
        plot(options.plot, moves, limits, density)


if __name__ == "__main__":
    main()
