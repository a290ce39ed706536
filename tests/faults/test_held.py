"""Ctrl-C and SIGTERM before and after any bytecode of ``held()``: nothing is left behind."""

import itertools
import signal
import sys
import threading

import pytest

from fastbp import _interrupt
from fastbp._interrupt import Termination, held


class Presses:
    """Within it the n-th bytecodes outside the test are each preceded by a signal."""

    def __init__(self, number, moments):
        self.number, self.moments = number, list(moments)
        self.count = itertools.count()

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.trace)
        return self

    def __exit__(self, *exception):
        sys.settrace(self.before)

    def trace(self, frame, event, argument):
        if frame.f_code.co_filename == __file__ and frame.f_code.co_name != "block":
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and next(self.count) in self.moments:
            self.moments.remove(min(self.moments))
            signal.raise_signal(self.number)
        return self.trace


def attempt(number, moments):
    """Return how far a block came, whether it was interrupted, and the signals not sent."""
    done, stopped = [], False

    def block():
        with held():
            done.append("half")
            done.append("whole")

    presses = Presses(number, moments)
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
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is termination
        assert _interrupt._hold is None


def test_a_signal_at_any_moment_is_answered_and_never_in_the_middle(number):
    for moment in itertools.count():
        done, stopped, unsent = attempt(number, [moment])
        assert stopped is not bool(unsent), moment
        assert done in ([], ["half", "whole"]), moment
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, moment
        assert _interrupt._hold is None, moment
        if unsent:
            break
    assert moment > 30  # there was something to interrupt


def test_two_signals_at_any_moments_are_answered(number):
    halves = 0
    for first, between in itertools.product(range(0, 1000, 3), (1, 2, 5, 20)):
        done, stopped, unsent = attempt(number, [first, first + between])
        halves += done == ["half"]
        assert stopped is (len(unsent) < 2)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, (first, between)
        assert _interrupt._hold is None, (first, between)
        if len(unsent) == 2:
            break
    assert unsent
    assert halves  # the second one does not wait


def test_a_block_within_a_block_holds_to_the_end_of_the_outer_one():
    done = []
    with pytest.raises(KeyboardInterrupt), held():  # noqa: PT012 - the order is the matter
        with held():
            signal.raise_signal(signal.SIGINT)
        done.append("outer")
    assert done


def test_an_error_within_the_block_comes_out():
    with pytest.raises(ZeroDivisionError), held():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("handler", [lambda *_: None, signal.SIG_IGN], ids=["own", "ignored"])
def test_a_handler_of_the_users_own_stays(handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        with held():
            assert signal.getsignal(signal.SIGINT) is handler
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_holds_nothing_back():
    found = []

    def work():
        with held():
            found.append((signal.getsignal(signal.SIGINT), _interrupt._hold))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(signal.default_int_handler, None)]
