import io
import os
import pickle
import struct
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastbp.dataset import DatasetError, load_npy

X = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


@pytest.fixture
def save(tmp_path):
    """Return a function that writes an array, or bytes, as a .npy and returns the path."""

    def write(content):
        path = tmp_path / "file.npy"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.save(path, content)
        return path

    return write


def refused(path, reason, **options):
    with pytest.raises(DatasetError, match=reason) as caught:
        load_npy(path, **options)
    assert str(caught.value).startswith(f"{path}: ")


def forged(*, descr="<f4", shape="(7, 3)", fortran="False", body=None, version=(1, 0)):
    """Return the bytes of a .npy file with this header, before the elements of X."""
    text = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + (X.tobytes() if body is None else body)


# -- What is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "loaded"),
    [
        ("f2", "f4"), ("f4", "f4"), (">f4", "f4"), ("f8", "f8"), (">f8", "f8"),
        ("?", "f4"), ("i1", "f4"), ("u2", "f4"), (">i8", "f4"), ("u8", "f4"),
    ],
)  # fmt: skip
def test_dtypes(save, stored, loaded):
    x = np.array([[0, 1], [1, 0], [1, 1]]).astype(stored)
    got = load_npy(save(x))
    np.testing.assert_array_equal(got, x.astype(loaded), strict=True)
    assert got.dtype.isnative


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floating_point_numbers_are_read_as_they_are(save, dtype):
    info = np.finfo(dtype)
    x = np.array([info.max, info.min, info.smallest_subnormal, -0.0, np.pi], dtype)
    assert load_npy(save(x)).tobytes() == x.tobytes()


def test_bytes_are_pixels(save):
    x = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = x.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(load_npy(save(x)), expected, strict=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.int32])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 1), (4, 3), (2, 3, 4), (2,) * 8])
def test_shape_stays(save, dtype, shape):
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    got = load_npy(save(x))
    assert isinstance(got, np.ndarray)
    assert got.shape == shape


@pytest.mark.parametrize("dtype", ["u1", "f4", ">f4", "f8", "i2"])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4)])
def test_fortran_order(save, dtype, shape):
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    expected = load_npy(save(x))
    path = save(np.asfortranarray(x))
    assert b"'fortran_order': True" in path.read_bytes()
    got = load_npy(path)
    np.testing.assert_array_equal(got, expected, strict=True)
    assert got.flags.c_contiguous


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_hand_made_header_is_read(save, version):
    np.testing.assert_array_equal(load_npy(save(forged(version=version))), X, strict=True)


def test_path_may_be_text(save):
    np.testing.assert_array_equal(load_npy(str(save(X))), X)


def test_result_can_be_written_to(save):
    got = load_npy(save(X))
    got[0] = 1
    np.testing.assert_array_equal(got[0], 1)


# -- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "x",
    [
        np.array(["a", "b"]), np.array([b"a", b"b"]), np.ones(3, np.complex64),
        np.zeros(3, "datetime64[s]"), np.zeros(3, "timedelta64[s]"), np.zeros(3, [("a", "f4")]),
        np.zeros(3, "V4"),
    ],
)  # fmt: skip
def test_no_real_numbers(save, x):
    refused(save(x), "expected real numbers|not a .npy header")


@pytest.mark.skipif(np.longdouble(0).itemsize == 8, reason="long double is double here")
def test_long_double(save):
    refused(save(X.astype(np.longdouble)), "elements of dtype .*, expected real numbers")


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_empty(save, shape):
    refused(save(np.zeros(shape)), "empty, shape")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_and_infinity(save, dtype, value):
    x = X.astype(dtype)
    x[6, 2] = value
    refused(save(x), "a nan or an infinity")


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_pickle_is_not_run(save, tmp_path):
    evil = Evil(str(tmp_path / "ran"))
    refused(save(np.array([evil], object)), "dtype object")
    refused(save(pickle.dumps(evil)), "not a .npy header")
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(evil)).close()  # it would have worked
    assert (tmp_path / "ran").exists()


def test_strange_files(strange_files):
    for path in strange_files.values():
        refused(path, "not a regular file|directory|denied|No such file")


@pytest.mark.skipif(sys.platform == "win32", reason="chmod does not forbid reading on Windows")
@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() == 0, reason="root may read every file")
def test_no_permission(save):
    path = save(X)
    path.chmod(0)
    refused(path, "Permission denied")


# -- Sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "size"), [("f4", 84), ("f8", 168), ("u1", 84), ("f2", 84), ("i8", 168)]
)
def test_cap(save, dtype, size):
    # Small elements count as the four bytes they become.
    path = save(np.ones((7, 3), dtype))
    load_npy(path, max_bytes=size)
    refused(path, f"an array of {size} bytes, more than {size - 1}", max_bytes=size - 1)


@pytest.mark.parametrize(
    "shape",
    [
        "(4294967296, 3)", "(4294967296, 4294967296, 1)", "(6, 3)", "(8, 3)", "(7, 3, 2)", "()",
        # 2**64 + 21 elements: right in 64-bit arithmetic.
        "(252871, 1179713, 61836419)",
    ],
)  # fmt: skip
def test_shape_that_the_file_does_not_hold(save, shape):
    refused(save(forged(shape=shape)), r"\d+ bytes, but float32 of shape .* makes \d+")


@pytest.mark.parametrize("descr", ["<f8", "<f2", "|u1"])
def test_type_that_the_file_does_not_hold(save, descr):
    refused(save(forged(descr=descr)), r"\d+ bytes, but .* makes \d+")


@pytest.mark.parametrize(
    "shape", ["(-7, -3)", "(True, 21)", f"({'1, ' * 33})", "(7.0, 3)", "7", "('a',)", "None"]
)
def test_impossible_shape(save, shape):
    refused(save(forged(shape=shape)), "impossible shape|shape is not")


def test_small_file_that_promises_32_gib(save):
    path = save(forged(shape="(2147483648, 4)"))
    tracemalloc.start()
    try:
        refused(path, "makes")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_every_truncation(save):
    content = save(X).read_bytes()
    for length in range(len(content)):
        refused(save(content[:length]), "not a .npy header|makes")


@pytest.mark.parametrize("more", [b"\0", X.tobytes(), bytes(10_000)])
def test_more_than_the_array(save, more):
    refused(save(forged(body=X.tobytes() + more)), "makes")


def test_file_that_shrinks_while_it_is_read(save, monkeypatch):
    path = save(X)
    fstat = os.fstat

    def shrink(handle):
        status = fstat(handle)
        if os.path.samestat(status, path.stat()) and status.st_size:
            os.truncate(path, status.st_size - 1)
        return status

    monkeypatch.setattr(os, "fstat", shrink)
    refused(path, "ends early")


# -- Headers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"not npy at all",
        b"PK\3\4" + bytes(100),
        forged(version=(3, 0)),
        forged(version=(9, 9)),
        forged(descr="nonsense"),
        forged(fortran="'no'"),
        forged(shape="(" * 300 + ")" * 300),
        forged(shape="-" * 3000 + "1"),
        forged(shape="(7, 3" + " " * 9000 + ")"),
        forged(shape="(7, 3), 'more': 1"),
        forged(shape="__import__('os').getpid()"),
        b"\x93NUMPY\x01\x00\xff\xff{}",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}",
        b"\x93NUMPY\x01\x00\x02\x00{}",
        b"\x93NUMPY\x01\x00\x07\x00{[]: 1}",
        b"\x93NUMPY\x01\x00\x02\x00\xff\xfe",
    ],
)
def test_bad_header(save, content):
    refused(save(content), "not a .npy header")


# -- Whatever bytes come --------------------------------------------------------------------------


def saved(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@st.composite
def damaged(draw, content):
    """Draw ``content`` with a few bytes replaced, removed or inserted."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(start + draw(st.integers(0, 3)), len(data))
        data[start:stop] = draw(st.binary(max_size=4))
    return bytes(data)


ARRAYS = [X, X.astype(">f8"), np.asfortranarray(X), np.arange(21, dtype=np.uint8).reshape(7, 3)]


@settings(
    max_examples=500, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # one file, written each time
)  # fmt: skip
@given(content=st.sampled_from([saved(array) for array in ARRAYS]).flatmap(damaged))
def test_fuzz(save, content):
    try:
        got = load_npy(save(content))
    except DatasetError:
        return
    assert got.dtype in (np.float32, np.float64)
    assert got.dtype.isnative
    assert got.flags.c_contiguous
    assert 0 < got.nbytes <= 4 * len(content)
    assert np.isfinite(got).all()


def test_a_type_name_that_numpy_gives_up_is_refused_without_a_warning(tmp_path):
    path = tmp_path / "x.npy"
    header = b"{'descr': '|a8', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8))
    with pytest.raises(DatasetError, match=r"x\.npy: "):
        load_npy(path)
