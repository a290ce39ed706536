"""Ctrl-C and SIGTERM before and after any bytecode of ``Held``: nothing is left behind."""

import contextlib
import itertools
import os
import signal
import threading
import warnings

import pytest
from presses import Presses

from fastbp import _interrupt
from fastbp._interrupt import Answered, Held, Taken, Termination


def inside(frame):
    """Whether a frame is of the block or of what it calls, not of the test."""
    return frame.f_code.co_filename != __file__ or frame.f_code.co_name == "block"


def attempt(number, moments, kind=Held, around=contextlib.nullcontext):
    """Return how far a block came, whether it was interrupted, and the signals not sent."""
    done, stopped = [], False

    def block():
        with around(), kind():
            done.append("half")
            done.append("whole")

    presses = Presses(number, moments, inside)
    try:
        with presses:
            block()
    except KeyboardInterrupt:
        stopped = True
    return done, stopped, presses.moments


@pytest.fixture(params=["SIGINT", "SIGTERM"])
def number(request):
    """The signal, with what handles it; what stands at the end must be that."""
    number = getattr(signal, request.param)
    with Termination() as termination:
        yield number
        assert signal.getsignal(signal.SIGTERM) is termination
        assert_nothing_is_left()


def assert_nothing_is_left(*moments):
    """What handles Ctrl-C is Python's own, and nobody holds it."""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, moments
    assert (_interrupt._hold, _interrupt._taken) == (None, None), moments


both_ways = pytest.mark.parametrize("around", [contextlib.nullcontext, Taken])


@both_ways
def test_a_signal_at_any_moment_is_answered_and_never_in_the_middle(number, around):
    for moment in itertools.count():
        done, stopped, unsent = attempt(number, [moment], Held, around)
        assert stopped is not bool(unsent), moment
        assert done in ([], ["half", "whole"]), moment
        assert_nothing_is_left(moment)
        if unsent:
            break
    assert moment > 30  # there was something to interrupt


@both_ways
def test_two_signals_at_any_moments_are_answered(number, around):
    halves = 0
    for first, between in itertools.product(range(0, 1000, 3), (1, 2, 5, 20)):
        done, stopped, unsent = attempt(number, [first, first + between], Held, around)
        halves += done == ["half"]
        assert stopped is (len(unsent) < 2)
        assert_nothing_is_left(first, between)
        if len(unsent) == 2:
            break
    assert unsent
    assert halves  # the second one does not wait


def test_a_block_within_a_block_holds_to_the_end_of_the_outer_one():
    done = []
    with pytest.raises(KeyboardInterrupt), Held():  # noqa: PT012 - the order is the matter
        with Held():
            signal.raise_signal(signal.SIGINT)
        done.append("outer")
    assert done


def test_a_block_where_sigint_is_taken_changes_no_handler(monkeypatch):
    with Taken():
        taken = signal.getsignal(signal.SIGINT)
        monkeypatch.setattr(signal, "signal", None)  # calling it would fail
        with Held():
            pass
        monkeypatch.undo()
        assert signal.getsignal(signal.SIGINT) is taken is not signal.default_int_handler
    assert_nothing_is_left()


def test_what_is_taken_twice_is_given_back_at_the_end_of_the_outer_block():
    with Taken():
        taken = signal.getsignal(signal.SIGINT)
        with Taken():
            pass
        assert signal.getsignal(signal.SIGINT) is taken
    assert_nothing_is_left()


@pytest.mark.parametrize("kind", [Held, Answered])
def test_an_error_within_the_block_comes_out(kind):
    with pytest.raises(ZeroDivisionError), kind():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("kind", [Held, Answered])
def test_an_error_gives_way_to_a_signal(kind):
    def block():
        with kind():
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                raise ZeroDivisionError

    with pytest.raises(KeyboardInterrupt):
        block()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_swallows_a_signal_only_delays_it(number):
    done = []
    with pytest.raises(KeyboardInterrupt), Answered():  # noqa: PT012 - the order is the matter
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(number)
            done.append("not stopped at once")
        done.append("swallowed")
    assert done == ["swallowed"]


@both_ways
def test_a_signal_at_any_moment_is_answered_at_once(number, around):
    halves = 0
    for moment in itertools.count():
        done, stopped, unsent = attempt(number, [moment], Answered, around)
        halves += done == ["half"]
        assert stopped is not bool(unsent), moment
        assert_nothing_is_left(moment)
        if unsent:
            break
    assert halves


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_child_that_another_thread_forks_answers():
    codes = []

    def fork():
        child = os.fork()
        if child == 0:  # pragma: no cover - counted in the parent
            code = 1
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                code = 0 if _interrupt._hold is None else 2
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        with Held():
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
            assert _interrupt._hold is not None
    assert codes == [0]


@pytest.mark.parametrize("handler", [lambda *_: None, signal.SIG_IGN], ids=["own", "ignored"])
@both_ways
def test_a_handler_of_the_users_own_stays(handler, around):
    before = signal.signal(signal.SIGINT, handler)
    try:
        with around(), Held():
            assert signal.getsignal(signal.SIGINT) is handler
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


@both_ways
def test_another_thread_holds_nothing_back(around):
    found = []

    def work():
        with around(), Held():
            found.append((signal.getsignal(signal.SIGINT), _interrupt._hold))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(signal.default_int_handler, None)]
