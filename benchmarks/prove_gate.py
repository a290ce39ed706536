"""Does the gate hold, and does it catch?  ``python -m benchmarks.prove_gate --runs 20``.

Runs ``fastbp bench gate`` so many times on the code as it is, where each alarm is a false one.
``--busy`` does so beside a busy core.  ``--slow 1.6`` makes in each run another case's kernel so
many times as slow, the compiled loop and the numerical gradient first, and counts the runs in which
exactly this is noticed: the case falls short, and no other but those with the same kernel.  Without
``--runs`` those are as many as there are cases.

A kernel is made slow where Python calls it: once it has returned, it is kept busy for as much
longer as is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fastbp.bench import gate
from fastbp.bench.cases import Case
from fastbp.bench.gate import CLOCK, gate_cases
from fastbp.bench.with_kernels import KERNELS
from fastbp.cli import main as fastbp_main
from fastbp.cli.bench_gate import busy_core

RUNS = 20

# Where Python calls the compiled loop, by the gate's operations; the other kernels stand in their
# own modules.
LOOPS = {
    "predict": ("fastbp.kernels.step", "run"),
    "gradient": ("fastbp.kernels.step", "run"),
    "numerical gradient": ("fastbp._differences", "central_differences"),
    "600 steps, Adam": ("fastbp.kernels.step", "run"),
    "600 steps": ("fastbp.kernels.step", "run"),
    "600 steps, no zeros": ("fastbp.kernels.step", "run"),
}


def home(operation: str) -> tuple[str, str]:
    """Return the module and the name of an operation's kernel."""
    if operation in LOOPS:
        return LOOPS[operation]
    name = operation.removeprefix("kernel ")
    return KERNELS[name][0].__name__, name


class Slowed:
    """A kernel that takes longer; everything else about it is as before."""

    def __init__(self, kernel: Any, times: float) -> None:
        self.kernel = kernel
        self.times = times

    def __call__(self, *arguments: Any) -> Any:
        """Call the kernel, and stay until it would have been slow."""
        begin = CLOCK()
        result = self.kernel(*arguments)
        now = CLOCK()
        until = begin + self.times * (now - begin)
        while now < until:
            now = CLOCK()
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kernel, name)


def slow_gate(operation: str, times: float, floors: Path, look: list[str] | None) -> int:
    """Run the gate, or one look of it, with a slow kernel; returns its exit code."""
    module_name, name = home(operation)
    module = importlib.import_module(module_name)
    setattr(module, name, Slowed(getattr(module, name), times))
    if look:
        gate.main(*look)
        return 0
    # The gate's second looks are in processes of their own, where the kernel is to be as slow.
    gate.COMMAND[:] = ["-m", "benchmarks.prove_gate", "--operation", operation]
    gate.COMMAND += ["--slow", str(times), "--look"]
    return fastbp_main(["bench", "gate", "--floors", str(floors)])


def slow_order() -> list[Case]:
    """Return the gate's cases in the order they are made slow: whole networks, then kernels."""
    return sorted(gate_cases(), key=lambda case: case.operation not in LOOPS)


def short_cases(output: str) -> list[Case]:
    """Return the cases that the gate's output says fall short."""
    lines = [line for line in output.splitlines() if line.endswith("  SHORT")]
    # A name ends where its figures begin: one may be the beginning of another.
    return [c for c in gate_cases() if any(line.startswith(f"{c.name} ") for line in lines)]


def is_noticed(case: Case, output: str) -> bool:
    """Tell whether a case falls short, and none with another kernel does."""
    short = short_cases(output)
    here = home(case.operation)
    return case.name in [c.name for c in short] and all(home(c.operation) == here for c in short)


def run_gate(arguments: list[str]) -> tuple[int, str]:
    """Run something with the gate in a new process; returns its exit code and output."""
    paths = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    return done.returncode, done.stdout


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prove_gate", description=__doc__)
    parser.add_argument("--runs", type=int, metavar="N", help=f"{RUNS}; with --slow all cases")
    parser.add_argument("--busy", action="store_true", help="beside a busy core")
    parser.add_argument("--slow", type=float, metavar="TIMES", help="another slow kernel each run")
    parser.add_argument("--floors", type=Path, default=Path("benchmarks/floors.toml"))
    parser.add_argument("--operation", help=argparse.SUPPRESS)
    parser.add_argument("--look", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.operation:
        return slow_gate(options.operation, options.slow, options.floors, options.look)
    order = slow_order()
    runs = options.runs or (len(order) if options.slow else RUNS)
    right = 0
    for i in range(runs):
        command = ["fastbp", "bench", "gate", "--floors", str(options.floors)]
        wanted = 0
        case = order[i % len(order)] if options.slow else None
        if case:
            command = ["benchmarks.prove_gate", "--operation", case.operation]
            command += ["--slow", str(options.slow), "--floors", str(options.floors)]
            wanted = 1
        with busy_core() if options.busy else contextlib.nullcontext():
            begin = time.perf_counter()
            code, output = run_gate(command)
            seconds = time.perf_counter() - begin
        short = [line for line in output.splitlines() if line.endswith("  SHORT")]
        right += code == wanted and (case is None or is_noticed(case, output))
        again = sum("  at look " in line for line in output.splitlines())
        what = f"{case.name} {options.slow} times as slow" if case else "unchanged"
        print(f"run {i + 1}: {what}: exit code {code}, {seconds:.0f} s, {again} looked at again")
        print(*(f"    {line}" for line in short), sep="\n", end="\n" if short else "", flush=True)
        if code not in (0, 1):
            print(output)
    kind = "caught" if options.slow else "without an alarm"
    print(f"{right} of {runs} {kind}")
    return 0 if right == runs else 1


if __name__ == "__main__":
    sys.exit(main())
