"""Calling NumPy without its warnings about infinity and NaN, which here are results like others.

``np.errstate`` does the same for 2 us a call, more than a small matrix product takes.  NumPy keeps
its error state in a context variable, so a context of one's own, made once for each Python thread,
has it at the price of entering: 0.15 us.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

# Before 2.0 NumPy's error state belonged to the thread.
_IN_CONTEXT = np.lib.NumpyVersion(np.__version__) >= "2.0.0"


class _Quiet(threading.local):
    def __init__(self) -> None:
        self.run: Callable[..., Any] = _run_quietly
        if _IN_CONTEXT:
            self.run = contextvars.Context().run
            self.run(np.seterr, over="ignore", invalid="ignore")


def _run_quietly(function: Callable[..., Any], *arguments: Any) -> Any:
    with np.errstate(over="ignore", invalid="ignore"):
        return function(*arguments)


# ``quiet.run(function, *arguments)`` calls a function of NumPy's; not one that might come back
# here, since a context is entered once at a time.
quiet = _Quiet()
