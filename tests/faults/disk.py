"""A disk that fails when it is told to, and a model of what a loss of power leaves of a folder.

``Watched`` stands between Python and the operating system for one folder: it counts the calls that
change it, fails at the one it is told to, and records the rest.  ``after_a_crash`` replays a record
as a disk may: what was not flushed has arrived, or not, or in part, in any combination.
"""

import contextlib
import errno
import itertools
import os
from pathlib import Path


class Watched:
    """Within it calls that touch a folder are counted, recorded, and fail on demand.

    Parameters
    ----------
    folder : pathlib.Path
    fails_at : int, optional
        Which call raises OSError instead of being done, counted from 1.
    code : int
        The errno.
    """

    CALLS = ("open", "fdopen", "close", "fsync", "replace", "unlink", "mkdir")

    def __init__(self, folder, fails_at=None, code=errno.EIO):
        self.folder, self.fails_at, self.code = folder, fails_at, code
        self.calls = []  # names of the calls
        self.record = []  # what they did to the disk
        self._handles = {}  # path of each open handle of ours
        self._files = {}  # the file, by number, that a path stands for
        self._numbers = itertools.count()

    def __enter__(self):
        self._real = {name: getattr(os, name) for name in self.CALLS}
        for name in self.CALLS:
            setattr(os, name, getattr(self, f"_{name}"))
        return self

    def __exit__(self, *_):
        for name, call in self._real.items():
            setattr(os, name, call)

    @property
    def has_failed(self):
        """Whether the call that was to fail has been made."""
        return self.fails_at is not None and len(self.calls) >= self.fails_at

    def _count(self, name):
        self.calls.append(name)
        if len(self.calls) == self.fails_at:
            raise OSError(self.code, os.strerror(self.code))

    def _is_ours(self, path):
        return isinstance(path, (str, Path)) and (
            Path(path).absolute() == self.folder or self.folder in Path(path).absolute().parents
        )

    def _name(self, path):
        return str(Path(path).absolute().relative_to(self.folder))

    def _open(self, path, flags, *rest, **options):
        if not self._is_ours(path):
            return self._real["open"](path, flags, *rest, **options)
        self._count("open")
        handle = self._real["open"](path, flags, *rest, **options)
        self._handles[handle] = path
        if flags & os.O_CREAT and self._name(path) not in self._files:
            self._files[self._name(path)] = number = next(self._numbers)
            self.record.append(("create", self._name(path), number))
        return handle

    def _fdopen(self, handle, *rest, **options):
        if handle in self._handles:
            self._count("fdopen")
        file = self._real["fdopen"](handle, *rest, **options)
        return _File(file, self, handle) if handle in self._handles else file

    def _close(self, handle):
        ours = self._handles.pop(handle, None) is not None
        self._real["close"](handle)  # which the operating system does even where it fails
        if ours:
            self._count("close")

    def _fsync(self, handle):
        self._count("fsync")
        self._real["fsync"](handle)
        path = Path(self._handles[handle])
        if path.is_dir():
            self.record.append(("flush folder", self._name(path)))
        else:
            self.record.append(("flush", self._files[self._name(path)]))

    def _replace(self, source, target, **options):
        if not self._is_ours(target):
            return self._real["replace"](source, target, **options)
        self._count("replace")
        self._real["replace"](source, target, **options)
        number = self._files.pop(self._name(source))
        self._files[self._name(target)] = number
        self.record.append(("replace", self._name(source), self._name(target), number))
        return None

    def _unlink(self, path, **options):
        if self._is_ours(path):
            self._count("unlink")
        self._real["unlink"](path, **options)
        if self._is_ours(path):
            self._files.pop(self._name(path), None)
            self.record.append(("unlink", self._name(path)))

    def _mkdir(self, path, *rest, **options):
        if self._is_ours(path):
            self._count("mkdir")
        self._real["mkdir"](path, *rest, **options)


class _File:
    """A file whose writes are counted."""

    def __init__(self, file, disk, handle):
        self._file, self._disk, self._handle = file, disk, handle

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def write(self, data):
        self._disk._count("write")
        name = self._disk._name(self._disk._handles[self._handle])
        self._disk.record.append(("write", self._disk._files[name], bytes(data)))
        return self._file.write(data)

    def flush(self):
        self._disk._count("flush")
        self._file.flush()

    def fileno(self):
        return self._file.fileno()

    def close(self):
        ours = self._disk._handles.pop(self._handle, None) is not None
        with contextlib.suppress(OSError):
            self._file.close()
        if ours:
            self._disk._count("close file")


def after_a_crash(before, record):
    """Return every folder that a disk may hold after these operations and a loss of power.

    Parameters
    ----------
    before : dict of name -> bytes
        What was there, and on the disk.
    record : list
        Of ``Watched``: the operations until the loss.

    Yields
    ------
    dict of name -> bytes

    Notes
    -----
    Of names that changed since the last flush of the folder, any subset has arrived; of a file that
    was not flushed all, half, nothing, or as many zeros.
    """
    written, flushed = {}, {}
    pending, settled = [], []  # changes of names
    for what, *about in record:
        if what == "create":
            written[about[1]] = b""
            pending.append((what, *about))
        elif what == "write":
            written[about[0]] += about[1]
        elif what == "flush":
            flushed[about[0]] = written[about[0]]
        elif what == "flush folder":
            settled += pending
            pending = []
        elif what in ("replace", "unlink"):
            pending.append((what, *about))
    choices = []
    for number, data in written.items():
        if flushed.get(number) == data:
            choices.append([(number, data)])
        else:
            damaged = {data, data[: len(data) // 2], b"", bytes(len(data))}
            choices.append([(number, content) for content in sorted(damaged)])
    seen = set()
    for arrived in itertools.product([False, True], repeat=len(pending)):
        names = {name: ("before", name) for name in before}
        for change in settled + list(itertools.compress(pending, arrived)):
            _apply(names, change)
        for contents in itertools.product(*choices):
            content = dict(contents)
            folder = {
                name: before[file[1]] if isinstance(file, tuple) else content[file]
                for name, file in names.items()
            }
            key = tuple(sorted(folder.items()))
            if key not in seen:
                seen.add(key)
                yield folder


def _apply(names, change):
    what, name, *about = change
    if what == "create":
        names[name] = about[0]
    elif what == "replace":
        names.pop(name, None)
        names[about[0]] = about[1]
    else:
        names.pop(name, None)
