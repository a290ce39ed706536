"""The gate: fastbp is still as many times as fast as NumPy as it was.

Each case is timed beside the reference, in turn, in one process; what counts is the median of the
ratios.  What falls short of its floor is timed for longer, some times, before it fails, and in a
new process each time: where code and arrays came to lie in memory can cost a quarter.

A floor stands half-way, as ratios go, between the least that unchanged code has shown, in as many
looks, and the most that the same code, 1.6 times as slow, would have.  Ratios depend on the
processor (one with wider multipliers is kinder to fastbp than to NumPy), so each has floors of its
own.
"""

from __future__ import annotations

import importlib
import json
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import machine, processes
from .cases import BOOK, SMALL, TALL, Case, all_cases, kernel_shape
from .timing import Clock, measure
from .with_kernels import KERNELS

# Every kernel by itself, and the compiled loop as users call it.
CASES = (
    *((f"kernel {name}", kernel_shape(name), "float32") for name in KERNELS),
    ("predict", (1000, *TALL), "float32"),
    ("gradient", (1000, *BOOK), "float64"),
    ("numerical gradient", (100, *SMALL), "float64"),
    ("600 steps, Adam", (50, *SMALL), "float32"),
    ("600 steps", (100, *BOOK), "float32"),
    ("600 steps, no zeros", (100, *BOOK), "float32"),
)

# What the gate is to notice.
SLOWDOWN = 1.6
# Rounds of each case, and when to end sooner; a second look takes longer, as does each after it.
# Five, because a process keeps its luck: six showed 3.06, 3.1, 3.3, 3.4, 3.7 and 4.0 times for
# sigmoid_backward, and each the same at every look, most likely by the places of its pages in the
# second-level cache.
ROUNDS, LEAST_ROUNDS, SECONDS = 16, 3, 1.0
LOOKS = (1, 3, 3, 3, 3)

# Everything here runs on one thread.  The seconds that it was computing are not those of the wall
# when others want the processor too.  Where that clock is coarse, there is the wall's.
FINE = 1e-6


def finest_clock(platform: str = sys.platform) -> Clock:
    """Return the clock of the gate: this thread's where it is fine, else the wall's.

    That of Windows says it is fine to 100 ns, and moves every 15.6 ms.
    """
    if platform == "win32" or time.get_clock_info("thread_time").resolution > FINE:
        return time.perf_counter
    return time.thread_time


CLOCK = finest_clock()


@dataclass(frozen=True)
class Floor:
    """The least ratio that a case may have, and how it was found.

    Attributes
    ----------
    name : str
        Of the case.
    floor, median, least, most : float
        Times as fast as NumPy: what is asked for, and what the runs have shown; ``least`` is that
        of the best of as many runs as the gate has looks.
    runs : int
    date, machine : str
    """

    name: str
    floor: float
    median: float
    least: float
    most: float
    runs: int
    date: str
    machine: str

    @property
    def is_narrow(self) -> bool:
        """Whether noise may reach the floor: the runs differ nearly as much as they may."""
        return not (self.least > 1.08 * self.floor and self.most / SLOWDOWN < self.floor / 1.08)


@dataclass(frozen=True)
class Verdict:
    """A case of the gate: the ratios of all looks, the last first to hold or the last of all."""

    floor: Floor
    case: Case
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The best that was seen."""
        return max(self.ratios)

    @property
    def holds(self) -> bool:
        """Whether the floor is reached."""
        return self.ratio >= self.floor.floor


def gate_cases() -> list[Case]:
    """Return the gate's cases, on one thread."""
    found = {(c.operation, c.shape, c.dtype): c for c in all_cases((1,))}
    return [found[key] for key in CASES]


def ratio(case: Case, longer: int = 1) -> float:
    """Return how many times as fast as NumPy fastbp is, with calls built anew."""
    times = measure(case, ("fastbp",), longer * ROUNDS, longer * SECONDS, CLOCK, LEAST_ROUNDS)
    return times.ratios["reference"]


# What a new process runs; it gets a case's name and how much longer to look.
COMMAND = ["-m", __name__]


def look(case: Case, longer: int) -> float:
    """Return the ratio of a case: measured here, or in a new process for a second look.

    Raises
    ------
    Disagreement
        When the results differ.
    ProcessError
        When the process fails, or they differ there.
    """
    if longer == 1:
        return ratio(case)
    return float(processes.run(*COMMAND, case.name, str(longer)))


def judge(
    floors: Sequence[Floor], cases: Sequence[Case], look: Callable[[Case, int], float] = look
) -> Iterator[Verdict]:
    """Yield a verdict for each floor; what falls short is looked at again before it does."""
    named = {case.name: case for case in cases}
    for floor in floors:
        case = named[floor.name]
        ratios: list[float] = []
        for longer in LOOKS:
            ratios.append(look(case, longer))
            if ratios[-1] >= floor.floor:
                break
        yield Verdict(floor, case, tuple(ratios))


def closer(case: Case) -> str:
    """Return the command that looks closer at a case."""
    return f"fastbp bench --only '{case.operation}' --with reference --rounds 50"


# --- floors --------------------------------------------------------------------------------------


def floor_of(name: str, ratios: Sequence[float]) -> Floor:
    """Return the floor that the ratios of some runs give, every other one beside a busy core."""
    alike = [runs for runs in (ratios[::2], ratios[1::2]) if runs]
    looks = len(LOOKS)
    least = min(
        max(runs[i : i + looks]) for runs in alike for i in range(max(1, len(runs) - looks + 1))
    )
    most = max(ratios)
    return Floor(
        name,
        floor=round(math.sqrt(least * most / SLOWDOWN), 3),
        median=round(statistics.median(ratios), 3),
        least=round(least, 3),
        most=round(most, 3),
        runs=len(ratios),
        date=time.strftime("%Y-%m-%d"),
        machine=machine.processor(),
    )


def floors_text(floors: Sequence[Floor]) -> str:
    """Return the file of floors."""
    lines = [
        "# What each case must reach, in times as fast as NumPy, timed in turn on one thread.",
        "# `fastbp bench gate --write-floors` writes those of the processor it runs on; a floor",
        f"# stands half-way between the least of {len(LOOKS)} looks and the most of code "
        f"{SLOWDOWN} times as slow.",
    ]
    for floor in floors:
        lines.append("\n[[case]]")
        # TOML's strings and numbers are JSON's, with these characters.
        lines += [f"{key} = {json.dumps(value)}" for key, value in vars(floor).items()]
    return "\n".join(lines) + "\n"


def read_floors(path: Path) -> list[Floor]:
    """Return the floors of a file, of all processors.

    Raises
    ------
    OSError
        When there is none.
    ValueError
        When it is no file of floors, or has a case twice for the same processor.
    """
    text = path.read_text(encoding="utf-8")
    try:
        tomllib: Any = importlib.import_module("tomllib")
    except ModuleNotFoundError:
        raise ValueError("reading TOML needs Python 3.11") from None
    try:
        floors = [Floor(**entry) for entry in tomllib.loads(text)["case"]]
    except (KeyError, TypeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"it is no file of floors ({error})") from error
    for floor in floors:
        require_numbers(floor)
    stands = Counter((floor.name, floor.machine) for floor in floors)
    for (name, processor), times in stands.items():
        if times > 1:
            raise ValueError(f"{name!r} stands there {times} times for {processor}")
    return floors


def floors_of(processor: str, floors: Sequence[Floor]) -> list[Floor]:
    """Return the floor of each of the gate's cases on a processor.

    Where none was measured on it, the lowest of the others' stands in: it gives no false alarm on
    a processor that is no worse for fastbp than they are, and notices less.

    Raises
    ------
    ValueError
        When the floors' cases are not exactly those of the gate.
    """
    known = [case.name for case in gate_cases()]
    for floor in floors:
        if floor.name not in known:
            raise ValueError(f"{floor.name!r} is no case of the gate")
    found, missing = [], []
    for name in known:
        others = [floor for floor in floors if floor.name == name]
        here = [floor for floor in others if floor.machine == processor]
        if here or others:
            found.append(min(here or others, key=lambda floor: floor.floor))
        else:
            missing.append(name)
    if missing:
        raise ValueError(
            f"{len(missing)} of the gate's {len(known)} cases have no floor: {missing[0]!r}"
            + (" and others" if len(missing) > 1 else "")
        )
    return found


def renew(path: Path, floors: Sequence[Floor]) -> list[Floor]:
    """Return the floors, and behind them those that the file has of other processors.

    Raises
    ------
    OSError, ValueError
        When there is a file that can't be read: what it has would be lost.
    """
    before = read_floors(path) if path.exists() else []
    known = [case.name for case in gate_cases()]
    mine = machine.processor()
    return [*floors, *(old for old in before if old.machine != mine and old.name in known)]


def require_numbers(floor: Floor) -> None:
    """Refuse a floor whose texts are no texts, or whose numbers are not positive and finite.

    Raises
    ------
    ValueError
    """
    for key, value in vars(floor).items():
        if key in ("name", "date", "machine"):
            right, expected = isinstance(value, str), "a text"
        else:
            kinds = int if key == "runs" else (int, float)
            right = isinstance(value, kinds) and not isinstance(value, bool)
            right = right and 0 < value < math.inf
            expected = "a positive integer" if key == "runs" else "a positive number"
        if not right:
            raise ValueError(f"{key} of {floor.name!r} is {value!r}, expected {expected}")


def main(name: str, longer: str) -> None:
    """Print the ratio of a case: the whole of such a process."""
    (case,) = [case for case in gate_cases() if case.name == name]
    print(ratio(case, int(longer)))


if __name__ == "__main__":
    main(*sys.argv[1:])
