"""Times of things that take turns in one process, and ratios of times from the same round.

A ratio is the median over the rounds of (one's time / the other's in the same round), so what slows
the machine down for a while slows both.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from .agreement import prepare, require_agreement
from .cases import Case
from .processes import Peak
from .with_numpy import Call

Clock = Callable[[], float]

# A turn is as many calls as take about this long.
TURN_SECONDS = 0.004
# A clock that stands still during a call is to move so many of its steps in a turn; one that does
# not move in so many calls is stopped.
STEPS, MOST_CALLS = 4, 2**20
# On several threads those of the last turn get some time to stop spinning.
PAUSE_SECONDS = 0.005
ROUNDS = 15
# A process is started in so many rounds.
PROCESS_ROUNDS = 3
# A case whose calls are slow has fewer rounds, but not fewer than these.
CASE_SECONDS = 3.0
# Of glibc's <malloc.h>: when it gives memory back to the system, and which arrays get mappings of
# their own; and the most that the second of them may be.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, KEPT = -1, -3, 1 << 25
LEAST_ROUNDS = 3


@dataclass
class Times:
    """A case measured.

    Attributes
    ----------
    case : Case
    values : dict of implementation to list of float
        For each round the seconds a call, or the bytes.
    skipped, failed : dict of implementation to str
        Who was left out and who failed here, and why.
    """

    case: Case
    values: dict[str, list[float]]
    skipped: dict[str, str]
    failed: dict[str, str] = field(default_factory=dict)

    def median(self, implementation: str) -> float:
        """Return the median of the rounds."""
        return statistics.median(self.values[implementation])

    def ratio(self, other: str, ours: str = "fastbp") -> float:
        """Return how many times as much one needs as the other, in the same round."""
        pairs = zip(self.values[other], self.values[ours], strict=True)
        return statistics.median(a / b for a, b in pairs)


def measure(
    case: Case,
    implementations: tuple[str, ...] | list[str] = ("reference", "fastbp"),
    rounds: int = ROUNDS,
    seconds: float = CASE_SECONDS,
    clock: Clock = time.perf_counter,
    least: int = LEAST_ROUNDS,
) -> Times:
    """Build the calls of a case, compare their results, and time them in turn.

    Parameters
    ----------
    case : Case
    implementations : sequence of str
        The reference takes part in any case: it is what the others must agree with.
    rounds : int
    seconds : float
        After so long there are no more rounds than the least.
    clock : callable
        Returns seconds: those of the wall, or those that this thread was computing.
    least : int
        There are so many rounds, however long they take.

    Returns
    -------
    Times

    Raises
    ------
    Disagreement
        When the results differ; then nothing is timed.
    """
    found = prepare(case, dict.fromkeys(("reference", *implementations)))
    require_agreement(case, found.results)
    numbers = None
    if case.is_process:
        numbers, rounds = dict.fromkeys(found.calls, 1), min(rounds, PROCESS_ROUNDS)
    pause = PAUSE_SECONDS if case.threads > 1 else 0.0
    values = take_turns(found.calls, rounds, pause, seconds, numbers, clock, least)
    return Times(case, values, found.skipped, found.failed)


def take_turns(
    calls: Mapping[str, Call],
    rounds: int,
    pause: float = 0.0,
    seconds: float = CASE_SECONDS,
    numbers: Mapping[str, int] | None = None,
    clock: Clock = time.perf_counter,
    least: int = LEAST_ROUNDS,
) -> dict[str, list[float]]:
    """Return for each call what it took in each round; every other round goes backwards.

    ``numbers`` says how many calls are a turn; without it, as many as take ``TURN_SECONDS``.
    """
    with no_collection():
        if numbers is None:
            numbers = {name: turn_length(call, clock) for name, call in calls.items()}
        values: dict[str, list[float]] = {name: [] for name in calls}
        begin = time.perf_counter()
        for i in range(rounds):
            for name in list(calls) if i % 2 == 0 else reversed(list(calls)):
                values[name].append(value(calls[name], numbers[name], clock))
                time.sleep(pause)
            if i + 1 >= least and time.perf_counter() - begin > seconds:
                break
    return values


def keep_memory() -> None:
    """Have the C library keep what is freed, where it is glibc.

    Otherwise it depends on what else lies in the heap whether an array of some 100 kB is a mapping
    of its own, whose pages the system clears each time: NumPy then takes twice as long, or not.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(option, KEPT)


def turn_length(call: Call, clock: Clock = time.perf_counter) -> int:
    """Return how many calls take about as long as a turn, or some steps of a coarse clock."""
    shortest = value(call, 1, clock)
    # A quick call may have met the step of a coarse clock, which is some milliseconds.
    if shortest < 10 * TURN_SECONDS:
        shortest = min(shortest, value(call, 1, clock), value(call, 1, clock))
    if shortest > 0:
        return max(1, round(TURN_SECONDS / shortest))
    number, step, moved = 1, 0.0, 0.0
    while number < MOST_CALLS and (not step or moved < STEPS * step):
        number *= 2
        moved = number * value(call, number, clock)
        step = step or moved
    return number


def value(call: Call, number: int, clock: Clock = time.perf_counter) -> float:
    """Return the seconds of one of so many calls, or the bytes of the last."""
    begin = clock()
    for _ in range(number - 1):
        call()  # nobody holds its result while the next one is made
    result = call()
    seconds = (clock() - begin) / number
    return float(result.bytes) if isinstance(result, Peak) else seconds


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Keep Python from looking for garbage within a block."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
