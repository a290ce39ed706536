"""Judging one call: the right result, or the refusal that is documented, and nothing else.

An oracle gets what the arguments stand for and returns a :class:`Want`, or tuples and dicts of
them; or it raises :class:`Refusal`.  It shares nothing with fastbp: it is ``fastbp.reference`` or
NumPy, in float64.
"""

import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from odd_arrays import Convertible


class Refusal(Exception):  # noqa: N818 - not an error: what should happen
    """The call must end in exactly one of these exceptions, with these words in its message."""

    def __init__(self, kinds, *words):
        self.kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        self.words = words
        super().__init__(kinds, *words)


class Finding(AssertionError):  # noqa: N818 - it is what one looks for
    """A call that broke the contract."""


@dataclass
class Given:
    """An argument: what is passed, what it stands for, and whether it must be refused."""

    name: str
    object: Any
    value: Any = None
    how: str = "as it is"
    refusal: Refusal | None = None


@dataclass
class Want:
    """A result: float64 values, the type it must have, and how far off it may be.

    ``bound`` is in units of the type's rounding error (2**-23 or 2**-52): of each element, or of
    ``scale`` where that is given.
    """

    value: Any
    dtype: Any = np.float64
    bound: float = 8.0
    scale: Any = None


ANYTHING = object()  # for new objects, and where any number is right


@dataclass
class Judge:
    """Makes calls, compares, and counts them by operation and outcome."""

    folder: Path  # for files
    outcomes: Counter = field(default_factory=Counter)
    calls: int = 0

    def call(self, name, function, given, oracle, keywords=None, fresh=True):
        """Make one call and judge it; returns its result, or None when it was rightly refused."""
        self.calls += 1
        before = [_seen(g.object) for g in given]
        with np.errstate(all="ignore"):
            want = _expected(given, oracle)
        what = f"{name}({', '.join(f'{g.name}: {g.how}' for g in given)}, {keywords or {}})"
        result = None
        try:
            result = function(*(g.object for g in given), **(keywords or {}))
        except Warning as warning:
            raise Finding(f"{what}: a warning leaks: {warning!r}") from warning
        except (Exception, RecursionError) as error:
            self._refused(name, what, error, want)
        else:
            if isinstance(want, Refusal):
                raise Finding(f"{what}: accepted, expected {want}; the result is {result!r:.200}")
            with np.errstate(all="ignore"):
                self.compare(what, result, want)
            if fresh:
                _require_fresh(what, result, given)
            self.outcomes[name, "result"] += 1
        for g, seen in zip(given, before, strict=True):
            if _seen(g.object) != seen:
                raise Finding(f"{what}: changed its argument {g.name}")
        return result

    def _refused(self, name, what, error, want):
        kind = MemoryError if isinstance(error, MemoryError) else type(error)  # NumPy has its own
        right = isinstance(want, Refusal) and kind in want.kinds
        if not right or not all(word in str(error) for word in want.words):
            wanted = want if isinstance(want, Refusal) else "a result"
            raise Finding(f"{what}: {type(error).__name__}: {error}; expected {wanted}") from error
        self.outcomes[name, kind.__name__] += 1

    def compare(self, what, result, want):
        """Raise Finding unless a result is as wanted."""
        if isinstance(want, Want):
            _require_close(what, result, want)
        elif isinstance(want, dict):
            if result.keys() != want.keys():
                raise Finding(f"{what}: keys {list(result)}, expected {list(want)}")
            for key in want:
                self.compare(f"{what}[{key!r}]", result[key], want[key])
        elif isinstance(want, tuple):
            if len(result) != len(want):
                raise Finding(f"{what}: {len(result)} results, expected {len(want)}")
            for i, (one, wanted) in enumerate(zip(result, want, strict=True)):
                self.compare(f"{what}[{i}]", one, wanted)
        elif want is not ANYTHING and (type(result) is not type(want) or result != want):
            raise Finding(f"{what}: {result!r:.200}, expected {want!r:.200}")


def quiet_is_an_error():
    """From now on a warning of anybody is an exception; for commands, as pytest is set up to."""
    warnings.simplefilter("error")


def _expected(given, oracle):
    for g in given:
        if g.refusal is not None:
            return g.refusal
    try:
        return oracle(*(g.value for g in given))
    except Refusal as refusal:
        return refusal


def _seen(x):
    """Return all that can be seen of an argument."""
    if isinstance(x, np.ndarray):
        if x.dtype.hasobject or not x.size or 0 in x.strides:
            return x.shape, x.dtype.str
        base = x.base if isinstance(x.base, np.ndarray) else x
        return x.dtype.str, x.shape, x.strides, x.flags.writeable, x.tobytes(), base.tobytes()
    if isinstance(x, Convertible):
        return _seen(x._x)
    if isinstance(x, dict):
        return {key: _seen(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        try:
            return [_seen(item) for item in x]
        except RecursionError:
            return len(x)
    return repr(x) if isinstance(x, (int, float, str, bytes)) else id(x)


def _require_fresh(what, result, given):
    results = result.values() if isinstance(result, dict) else result
    for one in results if isinstance(results, (tuple, type({}.values()))) else (results,):
        if isinstance(one, np.ndarray) and one.size:
            for g in given:
                if isinstance(g.object, np.ndarray) and np.may_share_memory(one, g.object):
                    raise Finding(f"{what}: the result shares memory with {g.name}")


def _require_close(what, result, want):
    value = np.asarray(want.value, np.float64)
    actual = np.asarray(result)
    if actual.shape != value.shape or actual.dtype != want.dtype:
        raise Finding(
            f"{what}: {actual.dtype} of shape {actual.shape}, "
            f"expected {np.dtype(want.dtype)} of shape {value.shape}"
        )
    unit, tiny, largest = UNITS[actual.dtype.str[-2:]]
    actual = actual.astype(np.float64)
    scale = np.abs(value) if want.scale is None else want.scale
    close = np.abs(actual - value) <= want.bound * (unit * scale + tiny)
    close |= (actual == value) | (np.isnan(actual) & np.isnan(value))
    if not close.all():
        # What float64 still holds may be infinite in float32.
        near = np.abs(value) * (1 + want.bound * unit) >= largest
        close |= (
            near
            & (np.abs(actual) >= largest * (1 - 64 * unit))
            & (np.sign(actual) == np.sign(value))
        )
        if not close.all():
            bad = tuple(int(i) for i in np.argwhere(~np.atleast_1d(close))[0])
            got, wanted = np.atleast_1d(actual)[bad], np.atleast_1d(value)[bad]
            raise Finding(f"{what}: {got!r} at {bad}, expected {wanted!r} ({want.bound} units)")


# Rounding error, smallest subnormal and largest number of each type of result.
UNITS = {
    "f4": (2.0**-23, 2.0**-149, float(np.finfo(np.float32).max)),
    "f8": (2.0**-52, 2.0**-1074, float(np.finfo(np.float64).max)),
    "i8": (0.0, 0.0, np.inf),
}
