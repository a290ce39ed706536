"""Time whole training steps, fastbp's and others': ``python -m benchmarks.training``.

Each implementation trains in a process of its own and waits; they take turns, round after round.
A ratio is the median over the rounds of (other's time / fastbp's time in the same round), so what
slows the machine down for a while slows both.  Before anything is timed, all take the same steps
from the same weights, and their losses must agree.

``--check`` fails where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from tqdm import tqdm

import fastbp
from fastbp.bench.workloads import WORKLOADS, Workload
from fastbp.cli.bench import require_writable
from fastbp.cli.options import UsageError

from .workers import IMPLEMENTATIONS, ON_REQUEST, Worker, missing, work

# A turn is as many steps as take about this long, and then the threads of the last one get some
# time to stop spinning.
TURN_SECONDS = 0.3
PAUSE_SECONDS = 0.02

# Steps in the check of the losses, and how far they may be apart, as a share of what was learned.
CHECK_STEPS = 60
CHECK_TOLERANCE = 0.01

# More runnable processes than this, before anything begins, and the times are not to be trusted.
QUIET_LOAD = 0.5

# A turn's length is found with so many steps, and has at least as many.
PROBE_STEPS = 20

# Who takes longer for a whole training does it once.
SLOW_SECONDS = 5.0
WHOLE_PEERS = ("fastbp", "book", "torch", "torch.compile", "jax", "jax-scan")
LEAST_ACCURACY = 0.966  # of the whole training, on MNIST

# Microseconds a step, by workload and threads.
TARGETS = {
    ("book", 1): 80,
    ("book", 2): 50,
    ("book-dense", 1): 180,
    ("book-dense", 2): 110,
    ("book-float64", 1): 330,
    ("book-float64", 2): 190,
    ("book-dense-float64", 1): 330,
    ("book-dense-float64", 2): 190,
    ("deep", 1): 5900,
    ("deep", 2): 3000,
    ("digits", 1): 15,
    ("digits", 2): 15,
}
# Seconds of a whole training.
WHOLE_TARGETS = {("whole", 2): 1.0}
# Time a step over that of plain SGD on the same network.
OPTIMIZER_TARGETS = {
    "digits-momentum": 1.10,
    "digits-adam": 1.20,
    "digits-decay": 1.03,
    "book-momentum": 1.10,
    "book-adam": 1.20,
    "book-decay": 1.03,
}
# One thread's time over that of two: for steps of more than 200 us, and for all others.
SPEEDUP_FROM_US = 200
SPEEDUP_TARGET = 1.6
NO_SLOWDOWN_TARGET = 1 / 1.15


@dataclass
class Runner:
    """One implementation of one workload, and what was measured.

    Attributes
    ----------
    label : str
    name : str
        The implementation.
    workload : Workload
    threads : int
    us : list of float
        Microseconds a step in each round; seconds of a whole training.
    before, after : float
        The loss around the steps that everybody takes.
    accuracy : float
        After a whole training.
    """

    label: str
    name: str
    workload: Workload
    threads: int
    us: list[float] = field(default_factory=list)
    before: float = 0.0
    after: float = 0.0
    accuracy: float = 0.0

    def median(self) -> float:
        """Return the median of the rounds."""
        return statistics.median(self.us)

    def over(self, other: Runner) -> float:
        """Return the median ratio of this one's time to another's in the same round."""
        return statistics.median(a / b for a, b in zip(self.us, other.us, strict=False))

    def agrees(self, other: Runner) -> bool:
        """Tell whether the losses are those of another, which must have learned something."""
        apart = max(abs(self.before - other.before), abs(self.after - other.after))
        return apart <= CHECK_TOLERANCE * (other.before - other.after)


@dataclass
class Group:
    """Runners that take turns: fastbp first."""

    workload: Workload
    threads: int
    runners: list[Runner]

    def targets(self) -> Iterator[tuple[str, float, float, bool]]:
        """Yield what was promised: a text, the figure, the target, and whether it is held."""
        ours = self.runners[0]
        key = self.workload.name, self.threads
        for targets, unit in ((TARGETS, "us a step"), (WHOLE_TARGETS, "s in all")):
            if key in targets:
                yield unit, ours.median(), targets[key], ours.median() <= targets[key]
        for runner in self.runners[1:]:
            ratio = runner.over(ours)
            if runner.workload != self.workload and self.workload.name in OPTIMIZER_TARGETS:
                target = OPTIMIZER_TARGETS[self.workload.name]
                yield "times plain SGD", 1 / ratio, target, 1 / ratio <= target
            elif runner.threads != self.threads and not self.workload.whole:
                large = runner.median() > SPEEDUP_FROM_US
                target = SPEEDUP_TARGET if large else NO_SLOWDOWN_TARGET
                yield f"times as fast as {runner.label}", ratio, target, ratio >= target

    def wrong(self) -> list[Runner]:
        """Return the runners whose results are not those of the others."""
        if self.workload.whole:
            least = LEAST_ACCURACY if "SYNTHETIC" not in self.workload.title else 0.0
            return [r for r in self.runners if r.accuracy < least]
        ours = self.runners[0]
        return [r for r in self.runners if r.workload == self.workload and not r.agrees(ours)]


def form_group(workload: Workload, threads: int, names: list[str]) -> Group:
    """Return the runners of a workload: the implementations, and fastbp in other ways."""
    if workload.whole:
        names = [name for name in names if name in WHOLE_PEERS]
    runners = [Runner(name, name, workload, threads) for name in names]
    if workload.plain:
        plain = next(w for w in WORKLOADS if w.name == workload.plain)
        runners.append(Runner("fastbp, SGD", "fastbp", plain, threads))
    if threads > 1 and not workload.whole:
        runners.append(Runner("fastbp, 1 thread", "fastbp", workload, 1))
    return Group(workload, threads, runners)


def measure(group: Group, rounds: int, bar: Any) -> None:
    """Measure a group anew."""
    for runner in group.runners:
        runner.us.clear()
    (measure_whole if group.workload.whole else measure_steps)(group, rounds, bar)


def measure_steps(group: Group, rounds: int, bar: Any) -> None:
    """Let the runners take turns."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(r.name, r.threads)) for r in group.runners]
        for runner, worker in zip(group.runners, workers, strict=True):
            worker.tell("prepare", runner.workload.to_json())
        for worker in workers:
            worker.answer()
        turns = []
        for runner, worker in zip(group.runners, workers, strict=True):
            bar.set_postfix_str(f"{group.workload.name}: {runner.label} gets ready")
            losses = worker.ask("check", CHECK_STEPS)
            runner.before, runner.after = losses["before"], losses["after"]
            turns.append((runner, worker, turn_length(worker)))
        for i in range(rounds):
            bar.set_postfix_str(f"{group.workload.name}: round {i + 1}")
            for runner, worker, steps in turns if i % 2 == 0 else reversed(turns):
                runner.us.append(1e6 * worker.ask("run", steps)["seconds"])
                time.sleep(PAUSE_SECONDS)


def turn_length(worker: Worker) -> int:
    """Return how many steps take a turn."""
    worker.ask("run", 1)  # compiles what the turns will use
    done = worker.ask("run", PROBE_STEPS)
    return max(PROBE_STEPS, round(TURN_SECONDS / done["seconds"]))


def measure_whole(group: Group, rounds: int, bar: Any) -> None:
    """Let the runners train to the end, each time in a new process, as a user's first call does."""
    fill_cache(group)
    for i in range(rounds):
        for runner in group.runners:
            if i and runner.name != "fastbp" and runner.us[0] > SLOW_SECONDS:
                continue
            bar.set_postfix_str(f"{group.workload.name}: {runner.label}")
            with Worker(runner.name, runner.threads) as worker:
                worker.ask("prepare", runner.workload.to_json())
                done = worker.ask("whole")
            runner.us.append(done["seconds"])
            runner.accuracy = done["accuracy"]


def fill_cache(group: Group) -> None:
    """Let a process of fastbp compile what it keeps on disk."""
    with Worker("fastbp", group.threads) as worker:
        worker.ask("prepare", replace(group.workload, whole=1).to_json())
        worker.ask("whole")


def show(group: Group) -> Iterator[str]:
    """Yield the lines about a group."""
    ours, whole = group.runners[0], bool(group.workload.whole)
    threads = f"{group.threads} thread{'s' if group.threads > 1 else ''}"
    yield f"\n{group.workload.name}, {threads}: {group.workload.title}"
    unit = "seconds" if whole else "us a step"
    result = "accuracy" if whole else f"loss, step {CHECK_STEPS}"
    yield f"  {'':<17}{unit:>10}{'min':>10}{'max':>10}{'x fastbp':>10}{result:>15}"
    wrong = group.wrong()
    for r in group.runners:
        digits = 2 if whole else 1
        times = "".join(f"{t:>10,.{digits}f}" for t in (r.median(), min(r.us), max(r.us)))
        value = f"{r.accuracy:.4f}" if whole else f"{r.after:.5f}"
        note = "  WRONG" if r in wrong else ""
        yield f"  {r.label:<17}{times}{r.over(ours):>10.2f}{value:>15}{note}"
    for text, figure, target, held in group.targets():
        yield f"  target: {target:,.4g} {text}; {figure:,.4g}: {'OK' if held else 'MISSED'}"


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    about = {"fastbp": fastbp.__version__, "python": platform.python_version()}
    for package in ("numpy", "numba", "scikit-learn", "torch", "jax"):
        try:
            about[package] = version(package)
        except PackageNotFoundError:
            about[package] = "missing"
    return about | {"processor": llvm.get_host_cpu_name(), "cpus": str(os.cpu_count())}


def about_machine() -> str:
    """Return the versions in a line, and a warning when others are using the machine."""
    line = ", ".join(f"{key} {value}" for key, value in machine().items())
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > QUIET_LOAD:
        line += f"\nBUSY MACHINE: load {load:.1f} before the start; do not trust the times"
    return line


def record(groups: list[Group]) -> dict[str, Any]:
    """Return everything measured, for a file."""
    results = []
    for group in groups:
        for r in group.runners:
            fields = {"runner": r.label, "runner threads": r.threads, "loss": [r.before, r.after]}
            times = {"seconds" if group.workload.whole else "us": r.us}
            ratio = {"over fastbp": r.over(group.runners[0]), "accuracy": r.accuracy}
            about = {"workload": group.workload.name, "threads": group.threads}
            about |= {"title": group.workload.title, "plain": group.workload.plain}
            results.append(about | fields | times | ratio)
    date = time.strftime("%Y-%m-%d")
    return {"machine": machine(), "date": date, "results": results}


def as_text(record: dict[str, Any]) -> str:
    """Return a record as JSON, a result a line."""
    head = json.dumps({key: value for key, value in record.items() if key != "results"}, indent=1)
    lines = ",\n".join(json.dumps(result) for result in record["results"])
    return f'{head[:-2]},\n "results": [\n{lines}\n]}}\n'


def chosen_implementations(names: list[str]) -> list[str]:
    """Return the implementations that are here, fastbp first; say which are not."""
    here = ["fastbp"]
    for name in names:
        package = missing(name)
        if package:
            print(f"{name} is left out: {package} is missing")
        elif name != "fastbp":
            here.append(name)
    return here


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="NAME", help="workloads; book, 'digits*', ..."
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=list(IMPLEMENTATIONS),
        default=[name for name in IMPLEMENTATIONS if name not in ON_REQUEST],
        help=f"beside fastbp; all but {', '.join(ON_REQUEST)} by default",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--worker", choices=list(IMPLEMENTATIONS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return work(options.worker, options.threads[0])
    if options.json:
        try:
            require_writable("--json", options.json)
        except UsageError as error:
            parser.exit(2, f"{parser.prog}: error: {error}\n")
    print(about_machine())
    names = chosen_implementations(options.peers)
    chosen = [w for w in WORKLOADS if any(fnmatchcase(w.name, name) for name in options.only)]
    groups = [form_group(w, n, names) for w in chosen for n in options.threads]
    with tqdm(groups, unit="workload", disable=None, leave=False) as bar:
        for group in bar:
            measure(group, options.rounds, bar)
            if options.check and not all(held for *_, held in group.targets()):
                measure(group, 2 * options.rounds, bar)  # once more, and for longer
            for line in show(group):
                bar.write(line)
    if options.json:
        options.json.write_text(as_text(record(groups)), encoding="utf-8")
    missed = sum(not held for group in groups for *_, held in group.targets())
    wrong = sum(len(group.wrong()) for group in groups)
    print(f"\n{len(groups)} comparisons: {missed} targets missed, {wrong} wrong results")
    return 1 if wrong or (options.check and missed) else 0


if __name__ == "__main__":
    sys.exit(main())
