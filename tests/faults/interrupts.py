"""Ctrl-C at random moments: how soon ``fit`` answers.

    python tests/faults/interrupts.py [--interrupts 100] [--seed 0]

prints median and maximum of the seconds from the signal to the exception, for two networks at
batches of 256: while training, with checkpoints and without, while 60,000 rows are evaluated, and
at the start, when the data are checked and converted.  After each one the lists of the history must
fit together, the parameters be finite, and the newest checkpoint be of that step; that their bits
are those of whole steps is what the test suite compares.
"""

import argparse
import contextlib
import random
import signal
import statistics
import sys
import tempfile
import time

import numpy as np
from tqdm import tqdm

import fastbp

SIZES = ((784, 50, 10), (784, 512, 256, 10))
BOUND = 0.25  # seconds


@contextlib.contextmanager
def ctrl_c_after(seconds):
    """Within it, press Ctrl-C so many seconds after ``arm()``; returns arm.

    The operating system keeps the time: what holds Python up delays the answer, not the signal.
    """
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))

    def arm(*_):
        signal.setitimer(signal.ITIMER_REAL, seconds)
        return time.perf_counter() + seconds

    try:
        yield arm
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            signal.signal(signal.SIGALRM, before)


def interrupted(train, seconds):
    """Call a training, interrupt it, and return the seconds to the answer and the exception.

    Both are None if the training was over before.  Whoever handled Ctrl-C before handles it then.
    """
    before, latency, interrupt = signal.getsignal(signal.SIGINT), None, None
    try:
        with ctrl_c_after(max(seconds, 1e-6)) as arm:
            pressed = arm()
            train()
    except KeyboardInterrupt as error:
        latency, interrupt = time.perf_counter() - pressed, error
    assert signal.getsignal(signal.SIGINT) is before
    return latency, interrupt


def require_consistent(history):
    """Raise AssertionError unless the lists of a history fit together."""
    reports = len(history.steps)
    assert reports == len(history.train_acc_list) == len(history.times)
    assert reports == len(history.examples_per_second)
    assert len(history.test_acc_list) == len(history.test_loss_list)
    assert len(history.test_acc_list) in (0, reports)
    assert history.steps == sorted(set(history.steps))
    assert not history.steps or history.steps[-1] <= len(history)


def workloads(sizes, x, t):
    """Return name -> (a training, and the seconds in which it may be interrupted)."""
    rows = np.ascontiguousarray(x, np.float32)

    def fit(inputs, **options):
        network = fastbp.MultiLayerNet(sizes[0], sizes[1:-1], sizes[-1], dtype=np.float32, seed=0)
        options = {"batch_size": 256, "seed": 0, "progress": False, **options}
        try:
            fastbp.fit(network, inputs, t, optimizer=fastbp.SGD(lr=0.01), **options)
        except fastbp.TrainingInterrupted as error:
            require_consistent(error.history)
            raise
        finally:
            assert all(np.isfinite(p).all() for p in network.params.values())

    def seconds(train):
        begin = time.perf_counter()
        train()
        return time.perf_counter() - begin

    def training():
        fit(rows, epochs=1000, evaluate_sample=256)

    def kept():
        with tempfile.TemporaryDirectory() as folder:
            keep = fastbp.Checkpoints(folder, every=100)
            try:
                fit(rows, epochs=1000, evaluate_sample=256, checkpoints=keep)
            except fastbp.TrainingInterrupted as error:
                if [step for step, _ in keep.files()][-1:] != [len(error.history)]:
                    raise AssertionError(f"{keep.files()} after {error.history}") from error
                raise

    def evaluation():
        fit(rows, iterations=1)

    def start():
        fit(x, iterations=1, evaluate_sample=256)

    fit(rows, iterations=50, evaluate_sample=256)  # nothing is compiled when the clock runs
    begin, long = seconds(start), seconds(evaluation)
    return {
        "training": (training, (begin, begin + 1.0)),
        "checkpoints": (kept, (begin + 0.05, begin + 1.0)),
        "evaluation": (evaluation, (0.0, long)),
        "start": (start, (0.0, begin)),
    }


def main():
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--interrupts", type=int, default=100, help="for each line of the table")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments, data = random.Random(options.seed), np.random.default_rng(options.seed)
    x = data.random((60_000, 784))  # float64: all of it is converted
    t = data.integers(0, 10, len(x))
    slowest = 0.0
    print(
        f"seed {options.seed}\n{'network':<16} {'during':<11} {'interrupts':>10} "
        f"{'median s':>9} {'maximum s':>9}"
    )
    for sizes in SIZES:
        name = "-".join(map(str, sizes))
        for during, (train, (first, last)) in workloads(sizes, x, t).items():
            answers = []
            for _ in tqdm(range(options.interrupts), desc=f"{name}, {during}", leave=False):
                latency, _ = interrupted(train, moments.uniform(first, last))
                if latency is not None:
                    answers.append(latency)
            slowest = max(slowest, *answers)
            print(
                f"{name:<16} {during:<11} {len(answers):>10} "
                f"{statistics.median(answers):>9.3f} {max(answers):>9.3f}",
                flush=True,
            )
    print(f"slowest {slowest:.3f} s, bound {BOUND} s")
    return int(slowest > BOUND)


if __name__ == "__main__":
    sys.exit(main())
