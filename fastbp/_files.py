"""Writing files so that none is ever seen half-written."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write content to path: the file is there whole, or as it was before.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and take the name
    in one step; then the folder is flushed too.

    Parameters
    ----------
    path : pathlib.Path
        An existing file is replaced.
    content : bytes

    Raises
    ------
    OSError
        As the operating system says.  No temporary file is left behind.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".fastbp-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_umask())
        os.replace(name, path)  # noqa: PTH105 - as every Python has it
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    if hasattr(os, "O_DIRECTORY"):  # Windows cannot flush a folder
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
