import json
import math
import os
import tracemalloc
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from fastbp import SGD, DivergedError, History, TwoLayerNet, fit

RECORD = History(
    train_loss_list=[2.302585092994046, 1e-300, 0.1, 5e-324],
    steps=[0, 3, 4],
    train_acc_list=[0.1, 0.5, 1.0],
    test_acc_list=[0.25, 1 / 3, 2 / 3],
    test_loss_list=[2.3, 1.1, 0.7],
    times=[0.01, 0.25, 0.3],
    examples_per_second=[0.0, 1000.0, 1234.5],
    settings={"network": "TwoLayerNet(2-3-4, relu, float64)", "seed": None, "iterations": 4},
)


@pytest.fixture(scope="module")
def trained():
    """The history of a short training."""
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)
    return fit(
        TwoLayerNet(4, 6, 3, seed=0),
        x,
        t,
        batch_size=10,
        epochs=3,
        seed=0,
        validation_data=(x, t),
    )


# --- the record ----------------------------------------------------------------------------------


def test_its_length_is_the_number_of_steps():
    assert (len(RECORD), len(History())) == (4, 0)


def test_to_dict_has_every_field():
    assert RECORD.to_dict() == {field.name: getattr(RECORD, field.name) for field in fields(RECORD)}


def test_to_dict_is_a_copy():
    record = History(train_loss_list=[1.0], settings={"seed": 1})
    plain = record.to_dict()
    plain["train_loss_list"].append(2.0)
    plain["settings"]["seed"] = 2
    assert record == History(train_loss_list=[1.0], settings={"seed": 1})


def test_what_fit_records_is_plain_python(trained):
    plain = trained.to_dict()
    numbers = [value for key, values in plain.items() if key != "settings" for value in values]
    assert {type(number) for number in numbers} == {int, float}
    assert json.loads(json.dumps(plain)) == plain


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (History(), "0 steps"),
        (
            RECORD,
            "4 steps, 0.30 s, loss 0.0000, training accuracy 1.0000, test accuracy 0.6667",
        ),
        (History(train_loss_list=[0.5] * 1234), "1,234 steps, loss 0.5000"),
        (
            History(train_acc_list=[0.25], times=[1.0]),
            "0 steps, 1.00 s, training accuracy 0.2500",
        ),
    ],
)
@pytest.mark.parametrize("show", [str, repr])
def test_as_text_it_is_the_outcome_in_a_line(record, text, show):
    assert show(record) == text


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_path", [Path, str, os.fspath])
def test_a_saved_record_comes_back_equal(as_path, tmp_path):
    path = as_path(tmp_path / "history.json")
    RECORD.save(path)
    assert History.load(path) == RECORD


def test_the_record_of_a_training_comes_back_equal(trained, tmp_path):
    trained.save(tmp_path / "history.json")
    assert History.load(tmp_path / "history.json") == trained


def test_the_file_is_json(tmp_path):
    RECORD.save(tmp_path / "history.json")
    assert json.loads((tmp_path / "history.json").read_text()) == RECORD.to_dict()


def test_text_in_any_script_comes_back(tmp_path):
    record = History(settings={"note": "ゼロから作る — ß\u2028"})
    record.save(tmp_path / "history.json")
    assert History.load(tmp_path / "history.json") == record


def test_a_record_with_losses_that_are_no_numbers_can_be_saved(tmp_path):
    record = History(train_loss_list=[1.0], test_loss_list=[math.inf, -math.inf, math.nan])
    record.save(tmp_path / "history.json")
    *infinities, nan = History.load(tmp_path / "history.json").test_loss_list
    assert infinities == [math.inf, -math.inf]
    assert math.isnan(nan)


def test_the_record_of_a_divergence_can_be_saved(tmp_path):
    x, t = np.eye(3), np.arange(3)

    class Diverges(TwoLayerNet):
        def loss_and_gradient(self, x, t):
            return math.nan, {}

    with pytest.raises(DivergedError) as caught:
        fit(Diverges(3, 4, 3), x, t, optimizer=SGD(0.1), validation_data=(x, t))
    caught.value.history.save(tmp_path / "history.json")
    assert History.load(tmp_path / "history.json") == caught.value.history


GOOD = json.dumps(RECORD.to_dict())
DAMAGED = {
    "empty": b"",
    "cut short": GOOD[:-10].encode(),
    "something behind": GOOD.encode() + b"}",
    "not text": b"\x80\x04\x95\xff\xfe",
    "zeros": bytes(100),
    "UTF-16": GOOD.encode("utf-16"),
    "a list": b"[1, 2]",
    "a number": b"1",
    "null": b"null",
    "an unknown field": b'{"train_loss_list": [], "losses": []}',
    "deeply nested": b"[" * 100_000,
    "an endless number": b'{"steps": [' + b"9" * 10_000 + b"]}",
    "a number for a list": b'{"train_loss_list": 5}',
    "text for a list": b'{"train_loss_list": "abc"}',
    "null for a list": b'{"train_loss_list": null}',
    "text in a list": b'{"train_loss_list": ["abc"]}',
    "a list in a list": b'{"train_acc_list": [[1]]}',
    "a list for settings": b'{"settings": [1]}',
    "fractions as steps": b'{"steps": [0.5]}',
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_file_that_is_no_record_is_refused_with_its_path(kind, tmp_path):
    path = tmp_path / "history.json"
    path.write_bytes(DAMAGED[kind])
    with pytest.raises(ValueError, match="not a training history") as caught:
        History.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "history.json"
    os.mkfifo(path)
    with pytest.raises(ValueError, match="not a regular file") as caught:
        History.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_an_endless_device_is_not_read():
    with pytest.raises(ValueError, match=r"/dev/zero: .*not a regular file"):
        History.load("/dev/zero")


def test_a_file_larger_than_the_cap_is_not_read_whole(tmp_path):
    path = tmp_path / "history.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole, which takes no room on the disk
    with pytest.raises(ValueError, match="more than 67108864 bytes") as caught:
        History.load(path)
    assert str(path) in str(caught.value)


def test_a_record_of_the_size_of_the_cap_is_read(tmp_path):
    path = tmp_path / "history.json"
    RECORD.save(path)
    size = path.stat().st_size
    assert History.load(path, max_bytes=size) == RECORD
    with pytest.raises(ValueError, match=rf"more than {size - 1} bytes; max_bytes= allows more"):
        History.load(path, max_bytes=size - 1)


@pytest.mark.parametrize("max_bytes", [0, -2, 1.5, None, True])
def test_a_cap_that_is_none_is_refused(max_bytes, tmp_path):
    path = tmp_path / "history.json"
    RECORD.save(path)
    with pytest.raises((TypeError, ValueError), match=r"History\.load: max_bytes is"):
        History.load(path, max_bytes=max_bytes)


@pytest.mark.parametrize("number", ["1e9", "1"])
def test_a_record_takes_at_most_ten_times_its_bytes(tmp_path, number):
    path = tmp_path / "history.json"
    path.write_text('{"train_loss_list": [' + ",".join([number] * 500_000) + "]}")
    tracemalloc.start()
    try:
        assert len(History.load(path)) == 500_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 10 * path.stat().st_size


def test_a_file_of_braces_takes_no_more_memory_than_its_bytes(tmp_path):
    path = tmp_path / "history.json"
    path.write_text('{"settings": {"a": [' + "{}," * 1_000_000 + "{}]}}")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more lists, mappings and texts"):
            History.load(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_missing_file_is_what_the_operating_system_says(tmp_path):
    with pytest.raises(FileNotFoundError):
        History.load(tmp_path / "missing.json")


def test_a_missing_folder_is_what_the_operating_system_says(tmp_path):
    with pytest.raises(FileNotFoundError):
        RECORD.save(tmp_path / "missing" / "history.json")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_when_the_disk_fails_the_old_record_stays(call, tmp_path, monkeypatch):
    path = tmp_path / "history.json"
    History(train_loss_list=[1.0]).save(path)

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="the disk is full"):
        RECORD.save(path)
    monkeypatch.undo()
    assert History.load(path) == History(train_loss_list=[1.0])
    assert list(tmp_path.iterdir()) == [path]


def test_settings_that_json_cannot_hold_leave_the_old_record(tmp_path):
    path = tmp_path / "history.json"
    RECORD.save(path)
    with pytest.raises(TypeError, match="JSON"):
        History(settings={"seed": object()}).save(path)
    assert History.load(path) == RECORD


# --- pictures ------------------------------------------------------------------------------------

SIGNATURES = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF", "": b"\x89PNG"}


def test_plot_returns_a_figure(trained):
    figure = pytest.importorskip("matplotlib.figure", reason="needs the extra plot")
    assert isinstance(trained.plot(), figure.Figure)


@pytest.mark.parametrize("ending", SIGNATURES)
def test_plot_writes_the_format_the_ending_names(trained, ending, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    path = tmp_path / f"curves{ending}"
    trained.plot(path)
    assert path.read_bytes().startswith(SIGNATURES[ending])


def test_plot_writes_nothing_without_a_path(trained, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    monkeypatch.chdir(tmp_path)
    trained.plot()
    assert list(tmp_path.iterdir()) == []


def test_a_picture_in_an_unknown_format_leaves_the_old_one(trained, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    path = tmp_path / "curves.txt"
    path.write_text("old")
    with pytest.raises(ValueError, match="txt"):
        trained.plot(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["train_loss_list", "times", "steps"])
def test_an_integer_that_no_float_holds_is_no_record(tmp_path, name):
    path = tmp_path / "history.json"
    path.write_text(json.dumps({name: [10**400]}))
    with pytest.raises(ValueError, match=f"{name} is no list of numbers"):
        History.load(path)
