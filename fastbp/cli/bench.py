"""``fastbp bench``: fastbp beside NumPy and whatever others are installed, timed in turn."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from . import bench_gate
from .options import CommandFailed, UsageError, positive_int

# A quick run stops a case after so long.  It goes through all cases more than once: a machine that
# is slow for some seconds is so for a part of each case's rounds, and not for all of a few cases'.
QUICK_SECONDS, QUICK_PASSES = 2.8, 5


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "bench",
        help="time fastbp beside NumPy and whatever others are installed",
        description="Time fastbp beside NumPy, the numerical gradient, and PyTorch, JAX, "
        "scikit-learn and tinygrad where they are installed. All results of a case are compared "
        "before anything is timed; then all take turns in one process.",
        epilog="`fastbp bench gate` fails when a kernel got slower beside NumPy.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, command="bench")
    group = parser.add_argument_group("what is timed")
    group.add_argument(
        "--quick", action="store_true", help="only the rows that tell most, in less than a minute"
    )
    group.add_argument(
        "--all", action="store_true", dest="everything", help="also what takes minutes"
    )
    group.add_argument(
        "--only",
        nargs="+",
        metavar="OPERATION",
        help="such operations: 'relu forward', 'gradient', '*softmax*'; --list names them",
    )
    group.add_argument(
        "--with",
        nargs="+",
        dest="implementations",
        metavar="NAME",
        help="beside fastbp: reference (NumPy), numerical, torch, torch.compile, jax, sklearn, "
        "tinygrad (default: all that are installed but torch.compile)",
    )
    group.add_argument(
        "--threads", type=positive_int, nargs="+", default=[1], metavar="N", help="default: 1"
    )
    group.add_argument(
        "--rounds",
        type=positive_int,
        metavar="N",
        help="through all and back, fewer where a call is slow (default: 8)",
    )
    group.add_argument("--list", action="store_true", help="print the operations and end")
    group = parser.add_argument_group("files")
    group.add_argument("--json", type=Path, metavar="FILE", help="write what was measured there")
    group.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw it: bars, and the roofline (svg, png, pdf)"
    )
    parser.add_argument("--part", action="store_true", help=argparse.SUPPRESS)
    bench_gate.add_to(parser.add_subparsers(metavar="gate", help=argparse.SUPPRESS))


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..bench import machine, tables
    from ..bench.processes import ProcessError

    load = machine.load()  # before anything begins that would be part of it
    names = chosen_implementations(options)
    cases = chosen_cases(options)
    if options.list:
        print("\n".join(dict.fromkeys(case.operation for case in cases)))
        return 0
    require_possible(options)
    if not options.part:
        print_about(load)
        print(tables.heading(names))
    try:
        if len(options.threads) > 1:
            record, wrong = _in_processes(options)
        else:
            record, wrong = _measured(cases, names, options, load)
    except ProcessError as error:
        raise CommandFailed(str(error)) from error
    if options.json:
        _write(options.json, record | ({"wrong": wrong} if options.part else {}))
    if not options.part:
        print(f"\n{tables.LEGEND}")
        print(*tables.summary(record, names), sep="\n")
        if options.plot:
            from ..bench import pictures

            pictures.write(record, options.plot)
    if wrong and not options.part:
        raise CommandFailed(f"{wrong} case{'s' if wrong > 1 else ''} with different results")
    return 0


def chosen_implementations(options: argparse.Namespace) -> list[str]:
    """Return the implementations beside fastbp that are asked for, installed or not."""
    from ..bench.cases import IMPLEMENTATIONS
    from ..bench.machine import ON_REQUEST

    asked = options.implementations
    if asked is None:
        return [name for name in IMPLEMENTATIONS if name not in ON_REQUEST]
    for name in asked:
        if name not in IMPLEMENTATIONS:
            raise UsageError(f"argument --with: {name!r} is none of {', '.join(IMPLEMENTATIONS)}")
    return [name for name in IMPLEMENTATIONS if name in (*asked, "reference", "fastbp")]


def chosen_cases(options: argparse.Namespace) -> list[Any]:
    """Return the cases that are asked for."""
    from ..bench.cases import all_cases, quick_cases

    found = quick_cases(options.threads) if options.quick else all_cases(options.threads)
    found = [case for case in found if options.everything or not case.long]
    for pattern in options.only or ():
        if not any(fnmatchcase(case.operation, pattern) for case in found):
            raise UsageError(
                f"argument --only: no operation here is called {pattern!r}; "
                "`fastbp bench --list` names them"
            )
    if options.only:
        found = [c for c in found if any(fnmatchcase(c.operation, p) for p in options.only)]
    return found


def require_possible(options: argparse.Namespace) -> None:
    """Refuse before anything is timed what would fail at the end."""
    from ..threads import available_cpus

    for n in options.threads:
        if n > available_cpus():
            raise UsageError(
                f"argument --threads: {n} is not an integer from 1 to {available_cpus()}, "
                "the CPUs here"
            )
    if options.json:
        require_writable("--json", options.json)
    if options.plot:
        from importlib.util import find_spec

        from ..bench.pictures import ENDINGS

        if options.plot.suffix.lower() not in ENDINGS:
            raise UsageError(f"argument --plot: {options.plot} does not end with svg, png or pdf")
        if find_spec("matplotlib") is None:
            raise UsageError("argument --plot: plots need matplotlib: pip install 'fastbp[plot]'")
        require_writable("--plot", options.plot)


def require_writable(argument: str, path: Path) -> None:
    """Refuse a file that cannot be written."""
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UsageError(
            f"argument {argument}: {path} cannot be written: {error.strerror}"
        ) from error


def print_about(load: float) -> None:
    """Print versions and machine, and a warning when others are using it."""
    from ..bench import machine

    versions = ", ".join(f"{name} {number}" for name, number in machine.versions().items())
    print(f"{versions}\n{machine.processor()}")
    if load > machine.QUIET_LOAD:
        print(f"BUSY MACHINE: load {load:.1f} before the start; trust only the ratios")
    print()


def _measured(
    cases: list[Any], names: list[str], options: argparse.Namespace, load: float
) -> tuple[dict[str, Any], int]:
    """Time the cases and print a row of each; returns the record, and how many are wrong."""
    from tqdm import tqdm

    from ..bench import results, tables
    from ..bench.machine import Disagreement
    from ..bench.peaks import limits
    from ..bench.timing import CASE_SECONDS, LEAST_ROUNDS, ROUNDS, Measurement, no_collection

    rows: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    wrong = 0
    rounds = options.rounds or ROUNDS
    seconds, passes = (QUICK_SECONDS, QUICK_PASSES) if options.quick else (CASE_SECONDS, 1)
    shown = {"flops": limits().flops, "cache": limits().cache}
    begun: list[Measurement] = []

    def go_on(measurement: Measurement, number: int) -> None:
        """Measure a case in one of the passes; print its row in the last."""
        nonlocal skipped
        part = number / passes
        times = measurement.take(
            math.ceil(part * rounds), part * seconds, math.ceil(part * LEAST_ROUNDS)
        )
        if number < passes:
            return
        skipped = times.skipped | skipped
        rows.append(results.row(times))
        tqdm.write(tables.line(rows[-1], names, shown))
        sys.stdout.flush()

    with tqdm(total=passes * len(cases), unit="case", disable=None, leave=False) as bar:
        for case in cases:
            try:
                measurement = Measurement(case, names)
            except Disagreement as error:
                wrong += 1
                tqdm.write(f"WRONG: {error}")
            else:
                begun.append(measurement)
                go_on(measurement, 1)
            bar.update()
        for i in range(2, passes + 1):
            with no_collection():
                for measurement in begun:
                    go_on(measurement, i)
                    bar.update()
    return results.record(rows, skipped, load), wrong


def _in_processes(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Time each number of threads in a process of its own: some keep what they began with."""
    from ..bench import results

    records, wrong = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for n in options.threads:
            file = Path(folder) / f"{n}.json"
            command = [sys.executable, "-m", "fastbp", "bench", "--part", "--threads", str(n)]
            command += ["--json", str(file)]
            command += ["--quick"] * options.quick + ["--all"] * options.everything
            command += ["--rounds", str(options.rounds)] if options.rounds else []
            command += ["--only", *options.only] if options.only else []
            command += ["--with", *options.implementations] if options.implementations else []
            sys.stdout.flush()
            done = subprocess.run(command, check=False, env=environment())  # noqa: S603
            if done.returncode or not file.exists():
                raise CommandFailed(f"the process with {n} threads ended with {done.returncode}")
            records.append(json.loads(file.read_text(encoding="utf-8")))
            wrong += records[-1].pop("wrong")
    return results.merged(records), wrong


def environment() -> dict[str, str]:
    """Return an environment in which Python finds this fastbp."""
    import fastbp

    paths = [str(Path(fastbp.__file__).parents[1]), *filter(None, sys.path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _write(path: Path, record: dict[str, Any]) -> None:
    from .._files import write_atomically
    from ..bench import results

    write_atomically(path, results.to_text(record).encode())
