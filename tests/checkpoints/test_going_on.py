"""Stopping and going on: the bits of a training that was never stopped, whatever happened."""

import signal

import numpy as np
import pytest

import fastbp
from fastbp import Checkpoints, TrainingInterrupted, fit
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
    steps_in,
    train,
)

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
