import re

import numpy as np
import pytest

import fastbp
from fastbp.network import Network

T = np.arange(30) % 3
X = np.random.default_rng(0).normal(size=(30, 4))


@pytest.fixture
def save_npz(tmp_path):
    """Return a function that saves arrays as a .npz and returns the path."""

    def save(**arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        return tmp_path / "data.npz"

    return save


@pytest.fixture
def wrong_gradient(monkeypatch):
    """Return a function that makes the gradient of a parameter wrong by 0.1 %."""
    right = Network.gradient

    def break_it(key):
        def gradient(self, x, t):
            grads = right(self, x, t)
            grads[key] = grads[key] * 1.001
            return grads

        monkeypatch.setattr(Network, "gradient", gradient)

    return break_it


def verdicts(out):
    """Return name and verdict of each row of the table."""
    row = r"^([Wb]\d)\s+\(.*\)\s+\d\.\d\de[-+]\d\d\s+\d\.\d\de[-+]\d\d  (.*)$"
    return dict(re.findall(row, out, re.MULTILINE))


# -- What passes ----------------------------------------------------------------------------------


def test_no_arguments(run):
    code, out, err = run("check")
    assert (code, err) == (0, "")
    assert out.startswith("MultiLayerNet(64-50-10, relu, float64), 3 examples of digits\n")
    assert verdicts(out) == dict.fromkeys(("W1", "b1", "W2", "b2"), "ok")
    assert out.endswith("\nAll gradients agree with central differences.\n")


@pytest.mark.parametrize(
    "options",
    [
        ("--dtype", "float32"),
        ("--activation", "sigmoid"),
        ("--activation", "sigmoid", "--dtype", "float32"),
        ("--seed", "1"),
        ("--weight-init-std", "0.01"),
        ("--weight-init-std", "0"),
        ("--images", "1"),
        ("--images", "20"),
        ("--threads", "1"),
    ],
    ids=" ".join,
)
def test_options(run, options):
    code, out, _ = run("check", "--hidden", "6", *options)
    assert code == 0
    assert set(verdicts(out).values()) == {"ok"}


def test_every_parameter_of_a_deep_network(run):
    out = run("check", "--hidden", "8,7,6").out
    assert list(verdicts(out)) == ["W1", "b1", "W2", "b2", "W3", "b3", "W4", "b4"]


def test_options_reach_the_network(run):
    options = ("--hidden", "5,4", "--activation", "sigmoid", "--dtype", "float32", "--images", 7)
    first = run("check", *options).out.splitlines()[0]
    assert first == "MultiLayerNet(64-5-4-10, sigmoid, float32), 7 examples of digits"


@pytest.mark.parametrize("option", [("--seed", 1), ("--images", 4), ("--weight-init-std", 0.5)])
def test_options_change_the_differences(run, option):
    assert run("check", "--hidden", 3, *option).out != run("check", "--hidden", 3).out


def test_npz(run, save_npz):
    path = save_npz(x=X, t=T)
    code, out, _ = run("check", "--data", path)
    assert code == 0
    assert out.startswith(f"MultiLayerNet(4-50-3, relu, float64), 3 examples of {path}\n")


def test_all_the_examples_there_are(run, save_npz):
    assert run("check", "--data", save_npz(x=X, t=T), "--images", 24).code == 0  # of 30


@pytest.mark.parametrize("seed", range(5))
def test_dead_units_do_not_fail(run, seed):
    # In so thin a network an image can find every unit of the first layer at zero.  The next
    # layer's are then at their bias, 0, exactly where the ReLU has its kink.
    assert run("check", "--hidden", "2,2", "--seed", seed).code == 0


def test_quiet(run):
    assert run("check", "--quiet", "--hidden", 3) == (0, "", "")


# -- What fails -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["W1", "b1", "W2", "b2"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_wrong_gradient(run, wrong_gradient, key, dtype):
    wrong_gradient(key)
    code, out, err = run("check", "--hidden", 5, "--dtype", dtype)
    assert code == 1
    assert re.fullmatch(r"fastbp check: .*gradients.* WRONG.*\n", err)
    found = verdicts(out)
    assert re.fullmatch(r"WRONG in \d+ of \d+", found.pop(key))
    assert set(found.values()) == {"ok"}
    assert "All gradients agree" not in out


def test_gradient_of_nan(run, monkeypatch):
    right = Network.gradient
    monkeypatch.setattr(
        Network, "gradient", lambda *batch: {k: g * np.nan for k, g in right(*batch).items()}
    )
    code, out, _ = run("check", "--hidden", 1)
    assert code == 1
    assert out.count("WRONG in") == 4


def test_quiet_failure_is_not_silent(run, wrong_gradient):
    wrong_gradient("W2")
    code, out, err = run("check", "--hidden", 3, "--quiet")
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "WRONG" in err


# -- Wrong use ------------------------------------------------------------------------------------


def test_more_images_than_there_are(refused):
    (x, _), _ = fastbp.load_digits()
    says = f"argument --images: {len(x) + 1} is more than the {len(x)} there are"
    refused("check", "--images", len(x) + 1, says=says)


@pytest.mark.parametrize("value", ["0", "-1", "2.5", "all", "", "nan"])
def test_no_number_of_images(refused, value):
    says = f"argument --images: '{value}' is not a positive integer$"
    refused("check", f"--images={value}", says=says)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--data", "cifar", "'cifar' is not digits, mnist or the path of a .npz file"),
        ("--data", "none.npz", "none.npz: No such file or directory"),
        ("--hidden", "0", "'0' is not a list of positive integers"),
        ("--activation", "tanh", "invalid choice: 'tanh'"),
        ("--dtype", "float16", "invalid choice: 'float16'"),
        ("--seed", "-1", "'-1' is not an integer of at least 0"),
        ("--weight-init-std", "nan", "'nan' is not a number of at least 0"),
        ("--threads", "0", "'0' is not a positive integer"),
        ("--threads", "100000", "100000.* from 1 to "),
    ],
)
def test_wrong_value(refused, option, value, says):
    refused("check", f"{option}={value}", says=f"argument {option}: .*{says}")


@pytest.mark.parametrize("option", ["--lr", "--epochs", "--out"])
def test_options_of_training_are_none_of_check(refused, option):
    refused("check", option, "1", says=f"unrecognized arguments: {option} 1")
