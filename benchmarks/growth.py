"""How the cost of a training step grows with sizes: ``python -m benchmarks.growth``.

Three sweeps: the width of the hidden layer, the batch, and the number of hidden layers.  A cliff is
a size whose cost per floating-point operation is more than 1.3 times that of the size before or
after it; below a batch of 32 and a width of 64 the fixed costs are allowed to show.

Each size is visited in every round, its neighbours just before and after; a time is the median of
the rounds.  ``--check`` fails at a cliff.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from tqdm import tqdm

from fastbp.bench.workloads import Workload

from .training import about_machine, chosen_implementations
from .workers import IMPLEMENTATIONS, Worker

WIDTHS = (47, 48, 49, 50, 63, 64, 65, 100, 127, 128, 129, 500, 512)
BATCHES = tuple(2**i for i in range(13))
DEPTHS = tuple(range(1, 9))
DEEP_WIDTH = 100

CLIFF = 1.3
LEAST_BATCH = 32
LEAST_WIDTH = 64

TURN_SECONDS = 0.05


@dataclass
class Point:
    """One size of a sweep, and what was measured there.

    Attributes
    ----------
    sweep : str
    size : int
    workload : Workload
    judged : bool
        Whether the size is one where no cliff is allowed.
    us : list of dict
        For each implementation, by its index, the microseconds a step of every round.
    """

    sweep: str
    size: int
    workload: Workload
    judged: bool
    us: list[list[float]] = field(default_factory=list)

    def median(self, i: int = 0) -> float:
        """Return the microseconds a step of the i-th implementation."""
        return statistics.median(self.us[i])

    def per_megaflop(self, i: int = 0) -> float:
        """Return the microseconds a million operations of the i-th implementation."""
        return self.median(i) / self.workload.megaflops

    def cliff_beside(self, other: Point) -> bool:
        """Tell whether this size costs too much beside another, by fastbp's times.

        The times compared are those of the same round, in which neighbours follow each other.
        """
        if not (self.judged and other.judged and self.sweep == other.sweep):
            return False
        ratio = statistics.median(a / b for a, b in zip(self.us[0], other.us[0], strict=True))
        return ratio * other.workload.megaflops / self.workload.megaflops > CLIFF


def workload(sizes: tuple[int, ...], batch: int, data: str) -> Workload:
    """Return a workload with some hundred steps in an epoch, if they fit into 100 MB."""
    rows = min(max(100 * batch, 2000), 32_768)
    return Workload(f"{sizes} {batch}", sizes, batch, data, rows, lr=0.01)


def points(data: str) -> list[Point]:
    """Return the three sweeps."""
    widths = [
        Point("hidden", H, workload((784, H, 10), 100, data), H >= LEAST_WIDTH) for H in WIDTHS
    ]
    rows = [Point("batch", N, workload((784, 50, 10), N, data), N >= LEAST_BATCH) for N in BATCHES]
    depths = []
    for depth in DEPTHS:
        sizes = (784, *(DEEP_WIDTH,) * depth, 10)
        depths.append(Point("depth", depth, workload(sizes, 100, data), judged=True))
    return widths + rows + depths


def measure(points: list[Point], names: list[str], threads: int, rounds: int) -> None:
    """Visit all points in every round, with all implementations."""
    with ExitStack() as stack, tqdm(total=rounds * len(points), disable=None, leave=False) as bar:
        workers = [stack.enter_context(Worker(name, threads)) for name in names]
        for point in points:
            point.us = [[] for _ in names]
        for _ in range(rounds):
            for point in points:
                bar.set_postfix_str(f"{point.sweep} {point.size}")
                for times, worker in zip(point.us, workers, strict=True):
                    worker.ask("prepare", point.workload.to_json())
                    seconds = worker.ask("run", 2)["seconds"]
                    seconds = worker.ask("run", max(2, round(TURN_SECONDS / seconds)))["seconds"]
                    times.append(1e6 * seconds)
                bar.update()


def cliffs(points: list[Point]) -> list[Point]:
    """Return the points that cost too much beside the one before or after."""
    found = []
    for i, point in enumerate(points):
        around = points[max(0, i - 1) : i] + points[i + 1 : i + 2]
        if any(point.cliff_beside(other) for other in around):
            found.append(point)
    return found


def show(points: list[Point], names: list[str], threads: int) -> Iterator[str]:
    """Yield the lines of a table."""
    found = cliffs(points)
    yield f"\n{threads} thread{'s' if threads > 1 else ''}: us a step, us a MFLOP"
    yield f"  {'':<24}{'MFLOP':>9}" + "".join(f"{name:>21}" for name in names)
    for point in points:
        name = f"{point.sweep} {point.size}"
        times = "".join(
            f"{point.median(i):>12,.1f}{point.per_megaflop(i):>9.2f}" for i in range(len(names))
        )
        mark = "  CLIFF" if point in found else ""
        yield f"  {name:<24}{point.workload.megaflops:>9.2f}{times}{mark}"


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--only", default="", metavar="SWEEP", help="hidden, batch or depth")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--peers", nargs="*", choices=list(IMPLEMENTATIONS), default=[])
    parser.add_argument("--sparse", action="store_true", help="images as dark as MNIST's")
    parser.add_argument("--check", action="store_true", help="exit 1 at a cliff")
    options = parser.parse_args()
    print(about_machine())
    names = chosen_implementations(options.peers)
    found = 0
    for threads in options.threads:
        data = "random sparse" if options.sparse else "random"
        chosen = [point for point in points(data) if options.only in point.sweep]
        measure(chosen, names, threads, options.rounds)
        print("\n".join(show(chosen, names, threads)))
        found += len(cliffs(chosen))
    print(f"\n{found} cliffs")
    return 1 if options.check and found else 0


if __name__ == "__main__":
    sys.exit(main())
