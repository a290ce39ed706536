"""Many processes start at once on one empty cache; all must end with the same numbers.

    python tests/concurrency/cold_starts.py [--processes 16] [--what train | kernels]

Half of them begin with float32 and half with float64, so that different code is written to the same
folder at the same time.  Afterwards one more process must find everything it needs in the cache.
``train`` compiles the whole loop in every process, a minute's work for each; ``kernels`` two small
kernels.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from child import finish, start

WORK = """
import json, sys
import numpy as np
import fastbp

types = [np.float32, np.float64]
if int(sys.argv[2]) % 2:
    types.reverse()
from fastbp.kernels import jit
from fastbp.kernels.update import momentum_update, sgd_update
print("ready", flush=True)
sys.stdin.read()  # until all are
answers = {}
for T in types:
    p = np.ones(5, T)
    sgd_update(p, np.ones(5, T), T(0.25))
    momentum_update(p, np.zeros(5, T), np.ones(5, T), T(0.25), T(0))
    answers[f"kernels {T.__name__}"] = p.tolist()
    if sys.argv[1] == "train":
        rng = np.random.default_rng(0)
        x, t = rng.random((200, 40)), rng.integers(0, 5, 200)
        network = fastbp.MultiLayerNet(40, [24], 5, dtype=T, seed=0)
        options = {"iterations": 20, "seed": 0, "progress": False}
        answers[f"fit {T.__name__}"] = [
            fastbp.fit(network, x, t, threads=n, **options).train_loss_list for n in (1, 2)
        ]
misses = sum(sum(kernel.stats.cache_misses.values()) for kernel, _, _ in jit.KERNELS)
print(json.dumps([answers, misses, str(jit.cache_folder())], sort_keys=True))
"""


def cold_start(processes, what, cache, timeout):
    """Start so many processes at once; return what each said, and what one more said after them."""
    outputs = _together(range(processes), what, cache, timeout)
    return outputs, _together([0], what, cache, timeout)[0]


def _together(numbers, what, cache, timeout):
    begun = [
        start("-W", "error", "-c", WORK, what, i, FASTBP_CACHE="1", FASTBP_CACHE_DIR=cache)
        for i in numbers
    ]
    for program in begun:
        assert program.stdout.readline() == "ready\n", finish(program, timeout)
    for program in begun:
        program.stdin.close()
        program.stdin = None
    outputs = [finish(program, timeout) for program in begun]
    for program, (out, err) in zip(begun, outputs, strict=True):
        assert program.returncode == 0, f"exit code {program.returncode}\n{out}\n{err}"
    return [out for out, _ in outputs]


def main():
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--what", choices=["train", "kernels"], default="train")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds until it hangs")
    options = parser.parse_args()
    import json

    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        outputs, after = cold_start(options.processes, options.what, cache, options.timeout)
        files = sorted(os.listdir(next(cache.iterdir())))  # noqa: PTH208
    seconds = time.perf_counter() - begin
    different = len({str(json.loads(out)[0]) for out in [*outputs, after]})
    misses = json.loads(after)[1]
    leftover = [name for name in files if not name.endswith(".nbc")]
    print(
        f"{options.processes} processes on one empty cache: 0 aborts, 0 hangs, {different} "
        f"distinct result{'s' * (different != 1)}, {seconds:.0f} s\n"
        f"afterwards {len(files)} files, {len(leftover)} of them left over; "
        f"one more process compiled {misses} kernels"
    )
    return int(different != 1 or misses != 0 or bool(leftover))


if __name__ == "__main__":
    sys.exit(main())
