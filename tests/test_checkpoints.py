"""Stopping and going on: the bits of a training that was never stopped, whatever happened."""

import errno
import json
import math
import os
import signal
import sys
import threading
import tracemalloc

import numpy as np
import pytest

import fastbp
from fastbp import CheckpointError, Checkpoints, DivergedError, TrainingInterrupted, fit
from fastbp import checkpoints as module
from fastbp.steps import CompiledSteps, LayerSteps
from fastbp.threads import available_cpus

safetensors = pytest.importorskip("safetensors", reason="needs the extra train")

from resuming import (  # noqa: E402 - which needs it
    OPTIMIZERS,
    TOTAL,
    Layered,
    build,
    everything,
    examples,
    optimizer_of,
    train,
)


@pytest.fixture
def folder(tmp_path):
    """Where checkpoints go; not made yet."""
    return tmp_path / "checkpoints"


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Some thousand files are written here; test_files.py and the fault tests do wait."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def steps_in(folder):
    return [step for step, _ in Checkpoints(folder).files()]


# --- the same bits -------------------------------------------------------------------------------

VARIANTS = [
    *((inputs, np.float64) for inputs in ("float64", "bytes", "zeros", "sparse")),
    *((inputs, np.float32) for inputs in ("float64", "float32", "sparse")),
]
SAMPLING = [("shuffle", 7), ("choice", 7), ("choice", None)]


@pytest.mark.parametrize("cls", [fastbp.MultiLayerNet, Layered], ids=["compiled", "layers"])
@pytest.mark.parametrize(("sampling", "seed"), SAMPLING, ids=["shuffle", "choice", "book"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_that_was_stopped_reaches_the_same_bits(name, sampling, seed, cls, folder):
    for i, (kind, dtype) in enumerate(VARIANTS):
        options = {
            "cls": cls, "optimizer": name, "dtype": dtype, "inputs": kind, "sampling": sampling,
            "seed": seed, "threads": 1,
        }  # fmt: skip
        here, there = folder / f"{i} stopped", folder / f"{i} never"
        expected = train(TOTAL, checkpoints=Checkpoints(there, every=7), **options)
        train(23, checkpoints=Checkpoints(here, every=7), **options)
        resumed = train(TOTAL, checkpoints=here, resume=True, disturb=True, **options)
        assert everything(resumed, here) == everything(expected, there), options


@pytest.mark.skipif(available_cpus() < 2, reason="needs two CPUs")
@pytest.mark.parametrize(
    ("inputs", "dtype", "threads"),
    [
        ("float64", np.float64, (1, 2)),
        ("sparse", np.float32, (2, 1)),
        ("bytes", np.float32, (2, 2)),
    ],
)
def test_the_number_of_threads_may_be_another(inputs, dtype, threads, folder):
    options = {"optimizer": "Adam", "inputs": inputs, "dtype": dtype}
    before, after = threads
    expected = train(TOTAL, threads=1, checkpoints=folder / "never", **options)
    train(23, threads=before, checkpoints=folder / "here", **options)
    resumed = train(TOTAL, threads=after, checkpoints=folder / "here", resume=True, **options)
    assert everything(resumed, folder / "here") == everything(expected, folder / "never")


@pytest.mark.parametrize("cls", [fastbp.MultiLayerNet, Layered], ids=["compiled", "layers"])
def test_stopped_anywhere_by_ctrl_c_and_resumed(cls, folder, monkeypatch):
    steps, total = LayerSteps if cls is Layered else CompiledSteps, 80
    options = {"cls": cls, "optimizer": "Adam"}
    expected = everything(train(total, checkpoints=folder / "never", **options), folder / "never")
    rng, run, left = np.random.default_rng(5), steps.run, 0

    def a_few(self):
        return max(1, min(left, int(rng.integers(1, 9))))  # as many as the clock may say

    def press(self, rows, begins):
        nonlocal left
        losses = run(self, rows, begins)
        left -= len(losses)
        if left == 0:
            signal.raise_signal(signal.SIGINT)
        return losses

    for stop in rng.permutation(total - 1)[:50] + 1:
        here, left = folder / f"{stop}", int(stop)
        with monkeypatch.context() as patch:
            patch.setattr(steps, "batches_a_call", a_few)
            patch.setattr(steps, "run", press)
            with pytest.raises(TrainingInterrupted):
                train(total, checkpoints=here, **options)
        assert steps_in(here) == [stop]
        resumed = train(total, checkpoints=here, resume=True, disturb=True, **options)
        assert everything(resumed, here) == expected, stop


def test_stopped_after_every_few_steps(folder):
    expected = everything(train(TOTAL, checkpoints=folder / "never"), folder / "never")
    here = Checkpoints(folder / "stopped", every=5, keep=1)
    for total in sorted({*np.random.default_rng(0).integers(1, TOTAL, 20), TOTAL}):
        disturb = here.folder.exists()
        result = train(int(total), checkpoints=here, resume=True, disturb=disturb)
    assert everything(result, here.folder) == expected


def test_a_stop_at_each_report_leaves_the_reports_as_they_were(folder):
    expected, reports = [], []
    train(TOTAL, checkpoints=folder / "never", callbacks=[told(expected)])
    for epoch in (1, 3, 4):
        train(TOTAL, checkpoints=folder / "here", resume=True, callbacks=[told(reports, epoch)])
    train(TOTAL, checkpoints=folder / "here", resume=True, callbacks=[told(reports)])
    assert reports == expected


def told(reports, until=None):
    def callback(report):
        mean = None if np.isnan(report.train_loss) else report.train_loss
        figures = report.step, report.total_steps, report.epoch, mean, report.test_acc
        reports.append((*figures, tuple(report.history.steps)))
        return report.epoch == until

    return callback


def test_a_learning_rate_that_a_callback_lowers_is_kept(folder):
    def lower(stop):
        def callback(report):
            if report.step:
                report.optimizer.lr *= 0.7
            return report.epoch == stop

        return callback

    results = []
    for stops in ([None], [2, None]):
        for stop in stops:
            net, optimizer = build(), optimizer_of("Momentum")
            callback = lower(stop)

            def with_optimizer(report, callback=callback, optimizer=optimizer):
                object.__setattr__(report, "optimizer", optimizer)
                return callback(report)

            here = folder / f"{len(stops)}"
            x, t = examples()
            history = fit(
                net, x, t, optimizer=optimizer, epochs=5, batch_size=10, seed=3, checkpoints=here,
                resume=True, callbacks=[with_optimizer],
            )  # fmt: skip
        results.append(everything((net, optimizer, history), here))
    assert results[0] == results[1]
    assert optimizer.lr == pytest.approx(optimizer_of("Momentum").lr * 0.7**5)


@pytest.mark.parametrize(("first", "then"), [(0.5, 1), (1, 0.5), (1, 1)])
@pytest.mark.parametrize("cls", [fastbp.MultiLayerNet, Layered], ids=["compiled", "layers"])
def test_a_learning_rate_may_be_an_integer(first, then, cls, folder):
    def training(stop, here):
        optimizer = fastbp.SGD(lr=0.1)
        optimizer.lr = first

        def callback(report):
            if report.step == 4:
                optimizer.lr = then
            return report.step == stop

        return train(
            12, given=optimizer, cls=cls, checkpoints=folder / here, resume=True,
            callbacks=[callback],
        )  # fmt: skip

    training(8, "here")
    assert everything(training(None, "here")) == everything(training(None, "never"))


def test_an_interrupt_before_the_report_of_an_epoch_gets_it_after_the_resume(folder, monkeypatch):
    expected = everything(train(TOTAL, checkpoints=folder / "never"), folder / "never")
    measure, calls = CompiledSteps.measure, []

    def press(self, *arguments):
        calls.append(1)
        if len(calls) == 6:  # training and validation data, the third time
            raise KeyboardInterrupt
        return measure(self, *arguments)

    monkeypatch.setattr(CompiledSteps, "measure", press)
    with pytest.raises(TrainingInterrupted) as caught:
        train(TOTAL, checkpoints=folder / "here")
    monkeypatch.undo()
    assert steps_in(folder / "here") == [len(caught.value.history)] == [8]
    assert caught.value.history.steps == [0, 4]
    resumed = train(TOTAL, checkpoints=folder / "here", resume=True)
    assert everything(resumed, folder / "here") == expected


def test_an_interrupt_within_a_step_saves_no_half_of_it(folder, monkeypatch):
    # As by a handler of the user's own, which nobody holds back.
    expected = everything(train(TOTAL, checkpoints=folder / "never"), folder / "never")
    run, calls = CompiledSteps.run, []

    def press(self, rows, begins):
        losses = run(self, rows, begins)
        calls.append(len(losses))
        if sum(calls) > 25:
            raise KeyboardInterrupt
        return losses

    monkeypatch.setattr(CompiledSteps, "run", press)
    with pytest.raises(TrainingInterrupted) as caught:
        train(TOTAL, checkpoints=Checkpoints(folder / "here", every=10))
    monkeypatch.undo()
    assert steps_in(folder / "here") == [10, 20]
    assert len(caught.value.history) <= 25
    resumed = train(TOTAL, checkpoints=folder / "here", resume=True)
    assert everything(resumed, folder / "here") == expected


def test_a_longer_training_is_that_which_was_long_from_the_start(folder):
    expected = everything(train(30, checkpoints=folder / "never"), folder / "never")
    train(10, checkpoints=folder / "here")  # within an epoch: a last report that the other has not
    assert everything(train(30, checkpoints=folder / "here", resume=True), folder / "here") == (
        expected
    )


def test_a_finished_training_is_left_as_it_is(folder):
    first = everything(train(TOTAL, checkpoints=folder), folder)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = train(TOTAL, checkpoints=folder, resume=True)
    assert everything(again, folder) == first
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_epochs_and_iterations_are_the_same_length(folder):
    x, t = examples()
    fit(build(), x, t, epochs=2, batch_size=10, seed=0, checkpoints=folder)
    history = fit(
        build(), x, t, iterations=12, batch_size=10, seed=0, checkpoints=folder, resume=True
    )
    assert len(history) == 12


def test_the_time_of_both_parts_is_added(folder):
    train(8, checkpoints=folder)
    (_, path) = Checkpoints(folder).files()[-1]
    first = fastbp.History(times=train(8, checkpoints=folder, resume=True)[2].times)
    history = train(TOTAL, checkpoints=folder, resume=True)[2]
    assert history.times[: len(first.times)] == first.times
    assert history.times == sorted(history.times)
    assert path.name == "step-000000008.safetensors"


def test_without_a_seed_a_shuffled_training_goes_on_with_its_own_batches(folder):
    train(20, checkpoints=folder, seed=None)
    results = []
    for copy in ("a", "b"):
        (folder / copy).mkdir()
        for path in folder.glob("*.safetensors"):
            (folder / copy / path.name).write_bytes(path.read_bytes())
        result = train(TOTAL, checkpoints=folder / copy, resume=True, seed=None)
        results.append(everything(result, folder / copy))
    assert results[0] == results[1]


class OnWindows:
    """A generator whose permutations are of int32, as NumPy 1 has them there."""

    def __init__(self, rng):
        self._rng = rng

    def __getattr__(self, name):
        return getattr(self._rng, name)

    def permutation(self, count):
        return self._rng.permutation(count).astype(np.int32)


def test_a_permutation_of_32_bit_integers_can_be_gone_on_with(folder, monkeypatch):
    expected = train(TOTAL)
    default_rng = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: OnWindows(default_rng(seed)))
    assert train(10, checkpoints=folder)[2] is not None
    resumed = train(TOTAL, checkpoints=folder, resume=True)
    monkeypatch.undo()
    assert everything(resumed) == everything(expected)


def test_the_callers_arrays_stay_the_callers(folder):
    train(8, checkpoints=folder)
    net = build()
    arrays = dict(net.params)
    train(TOTAL, net=net, checkpoints=folder, resume=True)
    assert all(net.params[key] is p for key, p in arrays.items())


class Lazy(fastbp.optimizer.Optimizer):
    """An optimizer of somebody's own, whose state begins with the first update."""

    def __init__(self):
        super().__init__(0.1)
        self.past = None
        self.rate = np.float32(0.9)
        self.count = 0

    def update(self, params, grads):
        self.past = {k: np.zeros_like(p) for k, p in params.items()} if not self.past else self.past
        self.count += 1
        self.latest = float(np.sum(grads["b1"]))
        for key, p in params.items():
            self.past[key] = self.rate * self.past[key] - self.lr * grads[key]
            p += self.past[key]


def test_an_optimizer_of_your_own_goes_on(folder):
    expected = train(TOTAL, given=Lazy(), checkpoints=folder / "never")
    train(11, given=Lazy(), checkpoints=folder / "here")
    resumed = train(TOTAL, given=Lazy(), checkpoints=folder / "here", resume=True)
    assert everything(resumed, folder / "here") == everything(expected, folder / "never")
    assert type(resumed[1].rate) is np.float32
    assert resumed[1].count == TOTAL


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
    def __init__(self):
        super().__init__()
        self.way = lambda: None


def test_what_no_checkpoint_holds_is_told_before_anything_is_trained(folder):
    net = build()
    before = everything((net, None, None))
    with pytest.raises(TypeError, match=r"cannot hold optimizer\.way, of type function"):
        train(TOTAL, net=net, given=Secret(), checkpoints=folder)
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
