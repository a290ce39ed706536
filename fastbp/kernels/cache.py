"""Compiled code on disk: one file for each kernel and type, with a checksum of what is in it.

Numba's own cache keeps an index of files beside them.  Two processes that start on an empty cache
can write that index at once, and one type's name then leads to another type's code; and code of
which a bit has changed is loaded and run.  Here the file's name says what is in it, and the
checksum covers both: what is not exactly what was saved is compiled again.

The checksum tells damage, not malice: who may write to the folder may run code as its user.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle  # machine code as Numba packs it, in the user's own folder  # nosec B403
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

import fastbp

from .._folders import user_cache_dir

# What a file begins with; another format gets another number.
MAGIC = b"fastbp compiled code 1\n"
DIGEST_BYTES = hashlib.sha256().digest_size


class KernelCache(_Cache):  # type: ignore[misc]
    """The files of one kernel; one that cannot be read or written costs time, never the result.

    Parameters
    ----------
    function : callable
        The kernel in Python.
    parallel : bool
        The same function compiled with threads is other code.
    folder : pathlib.Path
        ``cache_folder()``, whose name stands for the sources.
    """

    def __init__(self, function: Callable[..., Any], parallel: bool, folder: Path) -> None:
        self._folder = folder
        code = function.__code__
        module, kind = Path(code.co_filename).stem, "p" if parallel else ""
        self._base = f"{module}.{code.co_name}-{code.co_firstlineno}{kind}"
        self._enabled = True

    @property
    def cache_path(self) -> str:
        """Return the folder, as Numba asks for it."""
        return str(self._folder)

    def enable(self) -> None:
        """Read and write files, as from the start."""
        self._enabled = True

    def disable(self) -> None:
        """Neither read nor write files."""
        self._enabled = False

    def flush(self) -> None:
        """Delete the kernel's files."""
        for path in self._folder.glob(f"{self._base}.*.nbc"):
            with contextlib.suppress(OSError):
                path.unlink()

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return the compiled kernel for argument types, or None where there is none to trust.

        Machine code needs nothing of Numba's compiler, which Numba would first load all the same:
        0.2 s of the first step in a process.
        """
        if not self._enabled:
            return None
        # Any damage that a checksum cannot know of (another library's fault) costs a compilation.
        with contextlib.suppress(Exception):
            text, path = self._name(signature, context.codegen())
            content = path.read_bytes()
            digest, code = content[len(MAGIC) :][:DIGEST_BYTES], content[_BEGIN:]
            if content.startswith(MAGIC) and digest == _digest(text, code):
                # The user's own folder (`cache_folder`), and the bytes that were saved.
                return CompileResult._rebuild(context, *pickle.loads(code))  # noqa: S301  # nosec
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Write a compiled kernel, whole or not at all; say so once where that cannot be."""
        if not self._enabled or result.library.has_dynamic_globals:
            return
        text, path = self._name(signature, result.codegen)
        code = dumps(result._reduce())
        try:
            _replace(path, MAGIC + _digest(text, code) + code)
        except OSError as error:
            # Windows replaces no file that somebody reads: then the same code is there already.
            if os.name != "nt" or not path.exists():
                warn_uncached(error)

    def _name(self, signature: Any, codegen: Any) -> tuple[bytes, Path]:
        """Return what a file must have been made from, and where it is."""
        versions = numba.__version__, llvmlite.__version__, sys.implementation.cache_tag, _ABI
        text = repr((self._base, versions, signature, codegen.magic_tuple())).encode()
        return text, self._folder / f"{self._base}.{hashlib.sha256(text).hexdigest()[:16]}.nbc"


_BEGIN = len(MAGIC) + DIGEST_BYTES
_ABI = getattr(sys, "abiflags", "")  # "t" without the global interpreter lock


def _digest(text: bytes, code: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(text).digest() + code).digest()


def _replace(path: Path, content: bytes) -> None:
    """Write a file that others may be reading or writing; flushing is left to the checksum."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".fastbp-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)  # noqa: PTH105 - as every Python has it
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


@functools.cache
def cache_folder() -> Path | None:
    """Return the folder of the compiled code of exactly these sources, or None where there is none.

    The folder is the user's own and nobody else may write to it: what lies there is run as code.
    Its name holds the version and a digest of all kernel sources, because a kernel's code may have
    been inlined from any of them.
    """
    if os.environ.get("FASTBP_CACHE") == "0":
        return None
    try:
        chosen = os.environ.get("FASTBP_CACHE_DIR")
        base = Path(chosen) if chosen else user_cache_dir() / "kernels"
        # Code with bounds checks is other code from the same sources.
        checked = "-boundscheck" if numba.config.BOUNDSCHECK else ""
        folder = base.absolute() / f"{fastbp.__version__}-{_source_digest()}{checked}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_private(folder)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError) as error:
        warn_uncached(error)
        return None
    return folder


def _source_digest() -> str:
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _require_private(folder: Path) -> None:
    if not hasattr(os, "getuid"):  # Windows: the profile folder is the user's own
        return
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{folder} can be written by somebody else")


def warn_uncached(error: Exception) -> None:
    """Say that this process' compiled code is not kept: once, however many kernels there are."""
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"fastbp compiles in memory, anew in every process: {error}.  FASTBP_CACHE_DIR names "
            "another folder, FASTBP_CACHE=0 turns the cache off without this message.",
            RuntimeWarning,
            stacklevel=2,
        )


_warned = False
