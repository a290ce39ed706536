"""Mutated files through every reader: the documented exception or the right data, nothing else.

    python -m tests.fuzz.readers --inputs 10000000 --seed 1

An input depends on the seed and its number alone: ``--seed 1 --only 4711`` reads input 4711 again.
Every 256th input is read with its memory measured: at most twice the cap the reader was given.
"""

import argparse
import contextlib
import os
import random
import sys
import time
import tracemalloc
from collections import Counter

from .api import ENOUGH, FOUND, scratch, supervised, table
from .formats import CAP, readers
from .judge import Finding, quiet_is_an_error
from .mutate import mutate

# Of so many inputs one is read with its memory measured.
MEASURED = 256


class Trial:
    """Reads mutated files, and counts what came of them by reader and outcome."""

    def __init__(self, folder, seed, quick=False):
        self.seed, self.outcomes, self.peak = seed, Counter(), 0
        self.readers = readers(folder)
        if quick:  # the slow readers less often
            self.readers = {r: w**2 / 10 for r, w in self.readers.items()}
        self.paths = {r: r.path or folder / f"file{r.suffix}" for r in self.readers}
        self.files = {r: os.open(p, os.O_RDWR | os.O_CREAT) for r, p in self.paths.items()}
        self.all = [data for reader in self.readers for data in reader.files]

    def input(self, number):
        """Return the reader of an input, and its bytes."""
        r = random.Random(self.seed * 2**40 + number)
        (reader,) = r.choices(list(self.readers), self.readers.values())
        data = r.choice(reader.files)
        if reader.inside is not None and r.random() < 0.4:
            return reader, reader.inside(r, data, self.all)
        return reader, mutate(r, data, self.all)

    def run(self, number, measured):
        """Read one input and judge what comes."""
        reader, data = self.input(number)
        file = self.files[reader]
        os.pwrite(file, data, 0)
        os.ftruncate(file, len(data))
        try:
            result = self._read(reader, measured)
        except Finding:
            raise
        except Exception as error:
            right, *others = reader.error if isinstance(reader.error, tuple) else (reader.error,)
            named = type(error) is right and str(self.paths[reader]) in str(error)
            if not named and type(error) not in others:
                raise Finding(f"{reader.name}: {type(error).__name__}: {error}") from error
            self.outcomes[reader.name, type(error).__name__] += 1
        else:
            try:
                reader.check(result, data)
            except Finding as finding:
                raise Finding(f"{reader.name}: accepted, {finding}") from finding
            self.outcomes[reader.name, "result"] += 1

    def _read(self, reader, measured):
        if not measured:
            return reader.read(self.paths[reader])
        tracemalloc.start()
        try:
            return reader.read(self.paths[reader])
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            self.peak = max(self.peak, peak)
            if peak > 2 * CAP:
                raise Finding(f"{reader.name}: {peak:,} bytes of memory, more than twice the cap")

    def close(self):
        for file in self.files.values():
            os.close(file)


def run(trial, inputs, told=lambda n: None, began=lambda number: None, measured=MEASURED):
    """Read so many inputs; returns the findings as (number, finding)."""
    findings = []
    for number in range(inputs):
        began(number)
        try:
            trial.run(number, number % measured == 0)
        except Finding as finding:
            findings.append((number, finding))
            if len(findings) >= ENOUGH:
                break
        if number % 1024 == 1023:
            told(1024)
    return findings


def work(arguments, began):
    """Read the inputs and print what came of them; returns the exit code."""
    import resource

    from tqdm import tqdm

    quiet_is_an_error()
    with scratch() as folder, contextlib.closing(Trial(folder, arguments.seed)) as trial:
        if arguments.only is not None:
            reader, data = trial.input(arguments.only)
            print(f"{reader.name}, {len(data)} bytes: {data[:200]!r}")
            trial.run(arguments.only, True)
            print("nothing found")
            return 0
        before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        with tqdm(total=arguments.inputs, unit="file", mininterval=1, dynamic_ncols=True) as bar:
            findings = run(trial, arguments.inputs, bar.update, began)
        seconds = time.perf_counter() - begin
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(table(trial.outcomes))
        print(
            f"\nseed {arguments.seed}: {arguments.inputs:,} inputs in {seconds:.0f} s, "
            f"{seconds / arguments.inputs * 1e6:.0f} us each, {len(findings)} findings; the most "
            f"memory a reader took: {trial.peak / 2**20:.1f} MiB, cap {CAP / 2**20:.0f} MiB; the "
            f"process grew by {grown / 1024:.0f} MiB"
        )
    for number, finding in findings:
        print(f"\n--seed {arguments.seed} --only {number}: {finding}")
    return FOUND if findings else 0


def parser():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.readers", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="INPUT", help="read one input again")
    return parser


if __name__ == "__main__":
    sys.exit(supervised(parser().parse_args(), work))
