"""Writing files so that none is ever seen half-written."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
from pathlib import Path

PREFIX = ".fastbp-"


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
