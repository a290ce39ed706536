"""What is promised beside the training steps, measured: ``python -m benchmarks.promises``.

A gradient in a loop of the user's own, predictions, numerical gradients, big layers, the first step
of a process, memory, a training beside a busy core, and how soon Ctrl-C is answered.  Medians of
``--rounds`` rounds; two things that are compared take turns.  ``--check`` fails where a promise is
not kept.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import fastbp
from fastbp import threads
from fastbp.bench.peaks import peak
from fastbp.bench.processes import run
from fastbp.bench.workloads import WORKLOADS, Workload, load

from .streams import keep_memory, measure_big
from .training import about_machine

BOOK, BOOK_DENSE = (next(w for w in WORKLOADS if w.name == name) for name in ("book", "book-dense"))
BATCH, CALLS = 100, 50
STEPS = 4000
FIRST_STEP = """
import time
begin = time.perf_counter()
import numpy as np
import fastbp
rng = np.random.default_rng(1)
x, t = rng.random((1000, 784), np.float32), rng.integers(0, 10, 1000)
{zeros}
network = fastbp.TwoLayerNet(784, 50, 10, dtype=np.float32)
fastbp.fit(network, x, t, batch_size=100, iterations=1, progress=False)
print(time.perf_counter() - begin)
"""
ZEROS = "x *= rng.random(x.shape) < 0.19"
# With everything loaded, and no array besides the data when it is first asked.  What is resident
# now is in a file on Linux alone; elsewhere it is the most so far.
MEMORY = """
import resource, sys
import numpy as np
import fastbp
rng = np.random.default_rng(1)
x, t = np.empty((60_000, 784), np.float32), rng.integers(0, 10, 60_000)
for row in x:
    row[:] = rng.integers(1, 256, 784) / np.float32(255)
    row[rng.random(784) < {zeros}] = 0
def peak():
    if sys.platform == "linux":  # where getrusage also knows what the parent had, before the exec
        lines = open("/proc/self/status").read().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def train(x, t):
    network = fastbp.TwoLayerNet(784, 50, 10, dtype=np.float32)
    fastbp.fit(network, x, t, batch_size=100, epochs=1, progress=False)
train(x[:300], t[:300])
before = peak()
if sys.platform == "linux":
    before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
train(x, t)
print(peak() - before)
"""


@dataclass(frozen=True)
class Promise:
    """A figure and the most or the least that it should be.

    Attributes
    ----------
    name, unit : str
    figure, target : float
    least : bool
        Whether the target is the least; else it is the most.
    """

    name: str
    figure: float
    unit: str
    target: float
    least: bool = False

    @property
    def kept(self) -> bool:
        """Whether it is as promised."""
        return self.figure >= self.target if self.least else self.figure <= self.target

    def __str__(self) -> str:
        figures = f"{self.figure:>9,.4g} {self.unit:<5}{'>=' if self.least else '<='} "
        return f"{self.name:<62}{figures}{self.target:<6g} {'OK' if self.kept else 'MISSED'}"


def median_seconds(call: Callable[[], object], rounds: int) -> float:
    """Return the median over the rounds of the seconds that a call takes."""
    call()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def call_for_each(function: Callable[..., object], given: Sequence[tuple[Any, ...]]) -> None:
    """Call a function with each of some arguments."""
    for arguments in given:
        function(*arguments)


def images(workload: Workload) -> str:
    """Return what the examples are called."""
    return "images" if workload is BOOK else "images without zeros"


def on(n: int) -> str:
    """Tell the layers and the compiled loop to take n threads; return how that is called."""
    threads._fixed = n
    return f"{n} thread{'s' if n > 1 else ''}"


def network(dtype: str = "float32") -> Any:
    """Return the book's network."""
    return fastbp.TwoLayerNet(784, 50, 10, dtype=dtype, seed=1)


def gradients(rounds: int) -> Iterator[Promise]:
    """``network.gradient`` on a batch that is there, and on others just drawn from all images."""
    name = on(2)
    for workload, dtype in itertools.product((BOOK, BOOK_DENSE), ("float32", "float64")):
        (x, t), _ = load(replace(workload, dtype=dtype))
        net, rng = network(dtype), np.random.default_rng(1)
        draws = [rng.choice(len(x), BATCH) for _ in range(CALLS)]
        fresh = [(x[rows], t[rows]) for rows in draws]
        for batches, what in ((fresh[:1] * CALLS, ""), (fresh, ", another batch each time")):
            call = functools.partial(call_for_each, net.gradient, batches)
            us = 1e6 * median_seconds(call, rounds) / CALLS
            label = f"gradient, {images(workload)}, {dtype}, {name}{what}"
            yield Promise(label, us, "us", 130 if dtype == "float32" else 230)


def predictions(rounds: int) -> Iterator[Promise]:
    """Predictions for all test images, as a share of what the cores can multiply."""
    net = network()
    for workload in (BOOK, BOOK_DENSE):
        _, (x, _) = load(workload)
        flops = 2 * len(x) * (784 * 50 + 50 * 10)
        for n in (1, 2):
            name, call = on(n), functools.partial(net.predict, x)
            shares = [
                100 * flops / median_seconds(call, 3) / (n * peak("float32")) for _ in range(rounds)
            ]
            label = f"predict {len(x):,} {images(workload)}, {name}: share of the peak"
            yield Promise(label, statistics.median(shares), "%", 75, least=True)


def numerical_gradients(rounds: int) -> Iterator[Promise]:
    """All 39,760 parameters by central differences."""
    (x, t), _ = load(BOOK)
    x, net = x[:BATCH].astype(np.float64), network("float64")
    name = on(2)
    for N, target in ((3, 5), (100, 40)):
        call = functools.partial(net.numerical_gradient, x[:N], t[:N])
        seconds = median_seconds(call, rounds)
        yield Promise(f"numerical gradient, batch {N}, {name}", 1e3 * seconds, "ms", target)


def big_layers(rounds: int) -> Iterator[Promise]:
    """Element-wise layers on a million numbers, and the loss of 4096 x 1000 logits."""
    targets = {
        "ReLU forward": ("x", (1.2, 1.2)),
        "sigmoid forward": ("ms", (0.25, 0.14)),
        "softmax with loss": ("ms", (3.3, 2.0)),
    }
    for name, n, copy, ours in measure_big(5 * rounds):
        kind = name.partition(",")[0]
        if kind in targets:
            unit, limits = targets[kind]
            figure = ours / copy if unit == "x" else ours / 1e3
            label = f"{name}, {n} thread{'s' if n > 1 else ''}"
            label += " over a copy" if unit == "x" else ""
            yield Promise(label, figure, unit, limits[n - 1])


def first_steps(rounds: int) -> Iterator[Promise]:
    """From the first import to the end of the first step, in a new process."""
    rounds = min(rounds, 3)  # they take seconds
    for zeros, what in (("", ""), (ZEROS, ", zeros skipped")):
        code = FIRST_STEP.format(zeros=zeros)
        cold, cached = [], []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                cold.append(float(run("-c", code, FASTBP_CACHE_DIR=folder)))
                cached.append(float(run("-c", code, FASTBP_CACHE_DIR=folder)))
        yield Promise(f"first step{what}, nothing compiled", statistics.median(cold), "s", 8)
        yield Promise(f"first step{what}, from the cache", statistics.median(cached), "s", 0.6)


def memory(rounds: int) -> Iterator[Promise]:
    """What a training of 60,000 x 784 float32 takes beside its data."""
    for zeros, what in (("0", ""), ("0.81", ", zeros skipped")):
        code = MEMORY.format(zeros=zeros)
        above = [float(run("-c", code)) for _ in range(min(rounds, 3))]
        label = f"memory of fit on 60,000 x 784 float32{what}, above the data"
        yield Promise(label, statistics.median(above) / 1e6, "MB", 120)


def beside_a_busy_core(rounds: int) -> Iterator[Promise]:
    """A training that chooses its threads itself, over one on a single thread."""
    (x, t), _ = load(BOOK_DENSE)

    def train(n: int | None) -> float:
        threads._fixed = None
        net = network()
        begin = time.perf_counter()
        fastbp.fit(
            net, x, t, iterations=STEPS, evaluate_sample=1, threads=n, progress=False, seed=1
        )
        return time.perf_counter() - begin

    train(1), train(2)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)
        ratios = [train(None) / train(1) for _ in range(rounds)]
    finally:
        busy.kill()
        busy.wait()
    label = "training beside a busy core, over one thread's time"
    yield Promise(label, statistics.median(ratios), "x", 1.15)


def interruptions(rounds: int) -> Iterator[Promise]:
    """How long compiled code keeps Python waiting, and how long a user waits after Ctrl-C."""
    (x, t), _ = load(BOOK_DENSE)
    threads._fixed = None
    waited = []
    for i in range(rounds):
        sent: list[float] = []

        def interrupt(after: float = 0.3 + 0.01 * i, sent: list[float] = sent) -> None:
            time.sleep(after)
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        try:
            fastbp.fit(network(), x, t, epochs=1000, evaluate_sample=1, progress=False)
        except KeyboardInterrupt:
            waited.append(time.perf_counter() - sent[0])
    yield Promise("Ctrl-C answered, the longest", 1e3 * max(waited), "ms", 250)


GROUPS: dict[str, Callable[[int], Iterator[Promise]]] = {
    "gradient": gradients,
    "predict": predictions,
    "numerical": numerical_gradients,
    "layers": big_layers,
    "busy": beside_a_busy_core,
    "interrupt": interruptions,
    "memory": memory,
    "start": first_steps,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.promises", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--rounds", type=int, default=9, metavar="N")
    parser.add_argument("--check", action="store_true", help="exit 1 where one is not kept")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    keep_memory()
    print(about_machine())
    before, missed = threads._fixed, 0
    try:
        for name in options.only:
            for promise in GROUPS[name](options.rounds):
                print(promise, flush=True)
                missed += not promise.kept
    finally:
        threads._fixed = before
    print(f"{missed} promises not kept")
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
