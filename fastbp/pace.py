"""How many threads the compiled loop runs on, and for how many batches at a time.

Both are found out from the times of the calls before: the second core may be busy, and then two
threads that wait for each other are many times slower than one.
"""

from __future__ import annotations

__all__ = ["Company", "Pace"]

# Seconds a compiled call should take: long against its overhead, short enough for Ctrl-C and the
# progress bar.
CALL_SECONDS = 0.02
# The most batches a call, however short they are; and those of a call that tries something out.
CALL_BATCHES, TRIAL_BATCHES = 1000, 4
# A call of fewer seconds says little if it seems slow: threads had to wake up, code and data came
# into the caches.  It is repeated with so many times the batches.  Not at once with many: beside a
# busy core a batch can take milliseconds.
SHORT_SECONDS, LONGER = 1e-3, 8
# Calls until the number of threads that was slower gets another try.  Each time it is slower
# again the wait doubles, so that trials cost little where a core stays busy.
FIRST_WAIT, LONGEST_WAIT = 20, 640
# After so many calls in a row to which not all threads came, 1023 are made alone.
MOST_FAILURES = 10


class Company:
    """Whether to ask other threads along, where some did not come.

    Waiting for them takes milliseconds.  Each time in vain the number of calls made alone doubles.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._alone = 0  # calls still to be made alone

    def is_asked(self) -> bool:
        """Return whether the next call is one for several threads."""
        self._alone -= 1
        return self._alone < 0

    def learn(self, came: bool) -> None:
        """Take notice of a call that was."""
        self._failures = 0 if came else min(self._failures + 1, MOST_FAILURES)
        self._alone = 2**self._failures - 1


class Pace:
    """Chooses threads and batches for the calls of one program.

    Parameters
    ----------
    most : int
        The number of threads that is tried beside one.
    fixed : bool
        Always use ``most``.
    guess : float
        Seconds that a batch may take, until one was timed.
    share : float
        The most of all time that trials may take, where each call is one batch; 1 for any.  Short
        calls need it: beside busy cores two threads can take a hundred times as long as one.
    """

    def __init__(self, most: int, fixed: bool, guess: float = 0.0, share: float = 1.0) -> None:
        self.most = most
        self._guess = guess
        self._share = share
        self._seconds: dict[int, float] = {}  # a batch takes, by number of threads
        self._candidates = [most] if fixed or most == 1 else [1, most]
        self._wait = FIRST_WAIT
        self._calls = 0  # since both numbers are known, or since the last trial
        self._trial: int | None = None
        self._trial_batches = TRIAL_BATCHES

    @property
    def threads(self) -> int:
        """The number of threads for the next call."""
        if self._trial is not None:
            return self._trial
        unknown = [n for n in self._candidates if n not in self._seconds]
        return unknown[0] if unknown else min(self._candidates, key=self._seconds.__getitem__)

    @property
    def batches(self) -> int:
        """The number of batches for the next call."""
        seconds = self._seconds.get(self.threads)
        if seconds is None:
            return self._trial_batches if TRIAL_BATCHES * self._guess <= CALL_SECONDS else 1
        most = CALL_BATCHES if self._trial is None else self._trial_batches
        return max(1, min(most, int(CALL_SECONDS / seconds)))

    def learn(self, threads: int, seconds: float, batches: int = 1) -> None:
        """Take notice of a call.

        Parameters
        ----------
        threads : int
            On so many it ran.
        seconds : float
            It took for each batch.
        batches : int
            How many it had.
        """
        before = self._seconds.get(threads)
        if len(self._candidates) > 1 and (threads == self._trial or before is None):
            slow = seconds >= self._seconds.get(self._other(threads), 0.0)
            short = batches * seconds < SHORT_SECONDS and batches < CALL_BATCHES
            if slow and short and batches >= self._trial_batches:
                self._trial_batches = min(CALL_BATCHES, LONGER * self._trial_batches)
                return
            self._trial_batches = TRIAL_BATCHES
        if before is not None and abs(seconds / before - 1) < 0.5:
            seconds = 0.7 * before + 0.3 * seconds
        # A change by half is believed at once: another program has begun to use a core, or ended.
        self._seconds[threads] = seconds
        if threads == self._trial:
            won = seconds < self._seconds[self._other(self._trial)]
            self._wait = FIRST_WAIT if won else min(LONGEST_WAIT, 2 * self._wait)
            self._trial, self._calls = None, 0
        elif self._trial is None and len(self._seconds) == 2:
            self._calls += 1
            if self._calls >= max(self._wait, self._calls_a_trial()):
                self._trial = self._other(self.threads)

    def _other(self, threads: int) -> int:
        """Return the other one of the two numbers of threads."""
        return self.most + 1 - threads

    def _calls_a_trial(self) -> int:
        """Return how many calls a trial needs between, to take its share of time and no more."""
        quick, slow = sorted(self._seconds.values())
        return int(slow / (quick * self._share)) if self._share < 1 else 0
