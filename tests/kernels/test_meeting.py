"""Threads that meet: nobody goes on before all are there, and nobody waits for who never comes.

What is wrong with a meeting may be a hang, so all of it is played in processes of their own.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fastbp import threads as setting
from fastbp.engine import prepare_meeting
from fastbp.kernels.jit import JIT_DISABLED, kernel
from fastbp.kernels.meeting import YIELD, all_come, meet

APART = 8  # numbers of a thread lie on a cache line of their own


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


def play(threads, rounds, tries, can_yield):
    """Let threads take turns; return what was wrong the first time that all of them came."""
    take_turns(*np.zeros((3, 8 * APART), np.int64), 0, 1, 1)  # compiled now
    for _ in range(tries):
        wrong, numbers = np.zeros(threads, np.int64), np.zeros(threads * APART, np.int64)
        meeting = prepare_meeting(threads)
        meeting[YIELD] *= can_yield
        with ThreadPoolExecutor(threads) as pool:
            for call in [
                pool.submit(take_turns, wrong, numbers, meeting, thread, threads, rounds)
                for thread in range(threads)
            ]:
                call.result()
        if wrong[0] >= 0:
            break
    return wrong.tolist()


def play_alone(threads):
    """Come alone, and then one after the other; return what each was told, and what it wrote."""
    wrong, numbers = np.zeros(threads, np.int64), np.zeros(threads * APART, np.int64)
    meeting = prepare_meeting(threads)
    for thread in range(threads):
        take_turns(wrong, numbers, meeting, thread, threads, 10)
    return [wrong.tolist(), bool(numbers.any())]


def played(name, *arguments):
    """Return what a function of these gives, in a process of its own that must not hang."""
    from child import run  # beside the tests, and not where this is a program

    return run(__file__, name, *arguments)


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 5, 8])
def test_nobody_goes_on_before_all_are_there(threads):
    """In one of some tries, if something else keeps a core from beginning in time."""
    rounds = 10 if JIT_DISABLED else 3000 if threads < 4 else 100
    assert played("play", threads, rounds, 50, 1) == [0] * threads


def test_threads_meet_where_a_core_cannot_be_given_up():
    assert played("play", 2, 10, 50, 0) == [0, 0]


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_who_comes_alone_goes_and_who_comes_later_too(threads):
    assert played("play_alone", threads) == [[-1] * threads, False]


@pytest.mark.skipif(not JIT_DISABLED, reason="compiled code is played in processes of its own")
def test_plain_python_meets_too():
    for threads in 1, 2, 3:
        assert play(threads, 5, 50, 1) == [0] * threads
    assert play_alone(3) == [[-1] * 3, False]


def test_threads_give_up_the_core_where_the_system_has_a_function_for_it():
    assert prepare_meeting(2)[YIELD] == setting.address_of_yield() != 0


if __name__ == "__main__":
    function = {"play": play, "play_alone": play_alone}[sys.argv[1]]
    print(json.dumps(function(*map(int, sys.argv[2:]))))
