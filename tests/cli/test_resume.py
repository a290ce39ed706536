"""``fastbp train --checkpoint-every``, ``--resume`` and SIGTERM."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastbp
from fastbp import checkpoints
from fastbp.cli import settings, train
from fastbp.history import History

pytest.importorskip("safetensors", reason="needs the extra train")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Hide matplotlib: drawing takes longer than the training."""
    monkeypatch.setattr(train, "find_spec", lambda name: None if name == "matplotlib" else object())


def kept(folder):
    """Return the bits of the results: parameters, losses and log."""
    network, notes = fastbp.load_network(folder)
    lists = History.load(folder / "history.json").to_dict()
    for name in ("times", "examples_per_second"):
        lists[name] = len(lists[name])
    return {k: p.tobytes() for k, p in network.params.items()}, notes, lists


def steps_in(folder):
    return [step for step, _ in fastbp.Checkpoints(folder / "checkpoints").files()]


def stop(monkeypatch, epoch):
    """Press Ctrl-C in the report of an epoch."""
    line = train._Table.line

    def press(self, report):
        line(self, report)
        if report.epoch == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(train._Table, "line", press)


# Three epochs of 144 steps.
LENGTH = ("--epochs", 3)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--optimizer", "adam", "--lr", "0.003", "--dtype", "float32", "--hidden", "20,10"),
        ("--sampling", "choice", "--weight-decay", "0.001", "--activation", "sigmoid"),
        ("--seed", "5", "--batch-size", "7", "--weight-init-std", "0.05", "--optimizer", "adagrad"),
    ],
)  # fmt: skip
def test_a_stopped_training_goes_on_with_what_was_said_at_first(
    run, tmp_path, options, monkeypatch
):
    assert run("train", *LENGTH, *options, "--out", tmp_path / "never").code == 0
    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop(patch, 2)
        code, _, err = run("train", *LENGTH, *options, "--out", out, "--checkpoint-every", 50)
    assert code == 130
    assert err.endswith(f"Go on with: fastbp train --resume {out}\n")
    assert len(History.load(out / "history.json")) == steps_in(out)[-1]
    code, shown, err = run("train", "--resume", out)
    assert (code, err) == (0, "")
    assert shown.startswith(f"Going on in {out}\ndigits: ")
    assert kept(out) == kept(tmp_path / "never")


def test_checkpoints_are_where_they_should_be(run, tmp_path):
    out = tmp_path / "kept"
    options = ("--iterations", 100, "--checkpoint-every", 30, "--checkpoint-keep", 2)
    assert run("train", "--out", out, *options).code == 0
    assert steps_in(out) == [90, 100]
    assert fastbp.load_network(out / "checkpoints" / "best.safetensors")
    names = {path.name for path in out.iterdir()}
    assert names == {"checkpoints", "history.json", "model.safetensors", "training.json"}


def test_three_are_kept_by_default(run, tmp_path):
    run("train", "--out", tmp_path / "kept", "--iterations", 100, "--checkpoint-every", 10)
    assert steps_in(tmp_path / "kept") == [80, 90, 100]


def test_a_training_can_be_longer(run, tmp_path):
    out = tmp_path / "here"
    assert run("train", "--epochs", 3, "--out", tmp_path / "never").code == 0
    assert run("train", "--epochs", 1, "--out", out, "--checkpoint-every", 50).code == 0
    assert run("train", "--epochs", 2, "--resume", out).code == 0
    assert run("train", "--iterations", 3 * 144, "--resume", out).code == 0
    assert kept(out) == kept(tmp_path / "never")
    assert run("train", "--resume", out).code == 0  # as long as last
    assert kept(out) == kept(tmp_path / "never")


def test_a_finished_training_is_told_again(run, tmp_path):
    out = tmp_path / "here"
    first = run("train", "--epochs", 1, "--out", out, "--checkpoint-every", 50)
    before = kept(out)
    again = run("train", "--resume", out)
    assert again.code == 0
    summary = re.compile(r"Test accuracy .* right")
    assert summary.search(again.out)[0] == summary.search(first.out)[0]
    assert kept(out) == before


def test_without_a_checkpoint_a_training_begins_anew(run, tmp_path, monkeypatch):
    assert run("train", *LENGTH, "--seed", 4, "--out", tmp_path / "never").code == 0
    out = tmp_path / "here"
    with monkeypatch.context() as patch:
        patch.setattr(fastbp.trainer, "fit", lambda *_, **__: sys.exit(9))  # as if killed at once
        run("train", *LENGTH, "--seed", 4, "--out", out, "--checkpoint-every", 50)
    assert not (out / "checkpoints").exists()
    assert run("train", "--resume", out).code == 0
    assert kept(out) == kept(tmp_path / "never")


def test_a_damaged_newest_one_is_skipped_and_told(run, tmp_path):
    out = tmp_path / "here"
    options = ("--iterations", 100, "--checkpoint-every", 30)
    assert run("train", "--out", out, *options).code == 0
    path = out / "checkpoints" / "step-000000100.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    before = kept(out)
    with pytest.warns(UserWarning, match=f"^fit: a checkpoint is skipped: {path}: "):
        assert run("train", "--resume", out).code == 0
    assert kept(out) == before


def test_from_another_folder_and_with_another_name(run, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", x=rng.random((40, 5)), t=rng.integers(0, 3, 40))
    options = ("--data", "mine.npz", "--checkpoint-every", 10)
    assert run("train", *options, "--iterations", 20, "--out", "a").code == 0
    assert run("train", *options, "--iterations", 40, "--out", "never").code == 0
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a").rename(tmp_path / "b")
    monkeypatch.chdir(tmp_path / "elsewhere")
    said = ("--iterations", 40, "--data", tmp_path / "mine.npz")
    assert run("train", "--resume", tmp_path / "b", *said).code == 0
    assert kept(tmp_path / "b") == kept(tmp_path / "never")


def test_data_that_changed_are_told(run, tmp_path):
    rng = np.random.default_rng(0)
    x, t = rng.random((40, 5)), rng.integers(0, 3, 40)
    np.savez("mine.npz", x=x, t=t)
    run("train", "--data", "mine.npz", "--iterations", 20, "--out", "a", "--checkpoint-every", 10)
    x[3, 3] += 1
    np.savez("mine.npz", x=x, t=t)
    code, _, err = run("train", "--resume", "a", "--iterations", 30)
    assert code == 1
    assert "step-000000020.safetensors is of another training: data was" in err


# -- What is refused ------------------------------------------------------------------------------


@pytest.fixture
def out(run, tmp_path):
    """The folder of a training of 20 steps."""
    folder = tmp_path / "here"
    assert run("train", "--iterations", 20, "--out", folder, "--checkpoint-every", 10).code == 0
    return folder


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--hidden", "7"), "argument --hidden: the training in .* has 50, not 7"),
        (("--hidden", "50,50"), "has 50, not 50,50"),
        (("--data", "mnist"), "argument --data: .* has digits, not mnist"),
        (("--activation", "sigmoid"), "has relu, not sigmoid"),
        (("--dtype", "float32"), "has float64, not float32"),
        (("--seed", "1"), "argument --seed: .* has 0, not 1"),
        (("--optimizer", "adam"), "has sgd, not adam"),
        (("--lr", "0.2"), "argument --lr: .* has 0.1, not 0.2"),
        (("--weight-decay", "0.5"), "argument --weight-decay: .* has 0.0, not 0.5"),
        (("--weight-init-std", "1"), "argument --weight-init-std: .* has None, not 1.0"),
        (("--batch-size", "11"), "argument --batch-size: .* has 10, not 11"),
        (("--sampling", "choice"), "has shuffle, not choice"),
        (("--out", "there"), "argument --out: --resume goes on in .*; leave it away"),
        (("--force",), "argument --force: --resume goes on in"),
    ],
)
def test_options_that_contradict(refused, out, options, says):
    before = kept(out), (out / "training.json").read_bytes()
    refused("train", "--resume", out, *options, says=says)
    assert (kept(out), (out / "training.json").read_bytes()) == before


def test_fewer_steps_than_there_are(run, out):
    before = kept(out), (out / "training.json").read_bytes()
    result = run("train", "--resume", out, "--iterations", 19)
    assert result.code == 1
    assert "20 steps already, more than the 19 asked for" in result.err
    assert (kept(out), (out / "training.json").read_bytes()) == before


def test_a_length_that_was_mistyped_can_be_taken_back(run, out):
    # As if it had been stopped soon after the start.
    about = out / "training.json"
    about.write_text(about.read_text().replace("--iterations=20", "--iterations=100000"))
    assert run("train", "--resume", out, "--iterations", 24, "--quiet").code == 0
    assert steps_in(out)[-1] == 24
    assert "--iterations=24" in about.read_text()


def test_options_that_agree(run, out):
    said = ("--hidden", 50, "--lr", 0.1, "--seed", 0, "--batch-size", 10, "--data", "digits")
    assert run("train", "--resume", out, *said, "--threads", 1, "--quiet").code == 0


def test_how_many_checkpoints_may_change(run, out):
    options = ("--iterations", 40, "--checkpoint-every", 4, "--checkpoint-keep", 2)
    assert run("train", "--resume", out, *options).code == 0
    assert steps_in(out) == [36, 40]


def test_checkpoints_need_a_folder(refused):
    refused("train", "--checkpoint-every", 10, says="--checkpoint-every: needs .* --out DIR")


def test_keep_needs_every(refused, tmp_path):
    says = "--checkpoint-keep: needs --checkpoint-every N"
    refused("train", "--out", tmp_path / "x", "--checkpoint-keep", 2, says=says)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("option", ["--checkpoint-every", "--checkpoint-keep"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many"])
def test_no_positive_integer(refused, option, value):
    refused("train", option, value, says=f"argument {option}: .* is not a positive integer")


def test_a_folder_without_a_training(refused, run, tmp_path):
    says = r"has no training to go on with; .*--checkpoint-every N"
    refused("train", "--resume", tmp_path, says=says)
    refused("train", "--resume", tmp_path / "missing", says=says)
    run("train", "--iterations", 4, "--out", tmp_path / "kept")
    refused("train", "--resume", tmp_path / "kept", says=says)


def test_resume_without_safetensors(refused, out, monkeypatch):
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    refused("train", "--resume", out, says=r"pip install 'fastbp\[train\]'")


GOOD = ["--lr=0.1", "--batch-size=10", "--iterations=20", "--checkpoint-every=10"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff", b"[]", b"3", b"null", b"[" * 50_000, b'{"format": "x"}',
        b'{"format": "fastbp training, version 1"}',
        *(
            json.dumps({"format": "fastbp training, version 1", "arguments": a}).encode()
            for a in (
                None, 3, "abc", [], [3], ["train"], ["--hidden"], ["--force"], [*GOOD, "--help"],
                [*GOOD, "--hidden=0"], [*GOOD, "--lr=nan"], [*GOOD, "--unknown=1"],
                [*GOOD, "--epochs=3"], GOOD[1:], GOOD[:1] + GOOD[2:], GOOD[:2] + GOOD[3:], GOOD[:3],
            )
        ),
    ],
)  # fmt: skip
def test_damaged_settings(refused, out, content):
    (out / "training.json").write_bytes(content)
    refused("train", "--resume", out, says=r"argument --resume: .*training\.json is damaged")


def test_the_settings_the_damaged_ones_are_made_of(run, out):
    content = {"format": "fastbp training, version 1", "arguments": GOOD}
    (out / "training.json").write_text(json.dumps(content))
    assert run("train", "--resume", out).code == 0


def test_force_begins_anew(run, out, tmp_path):
    length = ("--iterations", 15, "--seed", 3)
    assert run("train", *length, "--out", tmp_path / "never").code == 0
    code = run("train", *length, "--out", out, "--force", "--checkpoint-every", 10).code
    assert code == 0
    assert steps_in(out) == [10, 15]
    assert kept(out) == kept(tmp_path / "never")


def test_force_without_checkpoints_leaves_none_of_the_old(run, refused, out):
    assert run("train", "--iterations", 4, "--out", out, "--force").code == 0
    assert steps_in(out) == []
    refused("train", "--resume", out, says="has no training to go on with")


def test_a_full_disk(run, out, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(checkpoints, "write_atomically", full)
    code, _, err = run("train", "--resume", out, "--iterations", 40)
    assert code == 1
    assert "the checkpoint of step 30 cannot be saved (No space left on device)" in err
    assert len(err.splitlines()) == 1
    monkeypatch.undo()
    assert steps_in(out) == [10, 20]


# -- As a program ---------------------------------------------------------------------------------

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def begin(start, *options):
    """Start an endless training, and wait until it has steps behind it."""
    program = start(
        "train", "--iterations", 10**7, "--threads", 1, *options, stdout=subprocess.PIPE
    )  # fmt: skip
    for line in program.stdout:
        if line.startswith("     2 "):
            return program
    return pytest.fail("it ended")


@posix
@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_leaves_a_checkpoint_from_which_it_goes_on(start, run, tmp_path, number, code):
    program = begin(start, "--out", "kept", "--checkpoint-every", 10**6)
    program.send_signal(getattr(signal, number))
    _, err = program.communicate(timeout=60)
    assert program.returncode == code
    assert "Traceback" not in err
    steps = int(re.search(r"^Interrupted after ([\d,]+) steps", err, re.M)[1].replace(",", ""))
    out = tmp_path / "kept"
    assert steps_in(out) == [steps]
    assert len(History.load(out / "history.json")) == steps
    shorten(out, steps + 50)
    assert run("train", "--resume", out).code == 0
    assert run("train", "--iterations", steps + 50, "--out", tmp_path / "never").code == 0
    assert kept(out) == kept(tmp_path / "never")


def shorten(out, steps):
    """Let a training that would take for ever end after so many steps."""
    path = out / "training.json"
    path.write_text(path.read_text().replace("--iterations=10000000", f"--iterations={steps}"))


@posix
def test_sigterm_without_checkpoints_keeps_what_there_is(start, tmp_path):
    program = begin(start, "--out", "kept")
    program.send_signal(signal.SIGTERM)
    _, err = program.communicate(timeout=60)
    assert program.returncode == 143
    assert "Go on with" not in err
    assert {path.name for path in (tmp_path / "kept").iterdir()} >= {
        "model.safetensors", "history.json"
    }  # fmt: skip


@posix
def test_sigterm_where_ctrl_c_is_ignored(start, tmp_path):
    # As a script's `fastbp train &` has it.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        program = begin(start, "--out", "kept", "--checkpoint-every", 10**6)
    finally:
        signal.signal(signal.SIGINT, before)
    program.send_signal(signal.SIGINT)
    program.send_signal(signal.SIGTERM)
    _, err = program.communicate(timeout=60)
    assert program.returncode == 143, err
    assert len(steps_in(tmp_path / "kept")) == 1


@posix
def test_killed_without_warning_it_goes_on(start, run, tmp_path):
    program = begin(start, "--out", "kept", "--checkpoint-every", 20)
    program.kill()
    program.wait(timeout=60)
    out = tmp_path / "kept"
    steps = steps_in(out)[-1] + 50
    shorten(out, steps)
    assert run("train", "--resume", out).code == 0
    assert run("train", "--iterations", steps, "--out", tmp_path / "never").code == 0
    assert kept(out) == kept(tmp_path / "never")
    assert not list(Path(out / "checkpoints").glob(".fastbp-*"))
