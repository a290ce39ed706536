"""One array, from a ``.npy`` file as ``numpy.save`` writes it, or from a member of a ``.npz``.

A ``.npy`` is a short header with dtype and shape, then the elements.  `numpy.load` believes the
header, and 80 forged bytes make it allocate 32 GiB; here the header is compared with the size of
the file before anything is allocated.
"""

from __future__ import annotations

import io
import math
import os
import tokenize
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._untrusted import Readable, open_regular_file, read_exactly
from .errors import DatasetError

HEADER_BYTES = 4096  # at most this much is read as a header; honest ones have 128
_MAX_NDIM = 32  # what every supported NumPy can make

# Version 3 differs only for records, which are not read here.
_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

# NumPy reads the header with ast.literal_eval, and forged text makes that raise any of these.
_HEADER_ERRORS = (
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)


class Header(NamedTuple):
    """What the header of a ``.npy`` says, and where it ends."""

    offset: int  # where the elements begin
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool

    @property
    def size(self) -> int:
        """Bytes of the elements."""
        return math.prod(self.shape) * self.dtype.itemsize  # in Python integers: no overflow

    @property
    def cost(self) -> int:
        """Bytes of the elements as float32 at least."""
        return math.prod(self.shape) * max(self.dtype.itemsize, 4)


def parse_header(path: Path, label: str, head: bytes, total: int) -> Header:
    """Read a header and check it against the size of what it stands before.

    Parameters
    ----------
    path : pathlib.Path
        For the message.
    label : str
        Before the reason in the message: the member's name and a colon, or nothing.
    head : bytes
        The first ``HEADER_BYTES``, or all there is.
    total : int
        Size of header and elements.

    Returns
    -------
    Header

    Raises
    ------
    DatasetError
        When it is no such header; when the elements are neither real floating-point numbers up to
        64 bits nor integers nor bools, or there are none; when the size is another.
    """
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADER_READERS:
            raise ValueError(f"version {version}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of type names that a later NumPy will not know
            shape, fortran_order, dtype = _HEADER_READERS[version](stream)
    except _HEADER_ERRORS as error:
        raise DatasetError(path, f"{label}not a .npy header: {error}") from error

    # Refused here: Python objects (they would be unpickled), strings, records, dates, complex
    # numbers, and long doubles, whose bytes mean something else on the next machine.
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise DatasetError(path, f"{label}elements of dtype {dtype}, expected real numbers")
    if len(shape) > _MAX_NDIM or any(type(n) is not int or n < 0 for n in shape):
        raise DatasetError(path, f"{label}impossible shape {shape}")
    if 0 in shape:
        raise DatasetError(path, f"{label}empty, shape {shape}")
    header = Header(stream.tell(), dtype, shape, fortran_order)
    if header.offset + header.size != total:
        raise DatasetError(
            path,
            f"{label}{total} bytes, but {dtype} of shape {shape} makes "
            f"{header.offset + header.size}",
        )
    return header


def read_elements(stream: Readable, header: Header) -> npt.NDArray[Any]:
    """Read the array from a stream that stands at its first byte.

    Parameters
    ----------
    stream : object with a ``read`` method
    header : Header

    Returns
    -------
    array
        Of the header's dtype and shape.

    Raises
    ------
    EOFError
        When the stream ends earlier.
    """
    read_exactly(stream, header.offset)
    elements: npt.NDArray[Any] = read_exactly(stream, header.size).view(header.dtype)
    if not header.fortran_order:
        return elements.reshape(header.shape)
    # First dimension fastest: the transpose of an array in C order.
    return np.transpose(elements.reshape(header.shape[::-1]))


def as_features(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return numbers as a network takes them: uint8 as pixels, divided by 255.

    Parameters
    ----------
    x : (N, D) real numbers

    Returns
    -------
    (N, D) array
        C-contiguous, new or not: float64 where x is, else float32.
    """
    if x.dtype == np.uint8:
        return np.asarray(np.divide(x, np.float32(255), dtype=np.float32, order="C"))
    double = x.dtype.kind == "f" and x.dtype.itemsize == 8
    return np.asarray(x, np.float64 if double else np.float32, order="C")


def load_npy(path: str | os.PathLike[str], *, max_bytes: int = 2**31) -> npt.NDArray[Any]:
    """Load one array of numbers from a ``.npy`` file.

    Parameters
    ----------
    path : str or path-like
    max_bytes : int, default 2 GiB
        The most the array may take, each element counted as four bytes at least.

    Returns
    -------
    array
        float64 where the file has float64, else float32; uint8 is taken as pixels and divided by
        255, other integers are converted as they are.

    Raises
    ------
    DatasetError
        When the file is missing, unreadable, no regular file or no such array; when its header
        disagrees with its size; when a number is NaN or infinite.
    """
    path = Path(path)
    with open_regular_file(path) as (file, size):
        header = parse_header(path, "", file.read(HEADER_BYTES), size)
        if header.cost > max_bytes:
            raise DatasetError(path, f"an array of {header.cost} bytes, more than {max_bytes}")
        file.seek(0)
        x = as_features(read_elements(file, header))
    if not np.isfinite(x).all():
        raise DatasetError(path, "a nan or an infinity is among the numbers")
    return x
