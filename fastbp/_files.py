"""Writing files so that none is ever seen half-written; reading those that nobody vouches for."""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PREFIX = ".fastbp-"

CHUNK = 2**20  # no single read asks for more, whatever a length field in the file says


class _ShortReads(io.BufferedReader):
    """A file whose ``read`` gives at most ``CHUNK`` bytes, also to code that asks for more.

    That code is `zipfile`, which reads the list of contents in one piece of the declared length.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(CHUNK if size is None or size < 0 else min(size, CHUNK))


def _open_at_once(path: str, flags: int) -> int:
    # An ordinary open() of a pipe waits until somebody writes to it.  Windows has no such pipes.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file for reading, without waiting for anybody.

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
    OSError
        As the operating system says.
    ValueError
        For what is no regular file: a pipe, a device.
    """
    with io.FileIO(path, opener=_open_at_once) as raw:
        # Asked of the open file: between a check of the name and the open, it could change.
        status = os.fstat(raw.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        yield _ShortReads(raw), status.st_size


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
    handle, name = _temporary_file(path.parent)
    try:
        try:
            file = os.fdopen(handle, "wb")
        except BaseException:
            os.close(handle)
            raise
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)  # noqa: PTH105 - as every Python has it
    except BaseException:
        with contextlib.suppress(OSError):
            name.unlink()
        raise
    _flush_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they survive a loss of power, and try it out.

    Parameters
    ----------
    folder : pathlib.Path
        May exist.

    Raises
    ------
    OSError
        As the operating system says: also when no file can be made in the folder.
    """
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        _flush_folder(each.parent)
    tempfile.TemporaryFile(dir=folder).close()


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of ``write_atomically`` that a killed process left in a folder."""
    for path in folder.iterdir():
        ours = re.fullmatch(re.escape(PREFIX) + r"[a-z0-9_]{8}", path.name)
        if ours and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot flush a folder
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _temporary_file(folder: Path) -> tuple[int, Path]:
    """Make a file of a new name, with the modes that the user gives new files.

    The operating system applies the umask.  Asking for it means changing it for a moment, and for
    all threads: two that ask at once can leave the process without one.
    """
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    while True:
        name = folder / f"{PREFIX}{secrets.token_hex(4)}"
        try:
            return os.open(name, flags, 0o666), name
        except FileExistsError:
            continue
