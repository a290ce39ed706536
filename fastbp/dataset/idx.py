"""The IDX format, in which MNIST is published.

    2 bytes      0
    1 byte       type of the elements; 0x08 is uint8, the only one read here
    1 byte       number of dimensions
    4 bytes      each dimension, big-endian
    the rest     the elements, last dimension fastest

The files usually come compressed by gzip, with ``.gz`` at the end of their name.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .._files import CHUNK
from ._untrusted import Readable, open_regular_file, read_exactly, refuse_bomb
from .errors import DatasetError

_UINT8 = 0x08
_GZIP_MAGIC = b"\x1f\x8b"


class _Gunzip:
    """The uncompressed content of a gzip stream, a bounded piece at a time.

    `gzip.open` would do most of it, but it passes over zeros after the end, and joins whatever
    other gzip streams follow.
    """

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(wbits=31)  # 31: a gzip header, and the CRC at the end

    def read(self, size: int, /) -> bytes:
        """Return 1 to ``size`` bytes; none at the end, after checking that it is the end."""
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(CHUNK)
            data = self._inflate.decompress(packed, size)
            if data:
                return data
            if not packed:
                raise EOFError("the gzip stream is truncated")
        if self._inflate.unused_data or self._file.read(1):
            raise ValueError("more bytes follow the end of the gzip stream")
        return b""


def idx_header(shape: tuple[int, ...]) -> bytes:
    """Return the bytes in front of the elements of a uint8 array.

    Parameters
    ----------
    shape : tuple of int

    Returns
    -------
    bytes
        4 + 4 * ndim of them.
    """
    return struct.pack(f">HBB{len(shape)}I", 0, _UINT8, len(shape), *shape)


def _parse_header(path: Path, header: bytes, ndim: int) -> tuple[int, ...]:
    zero, kind, dimensions, *shape = struct.unpack(f">HBB{ndim}I", header)
    if zero != 0:
        raise DatasetError(path, f"not an IDX file: begins with {header[:4].hex(' ')}")
    if kind != _UINT8:
        raise DatasetError(path, f"IDX elements of type 0x{kind:02X}, expected 0x08 (uint8)")
    if dimensions != ndim:
        raise DatasetError(path, f"IDX file with {dimensions} dimensions, expected {ndim}")
    if 0 in shape:
        raise DatasetError(path, f"IDX file without elements: shape {tuple(shape)}")
    return tuple(shape)


def read_idx(
    path: str | os.PathLike[str], *, ndim: int, max_bytes: int = 2**30
) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, compressed if its name ends in ``.gz``.

    Parameters
    ----------
    path : str or path-like
    ndim : int
        The number of dimensions to expect: 3 for images, 1 for labels.
    max_bytes : int, default 1 GiB
        The most the array may take.

    Returns
    -------
    numpy.ndarray of uint8, C-contiguous, with ``ndim`` dimensions, none of them 0

    Raises
    ------
    DatasetError
        When the file is missing, unreadable or no regular file; when it is not exactly one IDX
        array of uint8 with ``ndim`` dimensions; when name and content disagree about gzip; when
        the gzip stream is damaged or truncated, or something follows it; when the array would
        take more than ``max_bytes``, or more than 200 times the compressed file (from 1 MiB on).

    Notes
    -----
    The memory taken is the array and a few MiB: nothing is allocated before the header is checked
    against ``max_bytes`` and the file's size, and decompression stops at the declared size.
    """
    path = Path(path)
    compressed = path.name.lower().endswith(".gz")
    with open_regular_file(path) as (file, size):
        if size == 0:
            raise DatasetError(path, "the file is empty")
        looks_compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        file.seek(0)
        if compressed and not looks_compressed:
            raise DatasetError(path, "no gzip content: if it is raw, remove .gz from its name")
        if looks_compressed and not compressed:
            raise DatasetError(path, "gzip content: add .gz to its name, or decompress it")

        stream: Readable = _Gunzip(file) if compressed else file
        header = read_exactly(stream, 4 + 4 * ndim).tobytes()
        shape = _parse_header(path, header, ndim)
        count = math.prod(shape)  # Python integers: the product of 32-bit sizes overflows 64 bits
        if count > max_bytes:
            raise DatasetError(path, f"shape {shape} takes {count} bytes, more than {max_bytes}")
        declared = len(header) + count
        if compressed:
            refuse_bomb(path, size, declared)
        elif size != declared:
            raise DatasetError(path, f"{size} bytes, but shape {shape} makes {declared}")

        data = read_exactly(stream, count)
        # For gzip this is also where the checksum is compared.
        if stream.read(1):
            raise DatasetError(path, f"goes on after the {declared} bytes of shape {shape}")
        return data.reshape(shape)
