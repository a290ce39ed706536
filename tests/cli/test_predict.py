import json
import os
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import fastbp
from fastbp import checkpoint


@pytest.fixture(scope="module")
def network():
    """A network that knows the digits."""
    (x, t), _ = fastbp.load_digits()
    network = fastbp.MultiLayerNet(64, [50], 10, seed=0)
    fastbp.fit(network, x, t, batch_size=10, epochs=10, seed=0)
    return network


@pytest.fixture(scope="module")
def model(network, tmp_path_factory):
    """The folder of its model, as `fastbp train --out` leaves it."""
    folder = tmp_path_factory.mktemp("model")
    notes = {"data": "digits", "image_shape": [8, 8]}
    fastbp.save_network(folder / "model.safetensors", network, notes)
    return folder


@pytest.fixture(scope="module")
def images(network):
    """For each class a test image the network gets right, (10, 8, 8) uint8, light on dark."""
    _, (x, t) = fastbp.load_digits()
    right = network.predict(x).argmax(axis=1) == t
    rows = [np.flatnonzero(right & (t == c))[0] for c in range(10)]
    return np.round(x[rows] * 255).astype(np.uint8).reshape(10, 8, 8)


@pytest.fixture
def draw(tmp_path):
    """Return a function that writes a picture and returns its path."""

    def write(pixels, name="picture.png", **options):
        picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        picture.save(tmp_path / name, **options)
        return tmp_path / name

    return write


def probabilities(out):
    """Return what is printed for one example: the name, the class, and all probabilities."""
    name, best, share = re.match(r"(.*): (\d+) \(([\d.]+)%\)\n\n", out).groups()
    rows = re.findall(r"^ +(\d+) +([\d.]+)% ?(#*)$", out, re.MULTILINE)
    assert [int(row[0]) for row in rows] == list(range(len(rows)))
    shares = [float(row[1]) / 100 for row in rows]
    assert float(share) / 100 == pytest.approx(max(shares), abs=1e-3)
    return name, int(best), np.array(shares)


def same_as(network, out, pixels):
    """Whether the output is what the network says of 8 x 8 pixels from 0 to 255."""
    expected = fastbp.softmax(network.predict(pixels.reshape(1, 64).astype(np.float64) / 255))[0]
    _, best, shares = probabilities(out)
    np.testing.assert_allclose(shares, expected, atol=1e-4)
    assert best == expected.argmax()
    return True


# -- Pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("digit", range(10))
@pytest.mark.parametrize("paper", ["dark", "light"])
def test_picture(run, network, model, draw, images, digit, paper):
    drawn = images[digit] if paper == "dark" else 255 - images[digit]
    code, out, err = run("predict", model, draw(drawn))
    assert (code, err) == (0, "")
    assert probabilities(out)[:2] == ("picture.png", digit)
    assert same_as(network, out, images[digit])


def test_bars_are_as_long_as_the_probabilities(run, model, draw, images):
    out = run("predict", model, draw(images[5] // 3)).out
    rows = re.findall(r"^ +\d+ +([\d.]+)% ?(#*)$", out, re.MULTILINE)
    assert len(rows) == 10
    for share, bar in rows:
        assert len(bar) == pytest.approx(0.4 * float(share), abs=0.51)


@pytest.mark.parametrize(
    ("option", "paper", "inverted"),
    [
        ("--invert", "dark", True),
        ("--invert", "light", False),
        ("--no-invert", "dark", False),
        ("--no-invert", "light", True),
    ],
)
def test_invert(run, network, model, draw, images, option, paper, inverted):
    drawn = images[3] if paper == "dark" else 255 - images[3]
    out = run("predict", model, draw(drawn), option).out
    assert same_as(network, out, 255 - images[3] if inverted else images[3])


def test_dark_digit_on_nothing(run, network, model, draw, images):
    black = np.zeros((8, 8, 4), np.uint8)
    black[..., 3] = images[7]
    assert same_as(network, run("predict", model, draw(black)).out, images[7])


def test_color_below_what_is_transparent_does_not_count(run, network, model, draw, images):
    colored = np.zeros((8, 8, 4), np.uint8)
    colored[..., 3] = images[7]
    colored[images[7] == 0] = (1, 2, 3, 0)
    assert same_as(network, run("predict", model, draw(colored)).out, images[7])


@pytest.mark.parametrize("size", [(16, 16), (40, 40), (80, 8), (8, 24)])
def test_other_size(run, network, model, draw, images, size):
    larger = np.kron(images[2], np.ones((size[1] // 8, size[0] // 8), np.uint8))
    assert same_as(network, run("predict", model, draw(larger)).out, images[2])


def test_size_that_does_not_divide(run, model, draw, images):
    picture = Image.fromarray(images[0]).resize((28, 28), Image.Resampling.BICUBIC)
    assert probabilities(run("predict", model, draw(picture)).out)[1] == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 100), (3, 2)])
def test_tiny_picture(run, model, draw, size):
    assert run("predict", model, draw(Image.new("L", size))).code == 0


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
def test_kinds_of_png(run, network, model, draw, images, mode):
    out = run("predict", model, draw(Image.fromarray(images[4]).convert(mode))).out
    assert same_as(network, out, images[4])


def test_png_of_16_bits(run, network, model, draw, images):
    out = run("predict", model, draw(images[4].astype(np.uint16) * 257)).out
    assert same_as(network, out, images[4])


def test_png_of_1_bit(run, network, model, draw, images):
    out = run("predict", model, draw(images[4] > 127)).out
    assert same_as(network, out, np.where(images[4] > 127, 255, 0))


@pytest.mark.parametrize("name", ["p.jpg", "p.bmp", "p.gif", "p.tif", "p.webp", "P.PNG"])
def test_other_formats(run, model, draw, images, name):
    larger = np.kron(images[6], np.ones((10, 10), np.uint8))
    assert probabilities(run("predict", model, draw(larger, name)).out)[:2] == (name, 6)


def test_photograph_of_a_turned_camera(run, network, model, draw, images):
    turned = Image.fromarray(images[9]).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    assert same_as(network, run("predict", model, draw(turned, exif=exif)).out, images[9])


# -- Files that are no pictures -------------------------------------------------------------------


def png(width, height):
    """Return the bytes of a small PNG file that promises so many pixels."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">2I5B", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", bytes(1000)]
)
def test_no_picture(refused, model, tmp_path, content):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    err = refused("predict", model, path, says=f"argument IMAGE.*: {path}: not a readable picture")
    assert "object at 0x" not in err


def test_every_truncation(refused, model, draw, images):
    path = draw(images[0])
    content = path.read_bytes()
    # What is missing behind the pixels, a checksum and the last chunk, Pillow does not ask for.
    for length in range(content.index(b"IDAT") + 20):
        path.write_bytes(content[:length])
        refused("predict", model, path, says=f"{path}: not a readable picture")


@settings(
    max_examples=100, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # one file, written each time
)  # fmt: skip
@given(data=st.data())
def test_fuzz(run, model, draw, images, data):
    path = draw(images[0])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        stop = start + data.draw(st.integers(0, 3))
        content[start:stop] = data.draw(st.binary(max_size=4))
    path.write_bytes(content)
    code, out, err = run("predict", model, path)
    assert code in (0, 2)
    assert bool(out) == (code == 0)
    assert len(err.splitlines()) == (code == 2)


@pytest.mark.parametrize("size", [(10_000, 10_000), (13_000, 13_000), (2**16, 2**16), (2**30, 1)])
def test_small_file_that_promises_a_large_picture(refused, model, tmp_path, size):
    # 100 million pixels take a gigabyte on the way to 64.
    path = tmp_path / "picture.png"
    path.write_bytes(png(*size))
    refused("predict", model, path, says=f"{path}: not a readable picture")


TIFF = struct.pack("<2sHIHHHIII", b"II", 42, 8, 1, 256, 4, 1000, 2**16, 0)  # data beyond the end


@pytest.mark.parametrize(
    ("name", "content"), [("a.png", png(10_000, 10_000)), ("a.tif", TIFF)], ids=["large", "damaged"]
)
def test_warnings_of_pillow_are_not_shown(process, model, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    code, out, err = process("predict", model, name)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert f"{name}: not a readable picture" in err


def test_missing_picture(refused, model, tmp_path):
    path = tmp_path / "none.png"
    err = refused("predict", model, path, says=f"{path}: .*No such file or directory")
    assert err.count(str(path)) == 1


def test_folder_for_a_picture(refused, model, tmp_path):
    (tmp_path / "folder.png").mkdir()
    refused("predict", model, tmp_path / "folder.png", says="folder.png: ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["pipe.png", "pipe.npy"])
def test_pipe_that_nobody_writes_to(process, model, tmp_path, name):
    os.mkfifo(tmp_path / name)
    try:
        code, out, err = process("predict", model, name, timeout=10)
    except subprocess.TimeoutExpired:
        pytest.fail("waits for ever")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert name in err


def test_without_pillow(refused, model, draw, images, monkeypatch):
    path = draw(images[0])
    monkeypatch.setitem(sys.modules, "PIL", None)
    refused("predict", model, path, says=r"argument IMAGE: .*pip install 'fastbp\[train\]'")


def test_numbers_need_no_pillow(run, model, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.zeros(64))
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert run("predict", model, tmp_path / "x.npy").code == 0


# -- Numbers --------------------------------------------------------------------------------------


@pytest.fixture
def save(tmp_path):
    """Return a function that saves an array as a .npy and returns the path."""

    def write(array):
        np.save(tmp_path / "rows.npy", array)
        return tmp_path / "rows.npy"

    return write


def rows(out):
    """Return, for each row, the classes and shares that are printed."""
    lines = out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"row {n}" for n in range(len(lines))]
    found = [re.findall(r"(\d+) \(([\d.]+)%\)", line.partition(":")[2]) for line in lines]
    return [[(int(c), float(share)) for c, share in row] for row in found]


@pytest.mark.parametrize("shape", [(64,), (1, 64), (8, 8), (1, 8, 8), (1, 1, 8, 8)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_one_example(run, network, model, save, images, shape, dtype):
    x = images[8] if dtype == np.uint8 else (images[8] / 255).astype(dtype)
    code, out, err = run("predict", model, save(x.reshape(shape)))
    assert (code, err) == (0, "")
    assert probabilities(out)[:2] == ("rows.npy", 8)
    assert same_as(network, out, images[8])


@pytest.mark.parametrize("shape", [(10, 64), (10, 8, 8), (10, 1, 8, 8)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_rows(run, network, model, save, images, shape, dtype):
    x = images if dtype == np.uint8 else (images / 255).astype(dtype)
    code, out, err = run("predict", model, save(x.reshape(shape)))
    assert (code, err) == (0, "")
    expected = fastbp.softmax(network.predict(images.reshape(10, 64) / 255))
    found = rows(out)
    assert [row[0][0] for row in found] == list(range(10))
    for row, probability in zip(found, expected, strict=True):
        assert [c for c, _ in row] == list(np.argsort(-probability)[:3])
        assert [share for _, share in row] == pytest.approx(
            100 * np.sort(probability)[:-4:-1], abs=0.051
        )


def test_fewer_classes_than_are_shown(run, save, tmp_path):
    fastbp.save_network(tmp_path / "m.safetensors", fastbp.TwoLayerNet(3, 2, 2, seed=0))
    found = rows(run("predict", tmp_path / "m.safetensors", save(np.eye(3))).out)
    assert [sorted(c for c, _ in row) for row in found] == [[0, 1]] * 3


def test_other_integers_are_no_pixels(run, network, model, save, images):
    out = run("predict", model, save(images[8].astype(np.int64))).out
    assert same_as(network, out, images[8].astype(np.int64) * 255)


@pytest.mark.parametrize("shape", [(63,), (65,), (2, 63), (3, 7, 8), (64, 2), (128,), ()])
def test_wrong_size(refused, model, save, shape):
    path = save(np.zeros(shape))
    says = rf"argument .*FILE: {path}: shape \([\d, ]*\), expected \(64,\), \(N, 64\)"
    refused("predict", model, path, says=says)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.full(64, np.nan), "a nan or an infinity"),
        (np.array(["a"]), "expected real numbers"),
        (np.array([None]), "dtype object"),
        (np.zeros((0, 64)), "empty"),
    ],
)
def test_no_numbers(refused, model, save, array, says):
    path = save(array)
    refused("predict", model, path, says=f"argument .*FILE: {path}: .*{says}")


def test_forged_header(refused, model, save):
    path = save(np.zeros((7, 3)))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(7, 3)", b"(2147483648, 4)"))
    refused("predict", model, path, says=f"argument .*FILE: {path}: .* makes|not a .npy header")


def test_missing_numbers(refused, model, tmp_path):
    path = tmp_path / "none.npy"
    refused("predict", model, path, says=f"argument .*FILE: {path}: No such file or directory")


# -- Models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_folder_or_file(run, model, draw, images, name):
    assert probabilities(run("predict", model / name, draw(images[1])).out)[1] == 1


def test_model_of_train(run, draw, images, tmp_path):
    assert run("train", "--quiet", "--epochs", 10, "--out", tmp_path / "kept").code == 0
    out = run("predict", tmp_path / "kept", draw(images[1])).out
    assert probabilities(out)[1] == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_model_of_either_dtype(run, tmp_path, save, dtype):
    network = fastbp.TwoLayerNet(4, 3, 2, 1.0, dtype=dtype, seed=0)
    fastbp.save_network(tmp_path / "m.safetensors", network)
    x = np.array([1.0, -2.0, 0.5, 3.0])
    _, _, shares = probabilities(run("predict", tmp_path / "m.safetensors", save(x)).out)
    np.testing.assert_allclose(shares, fastbp.softmax(network.predict(x)), atol=1e-4)


def test_picture_for_a_model_of_numbers(refused, run, draw, images, tmp_path):
    np.savez(tmp_path / "data.npz", x=np.eye(30, 64), t=np.arange(30) % 2)
    options = ("--data", tmp_path / "data.npz", "--iterations", 1, "--out", tmp_path / "kept")
    assert run("train", *options).code == 0
    says = r"argument IMAGE: the network was not trained on pictures; give a \.npy file of 64"
    refused("predict", tmp_path / "kept", draw(images[0]), says=says)


def test_missing_model(refused, tmp_path, save):
    path = tmp_path / "none"
    says = f"argument MODEL: {path}: no such file"
    refused("predict", path, save(np.zeros(64)), says=says)


def test_folder_without_a_model(refused, tmp_path, save):
    says = "argument MODEL: .*model.safetensors: no such file"
    refused("predict", tmp_path, save(np.zeros(64)), says=says)


def test_model_without_safetensors(refused, model, save, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    says = r"argument MODEL: .*pip install 'fastbp\[train\]'"
    refused("predict", model, save(np.zeros(64)), says=says)


@pytest.mark.parametrize("length", [0, 4, 100, 1000, -1])
def test_truncated_model(refused, model, save, tmp_path, length):
    path = tmp_path / "m.safetensors"
    path.write_bytes((model / "model.safetensors").read_bytes()[:length])
    says = f"argument MODEL: {path}: not a safetensors file"
    refused("predict", path, save(np.zeros(64)), says=says)


@pytest.mark.parametrize("content", [b"\xff" * 100, b"PK\3\4" + bytes(100), b"text " * 50])
def test_no_model(refused, save, tmp_path, content):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    says = f"argument MODEL: {path}: not a safetensors file"
    refused("predict", path, save(np.zeros(64)), says=says)


ABOUT = {
    "sizes": [64, 50, 10],
    "activation": "relu",
    "weight_decay_lambda": 0.0,
    "notes": {"data": "digits", "image_shape": [8, 8]},
}


@pytest.fixture
def forge(network, tmp_path):
    """Return a function that writes a model with other parameters, or saying other things."""

    def write(about=None, params=None, form=checkpoint.FORMAT):
        text = about if isinstance(about, str) else json.dumps(ABOUT if about is None else about)
        content = safetensors.numpy.save(
            network.params if params is None else params, {"format": form, "network": text}
        )
        (tmp_path / "forged.safetensors").write_bytes(content)
        return tmp_path / "forged.safetensors"

    return write


def test_what_is_forged_was_right(run, forge, save):
    assert run("predict", forge(), save(np.zeros(64))).code == 0


def test_parameters_of_another_program(refused, forge, save):
    path = forge(form="pt")
    says = f"argument MODEL: {path}: not a fastbp network"
    refused("predict", path, save(np.zeros(64)), says=says)


@pytest.mark.parametrize(
    "about",
    [
        "", "[]", "null", "{}", "[" * 100_000, "[" * 900 + "]" * 900,
        {**ABOUT, "sizes": [64, 49, 10]},
        {**ABOUT, "sizes": [64]},
        {**ABOUT, "sizes": []},
        {**ABOUT, "sizes": 64},
        {**ABOUT, "sizes": [-64, 50, 10]},
        {**ABOUT, "sizes": [float("inf"), 50, 10]},
        {**ABOUT, "sizes": [float("nan"), 50, 10]},
        {**ABOUT, "sizes": None},
        {**ABOUT, "activation": "tanh"},
        {**ABOUT, "activation": ["relu"]},
        {**ABOUT, "weight_decay_lambda": "much"},
        {**ABOUT, "weight_decay_lambda": -1},
        {**ABOUT, "weight_decay_lambda": float("nan")},
        {**ABOUT, "notes": None},
        {**ABOUT, "notes": [1]},
        *({key: value for key, value in ABOUT.items() if key != left_out} for left_out in ABOUT),
    ],
    ids=lambda about: str(about)[:60],
)  # fmt: skip
def test_model_that_says_nonsense(refused, forge, save, about):
    path = forge(about)
    refused("predict", path, save(np.zeros(64)), says=f"argument MODEL: {path}: ")


@pytest.mark.parametrize(
    "shape", ["ab", "abc", [8], [8, 8, 1], [7, 7], [0, 64], [-8, -8], 64, [10**9, 10**9], [8, None]]
)
def test_model_with_a_wrong_picture_size(refused, forge, draw, images, shape):
    path = forge({**ABOUT, "notes": {"image_shape": shape}})
    refused("predict", path, draw(images[0]), says=f"argument MODEL: {path}: ")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_model_with_a_parameter_that_is_no_number(refused, forge, network, save, value):
    params = {key: p.copy() for key, p in network.params.items()}
    params["W2"][0, 0] = value
    path = forge(params=params)
    refused("predict", path, save(np.zeros(64)), says=f"argument MODEL: {path}: ")


def test_height_comes_before_width(run, network, forge, draw, images):
    wide = images[3].reshape(4, 16)
    path = forge({**ABOUT, "notes": {"image_shape": [4, 16]}})
    out = run("predict", path, draw(np.kron(wide, np.ones((3, 3), np.uint8))), "--no-invert").out
    assert same_as(network, out, images[3])


@pytest.mark.parametrize(
    "change",
    [
        lambda params: {key: p.astype(np.float16) for key, p in params.items()},
        lambda params: {key: p.astype(np.int64) for key, p in params.items()},
        lambda params: {**params, "b1": params["b1"].astype(np.float32)},
        lambda params: {**params, "W3": params["W2"]},
        lambda params: {key: p for key, p in params.items() if key != "b2"},
        lambda params: {key: p.T.copy() for key, p in params.items()},
        lambda params: {},
    ],
    ids=["half", "integers", "mixed", "surplus", "missing", "transposed", "none"],
)
def test_model_whose_parameters_do_not_fit(refused, forge, network, save, change):
    path = forge(params=change(network.params))
    refused("predict", path, save(np.zeros(64)), says=f"argument MODEL: {path}: ")


def test_model_of_a_type_that_numpy_does_not_have(refused, save, tmp_path):
    header = json.dumps(
        {
            "__metadata__": {"format": checkpoint.FORMAT, "network": json.dumps(ABOUT)},
            "W1": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
        }
    ).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    refused("predict", path, save(np.zeros(64)), says=f"argument MODEL: {path}: ")


# -- Wrong use ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "missing"), [((), "MODEL, IMAGE|FILE"), (("model",), "IMAGE|FILE")]
)
def test_missing_argument(refused, arguments, missing):
    says = f"the following arguments are required: {re.escape(missing)}$"
    refused("predict", *arguments, says=says)


def test_surplus_argument(refused, model, draw, images):
    refused("predict", model, draw(images[0]), "more", says="unrecognized arguments: more")
