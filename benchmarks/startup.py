"""Time what a user waits for before anything happens: ``python -m benchmarks.startup``.

The import, as the difference to importing NumPy alone, in processes that take turns; and
``fastbp train`` as a whole process, with nothing compiled yet and then once more.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 11


def seconds(*arguments: str, **environment: str) -> float:
    """Time of one Python process."""
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    return time.perf_counter() - begin


def main() -> int:
    """Run the command; returns the exit code."""
    numpy, fastbp = "import numpy", "import numpy, fastbp"
    pairs = [(seconds("-c", numpy), seconds("-c", fastbp)) for _ in range(ROUNDS)]
    over = statistics.median(b - a for a, b in pairs)
    print(f"import fastbp: {1000 * over:.0f} ms over {numpy}, median of {ROUNDS} pairs")
    with tempfile.TemporaryDirectory() as cache:
        train = ("-m", "fastbp", "train")
        cold = seconds(*train, FASTBP_CACHE_DIR=cache)
        warm = statistics.median(seconds(*train, FASTBP_CACHE_DIR=cache) for _ in range(3))
    print(f"fastbp train: {cold:.1f} s with nothing cached, {warm:.1f} s afterwards")
    return 0


if __name__ == "__main__":
    sys.exit(main())
