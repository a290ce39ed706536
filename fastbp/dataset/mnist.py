"""MNIST: 60,000 training and 10,000 test images of handwritten digits, 28 x 28 pixels.

To cite it: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998,
http://yann.lecun.com/exdb/mnist/.

The four files are looked for in a folder the caller names, in the one that the environment
variable ``FASTBP_DATA_DIR`` names, in the user's cache; and are downloaded into the cache if they
are nowhere.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from fastbp._folders import user_cache_dir

from ._book_form import CLASSES, Examples, Split, book_form
from .errors import DatasetError
from .idx import idx_header, read_idx

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

# Of the uncompressed files: each mirror has compressed them in its own way.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

MAX_DOWNLOAD = 20 * 10**6  # bytes of one file; the largest has 9.9 million

_SIDE = 28
_WHITE = 255


def load_mnist(
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
) -> Split:
    """Load MNIST, downloading it at the first call if it is nowhere on this machine.

    Parameters
    ----------
    normalize : bool, default True
        Pixels as float32 in [0, 1].  Otherwise uint8 in [0, 255].
    flatten : bool, default True
        Images as rows (N, 784).  Otherwise (N, 1, 28, 28).
    one_hot_label : bool, default False
        Targets as rows of ten, float32.  Otherwise as class numbers, uint8.
    data_dir : str or path-like, optional
        The folder with the four files, raw or compressed (``.gz``), or with a subfolder ``mnist``
        that has them.  Then no other place is looked at and nothing is downloaded.

    Returns
    -------
    (x_train, t_train), (x_test, t_test)
        x : (N, 784) or (N, 1, 28, 28), float32 or uint8; t : (N,) uint8 or (N, 10) float32.

    Raises
    ------
    DatasetError
        When a file is missing from ``data_dir``, cannot be downloaded, is damaged, or does not
        hold what its name says: images of 28 x 28, as many labels, each in [0, 10).

    Notes
    -----
    Without ``data_dir``: the folder in ``FASTBP_DATA_DIR`` (or its subfolder ``mnist``), then the
    user's cache.  A download goes to the cache, over https; its size is limited and its content
    compared with a SHA-256 before it gets its name.  It needs ``pip install 'fastbp[train]'``.
    Files found in a folder are not compared with the SHA-256: other data in MNIST's format
    (Fashion-MNIST, say) may stand there.

    Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998.
    """
    folder = find_mnist(data_dir)
    if folder is None:
        if data_dir is not None:
            nearest = min(_places(data_dir), key=lambda place: len(_missing(place)))
            raise DatasetError(
                nearest / _missing(nearest)[0], "missing: neither the raw file nor .gz is there"
            )
        folder = _download_missing()
    train, test = (
        book_form(
            *_read_part(folder, part),
            white=_WHITE,
            normalize=normalize,
            flatten=flatten,
            one_hot_label=one_hot_label,
        )
        for part in ("train", "t10k")
    )
    return train, test


def find_mnist(data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the folder from which `load_mnist` would read; nothing is downloaded.

    Parameters
    ----------
    data_dir : str or path-like, optional
        As for `load_mnist`.

    Returns
    -------
    pathlib.Path or None
        The first folder, in the order of `load_mnist`, that has all four files; None if none has.
    """
    return next((place for place in _places(data_dir) if not _missing(place)), None)


def _places(data_dir: str | os.PathLike[str] | None) -> list[Path]:
    root = data_dir if data_dir is not None else os.environ.get("FASTBP_DATA_DIR") or None
    places = [Path(root), Path(root, "mnist")] if root is not None else []
    if data_dir is None:
        with suppress(RuntimeError):  # a user without a home has no cache
            places.append(user_cache_dir() / "mnist")
    return places


def _locate(folder: Path, name: str) -> Path | None:
    for path in (folder / name, folder / f"{name}.gz"):  # the raw file is read ten times as fast
        try:
            path.stat()
        except (OSError, ValueError):
            continue
        return path
    return None


def _missing(folder: Path) -> list[str]:
    return [name for name in SHA256 if _locate(folder, name) is None]


def _ndim(name: str) -> int:
    return 3 if "idx3" in name else 1


def _read(folder: Path, name: str) -> npt.NDArray[np.uint8]:
    return read_idx(_locate(folder, name) or folder / name, ndim=_ndim(name))


def _read_part(folder: Path, part: str) -> Examples:
    images_name, labels_name = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
    images, labels = _read(folder, images_name), _read(folder, labels_name)
    if images.shape[1:] != (_SIDE, _SIDE):
        raise DatasetError(
            folder / images_name, f"images of {images.shape[1:]}, expected {(_SIDE, _SIDE)}"
        )
    if len(labels) != len(images):
        raise DatasetError(
            folder / labels_name, f"{len(labels)} labels, but {len(images)} images beside them"
        )
    if labels.max() >= CLASSES:
        row = int(np.argmax(labels >= CLASSES))
        raise DatasetError(
            folder / labels_name, f"label {labels[row]} at row {row}, expected 0 to {CLASSES - 1}"
        )
    return images, labels


# -- Download -------------------------------------------------------------------------------------


class _Capped:
    """A file that refuses to grow beyond a limit: no mirror can fill the disk."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._limit = limit

    def write(self, data: bytes) -> None:
        if self._file.tell() + len(data) > self._limit:
            raise ValueError(f"more than {self._limit} bytes")
        self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _download_missing() -> Path:
    """Bring the missing files into the user's cache and return that folder."""
    try:
        folder = user_cache_dir() / "mnist"
    except RuntimeError as error:
        raise DatasetError("MNIST", f"no cache folder ({error}): set FASTBP_DATA_DIR") from error
    if find_spec("pooch") is None:
        raise DatasetError(
            folder,
            "MNIST is not there, and downloading it needs pooch: pip install 'fastbp[train]'.  "
            "Or put the four files into a folder and set FASTBP_DATA_DIR to it.",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(folder, f"cannot be created: {error.strerror}") from error
    for name in _missing(folder):
        _fetch(name, folder)
    return folder


def _fetch(name: str, folder: Path) -> None:
    """Bring one file into the folder from the first mirror that gives the right content."""
    target = folder / f"{name}.gz"
    failures = []
    for mirror in MIRRORS:
        url = mirror + target.name
        try:
            # In the same folder, since only within one file system does `replace` do all or
            # nothing.  The temporary folder goes with all it holds, however this block is left.
            with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
                part = Path(temporary, target.name)
                _download(url, part)
                _verify(part, name)
                part.replace(target)
        except DatasetError as error:
            failures.append(f"{url}: {error.reason}")
        except (OSError, ValueError) as error:  # those of requests are OSErrors
            failures.append(f"{url}: {error}")
        else:
            return
    looked = ", ".join(str(place) for place in _places(None))
    raise DatasetError(
        target,
        f"MNIST is in none of {looked}, and no mirror gave it.  Put the four files into a folder "
        "and set FASTBP_DATA_DIR to it.\n  " + "\n  ".join(failures),
    )


def _download(url: str, path: Path) -> None:
    import pooch
    from tqdm import tqdm

    with (
        path.open("wb") as file,
        # pooch sets the true total, but asks `if bar` before, which tqdm cannot tell without one.
        tqdm(desc=path.name, total=MAX_DOWNLOAD, unit="B", unit_scale=True, disable=None) as bar,
    ):
        # identity: otherwise a server may label the file as gzip-encoded and requests unpack it.
        download = pooch.HTTPDownloader(
            progressbar=bar, chunk_size=2**16, headers={"Accept-Encoding": "identity"}
        )
        download(url, _Capped(file, MAX_DOWNLOAD), None)
        # A crash after `replace` must not leave an empty file with a good name.
        os.fsync(file.fileno())


def _verify(path: Path, name: str) -> None:
    array = read_idx(path, ndim=_ndim(name))
    # The array and its shape determine the file, so that one reader checks and bounds it all.
    digest = hashlib.sha256(idx_header(array.shape))
    digest.update(array.data)
    if digest.hexdigest() != SHA256[name]:
        raise DatasetError(path, f"SHA-256 is {digest.hexdigest()}, expected {SHA256[name]}")
