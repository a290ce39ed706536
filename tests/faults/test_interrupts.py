"""Ctrl-C and SIGTERM at random moments: what is left is that of a whole number of steps."""

import io
import itertools
import os
import random
import signal
import sys
import time

import numpy as np
import pytest
from child import HANGS_AFTER, finish, run, start
from interrupts import interrupted, require_consistent
from presses import Presses

import fastbp
from fastbp import report
from fastbp.cli import main
from fastbp.kernels.jit import JIT_DISABLED

pytestmark = [
    pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled, or it takes minutes"),
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no such timer"),
]
MOMENTS = 12


class Own(fastbp.Momentum):
    """An optimizer of a user's own: the training goes layer by layer."""


class Training:
    """A training that can be begun again and again, of any number of steps."""

    def __init__(self, optimizer, folder=None, callbacks=(), progress=False):
        rng = np.random.default_rng(0)
        self.x, self.t = rng.random((600, 20)), rng.integers(0, 3, 600)
        self.optimizer, self.folder, self.callbacks = optimizer, folder, callbacks
        self.progress = progress

    def __call__(self, iterations=10_000_000, resume=False):
        self.network = fastbp.MultiLayerNet(20, [12], 3, weight_decay_lambda=0.01, seed=0)
        self.taught = self.optimizer(lr=0.01)
        options = {"batch_size": 20, "seed": 0, "progress": self.progress}
        if self.folder is not None:
            options["checkpoints"] = fastbp.Checkpoints(self.folder, every=500)
        return fastbp.fit(
            self.network,
            self.x,
            self.t,
            optimizer=self.taught,
            validation_data=(self.x[:50], self.t[:50]),
            iterations=iterations,
            resume=resume,
            callbacks=self.callbacks,
            **options,
        )

    def bits(self):
        """Return the bits of parameters and of the optimizer's state."""
        state = [self.network.params, *(getattr(self.taught, s) for s in self.taught._slots)]
        return [{key: p.tobytes() for key, p in arrays.items()} for arrays in state]


def require_whole_steps(interrupted_one, history, fresh):
    """Compare with a training of as many steps that nobody interrupted."""
    require_consistent(history)
    assert len(history.steps) >= len(history) // 30
    if not history.train_loss_list:
        fresh.network = fastbp.MultiLayerNet(20, [12], 3, weight_decay_lambda=0.01, seed=0)
        assert interrupted_one.bits()[0] == {
            key: p.tobytes() for key, p in fresh.network.params.items()
        }
        return
    expected = fresh(len(history))
    assert history.train_loss_list == expected.train_loss_list
    reports = [step for step in history.steps if step % 30 == 0]
    assert reports == list(range(0, len(reports) * 30, 30))
    assert interrupted_one.bits() == fresh.bits()


@pytest.mark.parametrize("optimizer", [fastbp.SGD, fastbp.Adam, Own], ids=lambda c: c.__name__)
def test_ctrl_c_at_any_moment_leaves_whole_steps(optimizer):
    train, fresh = Training(optimizer), Training(optimizer)
    train(60)  # nothing is compiled when the clock runs
    for seed in range(MOMENTS):
        moment = random.Random(seed).uniform(0, 0.1)
        _, error = interrupted(train, moment)
        assert error is not None, f"seed {seed}"
        if isinstance(error, fastbp.TrainingInterrupted):
            require_whole_steps(train, error.history, fresh)


def test_ctrl_c_at_the_end_leaves_whole_steps():
    # As many steps as there are in the time: the signal comes around the last one.
    train, fresh = Training(fastbp.Adam), Training(fastbp.Adam)
    train(60)
    begin = time.perf_counter()
    train(60)
    needed = time.perf_counter() - begin
    for seed in range(MOMENTS):
        history = None

        def whole():
            nonlocal history
            history = train(60)

        _, error = interrupted(whole, needed * random.Random(seed).uniform(0.5, 1.1))
        if isinstance(error, fastbp.TrainingInterrupted):
            history = error.history
        if history is not None:
            require_whole_steps(train, history, fresh)


def swallowed(monkeypatch):
    """Return a list that gets every KeyboardInterrupt that Python prints and forgets."""
    lost = []

    def note(unraisable):  # a file that nobody closes any more is none
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            lost.append(unraisable.exc_value)

    monkeypatch.setattr(sys, "unraisablehook", note)
    return lost


@pytest.mark.parametrize("kept", [False, True], ids=["", "with checkpoints"])
def test_ctrl_c_before_any_bytecode_is_answered(kept, tmp_path, monkeypatch):
    # Also where Python prints and forgets what is raised: while an object dies, in a callback.
    lost = swallowed(monkeypatch)
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # the bar's

    def press(*moments):
        """Return whether it was answered, the moments that did not come, and the bytecodes."""
        folder = tmp_path / f"{moments}" if kept else None
        train = Training(fastbp.Adam, folder, [lambda report: None], progress=True)
        presses = Presses(signal.SIGINT, moments, lambda frame: True)
        try:
            with presses:
                train(4)
        except KeyboardInterrupt:
            return True, presses.moments, 0
        return False, presses.moments, next(presses.count)

    warnings = np.geterr()
    press()  # nothing is imported later
    bytecodes = press(-1)[2]
    for moment in random.Random(kept).sample(range(bytecodes), MOMENTS * 6):
        answered, unsent, _ = press(moment)
        np.seterr(**warnings)  # NumPy's own functions change this for a moment, too
        assert answered is not bool(unsent), moment
        assert not lost, moment


def test_ctrl_c_while_the_progress_bar_ends_is_answered(monkeypatch):
    lost = swallowed(monkeypatch)

    def press(moment):
        """Return whether it was answered, and what is left of the moments."""
        ends = False

        def at_the_end(frame):
            nonlocal ends
            ends = ends or frame.f_code is report.Bar.__exit__.__code__
            return ends

        presses = Presses(signal.SIGINT, [moment], at_the_end)
        try:
            with presses:
                Training(fastbp.SGD)(4)
        except KeyboardInterrupt:
            return True, presses.moments
        return False, presses.moments

    press(-1)
    warnings = np.geterr()
    for moment in itertools.count():
        answered, unsent = press(moment)
        assert answered is not bool(unsent), moment
        assert not lost, moment
        assert np.geterr() == warnings, moment
        if unsent:
            break
    assert moment > 30


def test_ctrl_c_while_the_progress_bar_dies_is_not_lost(monkeypatch):
    import tqdm.auto

    class Dying(tqdm.auto.tqdm):
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(tqdm.auto, "tqdm", Dying)
    with pytest.raises(fastbp.TrainingInterrupted) as caught:
        Training(fastbp.SGD)(60)
    assert len(caught.value.history) == 60


@pytest.mark.parametrize("seed", range(3))
def test_ctrl_c_leaves_a_checkpoint_from_which_the_training_goes_on(seed, tmp_path):
    train, fresh = Training(fastbp.Adam, tmp_path), Training(fastbp.Adam)
    fresh(60)
    _, error = interrupted(train, 0.02 + random.Random(seed).uniform(0, 0.1))
    if not isinstance(error, fastbp.TrainingInterrupted):
        return  # before the first step: nothing there is to go on from
    done = len(error.history)
    steps = [step for step, _ in fastbp.Checkpoints(tmp_path).files()]
    assert steps[-1:] == [done]
    history = train(done + 45, resume=True)
    expected = fresh(done + 45)
    assert history.train_loss_list == expected.train_loss_list
    assert train.bits() == fresh.bits()


@pytest.mark.parametrize("copy", ["unpack_slot", "pack_slot"])
def test_ctrl_c_while_parameters_are_copied_waits_until_they_are(copy, monkeypatch):
    # The moment is short; here Ctrl-C is made to come then.
    from fastbp.plan import Plan

    fresh = Training(fastbp.Adam)
    train = Training(fastbp.Adam, callbacks=[lambda report: None])
    real, calls = getattr(Plan, copy), []

    def press(*arguments):
        calls.append(copy)
        if len(calls) == 5:  # of two for each copy
            signal.raise_signal(signal.SIGINT)
        real(*arguments)

    monkeypatch.setattr(Plan, copy, press)
    with pytest.raises(fastbp.TrainingInterrupted) as caught:
        train(300)
    monkeypatch.undo()
    assert len(calls) > 5
    assert len(caught.value.history)
    require_whole_steps(train, caught.value.history, fresh)


# Interrupts the first training of a process, which loads or compiles, and then trains again.
FIRST = """
import json, random, sys, signal
sys.path[:0] = {paths!r}
from interrupts import interrupted
import numpy as np
import fastbp
import fastbp.trainer, fastbp.steps

rng = np.random.default_rng(0)
x, t = rng.random((100, 20)), rng.integers(0, 3, 100)

def train():
    global losses
    network = fastbp.MultiLayerNet(20, [12], 3, seed=0)
    losses = fastbp.fit(network, x, t, iterations=9, seed=0, threads=2).train_loss_list

latency, error = interrupted(train, random.Random({seed}).uniform(0.0, 0.6))
train()
first = losses
train()
print(json.dumps([first, losses, str(error)]))
"""


def test_ctrl_c_while_code_is_loaded_does_no_harm():
    tests = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120
    paths = [tests, os.path.dirname(__file__)]  # noqa: PTH120
    found = [run("-c", FIRST.format(paths=paths, seed=seed)) for seed in range(4)]
    for first, second, _ in found:
        assert first == second == found[0][0]


# Ctrl-C within LLVM's n-th call back into Python while a kernel is compiled.
SWALLOWED = """
import json, signal, sys
from numba.core.codegen import JITCPUCodegen

calls, begin = 0, JITCPUCodegen._library_class._object_compiled_hook.__func__

def compiled(cls, module, code):
    global calls
    calls += _interrupt._hold is not None
    if calls == {nth}:
        signal.raise_signal(signal.SIGINT)
    begin(cls, module, code)

JITCPUCodegen._library_class._object_compiled_hook = classmethod(compiled)
sys.unraisablehook = lambda unraisable: None  # LLVM's, which is the point
import numpy as np
import fastbp
from fastbp import _interrupt

try:
    fastbp.softmax(np.zeros((2, 3)))
    answer = "none"
except KeyboardInterrupt:
    answer = "answered"
print(json.dumps([answer, calls, fastbp.softmax(np.zeros((2, 2))).tolist()]))
"""


def test_ctrl_c_that_llvm_swallows_is_answered(tmp_path):
    def press(nth):
        empty = str(tmp_path / f"{nth}")
        answer, calls, result = run("-c", SWALLOWED.format(nth=nth), FASTBP_CACHE_DIR=empty)
        assert result == [[0.5, 0.5], [0.5, 0.5]]
        return answer, calls

    answer, calls = press(10**6)
    assert answer == "none"
    assert calls > 1
    for nth in (1, calls // 2, calls):
        assert press(nth)[0] == "answered"


def test_code_is_compiled_where_ctrl_c_is_answered(tmp_path, monkeypatch):
    from fastbp import _interrupt, engine

    train, held = Training(fastbp.Adam, tmp_path), []
    train(7)  # in the middle of an epoch: the first thing to do is a step

    def ready(*arguments):
        held.append(_interrupt._hold is not None)
        return real(*arguments)

    real = engine.Engine._ready
    monkeypatch.setattr(engine.Engine, "_ready", ready)
    train(9, resume=True)
    assert held[0] is False
    assert True in held  # when it is there already


def test_callbacks_find_sigint_as_it_was():
    found = []
    (x, t), _ = fastbp.load_digits()
    network = fastbp.TwoLayerNet(64, 5, 10)
    fastbp.fit(
        network, x, t, epochs=1, callbacks=[lambda _: found.append(signal.getsignal(signal.SIGINT))]
    )
    assert found == [signal.default_int_handler] * 2


# --- fastbp train --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_a_command_that_is_interrupted_keeps_whole_steps(number, code, tmp_path):
    out = tmp_path / "out"
    arguments = ("--seed", 0, "--epochs", 100_000, "--out", out)
    program = start("-m", "fastbp", "train", *arguments)
    for line in program.stdout:
        if line.split()[:1] == ["1"]:  # the first epoch is over
            break
    time.sleep(random.Random(code).uniform(0, 0.3))
    program.send_signal(number)
    _, err = finish(program, HANGS_AFTER)
    assert program.returncode == code, err
    history = fastbp.History.load(out / "history.json")
    require_consistent(history)
    assert f"Interrupted after {len(history):,} steps" in err
    same = ["--seed", "0", "--iterations", str(len(history)), "--out", str(tmp_path / "fresh")]
    assert main(["train", "--quiet", *same]) == 0
    expected = fastbp.History.load(tmp_path / "fresh" / "history.json")
    assert expected.train_loss_list == history.train_loss_list
    networks = [fastbp.load_network(folder)[0] for folder in (out, tmp_path / "fresh")]
    for key, p in networks[1].params.items():
        assert networks[0].params[key].tobytes() == p.tobytes()
