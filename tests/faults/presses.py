"""A signal before any bytecode: what a random moment would hardly ever hit."""

import itertools
import signal
import sys


class Presses:
    """Within it the n-th bytecodes are each preceded by a signal.

    Parameters
    ----------
    number : int
        Of the signal.
    moments : iterable of int
        The bytecodes; what is left of them in ``moments`` at the end was never reached.
    counts : callable
        Whether a frame's bytecodes count.
    """

    def __init__(self, number, moments, counts):
        self.number, self.moments, self.counts = number, set(moments), counts
        self.count = itertools.count()

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.trace)
        return self

    def __exit__(self, *exception):
        sys.settrace(self.before)

    def trace(self, frame, event, argument):
        if frame.f_code.co_filename == __file__ or not self.counts(frame):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            now = next(self.count)
            if now in self.moments:
                self.moments.remove(now)
                signal.raise_signal(self.number)
        return self.trace
