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

import numba
import numpy as np
from tqdm import tqdm

import fastbp

from .cases import Call, Case, all_cases

# A turn is as many calls as take about this long.
TURN_SECONDS = 0.004

# What the layers promise against the NumPy of the book: never slower, and the element-wise ones
# several times faster once a batch has a thousand rows.
FLOOR = 0.9
FLOOR_LARGE = 3.0
LARGE = (
    "Relu forward + backward",
    "Sigmoid forward + backward",
    "SoftmaxWithLoss forward + backward",
)


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
        if self.operation in LARGE and self.shape[0] == 1000:
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


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with TEXT in their name")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--rounds", type=int, default=15, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    parser.add_argument("--check", action="store_true", help="exit 1 below a floor")
    options = parser.parse_args()
    cases = [case for case in all_cases() if options.only in case.name]
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
    if options.json:
        record = {"machine": machine(), "results": [asdict(result) for result in results]}
        options.json.write_text(json.dumps(record, indent=1))
    short = [r for r in results if r.floor is not None and r.ratio < r.floor]
    print(f"{len(results)} comparisons, {len(short)} below their floor")
    return 1 if options.check and short else 0


if __name__ == "__main__":
    sys.exit(main())
