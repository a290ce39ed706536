"""The same numbers in every form a caller may hold them in, for the tests of layers and functions.

``LAYOUTS`` maps a name to a function that takes a plain C-ordered array and returns an object with
the same elements in another form; ``REFUSED`` holds what must end in TypeError.
"""

import copy
import tempfile

import numpy as np


def _misaligned(x):
    buffer = bytearray(x.nbytes + 1)
    view = np.frombuffer(buffer, x.dtype, x.size, offset=1).reshape(x.shape)
    view[...] = x
    assert not view.flags.aligned or x.itemsize == 1
    return view


def _read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def _memmap(x):
    with tempfile.TemporaryFile() as file:  # the mapping outlives the file object
        mapped = np.memmap(file, x.dtype, "w+", shape=x.shape)
    mapped[...] = x
    return mapped


def _with_gaps(x):
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), 77, x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


class Subclass(np.ndarray):
    """A subclass whose operators must not be used."""

    def __array_finalize__(self, other):
        self.note = "a subclass"


class Convertible:
    """Not an array, but says how to become one."""

    def __init__(self, x):
        self._x = x

    def __array__(self, dtype=None, copy=None):
        return self._x if dtype is None else self._x.astype(dtype)


LAYOUTS = {
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "misaligned": _misaligned,
    "negative strides": lambda x: np.flip(np.flip(x).copy()),
    "negative row stride": lambda x: x[::-1].copy()[::-1],
    "with gaps": _with_gaps,
    "Fortran order": np.asfortranarray,
    "read-only": _read_only,
    "read-only Fortran order": lambda x: _read_only(np.asfortranarray(x)),
    "memmap": _memmap,
    "subclass": lambda x: x.view(Subclass),
    "dtype with metadata": lambda x: x.astype(np.dtype(x.dtype, metadata={"unit": "m"})),
    "list": lambda x: x.tolist(),
    "tuple": lambda x: tuple(x.tolist()),
    "list of arrays": list,
    "__array__": Convertible,
}
# Only two-dimensional arrays come in this form.
MATRIX_LAYOUTS = {**LAYOUTS, "np.matrix": lambda x: x.view(np.matrix)}


def snapshot(x):
    """Return all that can be seen of x, for a comparison before and after."""
    if isinstance(x, Convertible):
        x = x._x
    if isinstance(x, np.ndarray):
        base = x if x.base is None or not isinstance(x.base, np.ndarray) else x.base
        return x.dtype.str, x.shape, x.strides, x.flags.writeable, x.tobytes(), base.tobytes()
    return copy.deepcopy([row.tolist() if isinstance(row, np.ndarray) else row for row in x])


# name: (a two-dimensional object, what the message must name)
REFUSED = {
    "complex": (np.ones((2, 3), complex), "complex128"),
    "object": (np.array([[1, None, 2]], object), "object"),
    "string": (np.array([["1", "2", "3"]]), "<U1"),
    "bytes": (np.array([[b"1", b"2", b"3"]]), r"\|S1"),
    "datetime": (np.array([["2020-01-01"]], "M8[D]"), r"datetime64\[D\]"),
    "structured": (np.zeros((1, 3), [("a", "f8")]), "'a'"),
    "list of strings": ([["a", "b", "c"]], "<U1"),
    "None": (None, "object"),
    "dict": ({"a": 1}, "object"),
    "ragged": ([[1.0, 2.0], [3.0]], "rectangular"),
    "masked": (np.ma.array([[1.0, 2.0, 3.0]], mask=[[0, 1, 0]]), "masked"),
    "masked, nothing hidden": (np.ma.array([[1.0, 2.0, 3.0]]), "masked"),
}
if np.dtype(np.longdouble) != np.float64:
    REFUSED["longdouble"] = (np.ones((2, 3), np.longdouble), np.dtype(np.longdouble).name)
