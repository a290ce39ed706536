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
        raise KeyboardInterrupt


class Interrupt:
    """Within it Ctrl-C raises KeyboardInterrupt as usual, but not inside ``with interrupt.held()``.

    There the first one waits for the end of the block; a second one comes through at once.  A
    :class:`Termination` waits likewise.  Nothing is changed outside the main thread, or where the
    user has a handler of their own.
    """

    def __init__(self) -> None:
        self._holding = False
        self._pressed: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._press)
            if isinstance(signal.getsignal(signal.SIGTERM), Termination):
                self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._press)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold both back until the end of the block."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._pressed is not None:
            self._before[self._pressed](self._pressed, None)

    def _press(self, number: int, frame: FrameType | None) -> None:
        if self._pressed is not None or not self._holding:
            self._before[number](number, frame)
        self._pressed = number
