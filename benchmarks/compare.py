"""Time fastbp and the others in turn, in one process: ``python -m benchmarks.compare``.

For each case the implementations take turns, round after round; a ratio is the median over the
rounds of (baseline's time / fastbp's time), so what slows the machine down for a while slows both.
``--check`` fails where a floor is not held.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import llvmlite.binding as llvm
import numba
import numpy as np
from tqdm import tqdm

import fastbp

from .cases import Call, Case, all_cases
from .readme import write_table

# A turn is as many calls as take about this long.
TURN_SECONDS = 0.004

# What the layers should reach against the NumPy of the book: never slower, and the element-wise
# ones three times faster once a batch has a thousand rows, in each direction.
FLOOR = 0.9
FLOOR_LARGE = 3.0
LARGE = ("Relu", "Sigmoid", "SoftmaxWithLoss")


@dataclass(frozen=True)
class Result:
    """A case timed: microseconds a call, and fastbp's ratio to its baseline."""

    operation: str
    shape: tuple[int, ...]
    dtype: str
    threads: int
    baseline: str
    baseline_us: float
    fastbp_us: float
    ratio: float

    @property
    def floor(self) -> float | None:
        """The least ratio promised, or None."""
        if self.operation.startswith(LARGE) and self.shape[0] == 1000:
            return FLOOR_LARGE
        return FLOOR if len(self.shape) == 3 else None


def seconds(call: Call, number: int) -> float:
    """Time of ``number`` calls."""
    begin = time.perf_counter()
    for _ in range(number):
        call()
    return time.perf_counter() - begin


def compare(case: Case, threads: int, rounds: int) -> Result:
    """Time a case with so many threads."""
    fastbp.set_num_threads(threads)
    baseline = "numerical" if "numerical" in case.calls else "reference"
    ours, theirs = case.calls["fastbp"](), case.calls[baseline]()
    numbers = []
    for call in (theirs, ours):
        call()  # compiles, and fills the caches
        once = min(seconds(call, 1) for _ in range(3))
        numbers.append(max(1, round(TURN_SECONDS / once)))
    pairs = [
        (seconds(theirs, numbers[0]) / numbers[0], seconds(ours, numbers[1]) / numbers[1])
        for _ in range(rounds)
    ]
    return Result(
        case.operation,
        case.shape,
        case.dtype,
        threads,
        baseline,
        1e6 * statistics.median(a for a, _ in pairs),
        1e6 * statistics.median(b for _, b in pairs),
        statistics.median(a / b for a, b in pairs),
    )


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    return {
        "fastbp": fastbp.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "cpus": str(os.cpu_count()),
    }


# The rows of the README's table: operation, batch, and what to call it.
README_ROWS = [
    ("Relu forward + backward", 1000, "ReLU, forward and backward, 1000 x 50"),
    ("Sigmoid forward + backward", 1000, "sigmoid, forward and backward, 1000 x 50"),
    ("SoftmaxWithLoss forward + backward", 1000, "softmax with loss, both ways, 1000 x 50"),
    ("SoftmaxWithLoss one-hot forward + backward", 1000, "the same with one-hot targets"),
    ("Affine forward + backward", 1, "affine 784 to 50, both ways, 1 row"),
    ("Affine forward + backward", 1000, "affine 784 to 50, both ways, 1000 rows"),
    ("predict", 10_000, "predict 10,000 images, 784-50-10"),
    ("gradient", 100, "gradient of a batch of 100, 784-50-10"),
    ("training step", 100, "training step, batch of 100, 784-50-10"),
    ("gradient, numerically", 3, "gradient of 3 images, 64-50-10, against central differences"),
]


def readme_table(results: list[Result]) -> str:
    """Return the README's table, in Markdown."""
    lines = [
        "| one thread | float64: NumPy | fastbp | ratio | float32: NumPy | fastbp | ratio |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    found = {(r.operation, r.shape[0], r.dtype): r for r in results}
    for operation, N, title in README_ROWS:
        cells = []
        for dtype in ("float64", "float32"):
            r = found.get((operation, N, dtype))
            if r is not None:
                cells += [_time(r.baseline_us), _time(r.fastbp_us), f"**{_ratio(r.ratio)}**"]
            else:
                cells += ["", "", ""]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    about = machine()
    lines += [
        "",
        f"fastbp {about['fastbp']}, NumPy {about['numpy']}, Numba {about['numba']}, "
        f"Python {about['python']}, {llvm.get_host_cpu_name()} "
        f"({about['cpus']} CPUs); {time.strftime('%Y-%m-%d')}.",
    ]
    return "\n".join(lines)


def _time(us: float) -> str:
    return f"{us:,.1f} µs" if us < 1000 else f"{us / 1000:,.1f} ms"


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 2 else f"{ratio:.1f}" if ratio < 100 else f"{ratio:,.0f}"


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with TEXT in their name")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--rounds", type=int, default=15, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    parser.add_argument("--check", action="store_true", help="exit 1 below a floor")
    parser.add_argument(
        "--readme", type=Path, metavar="FILE", help="time the README's rows and write them there"
    )
    options = parser.parse_args()
    cases = [case for case in all_cases() if options.only in case.name]
    if options.readme:
        options.threads = [1]
        rows = {(operation, N) for operation, N, _ in README_ROWS}
        cases = [case for case in cases if (case.operation, case.shape[0]) in rows]
    results = []
    gc.disable()
    for case in tqdm(cases, unit="case", disable=None, leave=False):
        for threads in options.threads:
            result = compare(case, threads, options.rounds)
            floor = result.floor
            if options.check and floor is not None and result.ratio < floor:
                result = compare(case, threads, 3 * options.rounds)  # once more, and for longer
            results.append(result)
            short = floor is not None and result.ratio < floor
            tqdm.write(
                f"{case.name:<56} {threads} thr  "
                f"{result.baseline:<9} {result.baseline_us:>11,.1f} us  "
                f"fastbp {result.fastbp_us:>9,.1f} us  x{result.ratio:.2f}"
                + (f"  BELOW {floor}" if short else "")
            )
    if options.readme:
        write_table(options.readme, "table", readme_table(results))
    if options.json:
        record = {"machine": machine(), "results": [asdict(result) for result in results]}
        options.json.write_text(json.dumps(record, indent=1))
    short = [r for r in results if r.floor is not None and r.ratio < r.floor]
    print(f"{len(results)} comparisons, {len(short)} below their floor")
    return 1 if options.check and short else 0


if __name__ == "__main__":
    sys.exit(main())
