"""Ctrl-C within a report: who goes on from the checkpoint has the report whole."""

import numpy as np
import pytest
from resuming import everything, optimizer_of, train

import fastbp
from fastbp import Checkpoints, TrainingInterrupted
from fastbp.checkpoints import Keeper
from fastbp.steps import CompiledSteps

TOTAL, EPOCH = 20, 4


def halving(optimizer, before=lambda told: None, after=lambda told: None):
    """Return a callback that halves the learning rate and moves a weight."""

    def callback(told):
        before(told)
        if told.step:
            optimizer.lr *= 0.5
            told.network.params["b1"] += 0.125
        after(told)

    return callback


def press_at(step):
    def press(told):
        if told.step == step:
            raise KeyboardInterrupt

    return press


def run(folder, resume=False, **moments):
    optimizer = optimizer_of("Momentum")
    return train(
        TOTAL, given=optimizer, callbacks=[halving(optimizer, **moments)], resume=resume,
        checkpoints=Checkpoints(folder, every=EPOCH),
    )  # fmt: skip


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", range(0, TOTAL + 1, EPOCH))
def test_between_callbacks(step, moment, tmp_path):
    expected = everything(run(tmp_path / "never"), tmp_path / "never")
    with pytest.raises(TrainingInterrupted) as caught:
        run(tmp_path / "here", **{moment: press_at(step)})
    assert len(caught.value.history) == step
    assert not caught.value.unsaved
    assert Checkpoints(tmp_path / "here").files()[-1][0] == step
    resumed = run(tmp_path / "here", resume=True)
    assert everything(resumed, tmp_path / "here") == expected


def test_twice_at_the_same_report(tmp_path):
    expected = everything(run(tmp_path / "never"), tmp_path / "never")
    for resume in (False, True):
        with pytest.raises(TrainingInterrupted):
            run(tmp_path / "here", resume, after=press_at(2 * EPOCH))
    resumed = run(tmp_path / "here", resume=True)
    assert everything(resumed, tmp_path / "here") == expected


def test_while_the_best_network_is_kept(tmp_path, monkeypatch):
    run(tmp_path / "never")
    note, calls = Keeper.note, []

    def press(self):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        note(self)

    monkeypatch.setattr(Keeper, "note", press)
    with pytest.raises(TrainingInterrupted):
        run(tmp_path / "here")
    monkeypatch.undo()
    run(tmp_path / "here", resume=True)
    best = [fastbp.load_network(tmp_path / name / "best.safetensors") for name in ("never", "here")]
    assert best[0][1] == best[1][1]
    for key, p in best[0][0].params.items():
        np.testing.assert_array_equal(p, best[1][0].params[key])


def test_in_the_call_that_diverges(monkeypatch, tmp_path):
    original = CompiledSteps.run

    def press(self, rows, begins):
        original(self, rows, begins)
        for p in self.network.params.values():
            p[...] = np.nan
        self.take_up()
        raise KeyboardInterrupt

    monkeypatch.setattr(CompiledSteps, "run", press)
    net_and_all = {}
    with pytest.raises(TrainingInterrupted) as caught:
        train(
            TOTAL, checkpoints=tmp_path,
            callbacks=[lambda told: net_and_all.update(net=told.network)],
        )  # fmt: skip
    assert all(np.isfinite(p).all() for p in net_and_all["net"].params.values())
    assert "not whole" in caught.value.unsaved
    assert Checkpoints(tmp_path).files() == []
