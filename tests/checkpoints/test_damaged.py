"""Checkpoints that are damaged, forged, of another training or of another version."""

import errno
import json
import math
import os
import tracemalloc

import numpy as np
import pytest

import fastbp
from fastbp import CheckpointError, Checkpoints, fit
from fastbp import checkpoints as module

safetensors = pytest.importorskip("safetensors", reason="needs the extra train")

from resuming import (  # noqa: E402 - which needs it
    TOTAL,
    Layered,
    build,
    everything,
    examples,
    steps_in,
    train,
)

# --- memory --------------------------------------------------------------------------------------


def test_a_checkpoint_takes_at_most_twice_its_size(tmp_path):
    network = fastbp.MultiLayerNet(1000, [250], 10, seed=0)
    x, t = np.ones((2, 1000)), np.arange(2)
    fit(network, x, t, optimizer=fastbp.Adam(), iterations=2, checkpoints=tmp_path)
    path = newest(tmp_path)
    tracemalloc.start()
    try:
        module._read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.9 < peak / path.stat().st_size <= 2


# --- damaged -------------------------------------------------------------------------------------


def newest(folder):
    return Checkpoints(folder).files()[-1][1]


DAMAGES = {
    "empty": lambda content: b"",
    "7 bytes": lambda content: content[:7],
    "a header alone": lambda content: content[: 8 + int.from_bytes(content[:8], "little")],
    "one byte short": lambda content: content[:-1],
    "one byte long": lambda content: content + b"\0",
    "zeros": lambda content: bytes(len(content)),
    "half zeros": lambda content: content[: len(content) // 2] + bytes(len(content) // 2),
    "one bit": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "another digest": lambda content: content.replace(b'"sha256":"', b'"sha256":"0', 1),
    "no digest": lambda content: content.replace(b'"sha256":', b'"sha255":', 1),
    "text": lambda content: b"once upon a time",
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_newest_one_is_skipped_with_a_warning(case, folder):
    train(20, checkpoints=Checkpoints(folder, every=8))
    path = newest(folder)
    path.write_bytes(DAMAGES[case](path.read_bytes()))
    with pytest.warns(UserWarning, match="is skipped") as caught:
        result = train(TOTAL, checkpoints=folder, resume=True)
    assert str(path) in str(caught[0].message)
    assert everything(result) == everything(train(TOTAL))


def test_if_all_are_damaged_the_error_names_them(folder):
    train(20, checkpoints=Checkpoints(folder, every=8))
    for _, path in Checkpoints(folder).files():
        path.write_bytes(path.read_bytes()[:-1])
    net = build()
    before = everything((net, None, None))
    with pytest.raises(CheckpointError, match="no checkpoint is valid") as caught:
        train(TOTAL, net=net, checkpoints=folder, resume=True)
    assert all(str(path) in str(caught.value) for _, path in Checkpoints(folder).files())
    assert everything((net, None, None)) == before


def test_any_byte_that_changes_is_noticed(folder):
    train(4, checkpoints=folder)
    path = newest(folder)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in (*range(0, len(good), 101), *rng.integers(0, len(good), 40)):
        path.write_bytes(
            good[:place] + bytes([good[place] ^ 1 << rng.integers(8)]) + good[place + 1 :]
        )
        with pytest.raises(CheckpointError) as caught:
            train(8, checkpoints=folder, resume=True)
        assert str(path) in str(caught.value)
    path.write_bytes(good)
    train(8, checkpoints=folder, resume=True)


def test_a_damaged_newer_one_does_not_count_among_the_newest(folder):
    train(20, checkpoints=Checkpoints(folder, every=8, keep=3))
    (folder / "step-000000999.safetensors").write_bytes(b"x")
    with pytest.warns(UserWarning, match="000000999"):
        train(24, checkpoints=Checkpoints(folder, every=8, keep=2), resume=True)
    assert steps_in(folder) == [20, 24]


def forge(path, change):
    """Rewrite a checkpoint with something changed, and a digest that is right."""
    with safetensors.safe_open(path, framework="numpy") as file:
        training = json.loads(file.metadata()["training"])
        held = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    changed = change(training, training["state"]["parts"], held) or training
    text = changed if isinstance(changed, str) else json.dumps(changed)
    path.write_bytes(module._sealed.seal(held, {"format": module.FORMAT, "training": text}))


def put(name, value):
    return lambda training, parts, held: parts.update({name: value})


def in_array(name, index, value):
    def change(training, parts, held):
        held[parts[name]["array"]][index] = value

    return change


def in_generator(name, value):
    def change(training, parts, held):
        generator = parts["generator"]["parts"]
        (generator["state"]["parts"] if name in ("state", "inc") else generator)[name] = value

    return change


def in_history(name, edit):
    def change(training, parts, held):
        key = parts["history"]["parts"][name]["array"]
        held[key] = edit(held[key])

    return change


def in_optimizer(name, value):
    return lambda training, parts, held: parts["optimizer"]["parts"].update({name: value})


def swap_array(training, parts, held):
    key = parts["params"]["parts"]["W1"]["array"]
    held[key] = held[key].T.copy()


def many_times(training, parts, held):
    parts["more"] = {"parts": {str(i): parts["order"] for i in range(10_000)}}


FORGED = {
    "a row that is none": in_array("order", 0, 10**6),
    "a row below 0": in_array("order", 0, -1),
    "a row twice": in_array("order", 0, -2),
    "no order": put("order", None),
    "an order of text": put("order", "abc"),
    "another generator": in_generator("bit_generator", "MT19937"),
    "a generator's number below 0": in_generator("state", -1),
    "a generator's number too large": in_generator("inc", 2**128),
    "a generator's number of text": in_generator("uinteger", "1"),
    "a generator's flag": in_generator("has_uint32", 2),
    "no generator": put("generator", None),
    "a generator without numbers": put("generator", {"parts": {}}),
    "an array twice": many_times,
    "an array that is not there": put("order", {"array": "missing"}),
    "an array of another kind": put("order", {"pickle": "order"}),
    "parameters of another shape": swap_array,
    "no parameters": put("params", {"parts": {}}),
    "parameters of text": put("params", "W1"),
    "parameters of the last report missing": put("last_good", {"parts": {"W1": 1}}),
    "no optimizer": put("optimizer", {"parts": {}}),
    "an optimizer's count below 0": in_optimizer("iter", -5),
    "an optimizer's count too large": in_optimizer("iter", 2**63),
    "an optimizer's rate of text": in_optimizer("lr", "fast"),
    "an optimizer's rate too large": in_optimizer("lr", 10**400),
    "an optimizer's rate that is true": in_optimizer("lr", True),
    "an optimizer's count with a fraction": in_optimizer("iter", 10.0),
    "an optimizer's slot of text": in_optimizer("m", "x"),
    "an attribute the optimizer has not": in_optimizer("update", 1.0),
    "losses missing": in_history("train_loss_list", lambda a: a[:-1]),
    "losses of integers": in_history("train_loss_list", lambda a: a.astype(np.int64)),
    "losses in two dimensions": in_history("train_loss_list", lambda a: a[:, None]),
    "steps that do not rise": in_history("steps", lambda a: a * 0),
    "steps not taken": in_history("steps", lambda a: a + 1000),
    "accuracies missing": in_history("test_acc_list", lambda a: a[:-1]),
    "times missing": in_history("times", lambda a: a[:-1]),
    "measurements of text": put("elapsed", "long"),
    "more examples than any float holds": put("examples", 10**400),
    "more examples than its steps have": put("examples", 101),
    "examples below 0": put("examples", -1),
    "seconds below 0": put("seconds", -1.0),
    "endless seconds": put("seconds", math.inf),
    "a time that is no number": put("elapsed", math.nan),
    "an accuracy above 1": put("best", 1.5),
    "an accuracy that is no number": put("best", math.nan),
    "no state": lambda training, parts, held: {**training, "state": None},
    "a state that is a list": lambda training, parts, held: {**training, "state": []},
    "a state that is deep": lambda training, parts, held: (
        '{"identity":{},"state":' + '{"parts":{"a":' * 9000 + "1" + "}}" * 9000 + "}"
    ),
    "no identity": lambda training, parts, held: {**training, "identity": None},
    "an identity without optimizer": lambda training, parts, held: {**training, "identity": {}},
    "a list": lambda training, parts, held: [training],
}  # fmt: skip


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_one_is_refused_before_anything_is_changed(case, folder):
    train(10, checkpoints=folder, optimizer="Adam")
    path = newest(folder)
    change = FORGED[case]
    if case == "a row twice":

        def change(training, parts, held):
            order = held[parts["order"]["array"]]
            order[0] = order[1]

    forge(path, change)
    net = build()
    before = everything((net, None, None))
    with pytest.raises(CheckpointError) as caught:
        train(TOTAL, net=net, checkpoints=folder, optimizer="Adam", resume=True)
    assert str(path) in str(caught.value)
    assert everything((net, None, None)) == before


def test_what_the_forged_ones_are_made_of_is_valid(folder):
    train(10, checkpoints=folder, optimizer="Adam")
    forge(newest(folder), lambda training, parts, held: None)
    resumed = train(TOTAL, checkpoints=folder, optimizer="Adam", resume=True)
    assert everything(resumed) == everything(train(TOTAL, optimizer="Adam"))


@pytest.mark.parametrize("position", [-1, 625, 2**40, "0"])
def test_a_position_outside_of_the_books_generator_is_refused(position, folder):
    options = {"sampling": "choice", "seed": None, "checkpoints": folder}
    train(10, **options)

    def change(training, parts, held):
        parts["generator"]["parts"]["state"]["parts"]["pos"] = position

    forge(newest(folder), change)
    with pytest.raises(CheckpointError, match="random generator"):
        train(TOTAL, resume=True, **options)


def test_another_format_is_no_checkpoint(folder):
    train(4, checkpoints=folder)
    content = module._sealed.seal({}, {"format": "fastbp network, version 1", "training": "{}"})
    newest(folder).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"no checkpoint is valid.*network, version 1"):
        train(TOTAL, checkpoints=folder, resume=True)


def test_a_checkpoint_of_a_newer_fastbp_is_neither_skipped_nor_deleted(folder):
    train(20, checkpoints=Checkpoints(folder, every=8))
    content = module._sealed.seal({}, {"format": "fastbp checkpoint, version 2", "training": "{}"})
    newest(folder).write_bytes(content)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    net = build()
    parameters = everything((net, None, None))
    with pytest.raises(CheckpointError, match=r"another version of fastbp .*version 2") as caught:
        train(TOTAL, net=net, checkpoints=folder, resume=True)
    assert str(newest(folder)) in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert everything((net, None, None)) == parameters


@pytest.mark.parametrize("call", ["check_header", "verify"])
def test_a_disk_that_cannot_be_read_stops_the_resume(call, folder, monkeypatch):
    train(20, checkpoints=Checkpoints(folder, every=8))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(path, *_):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(module._sealed, call, fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
        train(TOTAL, checkpoints=folder, resume=True)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(newest(folder)))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_header_too_long_is_refused_in_little_memory(folder, monkeypatch):
    train(4, checkpoints=folder)
    monkeypatch.setattr(module._sealed, "MAX_TEXT", 2**30)  # for writing
    monkeypatch.setattr(module._sealed, "MAX_HEADER", 2**30)
    text = "[" + "{}," * 2_000_000 + "{}]"
    newest(folder).write_bytes(module._sealed.seal({}, {"format": module.FORMAT, "training": text}))
    monkeypatch.undo()
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="its header has more than"):
            train(8, checkpoints=folder, resume=True)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(folder):
    folder.mkdir()
    os.mkfifo(folder / "step-000000008.safetensors")
    assert everything(train(TOTAL, checkpoints=folder, resume=True)) == everything(train(TOTAL))


# --- of another training -------------------------------------------------------------------------

OTHERS = {
    "network": {"hidden": [7]},
    "activation": {"activation": "sigmoid"},
    "weight decay": {"decay": 0.25},
    "dtype": {"dtype": np.float32},
    "steps": {"cls": Layered},
    "optimizer": {"optimizer": "Nesterov"},
    "learning rate": {"given": fastbp.Momentum(lr=0.2)},
    "momentum": {"given": fastbp.Momentum(lr=0.1, momentum=0.5)},
    "batch_size": {"batch_size": 11},
    "sampling": {"sampling": "choice"},
    "seed": {"seed": 8},
    "data": {"inputs": "float32"},
    "rows": {"count": 34},
    "evaluate_sample": {"evaluate_sample": 5},
    "validation data": {"validation": False},
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_checkpoint_of_another_training_is_refused(what, folder):
    train(20, checkpoints=folder)
    options = dict(OTHERS[what])
    names = options.keys() & {"hidden", "activation", "decay", "dtype", "cls"}
    net = build(**{name: options.pop(name) for name in names})
    before = everything((net, None, None))
    with pytest.raises(CheckpointError, match=r"is of another training: .* was .*, is ") as caught:
        train(TOTAL, net=net, checkpoints=folder, resume=True, **options)
    assert str(newest(folder)) in str(caught.value)
    assert everything((net, None, None)) == before


@pytest.mark.parametrize("place", ["x", "t"])
def test_one_number_of_the_data_makes_another_training(place, folder):
    x, t = examples()
    options = {"batch_size": 10, "seed": 0, "checkpoints": folder}
    fit(build(), x, t, iterations=4, **options)
    if place == "x":
        x[-1, -1] = np.nextafter(x[-1, -1], 2)
    else:
        t[-1] = (t[-1] + 1) % 3
    with pytest.raises(CheckpointError, match="data was"):
        fit(build(), x, t, iterations=8, resume=True, **options)


def test_the_message_names_what_differs_and_nothing_else(folder):
    train(20, checkpoints=folder)
    with pytest.raises(CheckpointError) as caught:
        train(TOTAL, checkpoints=folder, resume=True, batch_size=11)
    assert str(caught.value).endswith("is of another training: batch_size was 10, is 11")


def test_fewer_steps_than_there_are_is_refused(folder):
    train(20, checkpoints=folder)
    with pytest.raises(CheckpointError, match="20 steps already, more than the 19 asked for"):
        train(19, checkpoints=folder, resume=True)


def test_data_in_another_memory_layout_are_the_same_data(folder):
    x, t = examples()
    options = {"batch_size": 10, "seed": 0, "checkpoints": folder}
    fit(build(), x, t, iterations=4, **options)
    fit(build(), np.asfortranarray(x), list(t), iterations=8, resume=True, **options)
    assert steps_in(folder) == [4, 8]
