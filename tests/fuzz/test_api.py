"""Ten thousand generated calls of the public API, and a judge that can find something."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastbp

from . import api
from .arguments import fixed
from .judge import Finding, Judge, Refusal, Want

SEED = 1  # of the calls below; the command takes others
CALLS = 10_000


def test_ten_thousand_calls(tmp_path):
    judge = Judge(tmp_path)
    findings = api.run(judge, SEED, CALLS)
    assert not findings, "\n".join(f"--seed {SEED} --only {n}: {f}" for n, f in findings)
    assert judge.calls >= CALLS
    assert sum(judge.outcomes.values()) == judge.calls
    # Each kind of outcome and each operation is among them.
    operations = {operation for operation, _ in judge.outcomes}
    assert operations >= {"relu", "Affine.backward", "fit", "Network.gradient", "Adam.update"}
    outcomes = {outcome for _, outcome in judge.outcomes}
    assert outcomes >= {"result", "TypeError", "ValueError", "IndexError", "RuntimeError"}
    refused = sum(n for (_, outcome), n in judge.outcomes.items() if outcome != "result")
    assert 0.1 * CALLS < refused < 0.6 * CALLS


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.sampled_from(sorted(api.CALLS, key=lambda f: f.__name__)), st.randoms())
def test_every_kind_of_case_with_choices_that_hypothesis_shrinks(tmp_path, case, r):
    case(Judge(tmp_path), r)


def test_a_case_depends_on_its_number_alone(tmp_path):
    seen = []
    for _ in range(2):
        judge = Judge(tmp_path)
        for number in (4, 17, 23):
            api.run_case(judge, 5, number)
        seen.append((judge.calls, judge.outcomes))
    assert seen[0] == seen[1]


# --- the judge -----------------------------------------------------------------------------------


def add_one(x):
    return x + 1


def into(x):
    x += 1
    return x.copy()


def same(x):
    return x


def warning(x):
    return np.log(x - 5)


def refusing(x):
    raise ValueError("add: x is no good")


def failing(x):
    raise KeyError("x")


def subclassed(x):
    raise UnicodeError("add: x is no good")


WANTED = Want(np.ones(3) + 1)
REFUSED = Refusal(ValueError, "add", "x")


@pytest.mark.parametrize(
    ("function", "want", "what"),
    [
        (lambda x: x + 1 + 1e-12, WANTED, "expected"),
        (lambda x: (x + 1).astype(np.float32), WANTED, "float32"),
        (lambda x: (x + 1)[:2], WANTED, "shape"),
        (lambda x: np.full(3, np.nan), WANTED, "nan"),
        (lambda x: np.full(3, np.inf), WANTED, "inf"),
        (into, WANTED, "changed its argument x"),
        (same, Want(np.ones(3)), "shares memory"),
        (warning, Want(np.full(3, np.nan)), "a warning leaks"),
        (failing, WANTED, "KeyError"),
        (refusing, WANTED, "expected a result"),
        (add_one, REFUSED, "accepted"),
        (failing, REFUSED, "KeyError"),
        (subclassed, REFUSED, "UnicodeError"),
        (refusing, Refusal(ValueError, "row 3"), "row 3"),
        (refusing, Refusal(TypeError, "add"), "TypeError"),
    ],
)
def test_the_judge_finds(tmp_path, function, want, what):
    def oracle(x):
        if isinstance(want, Refusal):
            raise want
        return want

    with pytest.raises(Finding, match=what):
        Judge(tmp_path).call("add", function, [fixed("x", np.ones(3))], oracle)


@pytest.mark.parametrize(("function", "want"), [(add_one, WANTED), (refusing, REFUSED)])
def test_the_judge_counts_what_is_right(tmp_path, function, want):
    def oracle(x):
        if isinstance(want, Refusal):
            raise want
        return want

    judge = Judge(tmp_path)
    judge.call("add", function, [fixed("x", np.ones(3))], oracle)
    assert judge.calls == 1
    assert list(judge.outcomes.values()) == [1]


def wrong_at_zero(x):
    return np.where(np.asarray(x) >= 0, 1, 0).astype(np.result_type(x))


def as_numpy_indexes(self, x, t):
    """Labels as NumPy takes them: -1 is the last class."""
    x = np.asarray(x)
    y = fastbp.softmax(x)
    return float(-np.log(y[np.arange(len(x)), t]).mean())


@pytest.mark.parametrize(
    ("owner", "name", "bug"),
    [
        (fastbp, "relu", lambda x: np.maximum(0, x)),  # a list, a masked array, an object
        (fastbp, "relu_grad", wrong_at_zero),
        (fastbp.Sigmoid, "backward", lambda self, dout: dout * self.out),
        (fastbp.SoftmaxWithLoss, "forward", as_numpy_indexes),
        (fastbp.Network, "decay", lambda self: 0.0),
    ],
)
def test_a_planted_bug_is_found(tmp_path, monkeypatch, owner, name, bug):
    getattr(owner, name)
    monkeypatch.setattr(owner, name, bug)
    assert api.run(Judge(tmp_path), SEED, 2000)


def test_the_command_counts_and_tells(tmp_path, capsys):
    arguments = api.parser().parse_args(["--calls", "40", "--seed", "9"])
    assert api.work(arguments, lambda number: None) == 0
    said = capsys.readouterr().out
    assert "seed 9: " in said
    assert " 0 findings" in said
    assert random.Random("9 0").random() == random.Random("9 0").random()


ENDS = """
import os, signal, sys, time
from tests.fuzz import api

def crash():
    os.kill(os.getpid(), signal.SIGSEGV)

def hang():
    time.sleep(600)

def fail():
    raise RuntimeError("the fuzzer's own")

def work(arguments, began):
    began(4711)
    {end}()
    return 0

api.SECONDS = 0.5
sys.exit(api.supervised(api.parser().parse_args(["--seed", "3"]), work))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("end", "code"), [("crash", -11), ("hang", 1), ("fail", 2)])
def test_the_case_that_ends_the_process_is_told(end, code):
    done = subprocess.run(
        [sys.executable, "-c", ENDS.format(end=end)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"\nit ended with {code} in --seed 3 --only 4711\n"
    assert done.returncode
    assert "work" in done.stderr  # where it was
