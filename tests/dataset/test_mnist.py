import gzip
import hashlib
import inspect
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from fastbp.dataset import DatasetError, find_mnist, load_mnist, mnist

TRAIN_X, TRAIN_T = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_X, TEST_T = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"

RNG = np.random.default_rng(0)
ARRAYS = {
    TRAIN_X: RNG.integers(0, 256, (12, 28, 28), np.uint8),
    TRAIN_T: np.arange(12, dtype=np.uint8) % 10,
    TEST_X: RNG.integers(0, 256, (5, 28, 28), np.uint8),
    TEST_T: np.array([3, 9, 0, 0, 7], np.uint8),
}


@pytest.fixture(scope="module")
def contents(idx):
    """Four small files in MNIST's format: name to uncompressed bytes."""
    return {name: idx(array.shape, array.tobytes()) for name, array in ARRAYS.items()}


@pytest.fixture
def folder(tmp_path, contents):
    """Return a folder with the small files, compressed."""
    for name, content in contents.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    return tmp_path


def is_the_small_one(loaded):
    (x_train, t_train), (x_test, t_test) = loaded
    np.testing.assert_array_equal(np.rint(x_train * 255), ARRAYS[TRAIN_X].reshape(12, 784))
    np.testing.assert_array_equal(np.rint(x_test * 255), ARRAYS[TEST_X].reshape(5, 784))
    np.testing.assert_array_equal(t_train, ARRAYS[TRAIN_T])
    np.testing.assert_array_equal(t_test, ARRAYS[TEST_T])
    return True


# -- The form -------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("flatten", [True, False])
@pytest.mark.parametrize("one_hot_label", [True, False])
def test_form(folder, normalize, flatten, one_hot_label):
    loaded = load_mnist(normalize, flatten, one_hot_label, folder)
    for (x, t), images, labels in zip(
        loaded, (ARRAYS[TRAIN_X], ARRAYS[TEST_X]), (ARRAYS[TRAIN_T], ARRAYS[TEST_T]), strict=True
    ):
        expected = images.astype(np.float32) / np.float32(255) if normalize else images
        shape = (len(images), 784) if flatten else (len(images), 1, 28, 28)
        np.testing.assert_array_equal(x, expected.reshape(shape), strict=True)
        targets = (labels[:, None] == np.arange(10)).astype(np.float32)
        np.testing.assert_array_equal(t, targets if one_hot_label else labels, strict=True)
        assert x.flags.c_contiguous
        assert x.flags.writeable
        assert t.flags.writeable


def test_default_is_the_books(folder):
    (x, t), _ = load_mnist(data_dir=folder)
    assert x.shape == (12, 784)
    assert x.dtype == np.float32
    assert 0 <= x.min() < x.max() <= 1
    assert t.shape == (12,)
    assert t.dtype == np.uint8


# -- The places -----------------------------------------------------------------------------------


def test_raw_and_compressed_files_may_be_mixed(folder, contents):
    for name in (TRAIN_T, TEST_X):
        (folder / f"{name}.gz").unlink()
        (folder / name).write_bytes(contents[name])
    assert is_the_small_one(load_mnist(data_dir=str(folder)))


def test_subfolder(folder):
    assert find_mnist(folder) == folder
    inner = folder / "data" / "mnist"
    inner.mkdir(parents=True)
    for path in folder.glob("*.gz"):
        path.rename(inner / path.name)
    assert find_mnist(folder / "data") == inner
    assert find_mnist(folder) is None
    assert is_the_small_one(load_mnist(data_dir=folder / "data"))


def test_environment_then_cache(folder, isolation, tmp_path_factory, monkeypatch):
    assert find_mnist() is None
    cache = isolation / "mnist"
    shutil.copytree(folder, cache)
    assert find_mnist() == cache
    assert is_the_small_one(load_mnist())

    monkeypatch.setenv("FASTBP_DATA_DIR", "")  # as good as unset
    assert find_mnist() == cache
    monkeypatch.setenv("FASTBP_DATA_DIR", str(tmp_path_factory.mktemp("nothing")))
    assert find_mnist() == cache
    monkeypatch.setenv("FASTBP_DATA_DIR", str(folder))
    assert find_mnist() == folder
    (folder / f"{TEST_T}.gz").unlink()
    assert find_mnist() == cache


def test_empty_variable_is_not_the_current_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FASTBP_DATA_DIR", "")
    assert find_mnist() is None
    monkeypatch.setenv("FASTBP_DATA_DIR", ".")
    assert is_the_small_one(load_mnist())


def test_data_dir_is_the_only_place(folder, isolation, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FASTBP_DATA_DIR", str(folder))
    shutil.copytree(folder, isolation / "mnist")
    nothing = tmp_path_factory.mktemp("nothing")
    assert find_mnist(nothing) is None
    with pytest.raises(DatasetError, match="missing") as caught:
        load_mnist(data_dir=nothing)
    assert str(nothing / TRAIN_X) in str(caught.value)


@pytest.mark.parametrize("name", list(ARRAYS))
@pytest.mark.parametrize("sub", ["", "mnist"])
def test_missing_file_is_named(folder, tmp_path_factory, name, sub):
    place = tmp_path_factory.mktemp("place")
    (place / sub).mkdir(exist_ok=True)
    for path in folder.glob("*.gz"):
        if path.stem != name:
            (place / sub / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DatasetError, match="missing") as caught:
        load_mnist(data_dir=place)
    assert str(place / sub / name) in str(caught.value)


def test_no_folder_at_all(tmp_path):
    for data_dir in (tmp_path / "none", "nul\0byte"):
        assert find_mnist(data_dir) is None
        with pytest.raises(DatasetError, match="missing"):
            load_mnist(data_dir=data_dir)


def test_user_without_home(folder, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(mnist, "user_cache_dir", homeless)
    assert find_mnist() is None
    with pytest.raises(DatasetError, match="set FASTBP_DATA_DIR"):
        load_mnist()
    monkeypatch.setenv("FASTBP_DATA_DIR", str(folder))
    assert is_the_small_one(load_mnist())


# -- What the files hold --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        (TRAIN_T, np.arange(11) % 10, "11 labels, but 12 images"),
        (TEST_T, np.arange(6), "6 labels, but 5 images"),
        (TEST_T, np.array([0, 9, 1, 10, 1]), "label 10 at row 3, expected 0 to 9"),
        (TRAIN_T, np.full(12, 255), "label 255 at row 0, expected 0 to 9"),
        (TRAIN_X, np.zeros((12, 28, 27)), r"images of \(28, 27\), expected \(28, 28\)"),
        (TEST_X, np.zeros((5, 784)), "2 dimensions, expected 3"),
        (TEST_X, np.zeros((0, 28, 28)), "without elements"),
    ],
)
def test_wrong_files(folder, idx, name, array, reason):
    content = idx(array.shape, array.astype(np.uint8).tobytes())
    (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DatasetError, match=reason) as caught:
        load_mnist(data_dir=folder)
    assert str(folder / name) in str(caught.value)


def test_strange_files(folder, strange_files):
    target = folder / TRAIN_X
    for name, path in strange_files.items():
        if name != "missing":
            path.rename(target)
            with pytest.raises(DatasetError):
                load_mnist(data_dir=folder)
            target.rename(path)


# -- Download -------------------------------------------------------------------------------------


@pytest.fixture
def mirrors(monkeypatch, contents):
    """Two mirrors on this machine, which serve what the test puts into their dicts.

    A value is the body, or (status, headers, body).  ``requests`` records what was asked for.
    """
    pytest.importorskip("pooch", reason="downloads need the extra `train`")
    served = {"one": {}, "two": {}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            _, mirror, name = self.path.split("/")
            served.setdefault("requests", []).append((mirror, name, dict(self.headers)))
            answer = served[mirror].get(name, (404, {}, b""))
            status, headers, body = answer if isinstance(answer, tuple) else (200, {}, answer)
            self.send_response(status)
            for key, value in {"Content-Length": len(body), **headers}.items():
                if value is not None:
                    self.send_header(key, str(value))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        base = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(mnist, "MIRRORS", (base + "one/", base + "two/"))
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        monkeypatch.setattr(mnist, "SHA256", digests)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def packed(contents):
    return {f"{name}.gz": gzip.compress(content) for name, content in contents.items()}


def asked(mirrors):
    return [(mirror, name) for mirror, name, _ in mirrors.get("requests", [])]


def left_behind(isolation):
    return sorted(path.name for path in (isolation / "mnist").iterdir())


def test_download(mirrors, packed, isolation, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # or there is no progress bar
    mirrors["one"] = packed
    assert find_mnist() is None
    assert is_the_small_one(load_mnist())
    assert left_behind(isolation) == sorted(packed)
    assert find_mnist() == isolation / "mnist"
    assert asked(mirrors) == [("one", name) for name in packed]
    progress = capsys.readouterr().err
    assert TRAIN_X in progress
    assert "100%" in progress
    assert is_the_small_one(load_mnist())  # from the cache
    assert len(asked(mirrors)) == 4


def test_server_is_asked_not_to_unpack(mirrors, packed):
    mirrors["one"] = packed
    load_mnist()
    assert {headers["Accept-Encoding"] for _, _, headers in mirrors["requests"]} == {"identity"}


def test_only_missing_files_are_fetched(mirrors, packed, isolation, contents):
    (isolation / "mnist").mkdir()
    (isolation / "mnist" / TRAIN_X).write_bytes(contents[TRAIN_X])
    mirrors["one"] = packed
    assert is_the_small_one(load_mnist())
    assert asked(mirrors) == [("one", name) for name in list(packed)[1:]]


def test_compressed_bytes_may_differ_between_mirrors(mirrors, packed, contents):
    mirrors["one"] = {f"{name}.gz": gzip.compress(c, 1, mtime=7) for name, c in contents.items()}
    assert mirrors["one"] != packed
    assert is_the_small_one(load_mnist())


def bad_answers():
    other = gzip.compress(b"\0\0\x08\x01\0\0\0\x01x")
    return {
        "not found": ((404, {}, b""), "404"),
        "server error": ((500, {}, b"sorry"), "500"),
        "web page": (b"<html>please log in</html>", "no gzip content"),
        "nothing": (b"", "empty"),
        "another array": (other, "SHA-256 is"),
        "too big": (bytes(30_000), "more than 20000 bytes"),
        "too big, unannounced": ((200, {"Content-Length": None}, bytes(30_000)), "more than 20000"),
        "connection breaks": ((200, {"Content-Length": 1000}, b"abc"), "IncompleteRead"),
        "length is a lie": ((200, {"Content-Length": "many"}, b"abc"), "Content-Length|invalid"),
        "redirect to elsewhere": ((302, {"Location": "ftp://127.0.0.1/"}, b""), "No connection"),
    }


@pytest.mark.parametrize("kind", list(bad_answers()))
def test_bad_mirror(mirrors, packed, isolation, kind, monkeypatch):
    """The error says what each mirror gave, and nothing of it stays; good files do."""
    answer, reason = bad_answers()[kind]
    bad = f"{TEST_T}.gz"
    monkeypatch.setattr(mnist, "MAX_DOWNLOAD", 20_000)
    mirrors["one"] = {**packed, bad: answer}
    with pytest.raises(DatasetError, match=f"/one/{bad}: .*({reason})") as caught:
        load_mnist()
    message = str(caught.value)
    assert message.startswith(str(isolation / "mnist" / bad))
    assert f"/two/{bad}: 404" in message
    assert "FASTBP_DATA_DIR" in message
    assert left_behind(isolation) == sorted(set(packed) - {bad})


@pytest.mark.parametrize("kind", list(bad_answers()))
def test_second_mirror(mirrors, packed, isolation, kind, monkeypatch):
    monkeypatch.setattr(mnist, "MAX_DOWNLOAD", 20_000)
    mirrors["one"] = dict.fromkeys(packed, bad_answers()[kind][0])
    mirrors["two"] = packed
    assert is_the_small_one(load_mnist())
    assert left_behind(isolation) == sorted(packed)


def test_interrupted_download_leaves_nothing(mirrors, packed, isolation, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    mirrors["one"] = packed
    monkeypatch.setattr(mnist, "_verify", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load_mnist()
    assert left_behind(isolation) == []


def test_nothing_is_downloaded_for_data_dir(mirrors, packed, tmp_path):
    mirrors["one"] = packed
    with pytest.raises(DatasetError, match="missing"):
        load_mnist(data_dir=tmp_path)
    assert asked(mirrors) == []


def test_without_pooch(mirrors, monkeypatch, isolation):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DatasetError, match=r"pip install 'fastbp\[train\]'.*FASTBP_DATA_DIR"):
        load_mnist()
    assert asked(mirrors) == []
    assert not (isolation / "mnist").exists()


def test_cache_that_cannot_be_made(mirrors, isolation):
    (isolation / "mnist").write_bytes(b"a file in the way")
    with pytest.raises(DatasetError, match="cannot be created"):
        load_mnist()


# -- The real files -------------------------------------------------------------------------------


def test_mirrors_are_https():
    source = inspect.getsource(mnist)  # the fixture has emptied the tuple itself
    assert source.count('"https://') == 2
    assert '"http://' not in source


@pytest.mark.mnist
@pytest.mark.parametrize("name", list(ARRAYS))
def test_sha256_of_the_real_files(name):
    path = find_mnist() / name
    packed = path.with_name(f"{name}.gz")
    content = path.read_bytes() if path.exists() else gzip.decompress(packed.read_bytes())
    assert hashlib.sha256(content).hexdigest() == mnist.SHA256[name]
    mnist._verify(path if path.exists() else packed, name)


@pytest.mark.mnist
def test_the_real_data():
    (x_train, t_train), (x_test, t_test) = load_mnist(normalize=False)
    assert x_train.shape == (60000, 784)
    assert x_test.shape == (10000, 784)
    np.testing.assert_array_equal(t_train[:10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4])
    np.testing.assert_array_equal(t_test[:10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9])
    assert np.bincount(t_train).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert round(x_train.mean(), 4) == 33.3184
