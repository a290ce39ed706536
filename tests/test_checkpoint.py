import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastbp
from fastbp import ModelError, MultiLayerNet, TwoLayerNet, load_network, save_network

safetensors = pytest.importorskip("safetensors.numpy", reason="needs the extra train")

HIDDEN = {0: [], 1: [5], 2: [5, 4], 3: [5, 4, 6], 4: [5, 4, 6, 2]}


def build(depth=1, activation="relu", decay=0.0, dtype=np.float64):
    """Return a network whose biases are not zero."""
    net = MultiLayerNet(3, HIDDEN[depth], 2, activation, "relu", decay, dtype=dtype, seed=depth)
    for key, p in net.params.items():
        p += 0.25 if key.startswith("b") else 0
    return net


def bits(net):
    return {key: (p.dtype, p.shape, p.tobytes()) for key, p in net.params.items()}


@pytest.fixture
def path(tmp_path):
    """Where to save, in a folder of its own."""
    return tmp_path / "model.safetensors"


# --- there and back ------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", HIDDEN)
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_saved_network_comes_back_bit_for_bit(depth, activation, dtype, path):
    net = build(depth, activation, 0.125, dtype)
    save_network(path, net)
    loaded, _ = load_network(path)
    assert bits(loaded) == bits(net)
    assert (loaded.sizes, loaded.activation, loaded.weight_decay_lambda, loaded.dtype) == (
        net.sizes,
        activation,
        0.125,
        dtype,
    )


@pytest.mark.parametrize("depth", HIDDEN)
def test_a_loaded_network_computes_the_same(depth, path, rng):
    net = build(depth, decay=0.125)
    x, t = rng.normal(size=(7, 3)), rng.integers(0, 2, 7)
    save_network(path, net)
    loaded, _ = load_network(path)
    assert loaded.evaluate(x, t) == net.evaluate(x, t)
    for key, g in net.gradient(x, t).items():
        np.testing.assert_array_equal(loaded.gradient(x, t)[key], g)


def test_a_loaded_network_can_be_trained(path, rng):
    save_network(path, build())
    loaded, _ = load_network(path)
    x, t = rng.normal(size=(20, 3)), rng.integers(0, 2, 20)
    before = loaded.loss(x, t)
    fastbp.fit(loaded, x, t, epochs=20)
    assert loaded.loss(x, t) < before


def test_special_numbers_come_back(path):
    net = build()
    special = [np.nan, -np.inf, -0.0, 5e-324, 1e308]
    net.params["b1"][...] = special
    save_network(path, net)
    assert load_network(path)[0].params["b1"].tobytes() == np.array(special).tobytes()


@pytest.mark.parametrize("form", [np.asfortranarray, lambda p: np.repeat(p, 2, axis=0)[::2]])
def test_parameters_in_any_layout_are_saved_right(form, path):
    net = build()
    expected = bits(net)
    net.params = {key: form(p) for key, p in net.params.items()}
    save_network(path, net)
    assert bits(load_network(path)[0]) == expected


def test_saving_leaves_the_network_alone(path):
    net = build()
    before, arrays = bits(net), dict(net.params)
    save_network(path, net)
    assert bits(net) == before
    assert all(net.params[key] is p for key, p in arrays.items())


def test_loading_leaves_the_global_generator_alone(path):
    save_network(path, build())
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    load_network(path)
    assert np.random.random() == expected


NOTES = {"accuracy": 0.97, "data": "digits", "shape": [8, 8], "ß": "ゼロ", "none": None}


def test_notes_come_back(path):
    save_network(path, build(), NOTES)
    assert load_network(path)[1] == NOTES


def test_without_notes_they_are_empty(path):
    save_network(path, build())
    assert load_network(path)[1] == {}


def test_a_folder_stands_for_the_model_in_it(tmp_path):
    save_network(tmp_path / "model.safetensors", build())
    assert bits(load_network(tmp_path)[0]) == bits(build())


def test_paths_may_be_text(path):
    save_network(str(path), build())
    assert bits(load_network(str(path))[0]) == bits(build())


def test_the_file_is_plain_safetensors(path):
    net = build()
    save_network(path, net)
    arrays = safetensors.load_file(path)
    assert {key: p.tobytes() for key, p in arrays.items()} == {
        key: p.tobytes() for key, p in net.params.items()
    }


def test_the_loaded_arrays_do_not_hang_on_the_file(path):
    net = build()
    save_network(path, net)
    loaded, _ = load_network(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert bits(loaded) == bits(net)
    assert all(p.flags.writeable for p in loaded.params.values())


# --- what is no network --------------------------------------------------------------------------

ABOUT = {"sizes": [3, 5, 2], "activation": "relu", "weight_decay_lambda": 0.0, "notes": {}}
FORMAT = "fastbp network, version 1"


def arrays(dtype=np.float64, **changed):
    """Return the parameters of 3-5-2, some of them changed; None takes one away."""
    shapes = {"W1": (3, 5), "b1": (5,), "W2": (5, 2), "b2": (2,)}
    found = {key: np.ones(shape, dtype) for key, shape in shapes.items()} | changed
    return {key: p for key, p in found.items() if p is not None}


def content(params=None, about=ABOUT, **metadata):
    """Return the bytes of a file as save_network writes it, or one with something wrong."""
    about = about if isinstance(about, str) else json.dumps(about)
    metadata = {"format": FORMAT, "network": about, **metadata}
    metadata = {key: value for key, value in metadata.items() if value is not None}
    return safetensors.save(arrays() if params is None else params, metadata)


def forged(tensors, payload=b"", metadata=None, length=None):
    """Return bytes with a header of our own making."""
    metadata = {"format": FORMAT, "network": json.dumps(ABOUT)} if metadata is None else metadata
    header = json.dumps({"__metadata__": metadata, **tensors}).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + payload


def tensor(shape, start, stop, dtype="F64"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def of_type(dtype, size):
    """Return a file whose one tensor has a type that is not ours."""
    return forged({"W1": tensor([3, 8], 0, size, dtype)}, bytes(size))


GOOD = content()
REFUSED = {
    "empty": b"",
    **{f"{n} bytes": GOOD[:n] for n in (1, 7, 8, 9, 100)},
    "one byte short": GOOD[:-1],
    "one byte long": GOOD + b"\0",
    "random bytes": np.random.default_rng(0).bytes(1000),
    "zeros": bytes(1000),
    "pickle": pickle.dumps(build()),
    "text": b'{"sizes": [3, 5, 2]}',
    "header length 0": struct.pack("<Q", 0),
    "header length 2**63": forged({}, length=2**63),
    "header length 2**64 - 1": forged({}, length=2**64 - 1),
    "header length of 1 GB": forged({}, length=2**30),
    "header longer than the file": forged({}, length=10_000),
    "tensor beyond the file": forged({"W1": tensor([3, 5], 0, 120)}, bytes(60)),
    "tensor of 8 EB": forged({"W1": tensor([2**60], 0, 2**63)}),
    "tensor whose size overflows": forged({"W1": tensor([2**40, 2**40], 0, 0)}),
    "negative shape": forged({"W1": tensor([-1], 0, 8)}, bytes(8)),
    "offsets backwards": forged({"W1": tensor([1], 8, 0)}, bytes(8)),
    "overlapping tensors": forged(
        {"W1": tensor([1], 0, 8), "b1": tensor([1], 0, 8)},
        bytes(8),
    ),
    "unknown type": of_type("F65", 24),
    **{
        f"type {name}": of_type(name, 24 * bits // 8)
        for name, bits in {
            "BF16": 16,
            "F8_E4M3": 8,
            "F8_E5M2": 8,
            "F16": 16,
            "C64": 64,
            "BOOL": 8,
            "U64": 64,
            "F4": 4,
        }.items()
    },
    "no metadata": safetensors.save(arrays()),
    "metadata of another program": safetensors.save(arrays(), {"format": "pt"}),
    "another format": content(format="fastbp network, version 2"),
    "no format": content(format=None),
    "no network": content(network=None),
    "network is no JSON": content(about="{"),
    "network is a list": content(about=[1]),
    "network is a number": content(about=1),
    "network is null": content(about=None),
    "network is deeply nested": content(about="[" * 100_000),
    **{
        f"without {key}": content(about={k: v for k, v in ABOUT.items() if k != key})
        for key in ABOUT
    },
    **{
        f"{key} {value!r}": content(about=ABOUT | {key: value})
        for key, values in {
            "sizes": [
                None,
                5,
                "352",
                [],
                [3],
                [3, 5],
                [3, 4, 2],
                [3, 5, 2, 2],
                [3, 5.5, 2],
                [3, "5", 2],
                [3, None, 2],
                [3, [5], 2],
                [3, -5, 2],
                [3, 2**70, 2],
                [3, float("inf"), 2],
                [3, float("nan"), 2],
                {"3": 5},
            ],
            "activation": [None, "tanh", 1, [], {}],
            "weight_decay_lambda": [None, -1, "0", float("nan"), float("inf"), 10**400, [], {}],
            "notes": [None, 5, "abc", [1]],
        }.items()
        for value in values
    },
    "no parameters": content({}),
    "no parameters and no sizes": content({}, ABOUT | {"sizes": []}),
    "a parameter missing": content(arrays(b2=None)),
    "an extra parameter": content(arrays(W3=np.ones((2, 2)))),
    "a weight of another shape": content(arrays(W1=np.ones((5, 3)))),
    "a flat weight": content(arrays(W1=np.ones(15))),
    "a bias of another shape": content(arrays(b1=np.ones((5, 1)))),
    "a bias too short": content(arrays(b1=np.ones(4))),
    "no inputs": content(arrays(W1=np.ones((0, 5))), ABOUT | {"sizes": [0, 5, 2]}),
    "no classes": content(arrays(W2=np.ones((5, 0)), b2=np.ones(0)), ABOUT | {"sizes": [3, 5, 0]}),
    "integers": content(arrays(np.int64)),
    "float16": content(arrays(np.float16)),
    "two types": content(arrays(b1=np.ones(5, np.float32))),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_network_is_refused_with_its_path(case, path):
    path.write_bytes(REFUSED[case])
    with pytest.raises(ModelError) as caught:
        load_network(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_the_file_the_refused_ones_are_made_of_is_a_network(path):
    path.write_bytes(GOOD)
    assert load_network(path)[0].sizes == (3, 5, 2)


@pytest.mark.parametrize("size", range(0, len(GOOD), 13))
def test_a_truncated_file_is_refused(size, path):
    path.write_bytes(GOOD[:size])
    with pytest.raises(ModelError):
        load_network(path)


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=4))
def test_a_damaged_file_is_refused_or_is_a_network(path, changes):
    damaged = bytearray(GOOD)
    for position, value in changes:
        damaged[position] = value
    path.write_bytes(damaged)
    try:
        loaded, _ = load_network(path)
    except ModelError:
        return
    assert loaded.predict(np.zeros((1, 3))).shape == (1, 2)


def test_any_byte_of_a_saved_network_that_changes_is_noticed(path):
    save_network(path, build(), NOTES)
    good = path.read_bytes()
    for place in range(0, len(good), 7):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(ModelError):
            load_network(path)


def test_a_missing_file_is_named(path):
    with pytest.raises(ModelError, match="no such file") as caught:
        load_network(path)
    assert str(path) in str(caught.value)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"model\.safetensors: no such file"):
        load_network(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(path):
    os.mkfifo(path)
    with pytest.raises(ModelError):
        load_network(path)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")  # noqa: PTH110
def test_an_endless_device_is_not_read(path):
    path.symlink_to("/dev/zero")
    with pytest.raises(ModelError):
        load_network(path)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_nothing_in_a_file_is_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ModelError):
        load_network(path)
    assert not (tmp_path / "harm").exists()


def test_a_model_error_is_a_value_error():
    assert issubclass(ModelError, ValueError)


MEMORY = """
import resource, sys
import fastbp
fastbp.save_network(sys.argv[1], fastbp.TwoLayerNet(3, 5, 2))
fastbp.load_network(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[2:]:
    try:
        fastbp.load_network(path)
    except fastbp.ModelError:
        pass
    else:
        sys.exit(f"accepted {path}")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
HUNGRY = [case for case in REFUSED if "header l" in case or "tensor" in case]


def grown(tmp_path, *paths):
    """Return by how many MB reading these files makes a fresh process grow."""
    pytest.importorskip("resource", reason="needs POSIX")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / "good", *paths],
        cwd=Path(fastbp.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout) / (2**20 if sys.platform == "darwin" else 2**10)


def test_forged_sizes_cost_no_memory(tmp_path):
    paths = []
    for i, case in enumerate(HUNGRY):
        paths.append(tmp_path / f"{i}.safetensors")
        paths[-1].write_bytes(REFUSED[case])
    assert grown(tmp_path, *paths) < 20


def test_a_large_file_of_something_else_is_not_read_into_memory(tmp_path):
    size = 400_000_000
    path = tmp_path / "large.safetensors"
    path.write_bytes(forged({"layer": tensor([size // 8], 0, size)}, metadata={"format": "pt"}))
    os.truncate(path, path.stat().st_size + size)
    assert grown(tmp_path, path) < 100


# --- saving --------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_when_the_disk_fails_the_old_model_stays(call, path, monkeypatch):
    old = build()
    save_network(path, old)

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="the disk is full"):
        save_network(path, build(2))
    monkeypatch.undo()
    assert bits(load_network(path)[0]) == bits(old)
    assert list(path.parent.iterdir()) == [path]


def test_notes_that_json_cannot_hold_leave_the_old_model(path):
    save_network(path, build())
    with pytest.raises(TypeError, match="JSON"):
        save_network(path, build(2), {"notes": object()})
    assert bits(load_network(path)[0]) == bits(build())


def test_a_missing_folder_is_what_the_operating_system_says(tmp_path):
    with pytest.raises(FileNotFoundError):
        save_network(tmp_path / "missing" / "model.safetensors", build())


def test_a_model_is_replaced(path):
    save_network(path, build(2))
    save_network(path, TwoLayerNet(4, 3, 2, seed=0))
    assert load_network(path)[0].sizes == (4, 3, 2)


@pytest.mark.parametrize("call", [lambda p: save_network(p, build()), load_network])
def test_without_safetensors_the_error_says_what_to_install(call, path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastbp\[train\]'"):
        call(path)
