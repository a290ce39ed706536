"""Ctrl-C, and a polite kill, at a moment when nothing is half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def held() -> Iterator[None]:
    """Hold back Ctrl-C, and a :class:`Termination`, until the end of the block.

    The first of them waits for it; a second one comes through at once.  Nothing is changed outside
    the main thread, and Ctrl-C not where the user has a handler of their own.  Within another such
    block it does nothing: that one holds.
    """
    global _hold
    if threading.current_thread() is not threading.main_thread() or _hold is not None:
        yield
        return
    # A signal may come between any two lines.  From the first to the last of these whatever raises
    # is _press, and that gives back what is taken; so none of it is left behind.
    hold = _Hold()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _press)
    _hold = hold
    try:
        yield
    finally:
        _give_back()
    if hold.pressed:
        raise KeyboardInterrupt


class _Hold:
    """A block of :func:`held`, and whether a signal waits for its end."""

    pressed = False


_hold: _Hold | None = None  # the main thread's


def _press(number: int, frame: FrameType | None) -> None:
    if _hold is not None and not _hold.pressed:
        _hold.pressed = True
        return
    _give_back()
    raise KeyboardInterrupt


def _give_back() -> None:
    global _hold
    _hold = None
    if signal.getsignal(signal.SIGINT) is _press:
        signal.signal(signal.SIGINT, signal.default_int_handler)
