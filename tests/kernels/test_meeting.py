"""Threads that meet: nobody goes on before all are there, and nobody waits for who never comes."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fastbp import threads as setting
from fastbp.engine import prepare_meeting
from fastbp.kernels.jit import JIT_DISABLED, kernel
from fastbp.kernels.meeting import YIELD, all_come, meet

pytestmark = pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled, and one thread runs")

APART = 8  # numbers of a thread lie on a cache line of their own
ROUNDS = 3000


@kernel("int64[::1], int64[::1], int64[::1], int64, int64, int64")
def take_turns(wrong, numbers, meeting, thread, threads, rounds):
    """Write a number, meet, read everybody's, meet; ``wrong`` counts those that are of no use."""
    if not all_come(meeting, threads):
        wrong[thread] = -1
        return
    for i in range(rounds):
        numbers[thread * APART] = i
        meet(meeting, thread, threads, 2 * i + 1)
        for other in range(threads):
            if numbers[other * APART] != i:
                wrong[thread] += 1
        meet(meeting, thread, threads, 2 * i + 2)


def play(threads, rounds, come):
    """Let some threads take turns that are meant for as many or more; return what was wrong."""
    wrong, numbers = np.zeros(threads, np.int64), np.zeros(threads * APART, np.int64)
    meeting = prepare_meeting(threads)
    take_turns(np.zeros(1, np.int64), numbers, prepare_meeting(1), 0, 1, 1)  # compiled now
    with ThreadPoolExecutor(come) as pool:
        calls = [
            pool.submit(take_turns, wrong, numbers, meeting, thread, threads, rounds)
            for thread in range(come)
        ]
        for call in calls:
            call.result()
    return wrong.tolist()


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 5, 8])
def test_nobody_goes_on_before_all_are_there(threads):
    wrong = play(threads, ROUNDS if threads < 4 else 100, threads)
    assert wrong in ([0] * threads, [-1] * threads)  # or the machine was busy: all have gone
    if threads == 1:
        assert wrong == [0]


def test_threads_come_to_a_meeting():
    """One of some tries, at least, if something else keeps a core from beginning in time."""
    assert [0, 0] in [play(2, 10, 2) for _ in range(20)]


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_who_comes_alone_goes_and_who_comes_later_too(threads):
    wrong, numbers = np.zeros(threads, np.int64), np.zeros(threads * APART, np.int64)
    meeting = prepare_meeting(threads)
    for thread in range(threads):
        take_turns(wrong, numbers, meeting, thread, threads, ROUNDS)
    assert wrong.tolist() == [-1] * threads
    assert not numbers.any()


def test_threads_give_up_the_core_where_the_system_has_a_function_for_it():
    assert prepare_meeting(2)[YIELD] == setting.address_of_yield() != 0


def test_they_meet_where_it_has_none(monkeypatch):
    monkeypatch.setattr(setting, "address_of_yield", lambda: 0)
    assert prepare_meeting(2)[YIELD] == 0
    assert [0, 0] in [play(2, 10, 2) for _ in range(20)]
