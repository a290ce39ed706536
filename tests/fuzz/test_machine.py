"""The life of a network: calls in any order, some of them broken, beside a twin in NumPy.

Hypothesis chooses what happens next and shrinks what goes wrong to the shortest such life.  What is
refused must leave everything as it was; what is done must be what the twin does.
"""

import copy
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import fastbp
import fastbp.checkpoints
import fastbp.report
from fastbp import optimizer, reference

from .model import Model

N = 40
SIZES = [(4, 5, 3), (7, 9, 4), (6, 3), (5, 8, 6, 3)]
# Of a step's length, so that an optimizer cannot make a rounding error into a step.
LR = {"SGD": 0.1, "Momentum": 0.05, "Nesterov": 0.05, "AdaGrad": 0.1, "RMSprop": 0.01, "Adam": 0.01}
# Relative to the largest parameter; some hundred steps add up their rounding errors.
TOLERANCE = 1e-7

rules = st.sampled_from(sorted(LR))
seeds = st.integers(0, 2**32 - 1)
counts = st.integers(1, 12)


class Life(RuleBasedStateMachine):
    """A network of sigmoids in float64, which have no kinks, and what it should be."""

    @initialize(sizes=st.sampled_from(SIZES), seed=seeds, decay=st.sampled_from([0.0, 0.01]))
    def is_built(self, sizes, seed, decay):
        D, *hidden, C = sizes
        self.net = fastbp.MultiLayerNet(
            D, hidden, C, "sigmoid", weight_decay_lambda=decay, dtype=np.float64, seed=seed
        )
        self.twin = Model(self.net.sizes, "sigmoid", decay).take(self.net.params)
        rng = np.random.default_rng(seed)
        self.x, self.t = rng.normal(size=(N, D)), rng.integers(0, C, N)
        self.threads = fastbp.get_num_threads()

    def teardown(self):
        if hasattr(self, "threads"):
            fastbp.set_num_threads(self.threads)

    def twin_steps(self, name, seed, size, steps):
        update = getattr(reference, name)(LR[name])
        for batch in np.random.default_rng(seed).integers(0, N, (steps, size)):
            update.update(self.twin.params, self.twin.losses(self.x[batch], self.t[batch])[1])

    def fit(self, name, seed, size, steps, **more):
        return fastbp.fit(
            self.net, self.x, self.t, optimizer=optimizer.OPTIMIZERS[name.lower()](lr=LR[name]),
            batch_size=size, sampling="choice", seed=seed, iterations=steps, progress=False, **more,
        )  # fmt: skip

    # --- what changes it -------------------------------------------------------------------------

    @rule(name=rules, seed=seeds, size=st.integers(1, N), steps=counts)
    def is_trained(self, name, seed, size, steps):
        assert len(self.fit(name, seed, size, steps)) == steps
        self.twin_steps(name, seed, size, steps)

    @rule(name=rules, seed=seeds, steps=counts, more=counts)
    def is_trained_in_two_sittings(self, name, seed, steps, more):
        with tempfile.TemporaryDirectory() as folder:
            self.fit(name, seed, 10, steps, checkpoints=folder)
            for p in self.net.params.values():
                p += 1  # what the checkpoint has is what counts
            history = self.fit(name, seed, 10, steps + more, checkpoints=folder, resume=True)
        assert len(history) == steps + more
        self.twin_steps(name, seed, 10, steps + more)

    @rule(name=rules, rows=st.integers(1, N), steps=st.integers(1, 3))
    def is_trained_by_a_loop_of_the_users(self, name, rows, steps):
        ours, plain = optimizer.OPTIMIZERS[name.lower()](lr=LR[name]), getattr(reference, name)
        theirs = plain(LR[name])
        for _ in range(steps):
            ours.update(self.net.params, self.net.gradient(self.x[:rows], self.t[:rows]))
            theirs.update(self.twin.params, self.twin.losses(self.x[:rows], self.t[:rows])[1])

    @rule(seed=seeds, in_place=st.booleans(), data=st.data())
    def gets_a_parameter(self, seed, in_place, data):
        key = data.draw(st.sampled_from(sorted(self.net.params)))
        new = np.random.default_rng(seed).normal(size=self.net.params[key].shape)
        if in_place:
            self.net.params[key][...] = new
        else:
            self.net.params[key] = new.copy()
        self.twin.params[key] = new

    @rule()
    def goes_into_a_file_and_back(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.safetensors"
            fastbp.save_network(path, self.net)
            self.net, _ = fastbp.load_network(path)

    @rule()
    def is_copied(self):
        self.net = copy.deepcopy(self.net)

    @rule(count=st.sampled_from([1, 2]))
    def gets_threads(self, count):
        fastbp.set_num_threads(count)

    @rule(seed=seeds)
    def diverges(self, seed):
        before = {key: p.copy() for key, p in self.net.params.items()}
        with pytest.raises(fastbp.DivergedError, match="learning rate"):
            fastbp.fit(
                self.net, 1e200 * self.x, self.t, optimizer=fastbp.SGD(lr=1e200),
                batch_size=10, seed=seed, iterations=30,
            )  # fmt: skip
        assert all(np.isfinite(p).all() for p in self.net.params.values())
        for key, p in before.items():
            self.net.params[key][...] = p

    # --- what is refused -------------------------------------------------------------------------

    @rule(
        method=st.sampled_from(["loss", "gradient", "accuracy", "evaluate", "fit"]),
        broken=st.sampled_from(["label", "negative", "rows", "columns", "nan", "mask", "floats"]),
        row=st.integers(0, N - 1),
    )
    def refuses(self, method, broken, row):
        x, t = self.x.copy(), self.t.copy()
        error = ValueError
        if broken in ("label", "negative"):
            t[row], error = (self.net.sizes[-1] if broken == "label" else -1), IndexError
        elif broken == "rows":
            t = t[:-1]
        elif broken == "columns":
            x = x[:, 1:]
        elif broken == "nan":
            if method != "fit":
                return  # is computed with
            x[row, 0] = np.nan
        elif broken == "mask":
            x, error = np.ma.array(x, mask=x > 1), TypeError
        else:
            t, error = t.astype(float), TypeError
        call = getattr(self.net, method, partial(fastbp.fit, self.net, epochs=1))
        with pytest.raises(error) as caught:
            call(x, t)
        assert type(caught.value) is error
        assert ":" in str(caught.value)

    # --- what it must be -------------------------------------------------------------------------

    @invariant()
    def has_the_parameters_of_its_twin(self):
        if not hasattr(self, "net"):
            return
        for key, p in self.twin.params.items():
            ours = self.net.params[key]
            assert ours.dtype == np.float64
            np.testing.assert_allclose(ours, p, rtol=0, atol=TOLERANCE * (1 + np.abs(p).max()))
        # From here on with the same digits, or differences would add up over a long life.
        self.twin.take(self.net.params)

    @rule(rows=st.integers(1, N))
    def computes_what_its_twin_does(self, rows):
        x, t = self.x[:rows], self.t[:rows]
        losses, grads = self.twin.losses(x, t)
        expected = losses.mean() + self.twin.penalty()
        assert self.net.loss(x, t) == pytest.approx(expected, rel=1e-11)
        logits, _ = self.twin.logits(x)
        np.testing.assert_allclose(self.net.predict(x), logits, rtol=1e-9, atol=1e-10)
        for key, g in self.net.gradient(x, t).items():
            scale = np.abs(grads[key]).max() + 1e-12
            np.testing.assert_allclose(g, grads[key], rtol=0, atol=1e-10 * scale + 1e-15)


SETTINGS = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)

TestLife = Life.TestCase
TestLife.settings = SETTINGS


def a_step_too_long(self, params, grads):
    for key in params:
        params[key] -= 1.01 * self.lr * grads[key]


@pytest.mark.parametrize(
    ("owner", "name", "bug"),
    [
        (fastbp.SGD, "update", a_step_too_long),
        (fastbp.Network, "decay", lambda self: 0.0),
        (fastbp.checkpoints.Keeper, "begin", lambda self, resume: None),
        (fastbp.report.Meter, "restore_finite", lambda self: None),
    ],
    ids=["a step too long", "no decay", "no resume", "NaN left behind"],
)
def test_a_planted_bug_is_found(owner, name, bug, monkeypatch):
    monkeypatch.setattr(owner, name, bug)
    quick = settings(
        SETTINGS, phases=[Phase.generate], report_multiple_bugs=False, print_blob=False
    )
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        run_state_machine_as_test(Life, settings=quick)
