import io
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastbp.dataset import DatasetError, load_npz

X = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
T = np.array([0, 1, 2, 0, 1, 2, 0], np.int64)
SPLIT_OF_11 = [3, 2, 1, 8, 6, 0, 7, 4, 10, 5, 9]


@pytest.fixture
def save(tmp_path):
    """Return a function that saves arrays as a .npz and returns the path."""

    def write(save=np.savez, **arrays):
        path = tmp_path / "file.npz"
        save(path, **arrays)
        return path

    return write


def four(**changed):
    """Return the four arrays of a small data set, some of them changed."""
    return {"x_train": X, "t_train": T, "x_test": X[:4], "t_test": T[:4], **changed}


def refused(path, reason, **options):
    with pytest.raises(DatasetError, match=reason) as caught:
        load_npz(path, **options)
    assert str(caught.value).startswith(f"{path}: ")


def npy(array=None, *, descr="<f4", shape="(7, 3)", fortran="False", body=b"", version=(1, 0)):
    """Return the bytes of a .npy file, right (of an array) or forged."""
    if array is not None:
        stream = io.BytesIO()
        np.save(stream, array)
        return stream.getvalue()
    text = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + body


@pytest.fixture
def archive(tmp_path):
    """Return a function that zips bytes, in place of arrays, and returns the path."""

    def write(compression=zipfile.ZIP_STORED, **members):
        path = tmp_path / "forged.npz"
        members = {name: npy(array) for name, array in four().items()} | members
        with zipfile.ZipFile(path, "w", compression) as file:
            for name, content in members.items():
                file.writestr(f"{name}.npy", content)
        return path

    return write


# -- What is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [np.savez, np.savez_compressed])
def test_four_arrays(save, how):
    (x_train, t_train), (x_test, t_test) = load_npz(save(how, **four()))
    np.testing.assert_array_equal(x_train, X, strict=True)
    np.testing.assert_array_equal(t_train, T, strict=True)
    np.testing.assert_array_equal(x_test, X[:4], strict=True)
    np.testing.assert_array_equal(t_test, T[:4], strict=True)


def test_y_for_t_and_other_arrays(save):
    path = save(
        x_train=X, y_train=T, x_test=X[:4], y_test=T[:4], names=np.array([{}], object), x=X, t=T
    )
    (x_train, t_train), (_, t_test) = load_npz(path)
    np.testing.assert_array_equal(x_train, X)
    np.testing.assert_array_equal(t_train, T)
    np.testing.assert_array_equal(t_test, T[:4])


@pytest.mark.parametrize("name", ["t", "y"])
def test_whole_set_is_split(save, name):
    x, t = np.arange(22.0).reshape(11, 2), np.arange(11)
    path = save(x=x, **{name: t})
    (x_train, t_train), (x_test, t_test) = load_npz(path)
    # The split must never change, or scores from before and after cannot be compared.
    np.testing.assert_array_equal(t_test, SPLIT_OF_11[::5])
    np.testing.assert_array_equal(t_train, [n for i, n in enumerate(SPLIT_OF_11) if i % 5])
    np.testing.assert_array_equal(x_train, x[t_train])
    np.testing.assert_array_equal(x_test, x[t_test])


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 100])
def test_split_is_a_partition(save, n):
    (_, t_train), (_, t_test) = load_npz(save(x=np.zeros((n, 1)), t=np.arange(n)))
    assert len(t_test) == -(-n // 5)
    np.testing.assert_array_equal(np.sort(np.append(t_train, t_test)), np.arange(n))


def test_one_example_cannot_be_split(save):
    refused(save(x=X[:1], t=T[:1]), "cannot be split")


@pytest.mark.parametrize(
    ("stored", "loaded"),
    [
        ("f2", "f4"), ("f4", "f4"), (">f4", "f4"), ("f8", "f8"), (">f8", "f8"),
        ("?", "f4"), ("i1", "f4"), ("u2", "f4"), (">i8", "f4"), ("u8", "f4"),
    ],
)  # fmt: skip
def test_dtypes_of_x(save, stored, loaded):
    x = np.array([[0, 1], [1, 0], [1, 1]]).astype(stored)
    for (got, _), n in zip(
        load_npz(save(x_train=x, t_train=T[:3], x_test=x[:1], t_test=T[:1])), (3, 1), strict=True
    ):
        np.testing.assert_array_equal(got, x[:n].astype(loaded), strict=True)
        assert got.dtype.isnative


def test_bytes_are_pixels(save):
    x = np.array([[0, 51], [102, 255]], np.uint8)
    (got, _), _ = load_npz(save(**four(x_train=x, t_train=T[:2], x_test=x, t_test=T[:2])))
    np.testing.assert_array_equal(got, x.astype(np.float32) / np.float32(255), strict=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int32])
@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3), (4, 1, 2, 3), (1, 5), (4, 1)])
def test_images_are_flattened_in_c_order(save, dtype, shape):
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    for array in (x, np.asfortranarray(x)):
        t = T[: len(x)]
        (got, _), _ = load_npz(save(x_train=array, t_train=t, x_test=array, t_test=t))
        scale = np.float32(255 if dtype == np.uint8 else 1)
        np.testing.assert_array_equal(got, x.reshape(len(x), -1).astype(np.float32) / scale)
        assert got.flags.c_contiguous
        assert got.flags.writeable


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", ">u2", "i4", ">i8", "u8"])
def test_class_numbers_of_any_integer_dtype(save, dtype):
    t = T.astype(dtype)
    (_, got), _ = load_npz(save(**four(t_train=t)))
    np.testing.assert_array_equal(got, t)
    assert got.dtype == t.dtype.newbyteorder("=")


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f8", "u1", "i8", "?"])
def test_one_hot_rows(save, dtype):
    rows = np.eye(3)[T].astype(dtype)
    (_, got), _ = load_npz(save(**four(t_train=rows, t_test=np.asfortranarray(rows[:4]))))
    np.testing.assert_array_equal(got, np.eye(3, dtype=np.float32)[T], strict=True)


# -- Arrays that are refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("x_train", X[:6], "6 rows in x_train, but 7 in t_train"),
        ("t_test", T[:5], "4 rows in x_test, but 5 in t_test"),
        ("x_train", X[:, 0], r"x_train: shape \(7,\), expected \(N, D\)"),
        ("x_train", np.float32(1), r"x_train: shape \(\)"),
        ("x_test", X[:4, :2], r"x_train and x_test do not fit: \(7, 3\) and \(4, 2\)"),
        ("x_test", X[:4].astype(np.float64), "x_train is float32, x_test float64"),
        ("x_test", np.ones((4, 3), np.uint8), "x_train is float32, x_test uint8"),
        ("x_train", X[:0], "x_train.npy: empty"),
        ("x_train", X[:, :0], "x_train.npy: empty"),
        ("x_train", X * np.where(np.arange(7) == 4, np.nan, 1)[:, None], "row 4 has a nan"),
        ("x_train", np.where(np.arange(21).reshape(7, 3) == 8, -np.inf, X), "row 2 has"),
        ("x_train", X.astype(complex), "dtype complex128"),
        ("x_train", X.astype(object), "dtype object"),
        ("x_train", X.astype(str), "dtype <U"),
        ("x_train", X.astype(bytes), r"dtype \|S"),
        ("x_train", X.view([("a", "f4")]), r"dtype \[\('a'"),
        ("x_train", X.astype("m8[s]"), "dtype timedelta64"),
        ("t_train", T.astype(float), "class numbers of dtype float64"),
        ("t_train", T > 0, "class numbers of dtype bool"),
        ("t_train", T.astype(object), "dtype object"),
        ("t_train", np.where(np.arange(7) == 3, -1, T), "class -1 at row 3"),
        ("t_train", np.eye(3)[T] * 2, "row 0 is not one-hot"),
        ("t_train", np.eye(3)[T] - (np.arange(7) == 5)[:, None] * 0.5, "row 5 is not one-hot"),
        ("t_train", np.eye(3)[T] + 0.5, "row 0 is not one-hot"),
        ("t_train", np.where(np.eye(3)[T], 1, 0.5), "row 0 is not one-hot"),
        ("t_train", np.ones((7, 2)), "row 0 is not one-hot"),
        ("t_train", np.full((7, 2), np.nan), "row 0 is not one-hot"),
        ("t_train", np.eye(3)[T], r"t_train and t_test do not fit: \(7, 3\) and \(4,\)"),
        ("t_train", np.eye(7).reshape(7, 7, 1), r"t_train: shape \(7, 7, 1\)"),
        ("t_train", np.int64(1), r"t_train: shape \(\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_wrong_array(save, name, array, reason):
    changed = {name: array}
    if name == "x_train" and array.dtype == np.float64:
        changed["x_test"] = X[:4].astype(np.float64)
    refused(save(**four(**changed)), reason)


@pytest.mark.skipif(np.longdouble(0).itemsize == 8, reason="long double is double here")
def test_long_double(save):
    refused(save(**four(x_train=X.astype(np.longdouble))), "elements of dtype")


def test_one_hot_rows_of_different_length(save):
    path = save(**four(t_train=np.eye(3)[T], t_test=np.eye(4)[T[:4]]))
    refused(path, r"do not fit: \(7, 3\) and \(4, 4\)")


@pytest.mark.parametrize("name", ["x_train", "t_train", "x_test", "t_test"])
def test_missing_array(save, name):
    arrays = four()
    del arrays[name]
    refused(save(**arrays), f"expected one array called {name}.*found none, among: ")


def test_names(save):
    refused(save(x=X), "expected one array called t or y, found none")
    refused(save(t=T), "expected one array called x_train")
    refused(save(), "among: nothing")
    refused(save(**four(y_train=T)), "t_train or y_train, found t_train and y_train")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name(save):
    path = save(**four())
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("x_train.npy", npy(X + 1))
    refused(path, "two arrays of one name")


# -- Sizes ----------------------------------------------------------------------------------------


def test_cap(save):
    size = 4 * (21 + 12) + 8 * (7 + 4)
    path = save(**four())
    load_npz(path, max_bytes=size)
    refused(path, f"arrays of {size} bytes, more than {size - 1}", max_bytes=size - 1)


def test_bytes_count_as_the_floats_they_become(save):
    x, t = np.zeros((10, 5), np.uint8), np.zeros(10, np.uint8)
    path = save(x=x, t=t)
    load_npz(path, max_bytes=4 * 60)
    refused(path, "arrays of 240 bytes", max_bytes=239)


@pytest.mark.parametrize(
    "shape",
    [
        "(4294967296, 3)", "(4294967296, 4294967296, 1)", "(6, 3)", "(8, 3)", "(7, 3, 2)",
        # 2**64 + 21 elements: right in 64-bit arithmetic.
        "(252871, 1179713, 61836419)",
    ],
)  # fmt: skip
def test_shape_that_the_member_does_not_hold(archive, shape):
    refused(archive(x_train=npy(shape=shape, body=X.tobytes())), "makes")


@pytest.mark.parametrize(
    "shape", ["(-7, -3)", "(True, 21)", f"({'1, ' * 33})", "(7.0, 3)", "7", "('a',)", "None"]
)
def test_impossible_shape(archive, shape):
    refused(archive(x_train=npy(shape=shape, body=X.tobytes())), "impossible shape|shape is not")


def test_small_file_that_promises_32_gib(archive):
    tracemalloc.start()
    try:
        refused(archive(x_train=npy(shape="(2147483648, 4)", body=X.tobytes())), "makes")
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_bomb(save):
    path = save(np.savez_compressed, **four(x_train=np.zeros((10**5, 200), np.float32)))
    tracemalloc.start()
    try:
        refused(path, "claim to expand to 80000")
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_memory_of_a_good_file(save):
    x = np.random.default_rng(0).normal(size=(2**12, 2**9))  # 16 MiB
    path = save(np.savez, x=np.asfortranarray(x), t=np.arange(2**12))
    tracemalloc.start()
    try:
        load_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 2 * x.nbytes + 6 * 2**20
    finally:
        tracemalloc.stop()


def test_long_list_of_contents(tmp_path):
    path = tmp_path / "file.npz"
    with zipfile.ZipFile(path, "w") as file:
        for n in range(2000):
            file.writestr(f"{n:0600}", b"")
    assert path.stat().st_size > 2 * 2**20
    refused(path, "damaged")


# -- Headers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_hand_made_header_is_read(archive, version):
    path = archive(x_train=npy(body=X.tobytes(), version=version))
    np.testing.assert_array_equal(load_npz(path)[0][0], X)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"not npy at all",
        npy(version=(3, 0), body=X.tobytes()),
        npy(version=(9, 9), body=X.tobytes()),
        npy(descr="nonsense", body=X.tobytes()),
        npy(fortran="'no'", body=X.tobytes()),
        npy(shape="(" * 300 + ")" * 300),
        npy(shape="-" * 3000 + "1"),
        npy(shape="[(7, 3)]", body=X.tobytes()),
        npy(shape="(7, 3), 'more': 1", body=X.tobytes()),
        npy(shape="(7, 3" + " " * 9000 + ")", body=X.tobytes()),
        npy(shape="__import__('os').getpid()"),
        b"\x93NUMPY\x01\x00\xff\xff{}",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}",
        b"\x93NUMPY\x01\x00\x02\x00{}",
        b"\x93NUMPY\x01\x00\x04\x00{[]:",
        b"\x93NUMPY\x01\x00\x07\x00{[]: 1}",
        b"\x93NUMPY\x01\x00\x03\x00'''",
        b"\x93NUMPY\x01\x00\x08\x00if 1:\n 2",
        b"\x93NUMPY\x01\x00\x0e\x00if 1:\n  2\n 3\n ",
        b"\x93NUMPY\x01\x00\x02\x00\xff\xfe",
    ],
)
def test_bad_header(archive, content):
    refused(archive(x_train=content), "x_train.npy: not a .npy header")


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_pickle_is_not_run(save, archive, tmp_path):
    evil = Evil(str(tmp_path / "ran"))
    refused(save(**four(x_train=np.array([[evil]], object))), "dtype object")
    refused(archive(x_train=pickle.dumps(evil)), "not a .npy header")
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(evil)).close()  # it would have worked
    assert (tmp_path / "ran").exists()


# -- Archives -------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions(archive, compression):
    refused(archive(compression), "a method that numpy.savez does not use")


@pytest.mark.parametrize("content", [b"", b"PK", b"\x1f\x8b\x08", bytes(100), npy(X)])
def test_no_archive(tmp_path, content):
    path = tmp_path / "file.npz"
    path.write_bytes(content)
    refused(path, "damaged, or not a .npz file")


@pytest.mark.parametrize("how", [np.savez, np.savez_compressed])
def test_checksum(save, how):
    path = save(how, **four())
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        crc = struct.pack("<I", file.getinfo("x_train.npy").CRC)
    wrong = content.replace(crc, b"\0\0\0\0")
    assert wrong != content
    path.write_bytes(wrong)
    refused(path, "CRC")


def test_flipped_bit_in_the_elements(save):
    path = save(**four())
    content = path.read_bytes()
    place = content.index(X.tobytes())
    path.write_bytes(content[: place + 5] + bytes([content[place + 5] ^ 1]) + content[place + 6 :])
    refused(path, "CRC")


def test_every_truncation(save):
    path = save(np.savez_compressed, x=X, t=T)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        refused(path, "zip file|truncated|CRC|damaged")


@pytest.mark.parametrize("offset", [-20, 0, 100, 2**31])
def test_member_outside_the_file(save, offset):
    path = save(**four())
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\1\2")
    forged = len(content) + offset
    content[entry + 42 : entry + 46] = struct.pack("<I", forged)
    path.write_bytes(content)
    refused(path, "damaged|Overlap|magic|offset")


def test_offset_of_more_than_63_bits(tmp_path):
    # A zip64 archive of one member, by hand: its local header would begin at 2**64 - 1.
    name = b"x.npy"
    extra = struct.pack("<HHQ", 1, 8, 2**64 - 1)
    entry = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 45, 45, 0, 0, 0, 33, 0, 8, 8, len(name), len(extra), 0, 0, 0, 0,
        2**32 - 1,
    ) + name + extra  # fmt: skip
    other = entry.replace(b"x.npy", b"t.npy")
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2, 2, 2 * len(entry), 0, 0)
    path = tmp_path / "file.npz"
    path.write_bytes(entry + other + end)
    refused(path, "offset")


def test_encrypted_member(save):
    path = save(**four())
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    refused(path, "encrypted")


def test_strange_files(strange_files):
    for path in strange_files.values():
        refused(path, "not a regular file|directory|denied|No such file")


@pytest.mark.skipif(sys.platform == "win32", reason="chmod does not forbid reading on Windows")
@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() == 0, reason="root may read every file")
def test_no_permission(save):
    path = save(**four())
    path.chmod(0)
    refused(path, "Permission denied")


# -- Whatever bytes come --------------------------------------------------------------------------


def saved(how):
    stream = io.BytesIO()
    how(stream, x=X, t=T)
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


@settings(
    max_examples=500, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # one file, written each time
)  # fmt: skip
@given(content=st.sampled_from([saved(np.savez), saved(np.savez_compressed)]).flatmap(damaged))
def test_fuzz(tmp_path, content):
    path = tmp_path / "file.npz"
    path.write_bytes(content)
    try:
        (x_train, t_train), (x_test, t_test) = load_npz(path)
    except DatasetError:
        return
    # The checksums leave no other outcome than the original arrays.
    np.testing.assert_array_equal(np.sort(np.append(x_train, x_test)), np.sort(X, axis=None))
    np.testing.assert_array_equal(np.sort(np.append(t_train, t_test)), np.sort(T))


@settings(
    max_examples=300, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(content=damaged(npy(X)))
def test_fuzz_inside_the_archive(archive, content):
    try:
        (x_train, t_train), _ = load_npz(archive(x_train=content))
    except DatasetError:
        return
    assert x_train.ndim == 2
    assert x_train.dtype in (np.float32, np.float64)
    assert len(x_train) == len(t_train)
    assert np.isfinite(x_train).all()
