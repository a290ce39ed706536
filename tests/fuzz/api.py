"""Random calls of fastbp's public API, each judged.

    python -m tests.fuzz.api --calls 1000000 --seed 1

A case is a valid call, or a few on one object, of which at most one argument is broken.  It depends
on the seed and its number alone: ``--seed 1 --only 4711`` runs case 4711 again.
"""

import argparse
import faulthandler
import itertools
import os
import random
import struct
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from mmap import mmap
from pathlib import Path

from . import (
    file_calls,
    function_calls,
    gradient_calls,
    layer_calls,
    network_calls,
    training_calls,
)
from .judge import Finding, Judge, quiet_is_an_error

MODULES = (
    function_calls,
    layer_calls,
    gradient_calls,
    network_calls,
    training_calls,
    file_calls,
)
CALLS = {case: weight for module in MODULES for case, weight in module.CALLS.items()}
# A case that takes longer hangs.
SECONDS = 60
# Findings after which there is nothing more to learn.
ENOUGH = 25
# The exit code when there are findings; a hang ends with 1.
FOUND = 3


def run_case(judge, seed, number):
    """Make the calls of one case."""
    r = random.Random(f"{seed} {number}")
    (case,) = r.choices(list(CALLS), CALLS.values())
    try:
        case(judge, r)
    except Finding:
        raise
    except Exception as error:
        raise Finding(f"the fuzzer itself failed in {case.__name__}: {error!r}") from error


def run(judge, seed, calls, told=lambda made: None, began=lambda number: None):
    """Run cases until so many calls are made; returns the findings as (case, finding)."""
    findings = []
    numbers = itertools.count()
    while judge.calls < calls and len(findings) < ENOUGH:
        number, made = next(numbers), judge.calls
        began(number)
        try:
            run_case(judge, seed, number)
        except Finding as finding:
            findings.append((number, finding))
        told(judge.calls - made)
    return findings


def table(outcomes):
    """Return operations x outcomes as text."""
    names = sorted({outcome for _, outcome in outcomes}, key=lambda o: (o != "result", o))
    operations = sorted({operation for operation, _ in outcomes})
    lines = [" ".join([f"{'':<34}", *(f"{name:>12}" for name in names)])]
    rows = [(o, [outcomes[o, name] for name in names]) for o in operations]
    rows.append(("in all", [sum(column) for column in zip(*(row for _, row in rows), strict=True)]))
    lines += [" ".join([f"{o:<34}", *(f"{n:>12,}" for n in row)]) for o, row in rows]
    return "\n".join(lines)


def work(arguments, began):
    """Make the calls and print what came of them; returns the exit code."""
    quiet_is_an_error()
    with scratch() as folder:
        return _work(Judge(folder), arguments, began)


@contextmanager
def scratch():
    """A folder that is gone afterwards, in memory where there is such a place."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


def _work(judge, arguments, began):
    from tqdm import tqdm

    begin = time.perf_counter()
    if arguments.only is not None:
        run_case(judge, arguments.seed, arguments.only)
        print(f"case {arguments.only}: {judge.calls} calls, nothing found")
        return 0
    with tqdm(total=arguments.calls, unit="call", mininterval=1, dynamic_ncols=True) as bar:
        findings = run(judge, arguments.seed, arguments.calls, bar.update, began)
    seconds = time.perf_counter() - begin
    print(table(judge.outcomes))
    print(
        f"\nseed {arguments.seed}: {judge.calls:,} calls in {seconds:.0f} s, "
        f"{seconds / judge.calls * 1e6:.0f} us a call, {len(findings)} findings"
    )
    for number, finding in findings:
        print(f"\n--seed {arguments.seed} --only {number}: {finding}")
    return FOUND if findings else 0


def parser():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.api", description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="CASE", help="run one case again")
    return parser


def supervised(arguments, work):
    """Do the work in a child, so that a crash or a hang can be told with the case that did it."""
    with tempfile.TemporaryFile() as file:
        file.truncate(8)
        with mmap(file.fileno(), 8) as note:
            began = _Note(note)
            if not hasattr(os, "fork"):
                return work(arguments, began)
            child = os.fork()
            if not child:
                code = 2
                try:
                    faulthandler.enable()
                    code = work(arguments, began)
                except BaseException:
                    sys.excepthook(*sys.exc_info())
                finally:
                    sys.stdout.flush()
                    os._exit(code)
            while True:
                with suppress(KeyboardInterrupt):  # the child's
                    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                    break
            if code not in (0, FOUND):
                print(f"\nit ended with {code} in --seed {arguments.seed} --only {began.number()}")
            return code


class _Note:
    """Keeps the number of the case that runs where it outlives the process, and ends a hang."""

    def __init__(self, note):
        self._note, self._armed = note, 0.0

    def __call__(self, number):
        struct.pack_into("<q", self._note, 0, number)
        if time.monotonic() - self._armed > SECONDS / 4:
            self._armed = time.monotonic()
            faulthandler.dump_traceback_later(SECONDS, exit=True)

    def number(self):
        return struct.unpack_from("<q", self._note, 0)[0]


if __name__ == "__main__":
    sys.exit(supervised(parser().parse_args(), work))
