"""Reading a file that nobody vouches for, in bounded time and memory.

A data file comes from a mirror, a mail or a shared folder.  Its name may belong to a pipe that
never ends, its header may promise terabytes, and a kilobyte of it may expand to a megabyte.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from .._files import CHUNK, open_regular
from .errors import DatasetError

# Deflate reaches 1032:1, on constant bytes; the MNIST files have 2:1 (labels) and 5:1 (images).
# Below the floor an expansion harms nobody.
MAX_RATIO = 200
RATIO_FLOOR = 2**20


class Readable(Protocol):
    """Whatever has the ``read`` of a binary file."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; none at the end."""
        ...


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
        with open_regular(path) as opened:
            yield opened
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
