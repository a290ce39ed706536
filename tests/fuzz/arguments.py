"""Arguments: valid ones in every form a caller may hold them in, and ones with one thing broken."""

import math
import operator
from decimal import Decimal
from fractions import Fraction
from numbers import Real

import numpy as np
from odd_arrays import LAYOUTS, REFUSED

from .judge import Given, Refusal

# Those that need a file or elements get a smaller share, or none.
PLAIN_LAYOUTS = {name: f for name, f in LAYOUTS.items() if name != "memmap"}
NEED_AXES = {
    "list",
    "Fortran order",
    "read-only Fortran order",
    "negative row stride",
    "with gaps",
    "list of arrays",
    "tuple",
}
NEED_ELEMENTS = {"misaligned", "list", "tuple", "list of arrays"}
TYPES = ("f2", "f4", "f8", ">f4", ">f8", "i1", "i2", "i4", "i8", ">i4", "u1", "u2", "u4", "u8", "?")
SPECIAL = (math.nan, math.inf, -math.inf, -0.0, 0.0, 1e-45, 5e-324, -1e-310)
HUGE = (3e38, -3e38, 1e300, -1e300, 88.8, -88.8, -710.0, 709.9, -1000.0, 1000.0)

# Shapes of arrays for what takes any.
SHAPES = ((), (1,), (7,), (0,), (3, 5), (1, 1), (4, 17), (2, 3, 4), (0, 3), (3, 0))

# Numbers where a number is expected, and what is none.
NUMBERS = (
    *(0, -1, 1, 2, 3, 0.5, 1e-3, -0.0, 1e-300, 5e-324, 1e300, math.nan, math.inf, -math.inf),
    *(True, False, None, "1", b"1", "relu", 1j, [], [1], (), {}, object(), Ellipsis),
    *(np.float16(0.5), np.float32(0.5), np.float64(0.25), np.int64(3), np.uint8(3), np.bool_(True)),
    *(np.array(3), np.array([3]), np.array(0.5), np.array("a"), Fraction(1, 3), Decimal("0.5")),
    *(2**40, 2**63, 2**64, 10**400, -(10**400), -(2**63), Fraction(10**400), np.longdouble("0.5")),
)


def fixed(name, value):
    """Return an argument that is not to be broken."""
    return Given(name, value, value)


class Breaker:
    """Breaks at most one argument of a call; which, and how, comes from ``r``, a random.Random."""

    def __init__(self, r):
        self.r = r
        self.rng = np.random.default_rng(r.getrandbits(32))
        self._breaks = r.random() < 0.8

    def _turn(self):
        """Whether this argument is the one."""
        if self._breaks and self.r.random() < 0.6:
            self._breaks = False
            return True
        return False

    def floats(self, *shape, dtype=None):
        """Return a valid array."""
        dtype = dtype or self.r.choice((np.float32, np.float64))
        numbers = self.rng.standard_normal(shape) * self.r.choice((1, 1, 1, 20))
        return np.asarray(numbers, dtype)

    def array(self, where, name, x, dtype=None, huge=False, special=True):
        """Return an array of numbers for ``where``, which computes in ``dtype``, or in its own.

        Shapes may change: what is wrong with a shape the oracle knows.
        """
        if not self._turn():
            return Given(name, x, _effective(x, dtype))
        way = self.r.random()
        if way < 0.35:
            return self._layout(name, x, dtype)
        if way < 0.5:
            kind = self.r.choice(TYPES)
            with np.errstate(all="ignore"):
                other = np.asarray(np.abs(x) if "u" in kind else x).astype(kind)
            return Given(name, other, _effective(other, dtype), f"as {kind}")
        if way < 0.65 and special:
            return self._special(name, x, dtype, huge)
        if way < 0.82:
            return self._reshaped(name, x, dtype)
        how = self.r.choice(sorted(REFUSED))
        return Given(name, REFUSED[how][0], None, how, Refusal(TypeError, where, name))

    def _layout(self, name, x, dtype):
        if self.r.random() < 0.02 and x.size:
            how, other = "memmap", LAYOUTS["memmap"](x)
        else:
            how = self.r.choice(sorted(PLAIN_LAYOUTS))
            if (how in NEED_AXES and not x.ndim) or (how in NEED_ELEMENTS and not x.size):
                return Given(name, x, _effective(x, dtype))
            other = PLAIN_LAYOUTS[how](x)
        value = x if how not in ("list", "tuple") else np.asarray(other)
        return Given(name, other, _effective(value, dtype), how)

    def _special(self, name, x, dtype, huge):
        x = x.copy()
        values = SPECIAL + HUGE if huge else SPECIAL
        for _ in range(self.r.randrange(1, 4)):
            if x.size:
                value = self.r.choice(values)
                with np.errstate(all="ignore"):
                    x.reshape(-1)[self.r.randrange(x.size)] = np.float64(value).astype(x.dtype)
        return Given(name, x, _effective(x, dtype), "with special values")

    def _reshaped(self, name, x, dtype):
        how = self.r.choice(
            ("more", "fewer", "flat", "axis", "axis behind", "0-d", "empty", "none")
        )
        if how == "more":
            other = np.concatenate([x, x[:1]]) if x.ndim else np.stack([x, x])
        elif how == "fewer":
            other = x[..., 1:] if x.ndim else x
        elif how == "flat":
            other = x.reshape(-1)
        elif how == "axis":
            other = x[None]
        elif how == "axis behind":
            other = x[..., None]
        elif how == "0-d":
            other = np.array(x.flat[0]) if x.size else np.array(0.5)
        elif how == "empty":
            other = np.empty((0, *x.shape[1:]), x.dtype)
        else:
            other = np.empty((*x.shape[:-1], 0), x.dtype)
        return Given(name, other, _effective(other, dtype), f"shape: {how}")

    def targets(self, where, N, C, name="t"):
        """Return targets: the value is labels (N,), or rows (N, C) in float64."""
        labels = self.rng.integers(0, C, N)
        kind = self.r.choice(("labels", "labels", "one-hot", "soft"))
        rows = np.eye(C)[labels]
        if kind == "soft" and N:
            rows = self.rng.dirichlet(np.ones(C), N)
        if not self._turn():
            if kind == "labels":
                return Given(name, labels, labels)
            return Given(name, rows, rows, kind)
        if self.r.random() < 0.4 and N:
            return self._targets_in_disguise(name, labels, rows, kind)
        return self._bad_targets(where, name, labels, rows, N, C)

    def _targets_in_disguise(self, name, labels, rows, kind):
        if kind == "labels":
            types = ("i1", "u1", "i2", "u2", ">i2", "i4", "u4", ">u4", "i8", "u8", ">i8")
            other = labels.astype(self.r.choice(types))
            how = self.r.choice(sorted(PLAIN_LAYOUTS))
            return Given(name, PLAIN_LAYOUTS[how](other), labels, f"{other.dtype} {how}")
        types = ["f4", "f8", ">f8", "f2"] if kind == "soft" else ["f2", "f4", "i1", "u8", "i4", "?"]
        other = rows.astype(self.r.choice(types))
        how = self.r.choice(sorted(PLAIN_LAYOUTS))
        value = other.astype(np.float64)
        return Given(name, PLAIN_LAYOUTS[how](other), value, f"{kind} {other.dtype} {how}")

    def _bad_targets(self, where, name, labels, rows, N, C):
        how = self.r.choice(BAD_TARGETS)
        n = self.r.randrange(N) if N else 0
        refusal, other = Refusal(ValueError, where, name), labels
        if how in LABELS_OUTSIDE and N:
            kind, value = LABELS_OUTSIDE[how]
            other = labels.astype(kind)
            other[n] = C if value is None else value
            refusal = Refusal(IndexError, where, f"{name}[{n}] is {other[n]}", f"[0, {C})")
        elif how in ("float labels", "bool labels"):
            other = labels.astype(float if how[0] == "f" else bool)
            refusal = Refusal(TypeError, where, name)
        elif how == "one label more":
            other = np.append(labels, 0)
        elif how == "one class more":
            other = np.eye(C + 1)[labels]
        elif how == "three dimensions":
            other = rows[None]
        elif how in ROWS_OUTSIDE and N:
            other = rows.copy()
            other[n, self.r.randrange(C)] = ROWS_OUTSIDE[how]
        elif how == "nothing":
            other = rows * 0
            refusal = Refusal(ValueError, where, name) if N else None
        else:
            how = self.r.choice(sorted(REFUSED))
            other, refusal = REFUSED[how][0], Refusal((TypeError, ValueError), where)
        return Given(name, other, rows if refusal is None else None, how, refusal)

    def number(self, name, valid, oracle):
        """Return a number; ``oracle(value)`` returns what it stands for or raises Refusal."""
        value, how = valid, "as it is"
        if self._turn():
            value = self.r.choice(NUMBERS)
            how = f"{value!r:.40} of {type(value).__name__}"
        try:
            return Given(name, value, oracle(value), how)
        except Refusal as refusal:
            return Given(name, value, None, how, refusal)


LABELS_OUTSIDE = {
    "label C": (np.int64, None),
    "label -1": (np.int64, -1),
    "label -1 int8": (np.int8, -1),
    "label 2**31": (np.int64, 2**31),
    "label 2**62": (np.int64, 2**62),
    "label -2**63": (np.int64, -(2**63)),
    "label 2**63": (np.uint64, 2**63),
    "label 2**64 - 1": (np.uint64, 2**64 - 1),
}
ROWS_OUTSIDE = {
    "row with 1.01 more": 2.01,
    "row with nan": math.nan,
    "row with inf": math.inf,
    "negative row": -0.5,
}
BAD_TARGETS = (
    *LABELS_OUTSIDE,
    *ROWS_OUTSIDE,
    "float labels",
    "bool labels",
    "one label more",
    "one class more",
    "three dimensions",
    "nothing",
    "refused",
)


def _effective(x, dtype):
    """Return the numbers that fastbp says it computes with."""
    if dtype is None:
        dtype = np.float32 if x.dtype.kind == "f" and x.dtype.itemsize < 8 else np.float64
    with np.errstate(all="ignore"):
        return np.array(x, dtype, order="C")


# --- what numbers stand for ----------------------------------------------------------------------


def is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool)


def count(where, name):
    """An oracle for sizes and counts: integers from 1."""

    def oracle(value):
        try:
            number = operator.index(value)
        except TypeError:
            number = 0
        if number < 1 or isinstance(value, bool):
            raise Refusal(ValueError, where, name)
        return number

    return oracle


def real(where, name, inside, kinds=ValueError):
    """An oracle for real numbers of which ``inside`` is true and which a float can hold."""

    def oracle(value):
        if not is_number(value):
            raise Refusal(kinds, where, name)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf if value > 0 else -math.inf
        if not inside(number):
            raise Refusal(kinds, where, name)
        return number

    return oracle
