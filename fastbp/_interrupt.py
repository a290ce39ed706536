"""Ctrl-C, and a polite kill, at a moment when nothing is half done."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Termination:
    """Within it SIGTERM raises KeyboardInterrupt as Ctrl-C does, for the main thread.

    Attributes
    ----------
    asked : bool
        Whether it came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> Termination:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            self._before = signal.signal(signal.SIGTERM, self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        _press(number, frame)


class Held:
    """Within it Ctrl-C, and a :class:`Termination`, wait for the end of the block.

    A second one comes through at once.  Nothing is changed outside the main thread, and Ctrl-C not
    where the user has a handler of their own.  Within another such block it does nothing: that one
    holds.  An error of the block gives way to what has waited.
    """

    waits = True

    def __init__(self) -> None:
        self.pressed = False

    # A signal may come between any two lines.  While SIGINT is taken, whatever raises is _press,
    # and that gives back what is taken first; so none of it is left behind.

    def __enter__(self) -> None:
        global _hold
        if _hold is None and threading.current_thread() is threading.main_thread():
            if _taken is None:
                _take()
            _hold = self

    def __exit__(self, *exception: object) -> None:
        global _hold
        if _hold is self:
            _hold = None
            if _taken is None:
                _give_back()
        if self.pressed:
            raise KeyboardInterrupt


class Answered(Held):
    """Within it both raise at once; and again at the end, if something swallowed that.

    LLVM calls back into Python while it compiles: what is raised there is printed and lost.
    """

    waits = False


class Taken:
    """Within it SIGINT is taken once, and a :class:`Held` costs 1 us instead of 15.

    Ctrl-C raises as without it.  Callbacks are not to run within it: they would find another
    handler than the user's, and might leave one.
    """

    # As for Held: whatever raises within it is _press, and that gives back first.

    def __enter__(self) -> None:
        global _taken
        if _taken is None and _take():
            _taken = self

    def __exit__(self, *exception: object) -> None:
        if _taken is self:
            _give_back()


_hold: Held | None = None  # the main thread's
_taken: Taken | None = None


def _take() -> bool:
    """Take SIGINT where it is Python's own and this the main thread; tells whether."""
    mine = threading.current_thread() is threading.main_thread()
    mine = mine and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if mine:
        signal.signal(signal.SIGINT, _press)
    return mine


def _press(number: int, frame: FrameType | None) -> None:
    if _hold is not None:
        waits = _hold.waits and not _hold.pressed
        _hold.pressed = True
        if waits:
            return
    _give_back()
    raise KeyboardInterrupt


def _give_back() -> None:
    global _hold, _taken
    _hold = _taken = None
    if signal.getsignal(signal.SIGINT) is _press:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if hasattr(os, "register_at_fork"):
    # A child that another thread forks has no main thread that could come to the end of a block.
    os.register_at_fork(after_in_child=_give_back)
