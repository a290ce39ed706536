"""The tests of the data loaders neither see the user's own files nor reach the network."""

import os
import struct

import pytest

from fastbp.dataset import mnist


@pytest.fixture(autouse=True)
def isolation(request, tmp_path_factory, monkeypatch):
    """Move the cache to an empty folder, forget the mirrors, and unless it is wanted the data."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(mnist, "user_cache_dir", lambda: cache)
    monkeypatch.setattr(mnist, "MIRRORS", ())
    if request.node.get_closest_marker("mnist") is None:
        monkeypatch.delenv("FASTBP_DATA_DIR", raising=False)
    elif mnist.find_mnist() is None:
        pytest.skip("needs the MNIST files: set FASTBP_DATA_DIR to their folder")
    return cache


@pytest.fixture(scope="session")
def idx():
    """Return a function that writes IDX: ``idx(shape, elements)``, right or wrong as asked."""

    def write(shape, elements, *, zero=0, kind=8, ndim=None):
        ndim = len(shape) if ndim is None else ndim
        return struct.pack(f">HBB{len(shape)}I", zero, kind, ndim, *shape) + bytes(elements)

    return write


@pytest.fixture
def strange_files(tmp_path):
    """Return paths that are no regular files, by name."""
    found = {"folder": tmp_path / "folder", "missing": tmp_path / "missing"}
    found["folder"].mkdir()
    if hasattr(os, "mkfifo"):
        found["pipe"] = tmp_path / "pipe"
        os.mkfifo(found["pipe"])
    if os.path.exists("/dev/zero"):  # noqa: PTH110
        found["device behind a link"] = tmp_path / "zero"
        found["device behind a link"].symlink_to("/dev/zero")
    return found
