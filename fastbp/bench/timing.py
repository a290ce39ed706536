"""Times of things that take turns in one process, and ratios of times of neighbours.

A round goes through all the others and back, with a turn of fastbp before and after each.  A ratio
is the median over all turns of (another's time / the mean of fastbp's just before and just after),
so what slows the machine down for a while slows both.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .agreement import prepare, require_agreement
from .cases import Case
from .processes import Peak
from .with_numpy import Call

Clock = Callable[[], float]

# A turn is as many calls as take about this long, or this part of the longest beside it: next
# to a call of half a second, a few milliseconds would tell more about that moment than about them.
TURN_SECONDS, SHARE = 0.004, 1 / 8
# Whose first call takes about as long as the next, because nothing is compiled.
STEADY = ("reference", "numerical", "sklearn")
# A clock that stands still during a call is to move so many of its steps in a turn; one that does
# not move in so many calls is stopped.
STEPS, MOST_CALLS = 4, 2**20
# On several threads those of the last turn get some time to stop spinning.
PAUSE_SECONDS = 0.005
ROUNDS = 8
# A process is started in so many rounds, fastbp's in every second turn.
PROCESS_ROUNDS = 1
# A case whose calls are slow has fewer rounds, but not fewer than these.
CASE_SECONDS, LEAST_ROUNDS = 3.0, 2
# Of glibc's <malloc.h>: when it gives memory back to the system, and which arrays get mappings of
# their own; and the most that the second of them may be.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, KEPT = -1, -3, 1 << 25


@dataclass
class Times:
    """A case measured.

    Attributes
    ----------
    case : Case
    values : dict of implementation to list of float
        For each turn, the seconds a call, or the bytes.
    relative : dict of implementation to list of float
        For each turn of another, two a round: in units of fastbp's mean before and after it.
    skipped, failed : dict of implementation to str
        Who was left out and who failed here, and why.
    """

    case: Case
    values: dict[str, list[float]]
    relative: dict[str, list[float]]
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def median(self, implementation: str) -> float:
        """Return the median of the turns."""
        return statistics.median(self.values[implementation])

    @property
    def ratios(self) -> dict[str, float]:
        """How many times as much as fastbp each of the others needs, at the same time."""
        return {name: statistics.median(turns) for name, turns in self.relative.items()}


class Measurement:
    """A case whose calls are built and agree, and then take turns, now or later.

    Parameters
    ----------
    case : Case
    implementations : sequence of str
        The reference takes part in any case: it is what the others must agree with.
    clock : callable
        Returns seconds: those of the wall, or those that this thread was computing.

    Attributes
    ----------
    times : Times
        Of the rounds so far.

    Raises
    ------
    Disagreement
        When the results differ; then nothing is timed.
    """

    def __init__(
        self, case: Case, implementations: Sequence[str], clock: Clock = time.perf_counter
    ) -> None:
        keep_memory()
        found = prepare(case, dict.fromkeys(("reference", *implementations)))
        require_agreement(case, found.results)
        pause = PAUSE_SECONDS if case.threads > 1 else 0.0
        numbers = dict.fromkeys(found.calls, 1) if case.is_process else None
        known = {name: found.seconds[name] for name in found.calls if name in STEADY}
        self._turns = Turns(found.calls, numbers, pause, clock, known, "fastbp")
        self._most = PROCESS_ROUNDS if case.is_process else math.inf
        turns = self._turns
        self.times = Times(case, turns.values, turns.relative, found.skipped, found.failed)

    def take(self, rounds: int, seconds: float = CASE_SECONDS, least: int = LEAST_ROUNDS) -> Times:
        """Take turns until there are so many rounds, or the least and so many seconds are over."""
        self._turns.take(int(min(rounds, self._most)), seconds, least)
        return self.times


def measure(
    case: Case,
    implementations: Sequence[str] = ("reference", "fastbp"),
    rounds: int = ROUNDS,
    seconds: float = CASE_SECONDS,
    clock: Clock = time.perf_counter,
    least: int = LEAST_ROUNDS,
) -> Times:
    """Measure a case at once, as :class:`Measurement` and its ``take`` say."""
    return Measurement(case, implementations, clock).take(rounds, seconds, least)


class Turns:
    """Calls that take turns.

    Parameters
    ----------
    calls : mapping of name to callable
    numbers : mapping of name to int, optional
        How many calls are a turn; without it, as many as take ``TURN_SECONDS``, or ``SHARE`` of the
        longest turn.
    pause : float
        Seconds between turns.
    clock : callable
    known : mapping of name to float
        Seconds that calls are known to take, roughly.
    ours : str, optional
        Whose turns lie between those of the others, where it is one of the calls.

    Attributes
    ----------
    values : dict of name to list of float
        What a call took in each turn: two a round, and one more than the others' for ours.
    relative : dict of name to list of float
        What each of the others took, divided by the mean of ours before and after it.
    """

    def __init__(
        self,
        calls: Mapping[str, Call],
        numbers: Mapping[str, int] | None = None,
        pause: float = 0.0,
        clock: Clock = time.perf_counter,
        known: Mapping[str, float] | None = None,
        ours: str | None = None,
    ) -> None:
        self._calls, self._pause, self._clock = calls, pause, clock
        self._numbers, self._known = numbers, known or {}
        self._ours = ours if ours in calls else None
        self._others = [name for name in calls if name != self._ours]
        self._rounds, self._seconds = 0, 0.0
        self.values: dict[str, list[float]] = {name: [] for name in calls}
        self.relative: dict[str, list[float]] = (
            {name: [] for name in self._others} if self._ours else {}
        )

    def take(self, rounds: int, seconds: float = CASE_SECONDS, least: int = LEAST_ROUNDS) -> None:
        """Take turns until there are so many rounds, or the least and so many seconds are over."""
        if self._rounds >= rounds or (self._rounds >= least and self._seconds > seconds):
            return
        begin = time.perf_counter() - self._seconds
        with no_collection():
            if self._numbers is None:
                self._numbers = turn_lengths(self._calls, self._clock, self._known)
            for name, call in self._calls.items() if self._rounds else ():
                if self._numbers[name] > 1:
                    call()  # what it needs comes back into the caches
            while self._rounds < rounds:
                self._round(self._numbers)
                self._rounds += 1
                self._seconds = time.perf_counter() - begin
                if self._rounds >= least and self._seconds > seconds:
                    break

    def _round(self, numbers: Mapping[str, int]) -> None:
        """Take turns through all the others and back."""

        def turn(name: str) -> None:
            self.values[name].append(value(self._calls[name], numbers[name], self._clock))
            time.sleep(self._pause)

        if self._ours:
            turn(self._ours)
        for name in (*self._others, *reversed(self._others)):
            turn(name)
            if self._ours:
                turn(self._ours)
                beside = statistics.fmean(self.values[self._ours][-2:])
                self.relative[name].append(self.values[name][-1] / beside)


def keep_memory() -> None:
    """Have the C library keep what is freed, where it is glibc.

    Otherwise it depends on what else lies in the heap whether an array of some 100 kB is a mapping
    of its own, whose pages the system clears each time: NumPy then takes twice as long, or not.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(option, KEPT)


def turn_lengths(
    calls: Mapping[str, Call], clock: Clock, known: Mapping[str, float]
) -> dict[str, int]:
    """Return how many of each of some calls are a turn."""
    found = {name: known.get(name, 0.0) for name in calls}
    for name, call in calls.items():
        if found[name] < 10 * TURN_SECONDS:  # longer ones are as they are known
            found[name] = one_call(call, clock)
    part = max(TURN_SECONDS, SHARE * max(found.values()))
    return {
        name: max(1, round(part / seconds)) if seconds > 0 else steps_of_a_clock(calls[name], clock)
        for name, seconds in found.items()
    }


def turn_length(call: Call, clock: Clock = time.perf_counter) -> int:
    """Return how many calls are a turn where there is no other."""
    return turn_lengths({"": call}, clock, {})[""]


def one_call(call: Call, clock: Clock) -> float:
    """Return about how long a call takes: 0 where the clock did not move."""
    shortest = value(call, 1, clock)
    # A quick call may have met the step of a coarse clock, which is some milliseconds.
    if shortest < 10 * TURN_SECONDS:
        shortest = min(shortest, value(call, 1, clock), value(call, 1, clock))
    return shortest


def steps_of_a_clock(call: Call, clock: Clock) -> int:
    """Return how many calls take some steps of a coarse clock."""
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
    was_on = gc.isenabled()
    if was_on:
        gc.collect()
        gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
