"""How threads and batches are chosen, with times made up."""

from itertools import pairwise

import pytest

from fastbp.pace import (
    CALL_BATCHES,
    CALL_SECONDS,
    FIRST_WAIT,
    LONGER,
    LONGEST_WAIT,
    MOST_FAILURES,
    SHORT_SECONDS,
    TRIAL_BATCHES,
    Company,
    Pace,
)


def ran(pace, seconds, calls=1):
    """Make calls that take so long for each number of threads; returns who made them."""
    used = []
    for _ in range(calls):
        used.append(pace.threads)
        assert 1 <= pace.batches <= CALL_BATCHES
        pace.learn(pace.threads, seconds[pace.threads])
    return used


def test_one_thread_stays_one():
    pace = Pace(1, fixed=False)
    assert ran(pace, {1: 1e-4}, 100) == [1] * 100


def test_a_fixed_number_is_never_changed():
    pace = Pace(4, fixed=True)
    assert ran(pace, {4: 10.0}, 100) == [4] * 100


def test_both_are_tried_and_the_faster_one_kept():
    for seconds, faster in (({1: 2e-4, 2: 1e-4}, 2), ({1: 1e-4, 2: 2e-4}, 1)):
        assert ran(Pace(2, fixed=False), seconds, 20) == [1, 2] + [faster] * 18


def test_a_call_is_short_and_the_first_ones_shorter():
    pace = Pace(2, fixed=False)
    assert pace.batches == TRIAL_BATCHES
    ran(pace, {1: 1e-3, 2: 5e-4}, 2)
    assert pace.batches == CALL_SECONDS / 5e-4
    pace.learn(2, 1e-9)
    assert pace.batches == CALL_BATCHES
    pace.learn(2, 10.0)
    pace.learn(1, 10.0)
    assert pace.batches == 1


def test_a_core_that_gets_busy_is_left_at_once_and_found_again():
    pace = Pace(2, fixed=False)
    ran(pace, {1: 2e-4, 2: 1e-4}, 10)
    busy = ran(pace, {1: 2e-4, 2: 1e-2}, 300)
    assert busy[0] == 2
    assert busy.count(2) < 10
    idle = ran(pace, {1: 2e-4, 2: 1e-4}, 2 * LONGEST_WAIT)
    assert idle[-1] == 2


def test_trials_that_lose_become_rarer():
    pace = Pace(2, fixed=False)
    used = ran(pace, {1: 1e-4, 2: 1e-3}, 5000)
    trials = [i for i, n in enumerate(used) if n == 2][1:]
    gaps = [b - a for a, b in pairwise(trials)]
    assert gaps == sorted(gaps)
    assert gaps[0] > FIRST_WAIT
    assert gaps[-1] <= LONGEST_WAIT + 1


@pytest.mark.parametrize("slow", [1e-3, 1e-2, 1e-1])
def test_trials_take_no_more_than_their_share(slow):
    pace = Pace(2, fixed=False, share=0.05)
    seconds = {1: 1e-4, 2: slow}
    used = ran(pace, seconds, 100_000)
    assert used.count(2) > 2
    assert used[2:].count(2) * slow <= 0.05 * len(used) * seconds[1]


def test_a_core_that_is_busy_now_and_then_costs_a_share_too():
    pace = Pace(2, fixed=False, share=0.05)
    spent = 0.0
    for i in range(100_000):
        n = pace.threads
        seconds = {1: 1e-4, 2: 1e-2 if i % 7 else 5e-5}[n]
        spent += seconds
        pace.learn(n, seconds)
    assert spent <= 1.2 * 100_000 * 1e-4


def test_one_bad_time_does_not_put_trials_off_for_ever():
    pace = Pace(2, fixed=False, share=0.05)
    pace.learn(1, 1e-4)
    pace.learn(2, 1e-2)  # the threads were just being started
    # Some calls take longer than others all the time.
    used = []
    for i in range(4000):
        used.append(pace.threads)
        pace.learn(used[-1], {1: 1e-4, 2: 6e-5}[used[-1]] * (1.9 if i % 2 else 1))
    assert used.count(2) > 1000


def test_a_trial_is_not_judged_by_the_call_of_another_thread():
    pace = Pace(2, fixed=False)
    ran(pace, {1: 1e-5, 2: 2e-5}, 2)
    while pace.threads == 1:
        pace.learn(1, 1e-5)
    pace.learn(1, 1e-5)  # began before the trial did
    assert pace.threads == 2
    pace.learn(2, 5e-6)
    assert pace.threads == 2


def test_a_trial_is_short():
    pace = Pace(2, fixed=False)
    while True:
        before = pace.threads
        ran(pace, {1: 1e-5, 2: 2e-5})
        if before == 1 and pace.threads == 2 and len(pace._seconds) == 2:
            break
    assert pace.batches == TRIAL_BATCHES


def test_the_first_call_of_long_batches_is_a_single_one():
    assert Pace(2, fixed=False, guess=CALL_SECONDS / 2).batches == 1
    assert Pace(2, fixed=False, guess=CALL_SECONDS / 8).batches == TRIAL_BATCHES


# --- short batches -------------------------------------------------------------------------------

STEP = {1: 1e-5, 2: 6e-6}  # seconds a batch
WAKING = 6e-5  # before the first of a call, on two threads


def train(pace, calls, step, waking=WAKING):
    """Make calls of as many batches as they should have; returns (threads, batches) of each."""
    made = []
    for _ in range(calls):
        threads, batches = pace.threads, pace.batches
        seconds = batches * step[threads] + (waking if threads > 1 else 0)
        pace.learn(threads, seconds / batches, batches)
        made.append((threads, batches))
    return made


def test_threads_that_must_wake_up_are_not_judged_by_a_few_short_batches():
    pace = Pace(2, fixed=False)
    made = train(pace, 40, STEP)
    assert STEP[1] < WAKING / TRIAL_BATCHES  # by four batches two threads are slower
    assert made[-1][0] == 2
    assert [n for n, _ in made].index(2) <= 3  # soon


def test_one_thread_is_not_judged_by_its_first_batches():
    pace = Pace(2, fixed=False)
    pace.learn(1, 10 * STEP[1], TRIAL_BATCHES)  # nothing was in the caches
    slower = {1: STEP[1], 2: 3 * STEP[1]}
    assert train(pace, 10, slower)[-1][0] == 1


def test_trials_get_longer_only_while_they_are_short():
    pace = Pace(2, fixed=False)
    busy = {1: 1e-5, 2: 8e-3}
    made = train(pace, 60, busy)
    tried = [batches for threads, batches in made if threads == 2]
    assert max(tried) == TRIAL_BATCHES  # 32 ms, and not 2 s
    assert made[-1][0] == 1


def test_a_trial_that_lost_at_length_has_lost():
    pace = Pace(2, fixed=False)
    made = train(pace, 2 * FIRST_WAIT, {1: 1e-5, 2: 1.1e-5})
    tried = [batches for threads, batches in made if threads == 2]
    assert tried[:3] == [TRIAL_BATCHES * LONGER**i for i in range(3)]
    assert tried[2] * 1.1e-5 > SHORT_SECONDS
    assert made[-1][0] == 1


def test_calls_that_are_shorter_than_they_should_be_are_judged_as_they_are():
    """A gradient is one batch, whatever is said; epochs of few batches end calls, too."""
    pace = Pace(2, fixed=False)
    for _ in range(3):
        pace.learn(pace.threads, 1e-4 * pace.threads, 1)
    assert set(pace._seconds) == {1, 2}


def test_no_call_has_more_batches_than_the_most():
    pace = Pace(2, fixed=False)
    assert max(batches for _, batches in train(pace, 60, {1: 1e-7, 2: 2e-7})) == CALL_BATCHES


@pytest.mark.parametrize("fixed", [False, True])
def test_there_are_no_trials_where_there_is_no_choice(fixed):
    pace = Pace(2 if fixed else 1, fixed)
    calls = train(pace, 3, STEP)
    assert {threads for threads, _ in calls} == {pace.most}
    assert calls[1][1] > TRIAL_BATCHES * LONGER


# --- threads that do not come --------------------------------------------------------------------


def asked(company, calls, come):
    """Make calls to which others come or do not; returns whether they were asked."""
    answers = []
    for _ in range(calls):
        answers.append(company.is_asked())
        if answers[-1]:
            company.learn(come)
    return answers


def test_threads_that_come_are_asked_again():
    assert all(asked(Company(), 100, True))


def test_threads_that_do_not_come_are_asked_more_and_more_rarely():
    company = Company()
    answers = asked(company, 5000, False)
    times = [i for i, answer in enumerate(answers) if answer]
    gaps = [b - a for a, b in pairwise(times)]
    assert gaps[:5] == [2, 4, 8, 16, 32]
    assert gaps[-1] == 2**MOST_FAILURES
    company.learn(True)  # they do again
    assert all(asked(company, 10, True))
