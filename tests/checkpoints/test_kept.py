"""Which checkpoints are written and stay, and what is said when one cannot be written."""

import errno
import os
import sys
import threading

import numpy as np
import pytest

import fastbp
from fastbp import CheckpointError, Checkpoints, DivergedError, TrainingInterrupted, fit
from fastbp import checkpoints as module

safetensors = pytest.importorskip("safetensors", reason="needs the extra train")

from resuming import (  # noqa: E402 - which needs it
    TOTAL,
    build,
    everything,
    examples,
    names,
    steps_in,
    train,
)

# --- which are kept ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "keep", "expected"),
    [(7, 3, [28, 35, 40]), (7, 1, [40]), (10, 2, [30, 40]), (1000, 3, [40]), (1, 2, [39, 40])],
)
def test_the_newest_are_kept(every, keep, expected, folder):
    train(40, checkpoints=Checkpoints(folder, every=every, keep=keep))
    assert names(folder) == ["best.safetensors", *(f"step-{n:09}.safetensors" for n in expected)]


def test_checkpoints_are_at_exact_multiples(folder, monkeypatch):
    written = []
    write = module.write_atomically
    monkeypatch.setattr(
        module, "write_atomically", lambda p, c: (written.append(p.name), write(p, c))
    )
    train(40, checkpoints=Checkpoints(folder, every=9))
    steps = [int(name[5:14]) for name in written if name.startswith("step")]
    assert steps == [9, 18, 27, 36, 40]


def test_the_best_is_the_network_of_the_best_report(folder):
    net, _, history = train(TOTAL, checkpoints=folder)
    best, notes = fastbp.load_network(folder / "best.safetensors")
    accuracies = history.test_acc_list[1:]
    assert notes["accuracy"] == max(accuracies)
    assert notes["step"] == history.steps[1 + accuracies.index(max(accuracies))]
    x, t = examples()
    assert best.accuracy(x[:9], t[:9]) == notes["accuracy"]
    assert len(set(accuracies)) > 1
    assert net.accuracy(x[:9], t[:9]) == accuracies[-1]


def test_without_validation_data_the_training_accuracy_tells_the_best(folder):
    x, t = examples()
    history = fit(build(), x, t, batch_size=10, epochs=8, seed=0, checkpoints=folder)
    best, notes = fastbp.load_network(folder / "best.safetensors")
    assert best.accuracy(x, t) == notes["accuracy"] == max(history.train_acc_list[1:])


def test_a_best_network_of_before_the_stop_stays(folder):
    train(TOTAL, checkpoints=folder / "never")
    for total in (12, 24, TOTAL):
        train(total, checkpoints=folder / "here", resume=True)
    nets = [fastbp.load_network(folder / name / "best.safetensors") for name in ("never", "here")]
    assert nets[0][1] == nets[1][1]


def test_a_callback_that_stops_gets_its_checkpoint(folder):
    train(TOTAL, checkpoints=folder, callbacks=[lambda report: report.step == 8])
    assert steps_in(folder) == [8]


def test_a_string_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(4, checkpoints="some/where")
    assert names(tmp_path / "some" / "where") == [
        "best.safetensors", "step-000000004.safetensors"
    ]  # fmt: skip


def test_in_another_thread(folder):
    results = []
    worker = threading.Thread(target=lambda: results.append(train(TOTAL, checkpoints=folder)))
    worker.start()
    worker.join()
    assert steps_in(folder) == [TOTAL]
    assert everything(results[0], folder) == everything(
        train(TOTAL, checkpoints=folder / "x"), folder / "x"
    )


def test_checkpoints_do_not_change_the_training(folder):
    expected = everything(train(TOTAL))
    assert everything(train(TOTAL, checkpoints=Checkpoints(folder, every=1))) == expected


# --- divergence ----------------------------------------------------------------------------------


def test_of_a_training_that_diverges_the_last_good_one_stays(folder):
    x, t = examples()
    train(8, checkpoints=Checkpoints(folder, every=4), optimizer="SGD")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    # The same training, but the parameters become infinite.
    net = build()

    def spoil(report):
        if report.step == 12:
            for p in net.params.values():
                p *= 1e200
                p *= 1e200

    with np.errstate(over="ignore"), pytest.raises(DivergedError):
        train(
            TOTAL, net=net, checkpoints=Checkpoints(folder, every=2, keep=2), optimizer="SGD",
            resume=True, callbacks=[spoil],
        )  # fmt: skip
    assert steps_in(folder) == [8, 10]
    assert (folder / "step-000000008.safetensors").read_bytes() == (
        before["step-000000008.safetensors"]
    )
    again = train(TOTAL, checkpoints=folder, optimizer="SGD", resume=True)
    expected = train(TOTAL, checkpoints=folder / "x", optimizer="SGD")
    assert everything(again, folder) == everything(expected, folder / "x")
    assert net.accuracy(x, t) >= 0


def test_of_a_hopeless_training_nothing_is_written(folder):
    def spoil(report):
        if report.step == 4:
            for p in net.params.values():
                p *= 1e6

    net = build()
    with pytest.raises(DivergedError, match="mean loss"):
        train(
            TOTAL, net=net, optimizer="SGD", callbacks=[spoil],
            checkpoints=Checkpoints(folder, every=1),
        )  # fmt: skip
    assert max(steps_in(folder)) <= 4


# --- what stands in the folder already -----------------------------------------------------------


def test_without_resume_checkpoints_are_not_overwritten(folder):
    train(8, checkpoints=folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    net = build()
    parameters = everything((net, None, None))
    with pytest.raises(CheckpointError, match=r"step-000000008.*resume=True"):
        train(TOTAL, net=net, checkpoints=folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert everything((net, None, None)) == parameters


def test_resume_begins_at_the_start_where_there_is_nothing(folder):
    result = train(TOTAL, checkpoints=folder, resume=True)
    assert everything(result) == everything(train(TOTAL))


def test_leftovers_of_a_killed_process_go_and_files_of_others_stay(folder):
    folder.mkdir()
    ours = [".fastbp-abcd_123", ".fastbp-00000000"]
    others = [
        ".fastbp-abc",
        ".fastbp-abcd_1234",
        "step-1.safetensors",
        "notes.txt",
        ".fastbp-ABCD1234",
    ]
    for name in ours + others:
        (folder / name).write_text("x")
    (folder / ".fastbp-zzzzzzzz").mkdir()
    (folder / ".fastbp-yyyyyyyy").symlink_to(folder / "notes.txt")
    train(4, checkpoints=Checkpoints(folder, keep=1))
    assert {*others, ".fastbp-zzzzzzzz", ".fastbp-yyyyyyyy"} == set(names(folder)) - {
        "best.safetensors", "step-000000004.safetensors"
    }  # fmt: skip


def test_a_folder_that_moved_is_gone_on_from(folder, tmp_path):
    train(8, checkpoints=folder)
    folder.rename(tmp_path / "elsewhere")
    moved = train(TOTAL, checkpoints=tmp_path / "elsewhere", resume=True)
    assert everything(moved) == everything(train(TOTAL))


def test_clear_deletes_checkpoints_and_nothing_else(folder):
    train(8, checkpoints=folder)
    (folder / "notes.txt").write_text("mine")
    Checkpoints(folder).clear()
    assert names(folder) == ["notes.txt"]
    Checkpoints(folder / "missing").clear()


# --- what cannot be saved ------------------------------------------------------------------------


def full(path, content):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_a_full_disk_is_told_and_leaves_what_there_is(folder, monkeypatch):
    train(20, checkpoints=Checkpoints(folder, every=8))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    net = build()
    monkeypatch.setattr(module, "write_atomically", full)
    with pytest.raises(OSError, match=r"checkpoint of step 24 cannot be saved") as caught:
        train(TOTAL, net=net, checkpoints=Checkpoints(folder, every=24), resume=True)
    assert caught.value.errno == errno.ENOSPC
    assert str(folder / "step-000000024.safetensors") in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert everything((net, None, None)) == everything((train(24)[0], None, None))


def test_a_full_disk_on_ctrl_c_is_told_too(folder, monkeypatch):
    def callback(report):
        if report.step == 8:
            monkeypatch.setattr(module, "write_atomically", full)
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted, match=r"after 8 steps; .* cannot be saved") as caught:
        train(TOTAL, checkpoints=folder, callbacks=[callback])
    assert len(caught.value.history) == 8


def test_an_old_checkpoint_that_cannot_be_deleted_does_not_stop_the_training(folder, monkeypatch):
    unlink = type(folder).unlink

    def fail(path, *arguments, **options):
        if path.name.startswith("step-"):
            raise PermissionError(errno.EPERM, "no")
        unlink(path, *arguments, **options)

    monkeypatch.setattr(type(folder), "unlink", fail)
    train(TOTAL, checkpoints=Checkpoints(folder, every=10, keep=1))
    assert steps_in(folder) == [10, 20, 30, 40, 42]


class Secret(fastbp.SGD):
    def __init__(self, way):
        super().__init__()
        self.way = way


@pytest.mark.parametrize(
    "way", [lambda: None, np.array(["text"]), 1j, np.longdouble(1), np.ones(2, np.clongdouble)]
)
def test_what_no_checkpoint_holds_is_told_before_anything_is_trained(folder, way):
    if isinstance(way, np.longdouble) and way.itemsize == 8:
        pytest.skip("no wider float here")
    net = build()
    before = everything((net, None, None))
    name = type(way).__name__
    with pytest.raises(TypeError, match=rf"cannot hold optimizer\.way, of type {name}"):
        train(TOTAL, net=net, given=Secret(way), checkpoints=folder)
    assert everything((net, None, None)) == before
    assert not folder.exists()


def test_without_safetensors_the_error_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastbp\[train\]'"):
        train(TOTAL, checkpoints=folder)
    assert not folder.exists()
    train(4)  # needs none


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder one cannot write")
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_trained(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        train(TOTAL, checkpoints=tmp_path)
    tmp_path.chmod(0o700)


def test_a_file_in_the_folders_place_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        train(TOTAL, checkpoints=tmp_path / "file")


# --- arguments -----------------------------------------------------------------------------------


def test_resume_needs_a_folder():
    with pytest.raises(ValueError, match="resume=True without checkpoints"):
        train(4, resume=True)


@pytest.mark.parametrize("folder", [3, None, b"x", ["x"]])
def test_a_folder_is_a_path(folder):
    with pytest.raises(TypeError, match="Checkpoints: folder is"):
        Checkpoints(folder)


@pytest.mark.parametrize("name", ["every", "keep"])
@pytest.mark.parametrize("value", [0, -1, 1.5, None, True, "3"])
def test_every_and_keep_are_positive_integers(name, value):
    with pytest.raises(ValueError, match=rf"Checkpoints: {name} is .*, expected a positive int"):
        Checkpoints("x", **{name: value})


def test_a_checkpoint_error_is_a_value_error():
    assert issubclass(CheckpointError, ValueError)


def test_the_books_generator_must_be_the_books(folder):
    before = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(0))
        with pytest.raises(TypeError, match="MT19937 alone"):
            train(4, sampling="choice", seed=None, checkpoints=folder)
    finally:
        np.random.set_bit_generator(before)


def test_the_repr_tells_all():
    assert repr(Checkpoints("a", every=5, keep=2)) == "Checkpoints('a', every=5, keep=2)"
