"""The user's own arrays, from a ``.npz`` file as ``numpy.savez`` writes it.

A ``.npz`` is a zip archive with one ``.npy`` file for each array.  Every header is compared with
what the archive says of its size before anything is allocated.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ._book_form import Examples, Split
from ._untrusted import open_regular_file, refuse_bomb
from .errors import DatasetError
from .npy import HEADER_BYTES, Header, as_features, parse_header, read_elements

Array: TypeAlias = npt.NDArray[Any]

# Each array, and the names it may have in the file.
_SPLIT = {
    "x_train": ("x_train",),
    "t_train": ("t_train", "y_train"),
    "x_test": ("x_test",),
    "t_test": ("t_test", "y_test"),
}
_WHOLE = {"x": ("x",), "t": ("t", "y")}

# bzip2 and lzma, which numpy.savez never uses, expand a piece without a bound in `zipfile`.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# What `zipfile` raises on damaged archives, besides those that open_regular_file knows; encrypted
# members and unknown versions are RuntimeErrors.
_ZIP_ERRORS = (zipfile.BadZipFile, RuntimeError)


def load_npz(path: str | os.PathLike[str], *, max_bytes: int = 2**31) -> Split:
    """Load examples and targets from a ``.npz`` file.

    Parameters
    ----------
    path : str or path-like
        A file with the arrays ``x_train``, ``t_train``, ``x_test`` and ``t_test``; or with ``x``
        and ``t``, which are then split: every fifth example of a fixed permutation is for testing.
        ``y`` may stand for ``t``.  Other arrays in the file are not looked at.
    max_bytes : int, default 2 GiB
        The most the arrays may take together, each element counted as four bytes at least (what
        it takes as float32).

    Returns
    -------
    (x_train, t_train), (x_test, t_test)
        x : (N, D), C-contiguous: float64 where the file has float64, else float32.  Images of
        more dimensions are flattened.  uint8 is taken as pixels and divided by 255; other
        integers are converted as they are.
        t : (N,) of the integer dtype in the file; or one-hot rows (N, C), float32.

    Raises
    ------
    DatasetError
        When the file is missing, unreadable, no regular file, or no undamaged zip archive; when
        an array is missing, empty, or neither of real floating-point numbers up to 64 bits nor of
        integers nor bools; when its header disagrees with its size in the archive; when the
        arrays would take more than ``max_bytes``, or more than 200 times the file (from 1 MiB
        on); when x is not finite or has fewer than two dimensions; when t is neither class
        numbers >= 0 nor one-hot rows; when the arrays do not fit together.

    Notes
    -----
    Nothing is ever unpickled.  ``numpy.savez`` drops the mask of a masked array when it writes, so
    fill or remove masked elements before saving.
    """
    path = Path(path)
    arrays = _read_arrays(path, max_bytes)
    if "x" in arrays:
        x, t = _examples(path, arrays, "x", "t")
        if len(x) < 2:
            raise DatasetError(path, "one example cannot be split into training and test")
        train, test = _fixed_split(len(x))
        return (x[train], t[train]), (x[test], t[test])

    if arrays["x_train"].dtype != arrays["x_test"].dtype:
        # uint8 is scaled and int64 is not: a mixture would be two different kinds of data.
        raise DatasetError(
            path,
            f"x_train is {arrays['x_train'].dtype}, x_test {arrays['x_test'].dtype}: "
            "expected one dtype",
        )
    x_train, t_train = _examples(path, arrays, "x_train", "t_train")
    x_test, t_test = _examples(path, arrays, "x_test", "t_test")
    for name, a, b in (("x", x_train, x_test), ("t", t_train, t_test)):
        if a.shape[1:] != b.shape[1:]:
            raise DatasetError(
                path, f"{name}_train and {name}_test do not fit: {a.shape} and {b.shape}"
            )
    return (x_train, t_train), (x_test, t_test)


def _fixed_split(n: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    # NumPy promises that these bits never change; of `Generator.permutation` it does not.
    order = np.argsort(np.random.PCG64(0).random_raw(n), kind="stable")
    return np.delete(order, np.s_[::5]), order[::5]


# -- Reading --------------------------------------------------------------------------------------


class _Member(NamedTuple):
    """An array in the archive: where it is, and what its header says."""

    info: zipfile.ZipInfo
    header: Header


def _read_arrays(path: Path, max_bytes: int) -> dict[str, Array]:
    with open_regular_file(path) as (file, size):
        try:
            with zipfile.ZipFile(file) as archive:
                members = {
                    name: _read_header(path, archive, info)
                    for name, info in _choose(path, archive).items()
                }
                total = sum(member.header.cost for member in members.values())
                if total > max_bytes:
                    raise DatasetError(path, f"arrays of {total} bytes, more than {max_bytes}")
                refuse_bomb(path, size, sum(member.header.size for member in members.values()))
                return {name: _read_array(archive, member) for name, member in members.items()}
        except _ZIP_ERRORS as error:
            raise DatasetError(path, f"damaged, or not a .npz file: {error}") from error


def _choose(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the members to read, by the names that this module gives them."""
    infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if len(infos) < len(archive.infolist()):
        raise DatasetError(path, "two arrays of one name")
    layout = _WHOLE if "x" in infos and "x_train" not in infos else _SPLIT
    chosen = {}
    for name, spellings in layout.items():
        found = [spelling for spelling in spellings if spelling in infos]
        if len(found) != 1:
            raise DatasetError(
                path,
                f"expected one array called {' or '.join(spellings)}, found "
                f"{' and '.join(found) or 'none'}, among: {', '.join(sorted(infos)) or 'nothing'}",
            )
        chosen[name] = infos[found[0]]
    return chosen


def _read_header(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    name = info.filename
    if info.compress_type not in _COMPRESSIONS:
        raise DatasetError(path, f"{name}: compressed by a method that numpy.savez does not use")
    with archive.open(info) as stream:
        head = stream.read(HEADER_BYTES)
    return _Member(info, parse_header(path, f"{name}: ", head, info.file_size))


def _read_array(archive: zipfile.ZipFile, member: _Member) -> Array:
    with archive.open(member.info) as stream:
        # The last read is where zipfile compares the checksum.
        return read_elements(stream, member.header)


# -- Checking -------------------------------------------------------------------------------------


def _examples(path: Path, arrays: dict[str, Array], x_name: str, t_name: str) -> Examples:
    """Return x and t in the form of `load_npz`, taken out of ``arrays``: each can then be freed."""
    x = _features(path, x_name, arrays.pop(x_name))
    t = _targets(path, t_name, arrays.pop(t_name))
    if len(x) != len(t):
        raise DatasetError(path, f"{len(x)} rows in {x_name}, but {len(t)} in {t_name}")
    return x, t


def _features(path: Path, name: str, x: Array) -> Array:
    if x.ndim < 2:
        raise DatasetError(path, f"{name}: shape {x.shape}, expected (N, D) or more dimensions")
    x = x.reshape(len(x), -1)
    x = as_features(x)
    bad = ~np.isfinite(x).all(axis=1)
    if bad.any():
        raise DatasetError(path, f"{name}: row {int(bad.argmax())} has a nan or an infinity")
    return x


def _targets(path: Path, name: str, t: Array) -> Array:
    if t.ndim == 1:
        if t.dtype.kind not in "iu":
            raise DatasetError(path, f"{name}: class numbers of dtype {t.dtype}, expected integers")
        bad = t < 0
        if bad.any():
            row = int(bad.argmax())
            raise DatasetError(path, f"{name}: class {t[row]} at row {row}, expected >= 0")
        return t.astype(t.dtype.newbyteorder("="), copy=False)
    if t.ndim == 2:
        bad = ((t == 1).sum(axis=1) != 1) | ((t != 0).sum(axis=1) != 1)
        if bad.any():
            raise DatasetError(path, f"{name}: row {int(bad.argmax())} is not one-hot")
        return np.ascontiguousarray(t, np.float32)
    raise DatasetError(path, f"{name}: shape {t.shape}, expected (N,) or one-hot rows (N, C)")
