"""``fastbp bench gate``: fail when a kernel got slower beside NumPy, or than in another commit."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .options import CommandFailed, UsageError, positive_int

FLOORS = Path("benchmarks") / "floors.toml"
# What `fastbp bench` takes before the word "gate", and the gate does not.
OF_BENCH = "quick", "everything", "only", "implementations", "rounds", "list", "json", "plot"
# Runs whose spread gives the floors.
RUNS = 20


def add_to(commands: Any) -> None:
    """Add this command to those of ``fastbp bench``."""
    parser = commands.add_parser(
        "gate",
        description="Time the gate's cases beside NumPy, in turn, on one thread, and compare the "
        "ratios with their floors. Exit code 0: all reached; 1: one is not, even when looked at "
        "again.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, command="bench gate")
    parser.add_argument(
        "--floors", type=Path, default=FLOORS, metavar="FILE", help=f"default: {FLOORS}"
    )
    parser.add_argument(
        "--against",
        metavar="REV",
        help="compare this commit with another instead: both are built, each in an environment of "
        "its own, and take turns; a case that fails in this commit fails the gate",
    )
    parser.add_argument(
        "--write-floors",
        action="store_true",
        help="measure in new processes, every other one beside a busy core, and write the floors",
    )
    parser.add_argument(
        "--runs", type=positive_int, default=RUNS, metavar="N", help=f"of those ({RUNS})"
    )
    parser.add_argument(
        "--ratios", type=Path, metavar="FILE", help="only measure, and write the ratios as JSON"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    if any(getattr(options, name) for name in OF_BENCH):
        raise UsageError("the options of `fastbp bench` are none of the gate's")
    chosen = [options.against is not None, options.write_floors, options.ratios is not None]
    if sum(chosen) > 1:
        raise UsageError("--against, --write-floors and --ratios exclude each other")
    if options.against is not None:
        return _against(options.against)
    from ..bench.machine import Disagreement
    from ..bench.processes import ProcessError

    try:
        if options.ratios is not None:
            return _ratios(options.ratios)
        if options.write_floors:
            return _write_floors(options)
        return _gate(options.floors)
    except (Disagreement, ProcessError) as error:
        raise CommandFailed(str(error)) from error


def _gate(path: Path) -> int:
    """Judge every case; returns 1 when one falls short."""
    from ..bench import gate, machine

    here = machine.processor()
    with _telling_of(path):
        floors = gate.floors_of(here, gate.read_floors(path))
    others = sorted({floor.machine for floor in floors} - {here})
    if others:
        print(
            f"no floors of {here}: the lowest of others' stand in ({'; '.join(others)}), which may "
            "be too low or too high; --write-floors measures its own"
        )
    print(f"{'times as fast as NumPy':<58}{'now':>8}{'floor':>8}{'median':>8}")
    short = []
    for verdict in gate.judge(floors, gate.gate_cases()):
        floor, note = verdict.floor, ""
        if not verdict.holds:
            short.append(verdict)
            note = "  SHORT"
        elif len(verdict.ratios) > 1:
            note = f"  at look {len(verdict.ratios)}; before: {verdict.ratios[0]:.2f}"
        print(
            f"{floor.name:<58}{verdict.ratio:>8.2f}{floor.floor:>8.2f}{floor.median:>8.2f}{note}",
            flush=True,
        )
    for verdict in short:
        slower = verdict.floor.median / verdict.ratio
        print(
            f"\n{verdict.floor.name}: {verdict.ratio:.2f} times as fast as NumPy, the floor is "
            f"{verdict.floor.floor:.2f}; about {slower:.2f} times as slow as on "
            f"{verdict.floor.date}, at all of {len(verdict.ratios)} looks\n"
            f"    closer: {gate.closer(verdict.case)}"
        )
    print(f"\n{len(floors)} cases, {len(short)} below the floor")
    return 1 if short else 0


@contextlib.contextmanager
def _telling_of(path: Path) -> Iterator[None]:
    """Turn what is wrong with a file of floors into a wrong use."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"argument --floors: {path}: {reason}") from error


def _ratios(path: Path) -> int:
    """Write the ratio of each case."""
    from .._files import write_atomically
    from ..bench import gate
    from .bench import require_writable

    require_writable("--ratios", path)
    ratios = {case.name: gate.ratio(case) for case in gate.gate_cases()}
    write_atomically(path, json.dumps(ratios, indent=1).encode())
    return 0


def _write_floors(options: argparse.Namespace) -> int:
    """Run the gate's cases in new processes, and write the floors that their spread gives."""
    from .._files import write_atomically
    from ..bench import gate
    from .bench import environment, require_writable

    require_writable("--floors", options.floors)
    with _telling_of(options.floors):
        gate.renew(options.floors, [])  # before minutes of measuring
    seen: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ratios.json"
        for i in range(options.runs):
            with busy_core() if i % 2 else contextlib.nullcontext():
                done = subprocess.run(  # noqa: S603 - our own arguments
                    [sys.executable, "-m", "fastbp", "bench", "gate", "--ratios", str(file)],
                    check=False,
                    env=environment(),
                )
            if done.returncode:
                raise CommandFailed(f"run {i + 1} ended with {done.returncode}")
            for name, ratio in json.loads(file.read_text(encoding="utf-8")).items():
                seen.setdefault(name, []).append(ratio)
            print(f"run {i + 1} of {options.runs}", flush=True)
    floors = [gate.floor_of(name, ratios) for name, ratios in seen.items()]
    text = gate.floors_text(gate.renew(options.floors, floors))
    write_atomically(options.floors, text.encode())
    print(f"\n{'times as fast as NumPy':<58}{'floor':>8}{'least':>8}{'median':>8}{'most':>8}")
    for floor in floors:
        note = "  the runs differ too much" if floor.is_narrow else ""
        print(
            f"{floor.name:<58}{floor.floor:>8.2f}{floor.least:>8.2f}{floor.median:>8.2f}"
            f"{floor.most:>8.2f}{note}"
        )
    return 0


def _against(revision: str) -> int:
    """Compare this commit with another; returns 1 when a case got slower, or fails."""
    from ..bench import against, commits

    try:
        root, commit, head = commits.resolve(revision, Path.cwd())
        print(f"{revision} ({commit[:10]}) and this commit ({head[:10]}), in turn")
        with tempfile.TemporaryDirectory() as folder:
            print("building both, each in an environment of its own: up to a minute", flush=True)
            old = commits.build(root, commit, Path(folder) / "old")
            new = commits.build(root, head, Path(folder) / "new")
            found = []
            print(f"{'times as slow as before':<58}{'now':>8}{'allowed':>9}")
            for each in against.compare(old, new):
                found.append(each)
                note = "" if each.holds else "  FAILS" if each.failure else "  SLOWER"
                note += f"  the other: {each.problem}" if each.problem else ""
                figure = f"{each.ratio:>8.2f}" if each.ratios else f"{'-':>8}"
                print(f"{each.case.name:<58}{figure}{against.ALLOWED:>9.2f}{note}", flush=True)
    except commits.Refused as error:
        raise UsageError(f"argument --against: {error}") from error
    failed = [each for each in found if each.failure]
    slower = [each for each in found if not each.holds and not each.failure]
    skipped = sum(bool(each.problem) for each in found)
    for each in failed:
        print(f"\n{each.case.name}: this commit fails: {each.failure}")
    for each in slower:
        from ..bench import gate

        print(f"\n{each.case.name}: {each.ratio:.2f} times as slow\n    closer: "
              f"{gate.closer(each.case)}")  # fmt: skip
    print(
        f"\n{len(found)} cases, {len(slower)} slower, {len(failed)} that fail, "
        f"{skipped} that could not be compared"
    )
    if skipped == len(found):
        raise CommandFailed("no case could be compared")
    return 1 if slower or failed else 0


@contextlib.contextmanager
def busy_core() -> Iterator[subprocess.Popen[bytes]]:
    """Keep another process busy within a block, which leaves it one core less."""
    spin = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    process = subprocess.Popen([sys.executable, "-c", spin])  # noqa: S603 - our own text
    try:
        yield process
    finally:
        process.kill()
        process.wait()
