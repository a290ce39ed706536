"""Taking turns, ratios of neighbours, and the machine's limits."""

import gc
import time

import pytest

from fastbp.bench import peaks, timing
from fastbp.bench.cases import all_cases
from fastbp.bench.processes import Peak
from fastbp.bench.timing import Times, Turns, measure, no_collection, turn_length, value

CASE = next(c for c in all_cases((1,)) if c.operation == "kernel relu_forward")


def test_what_is_shown_are_medians_of_the_turns():
    values = {"reference": [3.0, 30.0, 6.0], "fastbp": [1.0, 1.0, 19.0, 1.0]}
    times = Times(CASE, values, {"reference": [3.0, 3.0, 0.6]})
    assert times.ratios == {"reference": 3}
    assert times.median("reference") == 6


def test_turns_are_taken_there_and_back():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    turns = Turns(calls, dict.fromkeys(calls, 2))
    turns.take(2)
    assert "".join(order) == 2 * ("aabbcc" + "ccbbaa")
    assert {name: len(found) for name, found in turns.values.items()} == {"a": 4, "b": 4, "c": 4}
    assert turns.relative == {}


def test_ours_lie_between_those_of_the_others():
    """A machine that gets slower and slower, for ours and for others that take 2 and 3 times it."""
    now, order = 0.0, []

    def call(name, times):
        nonlocal now
        order.append(name)
        now += times * len(order)

    times = {"a": 2, "o": 1, "b": 3}
    calls = {name: lambda name=name: call(name, times[name]) for name in times}
    turns = Turns(calls, dict.fromkeys(calls, 1), clock=lambda: now, ours="o")
    turns.take(1)
    assert "".join(order) == "oaobobo" + "ao"
    assert turns.values == {"a": [4, 16], "o": [1, 3, 5, 7, 9], "b": [12, 18]}
    turns.take(2)
    assert "".join(order) == 2 * ("oaobobo" + "ao")
    assert turns.relative == {"a": [2] * 4, "b": [3] * 4}


def test_turns_that_are_left_go_on():
    order = []
    turns = Turns({name: lambda name=name: order.append(name) for name in "ab"}, {"a": 2, "b": 2})
    for rounds in (1, 1, 3):
        turns.take(rounds)
    # Once each before they go on, untimed.
    assert "".join(order) == "aabbbbaa" + "ab" + 2 * "aabbbbaa"
    assert len(turns.values["a"]) == 2 * 3
    turns.take(100, seconds=0.0, least=3)  # the seconds are over
    assert len(turns.values["a"]) == 2 * 3
    turns.take(100, seconds=0.0, least=4)
    assert len(turns.values["a"]) == 2 * 4


def test_beside_a_slow_call_the_turns_of_quick_ones_are_longer():
    now, calls = 0.0, {"quick": 0, "slow": 0}

    def call(name, seconds):
        nonlocal now
        calls[name] += 1
        now += seconds

    turns = Turns(
        {"quick": lambda: call("quick", 0.001), "slow": lambda: call("slow", 0.4)},
        clock=lambda: now,
    )
    turns.take(3)
    # To find out how long they are; then an eighth of the longest, twice a round.
    assert calls == {"quick": 3 + 3 * 2 * 50, "slow": 1 + 3 * 2}
    assert turns.values["quick"] == pytest.approx([0.001] * 6)
    assert turns.values["slow"] == pytest.approx([0.4] * 6)


def test_slow_calls_have_some_rounds_at_least():
    calls = {"a": lambda: None}
    for rounds, taken in ((10, timing.LEAST_ROUNDS), (2, 2)):
        turns = Turns(calls, {"a": 1})
        turns.take(rounds, seconds=0.0)
        assert len(turns.values["a"]) == 2 * taken


def test_a_turn_is_many_quick_calls_and_one_slow_one():
    assert turn_length(lambda: None) > 1000
    assert turn_length(lambda: time.sleep(2 * timing.TURN_SECONDS)) == 1


@pytest.mark.parametrize("before", [0.0, 0.9999])  # also where the first call meets a step
def test_a_clock_that_moves_in_steps(before):
    step = 0.0156
    now = before * step

    def call():
        nonlocal now
        now += 1e-5

    def clock():
        return now // step * step

    assert 3 * step < 1e-5 * turn_length(call, clock) < 10 * step


def test_a_clock_that_stands_still():
    assert turn_length(lambda: None, lambda: 0.0) == timing.MOST_CALLS


def test_a_value_is_seconds_or_the_bytes_of_a_peak():
    assert value(lambda: Peak(0.5, 4096), 1) == 4096
    assert 0 < value(lambda: None, 10) < 1


def test_no_garbage_is_collected_meanwhile():
    assert gc.isenabled()
    with no_collection():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_case_is_measured():
    times = measure(CASE, ("fastbp",), rounds=3)
    assert set(times.values) == {"reference", "fastbp"}
    assert set(times.ratios) == {"reference"}
    assert all(v > 0 for values in times.values.values() for v in values)


def test_limits_of_the_machine(monkeypatch):
    monkeypatch.setattr(peaks, "ROUNDS", 1)
    limits = peaks.limits.__wrapped__()
    assert limits.flops["float32"] > 1e9
    assert limits.flops["float64"] > 1e9
    assert limits.memory > 1e8
    assert limits.cache > 1e8
