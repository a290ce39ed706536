"""Where nothing can be written: a read-only installation, no home folder, a full disk."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from child import PACKAGE, run

from fastbp.kernels.jit import JIT_DISABLED

pytestmark = [
    pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled"),
    pytest.mark.skipif(os.name == "nt", reason="Windows has other rights"),
]
NOBODY = 54321  # no user of this machine: nothing says where its home is

# A layer and an optimizer, whose kernels compile in a second, and what a user does first.
WORK = """
import contextlib, json, os, warnings
if {uid}:
    # Python itself may lie where only we can read: what it needs is loaded as long as we can.
    import argparse, ctypes, datetime, gzip, hashlib, importlib.metadata, numpy.random, pickle
    import mmap, multiprocessing.synchronize, platform, stat, tempfile, threadpoolctl, tqdm.auto
    import uuid, zipfile
    import codecs
    codecs.lookup("cp437")  # of zip files
    import numba
    numba.njit(lambda x: x.sum())(numpy.ones(2))
    os.setgroups([])
    os.setgid({uid})
    os.setuid({uid})
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import numpy as np
    import fastbp
    from fastbp.cli import main
    relu = fastbp.Relu().forward(np.array([-1.0, 2.0])).tolist()
    params = {{"W": np.ones(3)}}
    fastbp.SGD(lr=0.25).update(params, {{"W": np.ones(3)}})
    digits = len(fastbp.load_digits()[0][0])
    with open(os.devnull, "w") as nowhere:
        with contextlib.redirect_stdout(nowhere):
            code = main(["info"])
print(json.dumps({{
    "results": [relu, params["W"].tolist(), digits > 1000, code],
    "warnings": [str(w.message) for w in caught],
    "uid": os.getuid(),
}}))
"""
RIGHT = [[0.0, 2.0], [0.75] * 3, True, 0]
NO_HOME = {"HOME": None, "XDG_CACHE_HOME": None, "FASTBP_CACHE_DIR": None, "FASTBP_DATA_DIR": None}


@pytest.fixture
def open_folder():
    """A folder that others get to, as they do not to pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def read_only(open_folder):
    """A copy of the package that nobody may write to."""
    package = open_folder / "site-packages" / "fastbp"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    made = [package.parent, *package.parent.rglob("*")]
    for path in made:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield package
    for path in made:
        if path.is_dir():
            path.chmod(0o755)


def work(package, uid=0, **variables):
    return run("-c", WORK.format(uid=uid), package=package, **variables)


def only_warning(said):
    (text,) = said["warnings"]
    return text


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_read_only_installation_and_a_user_without_a_home(read_only):
    said = work(read_only, NOBODY, **NO_HOME)
    assert (said["results"], said["uid"]) == (RIGHT, NOBODY)
    assert "compiles in memory" in only_warning(said)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_home_and_a_cache_that_are_somebody_elses(read_only, open_folder):
    home = open_folder / "home"
    home.mkdir(mode=0o755)
    said = work(read_only, NOBODY, **{**NO_HOME, "HOME": home})
    assert said["results"] == RIGHT
    assert "Permission denied" in only_warning(said)
    said = work(read_only, NOBODY, **{**NO_HOME, "FASTBP_CACHE_DIR": home / "cache"})
    assert said["results"] == RIGHT
    assert "Permission denied" in only_warning(said)
    assert list(home.iterdir()) == []


def test_a_read_only_installation_and_a_home_that_is_no_folder(read_only, tmp_path):
    home = tmp_path / "home"
    home.write_text("a file")
    said = work(read_only, **{**NO_HOME, "HOME": home})
    assert said["results"] == RIGHT
    assert "compiles in memory" in only_warning(said)


def test_a_cache_on_a_full_disk(tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k,mode=0700", "tmpfs", str(cache)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a disk of its own")
    try:
        said = work(PACKAGE, **{**NO_HOME, "FASTBP_CACHE_DIR": cache})
        assert said["results"] == RIGHT
        assert "No space left on device" in only_warning(said)
        (folder,) = cache.iterdir()
        assert [path.name for path in folder.iterdir() if path.suffix != ".nbc"] == []
    finally:
        subprocess.run(["umount", str(cache)], check=True)
