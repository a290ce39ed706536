"""Reading a file that nobody vouches for, in bounded time and memory.

A data file comes from a mirror, a mail or a shared folder.  Its name may belong to a pipe that
never ends, its header may promise terabytes, and a kilobyte of it may expand to a megabyte.
"""

from __future__ import annotations

import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from .errors import DatasetError

CHUNK = 2**20  # no single read asks for more, whatever a length field in the file says

# Deflate reaches 1032:1, on constant bytes; the MNIST files have 2:1 (labels) and 5:1 (images).
# Below the floor an expansion harms nobody.
MAX_RATIO = 200
RATIO_FLOOR = 2**20


class Readable(Protocol):
    """Whatever has the ``read`` of a binary file."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; none at the end."""
        ...


class _ShortReads(io.BufferedReader):
    """A file whose ``read`` gives at most ``CHUNK`` bytes, also to code that asks for more.

    That code is `zipfile`, which reads the list of contents in one piece of the declared length.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(CHUNK if size is None or size < 0 else min(size, CHUNK))


def _open_at_once(path: str, flags: int) -> int:
    # An ordinary open() of a pipe waits until somebody writes to it.  Windows has no such pipes.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextmanager
def open_regular_file(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file for reading; whatever goes wrong until it is closed is a DatasetError.

    Parameters
    ----------
    path : pathlib.Path

    Yields
    ------
    file : binary file
        Each ``read`` gives at most 1 MiB.
    size : int
        The file's size in bytes.

    Raises
    ------
    DatasetError
        When the file is missing, unreadable, or no regular file (a folder, a pipe, a device); or
        when the body of the ``with`` meets an error of the disk, of a decoder, or an early end.
    """
    try:
        with io.FileIO(path, opener=_open_at_once) as raw:
            # Asked of the open file: between a check of the name and the open, it could change.
            status = os.fstat(raw.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DatasetError(path, "not a regular file")
            yield _ShortReads(raw), status.st_size
    except DatasetError:
        raise
    except OSError as error:
        raise DatasetError(path, error.strerror or str(error)) from error
    except (EOFError, ValueError, zlib.error) as error:
        raise DatasetError(path, str(error)) from error


def read_exactly(stream: Readable, size: int) -> npt.NDArray[np.uint8]:
    """Read ``size`` bytes.

    Parameters
    ----------
    stream : object with a ``read`` method
    size : int

    Returns
    -------
    (size,) uint8

    Raises
    ------
    EOFError
        When the stream ends earlier.

    Notes
    -----
    Besides the result, one chunk is held.  The operating system hands out the result's pages when
    they are written, so a stream that ends early has cost what it held and no more.
    """
    data = np.empty(size, np.uint8)
    filled = 0
    while filled < size:
        chunk = stream.read(min(size - filled, CHUNK))
        if not chunk:
            raise EOFError(f"ends early: {filled} bytes where {size} were expected")
        data[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)
    return data


def refuse_bomb(path: Path, stored: int, expanded: int) -> None:
    """Raise when ``stored`` bytes on disk claim to expand to implausibly many.

    Parameters
    ----------
    path : pathlib.Path
        For the message.
    stored, expanded : int
        Sizes in bytes.

    Raises
    ------
    DatasetError
        When ``expanded`` exceeds 1 MiB and 200 times ``stored``.
    """
    if expanded > max(RATIO_FLOOR, MAX_RATIO * stored):
        raise DatasetError(
            path,
            f"{stored} bytes claim to expand to {expanded}, more than {MAX_RATIO} times as many: "
            "a decompression bomb?  Honest data of this kind can be stored uncompressed.",
        )
