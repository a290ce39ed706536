import gzip
import os
import pickle
import struct
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastbp.dataset import DatasetError, read_idx

SHAPE = (3, 4, 5)
PIXELS = np.arange(60, dtype=np.uint8).reshape(SHAPE)


def refused(path, reason, **options):
    """Read the file, expecting a DatasetError with the path and (as a regex) the reason."""
    with pytest.raises(DatasetError, match=reason) as caught:
        read_idx(path, **{"ndim": 3, **options})
    assert str(path) in str(caught.value)
    return caught.value


@pytest.fixture
def store(tmp_path):
    """Return a function that stores bytes under a name and returns the path."""

    def write(content, name="file"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


# -- What is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1,), (60,), (1, 1, 1), SHAPE, (2, 3, 5, 2)])
def test_reads_raw_and_compressed(store, idx, shape):
    elements = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    content = idx(shape, elements.tobytes())
    for path in (store(content), store(gzip.compress(content), "file.gz")):
        array = read_idx(path, ndim=len(shape))
        assert array.dtype == np.uint8
        assert array.flags.c_contiguous
        assert array.flags.writeable
        np.testing.assert_array_equal(array, elements, strict=True)


def test_reads_more_than_a_chunk(store, idx):
    elements = np.random.default_rng(0).integers(0, 256, 3 * 2**20 + 17, np.uint8)
    content = idx(elements.shape, elements.tobytes())
    for path in (store(content), store(gzip.compress(content, 1), "file.gz")):
        np.testing.assert_array_equal(read_idx(path, ndim=1), elements)


def test_path_may_be_a_string_and_the_suffix_upper_case(store, idx):
    path = store(gzip.compress(idx(SHAPE, PIXELS.tobytes())), "FILE.GZ")
    np.testing.assert_array_equal(read_idx(str(path), ndim=3), PIXELS)


def test_a_file_of_exactly_the_cap_is_read(store, idx):
    path = store(idx(SHAPE, PIXELS.tobytes()))
    assert read_idx(path, ndim=3, max_bytes=60).shape == SHAPE
    refused(path, "more than 59", max_bytes=59)


# -- Contents that are refused --------------------------------------------------------------------


@pytest.mark.parametrize("length", range(16))
def test_part_of_a_header(store, idx, length):
    content = idx(SHAPE, PIXELS.tobytes())[:length]
    refused(store(content), "empty" if length == 0 else f"{length} bytes where 16 were expected")
    refused(store(gzip.compress(content), "file.gz"), f"{length} bytes where 16 were expected")


@pytest.mark.parametrize(
    ("reason", "shape", "elements", "fields"),
    [
        ("not an IDX file: begins with 00 01 08 03", SHAPE, 60, {"zero": 1}),
        ("elements of type 0x0D", SHAPE, 60, {"kind": 0x0D}),
        ("0 dimensions, expected 3", SHAPE, 60, {"ndim": 0}),
        ("255 dimensions, expected 3", (1,) * 255, 1, {}),
        ("1 dimensions, expected 3", (60,), 60, {}),
        ("without elements", (0, 28, 28), 0, {}),
        ("without elements", (28, 28, 0), 0, {}),
        (f"takes {(2**32 - 1) ** 3} bytes, more than", (2**32 - 1,) * 3, 60, {}),
        (f"takes {2**30 + 1} bytes, more than", (2**30 + 1, 1, 1), 60, {}),
    ],
)
def test_wrong_header(store, idx, reason, shape, elements, fields):
    content = idx(shape, bytes(elements), **fields)
    refused(store(content), reason)
    refused(store(gzip.compress(content), "file.gz"), reason)


def test_a_product_that_would_be_right_in_64_bits(store, idx):
    shape = (5241943, 1866337, 1885547)
    assert np.prod(np.array(shape, np.uint64)) == 61
    content = idx(shape, bytes(61))
    refused(store(content), f"{16 + 61} bytes, but", max_bytes=2**100)
    refused(store(gzip.compress(content), "file.gz"), "bomb", max_bytes=2**100)


def test_one_byte_short_and_one_byte_long(store, idx):
    short = idx(SHAPE, PIXELS.tobytes()[:-1])
    long = idx(SHAPE, PIXELS.tobytes() + b"\0")
    refused(store(short), "75 bytes, but shape .* makes 76")
    refused(store(long), "77 bytes, but shape .* makes 76")
    refused(store(gzip.compress(short), "file.gz"), "59 bytes where 60 were expected")
    refused(store(gzip.compress(long), "file.gz"), "goes on after the 76 bytes")


# -- Gzip -----------------------------------------------------------------------------------------


def test_name_and_content_disagree(store, idx):
    content = idx(SHAPE, PIXELS.tobytes())
    refused(store(content, "raw.gz"), "remove .gz from its name")
    refused(store(gzip.compress(content), "packed"), "add .gz to its name")


def test_truncated_gzip(store, idx):
    packed = gzip.compress(idx(SHAPE, PIXELS.tobytes()))
    refused(store(b"", "file.gz"), "empty")
    for length in range(1, len(packed)):
        refused(store(packed[:length], "file.gz"), "truncated" if length > 1 else "no gzip content")


@pytest.mark.parametrize("position", range(-8, 0))
def test_wrong_checksum_or_length(store, idx, position):
    packed = bytearray(gzip.compress(idx(SHAPE, PIXELS.tobytes())))
    packed[position] ^= 1
    refused(store(packed, "file.gz"), "incorrect (data|length) check")


@pytest.mark.parametrize("tail", [b"\0", b"x", bytes(2**21), gzip.compress(b"")])
def test_something_after_the_gzip_stream(store, idx, tail):
    packed = gzip.compress(idx(SHAPE, PIXELS.tobytes()))
    refused(store(packed + tail, "file.gz"), "more bytes follow")


@pytest.mark.parametrize("tail", [b"", b"x"])
def test_stream_that_ends_where_a_read_ends(store, idx, tail):
    packed = bytearray(gzip.compress(idx(SHAPE, PIXELS.tobytes())))
    packed[3] = 8  # a name follows the gzip header; here it fills the stream up to 1 MiB
    packed[10:10] = b"n" * (2**20 - len(packed) - 1) + b"\0"
    assert len(packed) == 2**20
    path = store(packed + tail, "file.gz")
    if tail:
        refused(path, "more bytes follow")
    else:
        np.testing.assert_array_equal(read_idx(path, ndim=3), PIXELS)


def test_damaged_deflate(store, idx):
    packed = bytearray(gzip.compress(idx(SHAPE, PIXELS.tobytes())))
    packed[10] |= 0b110  # the block type that does not exist
    refused(store(packed, "file.gz"), "invalid block type")


class Peak:
    """The most memory that Python and NumPy held at once inside a ``with``."""

    def __enter__(self):
        tracemalloc.start()
        return self

    def __exit__(self, *exception):
        self.bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


def test_honest_data_of_a_high_ratio_is_read(store, idx):
    zeros = np.zeros((1000, 28, 28), np.uint8)  # 0.8 MB, below the floor: about 1000:1
    path = store(gzip.compress(idx(zeros.shape, zeros.tobytes())), "file.gz")
    np.testing.assert_array_equal(read_idx(path, ndim=3), zeros)


def test_bomb_that_declares_its_size(store, idx):
    shape = (100, 1000, 1000)
    path = store(gzip.compress(idx(shape, bytes(10**8)), 9), "file.gz")
    with Peak() as peak:
        refused(path, "claim to expand to 100000016")
    assert peak.bytes < 8 * 2**20


def test_bomb_behind_a_small_array(store, idx):
    path = store(gzip.compress(idx(SHAPE, bytes(10**8)), 9), "file.gz")
    with Peak() as peak:
        refused(path, "goes on after the 76 bytes")
    assert peak.bytes < 8 * 2**20


def test_small_file_that_promises_much(store, idx):
    shape = (1000, 1000, 1000)
    with Peak() as peak:
        refused(store(idx(shape, bytes(60))), "but shape .* makes 1000000016")
        refused(store(gzip.compress(idx(shape, bytes(60))), "file.gz"), "claim to expand")
    assert peak.bytes < 8 * 2**20


@pytest.mark.parametrize("name", ["file", "file.gz"])
def test_memory_of_a_good_file(store, idx, name):
    elements = np.random.default_rng(0).integers(0, 256, 16 * 2**20, np.uint8)
    content = idx(elements.shape, elements)
    path = store(gzip.compress(content, 1) if name == "file.gz" else content, name)
    del content
    with Peak() as peak:
        read_idx(path, ndim=1)
    assert peak.bytes < elements.size + 8 * 2**20


# -- No regular file ------------------------------------------------------------------------------


def test_strange_files(strange_files):
    for path in strange_files.values():
        refused(path, "not a regular file|directory|denied|No such file")


def test_a_pipe_does_not_make_it_wait(strange_files):
    if "pipe" not in strange_files:
        pytest.skip("no named pipes on this system")
    refused(strange_files["pipe"], "not a regular file")


def test_a_name_that_no_file_can_have(tmp_path):
    refused(tmp_path / "nul\0byte", "null")


@pytest.mark.skipif(sys.platform == "win32", reason="chmod does not forbid reading on Windows")
@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() == 0, reason="root may read every file")
def test_no_permission(store, idx):
    path = store(idx(SHAPE, PIXELS.tobytes()))
    path.chmod(0)
    refused(path, "Permission denied")


def test_error_of_the_disk(store, idx, monkeypatch):
    def fail(_file):
        raise OSError(5, "Input/output error")

    path = store(idx(SHAPE, PIXELS.tobytes()))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fail)
        refused(path, "Input/output error")


# -- The error ------------------------------------------------------------------------------------


def test_error_survives_pickling(tmp_path):
    error = refused(tmp_path / "missing", "No such file")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == f"{tmp_path / 'missing'}: {error.reason}"
    assert copy.path == tmp_path / "missing"
    assert isinstance(error, ValueError)


# -- Whatever bytes come --------------------------------------------------------------------------


@st.composite
def damaged(draw, content):
    """Draw ``content`` with a few bytes replaced, removed or inserted."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(start + draw(st.integers(0, 3)), len(data))
        data[start:stop] = draw(st.binary(max_size=4))
    return bytes(data)


def idx_bytes():
    return struct.pack(">HBB3I", 0, 8, 3, *SHAPE) + PIXELS.tobytes()


def read_or_refuse(path):
    """Return the array, or None after a DatasetError; any other exception fails the test."""
    try:
        return read_idx(path, ndim=3)
    except DatasetError:
        return None


fuzz = settings(
    max_examples=400, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # one file, written each time
)  # fmt: skip


@fuzz
@given(content=st.one_of(damaged(idx_bytes()), st.binary(max_size=100)))
def test_fuzz_raw(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    array = read_or_refuse(path)
    if array is not None:  # then the file is exactly this array
        assert struct.pack(">HBB3I", 0, 8, 3, *array.shape) + array.tobytes() == content


@fuzz
@given(content=st.one_of(damaged(gzip.compress(idx_bytes(), mtime=0)), st.binary(max_size=100)))
def test_fuzz_gzip(tmp_path, content):
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    array = read_or_refuse(path)
    if array is not None:
        assert idx_bytes() == zlib.decompress(content, wbits=31)
        np.testing.assert_array_equal(array, PIXELS)


@fuzz
@given(content=damaged(idx_bytes()))
def test_fuzz_inside_gzip(tmp_path, content):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(content))
    array = read_or_refuse(path)
    if array is not None:
        assert struct.pack(">HBB3I", 0, 8, 3, *array.shape) + array.tobytes() == content
