import contextlib
import errno
import os
import re
import signal
import struct
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import fastbp
from fastbp import checkpoint
from fastbp.cli import train
from fastbp.dataset import mnist
from fastbp.history import History
from fastbp.kernels import jit
from fastbp.optimizer import OPTIMIZERS
from fastbp.threads import available_cpus

RATES = {
    "sgd": 0.1, "momentum": 0.01, "nesterov": 0.01, "adagrad": 0.01, "rmsprop": 0.001,
    "adam": 0.001,
}  # fmt: skip


@pytest.fixture
def no_pictures(monkeypatch):
    """Hide matplotlib: drawing takes longer than the training."""
    monkeypatch.setattr(train, "find_spec", lambda name: None if name == "matplotlib" else object())


class Trained(NamedTuple):
    """What a training printed, and what it kept."""

    out: str
    network: fastbp.Network
    notes: dict
    history: History


@pytest.fixture
def trained(run, tmp_path, no_pictures):
    """Return a function that trains, for a few steps unless told, and returns a Trained."""
    runs = 0

    def call(*options):
        nonlocal runs
        runs += 1
        folder = tmp_path / f"kept {runs}"
        length = () if {"--epochs", "--iterations"} & set(options) else ("--iterations", 4)
        code, out, _ = run("train", "--out", folder, *length, *options)
        assert code == 0
        network, notes = fastbp.load_network(folder)
        return Trained(out, network, notes, History.load(folder / "history.json"))

    return call


def table(out):
    """Return the rows of the table as lists of words."""
    lines = out.partition("examples/s\n")[2].partition("\n\n")[0].splitlines()
    return [line.split() for line in lines]


def accuracy(out):
    """Return the test accuracy in the summary, as printed, and how many were right of how many."""
    percent, right, total = re.search(
        r"^Test accuracy ([\d.]+%): ([\d,]+) of ([\d,]+) right, after", out, re.MULTILINE
    ).groups()
    return percent, int(right.replace(",", "")), int(total.replace(",", ""))


def without_times(out):
    """Return the output without what may differ from one run to the next."""
    out = re.sub(r"(%|^ +0 .*%) +[\d,]+$", r"\1", out, flags=re.MULTILINE)
    return re.sub(r"steps? in [\d.]+ s", "steps", out)


# -- What a person sees ---------------------------------------------------------------------------


def test_no_arguments(run):
    code, out, _ = run("train")
    assert code == 0
    _, right, total = accuracy(out)
    assert total == 360
    assert right / total >= 0.95


def test_first_lines(run):
    out = run("train", "--iterations", 1, "--batch-size", 100).out
    assert out.startswith(
        "digits: 1,437 training and 360 test examples, 10 classes\n"
        "MultiLayerNet(64-50-10, relu, float64), SGD(lr=0.1), batches of 100\n"
    )


def test_same_again(run):
    first, second = (run("train", "--epochs", 3).out for _ in range(2))
    assert without_times(first) == without_times(second)
    assert "Test accuracy" in without_times(first)


def test_one_row_an_epoch(run):
    rows = table(run("train", "--epochs", 3).out)
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]


def test_row_of_an_unfinished_epoch(run):
    # 144 steps are an epoch.
    rows = table(run("train", "--iterations", 360).out)
    assert [float(row[0]) for row in rows] == [0, 1, 2, 2.5]


def test_percentage_of_the_summary_is_right(run):
    percent, right, total = accuracy(run("train", "--epochs", 2).out)
    assert percent == f"{right / total:.2%}"


def test_most_often_wrong(trained, digits):
    out, network, _, _ = trained("--epochs", 1)
    _, (x, t) = digits
    guesses = network.predict(x).argmax(axis=1)
    said = re.search(r"Most often wrong: (\d) read as (\d) \((\d+) times\)", out)
    label, guess, times = map(int, said.groups())
    count = {(a, b): np.sum((t == a) & (guesses == b)) for a in range(10) for b in range(10)}
    assert label != guess
    assert count[label, guess] == times
    assert times == max(n for (a, b), n in count.items() if a != b)


def test_nothing_wrong(run, save_npz):
    out = run("train", "--data", save_npz(x=X, t=T), "--epochs", 20).out
    assert accuracy(out) == ("100.00%", 12, 12)
    assert "Most often wrong" not in out


def test_no_progress_bar_without_a_terminal(run):
    err = run("train", "--epochs", 1).err
    assert "\r" not in err
    assert "step" not in err


def test_quiet(run):
    assert run("train", "--quiet", "--epochs", 1) == (0, "", "")


def test_quiet_with_out(run, tmp_path):
    assert run("train", "--quiet", "--epochs", 1, "--out", tmp_path / "kept") == (0, "", "")
    assert (tmp_path / "kept" / "model.safetensors").is_file()


# -- The network's options ------------------------------------------------------------------------


def test_defaults(trained):
    _, network, _, history = trained()
    assert network.sizes == (64, 50, 10)
    assert network.activation == "relu"
    assert network.dtype == np.float64
    assert network.weight_decay_lambda == 0
    assert history.settings["optimizer"] == "SGD(lr=0.1)"
    assert history.settings["batch_size"] == 10
    assert history.settings["sampling"] == "shuffle"
    assert history.settings["seed"] == 0


@pytest.mark.parametrize(
    ("option", "attribute", "value"),
    [
        (("--hidden", "7"), "sizes", (64, 7, 10)),
        (("--hidden", "100,50"), "sizes", (64, 100, 50, 10)),
        (("--hidden", "4,3,2,1"), "sizes", (64, 4, 3, 2, 1, 10)),
        (("--activation", "relu"), "activation", "relu"),
        (("--activation", "sigmoid"), "activation", "sigmoid"),
        (("--dtype", "float32"), "dtype", np.float32),
        (("--dtype", "float64"), "dtype", np.float64),
        (("--weight-decay", "0.125"), "weight_decay_lambda", 0.125),
    ],
)
def test_network(trained, option, attribute, value):
    assert getattr(trained(*option).network, attribute) == value


@pytest.mark.parametrize(
    "options",
    [
        ("--hidden", "7"), ("--activation", "sigmoid"), ("--weight-init-std", "0.01"),
        ("--seed", "1"), ("--weight-decay", "0.125"), ("--batch-size", "9"),
        ("--sampling", "choice"),
    ],
)  # fmt: skip
def test_first_loss_changes(trained, options):
    # What is trained on, and with which weights, shows before the first update.
    assert trained(*options).history.train_loss_list[0] != trained().history.train_loss_list[0]


def test_activation_in_another_dtype_is_nearly_the_same(trained):
    double, single = (
        trained("--dtype", dtype).history.train_loss_list for dtype in ("float64", "float32")
    )
    assert double != single
    np.testing.assert_allclose(double, single, rtol=1e-5)


# The learning rate leaves the weights as they are.
STILL = ("--iterations", 1, "--lr", "1e-300")


@pytest.mark.parametrize(
    ("options", "stds"),
    [
        (("--activation", "relu"), ((2 / 64) ** 0.5, (2 / 50) ** 0.5)),
        (("--activation", "sigmoid"), ((1 / 64) ** 0.5, (1 / 50) ** 0.5)),
        (("--weight-init-std", "0.01"), (0.01, 0.01)),
        (("--activation", "sigmoid", "--weight-init-std", "2"), (2, 2)),
        (("--weight-init-std", "0"), (0, 0)),
    ],
)
def test_weights_at_the_start(trained, options, stds):
    params = trained(*STILL, *options).network.params
    # 3,200 and 500 numbers: a standard error of 1.25 % and 3.2 %.
    assert params["W1"].std() == pytest.approx(stds[0], rel=0.05)
    assert params["W2"].std() == pytest.approx(stds[1], rel=0.12)


def test_weight_decay_adds_to_the_loss(trained):
    without = trained(*STILL)
    (loss,) = trained(*STILL, "--weight-decay", "0.125").history.train_loss_list
    squares = sum(np.sum(without.network.params[key] ** 2) for key in ("W1", "W2"))
    assert loss == pytest.approx(without.history.train_loss_list[0] + 0.0625 * squares)


def test_seed_makes_the_run(trained):
    first, again, other = (trained("--seed", seed) for seed in (5, 5, 6))
    assert first.history.train_loss_list == again.history.train_loss_list
    np.testing.assert_array_equal(first.network.params["W1"], again.network.params["W1"])
    assert not np.array_equal(first.network.params["W1"], other.network.params["W1"])
    assert first.history.settings["seed"] == 5


def test_seed_makes_the_weights(trained):
    params = trained(*STILL, "--seed", 5).network.params
    expected = fastbp.MultiLayerNet(64, [50], 10, seed=5).params
    for key, p in params.items():
        np.testing.assert_allclose(p, expected[key], rtol=0, atol=1e-200)


def test_seed_makes_the_order(trained):
    # Whatever the weights are, when there are none.
    first, second = (
        trained("--weight-init-std", 0, "--seed", seed).history.train_loss_list for seed in (5, 6)
    )
    assert first[0] == second[0]
    assert first[1:] != second[1:]


def test_largest_seed(trained):
    assert trained("--seed", 2**63 - 1).history.settings["seed"] == 2**63 - 1


# -- The training's options -----------------------------------------------------------------------


@pytest.mark.parametrize("name", RATES)
def test_optimizer(trained, name):
    _, network, _, history = trained("--optimizer", name)
    # The same optimizer by hand, on the same batches.
    (x, t), _ = fastbp.load_digits()
    expected = fastbp.MultiLayerNet(64, [50], 10, seed=0)
    optimizer = OPTIMIZERS[name](lr=RATES[name])
    fastbp.fit(expected, x, t, optimizer=optimizer, batch_size=10, iterations=4, seed=0)
    assert history.settings["optimizer"] == repr(optimizer)
    for key, p in network.params.items():
        np.testing.assert_array_equal(p, expected.params[key])


def test_every_optimizer_goes_its_own_way(trained):
    ends = [trained("--optimizer", name).network.params["W1"][20] for name in OPTIMIZERS]
    for i, end in enumerate(ends):
        assert not any(np.array_equal(end, other) for other in ends[:i])


def test_help_states_the_default_learning_rates(run):
    text = " ".join(run("train", "--help").out.split())
    assert set(RATES) == set(OPTIMIZERS)
    assert all(f"{rate:g} for {name}" in text for name, rate in RATES.items())


@pytest.mark.parametrize("name", RATES)
def test_learning_rate(trained, name):
    given = trained("--optimizer", name, "--lr", 0.007).history
    default = trained("--optimizer", name).history
    assert "lr=0.007" in given.settings["optimizer"]
    assert given.train_loss_list[0] == default.train_loss_list[0]
    assert given.train_loss_list[1] != default.train_loss_list[1]


@pytest.mark.parametrize(
    ("options", "steps", "reports"),
    [
        (("--epochs", 2), 288, [0, 144, 288]),
        (("--epochs", 1, "--batch-size", 7), 206, [0, 206]),
        (("--epochs", 2, "--batch-size", 1437), 2, [0, 1, 2]),
        (("--epochs", 1, "--batch-size", 10**6), 1, [0, 1]),
        (("--iterations", 5), 5, [0, 5]),
        (("--iterations", 200), 200, [0, 144, 200]),
        (("--iterations", 30, "--batch-size", 100), 30, [0, 15, 30]),
    ],
)
def test_length(trained, options, steps, reports):
    history = trained(*options).history
    assert len(history) == steps
    assert history.steps == reports


@pytest.mark.parametrize(("examples", "batch_size", "epochs"), [(9_998, 10, 30), (10_000, 100, 20)])
def test_defaults_go_by_the_number_of_examples(trained, save_npz, examples, batch_size, epochs):
    x, t = np.zeros((examples, 1), np.float32), np.arange(examples) % 2
    path = save_npz(x_train=x, t_train=t, x_test=x[:5], t_test=t[:5])
    history = trained("--data", path, "--hidden", 1, "--epochs", epochs).history
    assert history.settings["batch_size"] == batch_size
    assert history.settings["iterations"] == epochs * -(-examples // batch_size)


def test_batch_is_never_said_to_be_larger_than_the_data(run):
    out = run("train", "--iterations", 1, "--batch-size", 10**6).out
    assert "batches of 1437" in out.replace(",", "")


def test_shuffle_takes_every_example_once_an_epoch(trained, save_npz):
    # One example a step, and each class once: the losses of an untrained network are a permutation.
    path = save_npz(x_train=X[:20], t_train=np.arange(20), x_test=X[:5], t_test=np.arange(5))
    still = ("--lr", "1e-300", "--batch-size", 1, "--data", path)
    first, second = np.split(np.array(trained(*still, "--epochs", 2).history.train_loss_list), 2)
    np.testing.assert_allclose(np.sort(first), np.sort(second), rtol=1e-12)
    assert not np.array_equal(first, second)


def test_choice_draws_with_replacement(trained, save_npz):
    path = save_npz(x_train=X[:20], t_train=np.arange(20), x_test=X[:5], t_test=np.arange(5))
    still = ("--lr", "1e-300", "--batch-size", 1, "--data", path)
    history = trained(*still, "--epochs", 1, "--sampling", "choice").history
    assert history.settings["sampling"] == "choice"
    assert len(set(history.train_loss_list)) < 20


@pytest.mark.parametrize("n", [1, 2])
def test_threads(run, n):
    if n > available_cpus():
        pytest.skip(f"needs {n} CPUs")
    fastbp.set_num_threads(3 - n if available_cpus() > 1 else 1)
    assert run("train", "--threads", n, "--iterations", 1).code == 0
    assert fastbp.get_num_threads() == n


@pytest.mark.skipif(available_cpus() < 2, reason="needs 2 CPUs")
def test_threads_change_no_bit(trained):
    one, two = (trained("--threads", n, "--epochs", 1, "--hidden", 300) for n in (1, 2))
    assert one.history.train_loss_list == two.history.train_loss_list
    for key, p in one.network.params.items():
        np.testing.assert_array_equal(p, two.network.params[key])


# -- Data -----------------------------------------------------------------------------------------

# Three classes, each bright in a column of its own.
T = np.arange(60) % 3
X = (np.eye(4)[T] + np.random.default_rng(0).normal(0, 0.05, (60, 4))).astype(np.float32)


@pytest.fixture
def save_npz(tmp_path):
    """Return a function that saves arrays as a .npz and returns the path."""

    def save(name="some data.npz", **arrays):
        np.savez(tmp_path / name, **arrays)
        return tmp_path / name

    return save


def test_npz_with_a_split(trained, save_npz):
    path = save_npz(x_train=X[:40], t_train=T[:40], x_test=X[40:], t_test=T[40:])
    out, network, notes, _ = trained("--data", path, "--epochs", 30)
    assert out.startswith(f"{path}: 40 training and 20 test examples, 3 classes\n")
    assert accuracy(out) == ("100.00%", 20, 20)
    assert network.sizes == (4, 50, 3)
    assert notes == {"data": "some data.npz", "image_shape": None}


def test_npz_without_a_split(trained, save_npz):
    out = trained("--data", save_npz(x=X, t=T), "--epochs", 30).out
    assert "48 training and 12 test examples, 3 classes\n" in out
    assert accuracy(out) == ("100.00%", 12, 12)


def test_npz_in_the_working_folder(run, save_npz):
    save_npz(name="mine.npz", x=X, t=T)
    assert run("train", "--data", "mine.npz", "--iterations", 1).code == 0


def test_one_hot_rows_say_how_many_classes_there_are(trained, save_npz):
    network = trained("--data", save_npz(x=X, t=np.eye(5)[T])).network
    assert network.sizes[-1] == 5


def test_class_that_only_the_test_data_have(trained, save_npz):
    path = save_npz(x_train=X, t_train=T, x_test=X[:2], t_test=np.array([0, 6]))
    assert trained("--data", path).network.sizes[-1] == 7


def test_images_of_bytes(trained, save_npz):
    pixels = np.round(np.clip(X, 0, 1) * 255).astype(np.uint8).reshape(60, 2, 2)
    out, network, _, _ = trained("--data", save_npz(x=pixels, t=T), "--epochs", 30)
    assert network.sizes[0] == 4
    assert accuracy(out)[1:] == (12, 12)


@pytest.fixture
def mnist_folder(tmp_path):
    """Return a folder with 300 made-up images, of which each class is bright in rows of its own."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 200), ("t10k", 100)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        images = rng.integers(0, 50, (n, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 3] += 200
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (tmp_path / f"{part}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return tmp_path


def test_mnist_from_a_folder(trained, mnist_folder):
    out, network, notes, _ = trained(
        "--data", "mnist", "--data-dir", mnist_folder, "--epochs", 10, "--hidden", 20
    )
    assert out.startswith("mnist: 200 training and 100 test examples, 10 classes\n")
    assert accuracy(out)[1] >= 95
    assert network.sizes == (784, 20, 10)
    assert notes == {"data": "mnist", "image_shape": [28, 28]}


def test_mnist_from_the_environment(run, mnist_folder, monkeypatch):
    monkeypatch.setenv("FASTBP_DATA_DIR", str(mnist_folder))
    assert run("train", "--data", "mnist", "--iterations", 1).code == 0


# -- What is kept ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Two epochs on the digits: the folder of ``--out``."""
    folder = tmp_path_factory.mktemp("kept") / "deep" / "folder"
    assert train_in(folder, "--epochs", "2") == 0
    return folder


def train_in(folder, *options):
    return fastbp.cli.main(["train", "--out", str(folder), *options])


def test_files(kept):
    names = {path.name for path in kept.iterdir()}
    assert names == {"model.safetensors", "history.json", "curves.png", "mistakes.png"}


def test_files_are_named(run, tmp_path):
    folder = tmp_path / "kept"
    out = run("train", "--iterations", 1, "--out", folder).out
    said = out.rpartition("Kept ")[2].strip().split(", ")
    assert sorted(said) == sorted(str(path) for path in folder.iterdir())


def test_files_are_readable_for_others_as_any_file(kept, tmp_path):
    (tmp_path / "any").write_text("")
    mode = (tmp_path / "any").stat().st_mode
    assert {path.stat().st_mode for path in kept.iterdir()} == {mode}


def test_history_agrees_with_the_table(trained):
    out, _, _, history = trained("--iterations", 360)
    losses = np.split(np.array(history.train_loss_list), history.steps[1:-1])
    expected = [f"{np.mean(part):.4f}" for part in losses]
    rows = table(out)
    assert [row[1] for row in rows[1:]] == expected
    rates = [f"{speed:,.0f}" for speed in history.examples_per_second[1:]]
    assert [row[4] for row in rows[1:]] == rates
    for column, values in ((-2, history.train_acc_list), (-1, history.test_acc_list)):
        shown = [row[:4][column] for row in rows]
        assert shown == [f"{value:.2%}" for value in values]


def test_history_agrees_with_the_summary(trained):
    out, _, _, history = trained("--epochs", 2)
    assert accuracy(out)[0] == f"{history.test_acc_list[-1]:.2%}"
    assert f"after 288 steps in {history.times[-1]:.2f} s." in out
    first, last = history.train_loss_list[0], history.train_loss_list[-1]
    assert re.search(rf"^Loss {first:.3f} \S+ {last:.3f} ", out, re.MULTILINE)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_model_has_the_printed_accuracy(trained, digits, dtype):
    out, network, notes, _ = trained("--epochs", 2, "--dtype", dtype)
    _, (x, t) = digits
    assert f"{network.accuracy(x, t):.2%}" == accuracy(out)[0]
    assert notes == {"data": "digits", "image_shape": [8, 8]}


@pytest.mark.parametrize("name", ["curves.png", "mistakes.png"])
def test_pictures(kept, name):
    with Image.open(kept / name) as image:
        assert image.format == "PNG"
        assert min(image.size) > 100
        assert len(image.convert("RGB").getcolors(2**24)) > 100  # not one blank page


def test_no_digits_no_mistakes(run, save_npz, tmp_path):
    run("train", "--data", save_npz(x=X, t=T), "--epochs", 1, "--out", tmp_path / "kept")
    names = {path.name for path in (tmp_path / "kept").iterdir()}
    assert names == {"model.safetensors", "history.json", "curves.png"}


def test_force_replaces(run, tmp_path, no_pictures):
    folder = tmp_path / "kept"
    run("train", "--iterations", 1, "--out", folder)
    (folder / "mine.txt").write_text("mine")
    assert run("train", "--iterations", 2, "--out", folder, "--force").code == 0
    assert len(History.load(folder / "history.json")) == 2
    assert (folder / "mine.txt").read_text() == "mine"


def test_force_makes_a_new_folder_too(run, tmp_path, no_pictures):
    code, _, _ = run("train", "--iterations", 1, "--out", tmp_path / "new", "--force")
    assert code == 0
    assert (tmp_path / "new" / "history.json").is_file()


def test_without_matplotlib(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run("train", "--iterations", 1, "--out", tmp_path / "kept").code == 0
    names = {path.name for path in (tmp_path / "kept").iterdir()}
    assert names == {"model.safetensors", "history.json"}


# -- Wrong use ------------------------------------------------------------------------------------


def test_unknown_data_set(refused):
    refused(
        "train", "--data", "cifar",
        says="argument --data: 'cifar' is not digits, mnist or the path of a .npz file",
    )  # fmt: skip


def test_missing_npz(refused, tmp_path):
    path = tmp_path / "none.npz"
    refused("train", "--data", path, says=f"argument --data: {path}: No such file or directory")


def test_folder_called_npz(refused, tmp_path):
    (tmp_path / "folder.npz").mkdir()
    refused("train", "--data", tmp_path / "folder.npz", says="argument --data: .*folder.npz: ")


@pytest.mark.skipif(sys.platform == "win32", reason="chmod does not forbid reading on Windows")
@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() == 0, reason="root may read every file")
def test_unreadable_npz(refused, save_npz):
    path = save_npz(x=X, t=T)
    path.chmod(0)
    refused("train", "--data", path, says="argument --data: .*: Permission denied")


@pytest.mark.parametrize("length", [0, 10, 400, -1])
def test_damaged_npz(refused, save_npz, length):
    path = save_npz(x=X, t=T)
    path.write_bytes(path.read_bytes()[:length])
    refused("train", "--data", path, says="argument --data: .*some data.npz: damaged, or not a")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": X}, "expected one array called t or y, found none"),
        ({"x": X, "t": T[:-1]}, "60 rows in x, but 59 in t"),
        ({"x": X * np.nan, "t": T}, "row 0 has a nan or an infinity"),
        ({"x": X, "t": T - 1}, "class -1 at row 0, expected >= 0"),
        ({"x": X, "t": T / 2}, "class numbers of dtype float64, expected integers"),
    ],
)
def test_npz_that_does_not_fit(refused, save_npz, arrays, says):
    refused("train", "--data", save_npz(**arrays), says=f"argument --data: .*npz: .*{says}")


@pytest.mark.parametrize("largest", [10**12, 2**62, 2**63 - 1])
def test_labels_that_are_no_class_numbers(refused, save_npz, largest):
    # Nobody has the memory for a network with so many classes.
    path = save_npz(x=X, t=T * (largest // 2))
    refused("train", "--data", path, says="argument --data: ")


@pytest.mark.parametrize("folder", ["nowhere", ""])
def test_missing_mnist(refused, folder):
    refused(
        "train", "--data", "mnist", "--data-dir", folder,
        says="argument --data.*: .*train-images-idx3-ubyte: missing",
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
    ],
)  # fmt: skip
def test_damaged_mnist(refused, mnist_folder, name):
    path = mnist_folder / name
    path.write_bytes(path.read_bytes()[:-1])
    refused(
        "train", "--data", "mnist", "--data-dir", mnist_folder,
        says=f"argument --data.*: .*{name}: .* bytes, but shape .* makes",
    )  # fmt: skip


def test_mnist_that_no_mirror_gives(refused, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    mirrors = ("https://127.0.0.1:1/one/", "https://127.0.0.1:1/two/")
    monkeypatch.setattr(mnist, "MIRRORS", mirrors)
    refused("train", "--data", "mnist", says="argument --data: .*FASTBP_DATA_DIR")


def test_mnist_without_pooch(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    refused("train", "--data", "mnist", says=r"argument --data: .*pip install 'fastbp\[train\]'")


SIZES = ["--batch-size", "--epochs", "--iterations", "--threads"]
NO_SIZES = ["0", "-1", "1.5", "1e3", "many", "", "nan", "inf"]


@pytest.mark.parametrize("option", SIZES)
@pytest.mark.parametrize("value", NO_SIZES)
def test_no_positive_integer(refused, option, value):
    says = f"argument {option}: '{value}' is not a positive integer$"
    refused("train", f"{option}={value}", says=says)


@pytest.mark.parametrize("value", [*NO_SIZES, "50,0", "50,-1", "50,", ",50", "50;50", "50,,50"])
def test_no_hidden_sizes(refused, value):
    says = f"'{value}' is not a list of positive integers such as 50 or 100,50$"
    refused("train", f"--hidden={value}", says=f"argument --hidden: {says}")


@pytest.mark.parametrize("sizes", ["99999999999999", "5,99999999999999", "9999999999999999999999"])
def test_network_that_no_memory_holds(refused, sizes):
    refused("train", "--hidden", sizes, says="argument --hidden: ")


@pytest.mark.parametrize(
    "value", ["0", "-0.1", "nan", "inf", "-inf", "1e999", "1e-999", "fast", ""]
)
def test_no_learning_rate(refused, value):
    refused("train", f"--lr={value}", says=f"argument --lr: '{value}' is not a positive number$")


@pytest.mark.parametrize("option", ["--weight-decay", "--weight-init-std"])
@pytest.mark.parametrize("value", ["-0.1", "nan", "inf", "-inf", "1e999", "much", ""])
def test_no_number_from_0(refused, option, value):
    says = f"argument {option}: '{value}' is not a number of at least 0$"
    refused("train", f"{option}={value}", says=says)


@pytest.mark.parametrize("value", ["-1", "1.5", "nan", "luck", ""])
def test_no_seed(refused, value):
    says = f"argument --seed: '{value}' is not an integer of at least 0"
    refused("train", f"--seed={value}", says=says)


def test_seed_too_large(refused):
    # It is an integer of at least 0: the message must not say that it is none.
    refused("train", "--seed", 2**63, says=r"argument --seed: '\d+' is not (?!.*at least 0$)")


@pytest.mark.parametrize(
    ("option", "choices"),
    [
        ("--optimizer", list(RATES)),
        ("--activation", ["relu", "sigmoid"]),
        ("--dtype", ["float32", "float64"]),
        ("--sampling", ["shuffle", "choice"]),
    ],
)
@pytest.mark.parametrize("value", ["other", "", "SGD"])
def test_none_of_the_choices(refused, option, choices, value):
    says = refused("train", option, value, says=f"argument {option}: invalid choice: '{value}'")
    assert all(choice in says for choice in choices)


@pytest.mark.parametrize("order", [1, -1])
def test_epochs_and_iterations(refused, order):
    says = "argument --(epochs|iterations): not allowed with argument --(epochs|iterations)"
    both = [("--epochs", 3), ("--iterations", 30)][::order]
    refused("train", *both[0], *both[1], says=says)


def test_too_many_threads(refused):
    n = available_cpus()
    refused("train", "--threads", n + 1, says=f"argument --threads: .*{n + 1}.* from 1 to {n}")


def test_out_that_exists(refused, tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    refused("train", "--out", folder, says=f"argument --out: {folder} exists; .*--force")
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_out_that_is_a_file(refused, tmp_path, force):
    path = tmp_path / "file"
    path.write_text("mine")
    says = f"argument --out: {path} is a file, expected a folder"
    refused("train", "--out", path, *force, says=says)
    assert path.read_text() == "mine"


def test_out_below_a_file(refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    folder = tmp_path / "file" / "kept"
    refused("train", "--out", folder, says=f"argument --out: cannot write to {folder}: ")


@pytest.mark.skipif(sys.platform == "win32", reason="chmod does not forbid writing on Windows")
@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("name", [".", "new"])
def test_out_without_permission(refused, tmp_path, name):
    (tmp_path / "locked").mkdir(mode=0o500)
    folder = tmp_path / "locked" / name
    says = "argument --out: cannot write to .*locked.*: Permission denied"
    refused("train", "--out", folder, "--force", says=says)


def test_out_is_asked_before_anything_is_computed(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "load_data", lambda options: pytest.fail("too late"))
    (tmp_path / "file").write_text("")
    refused("train", "--out", tmp_path / "file", says="argument --out: ")


def test_out_without_safetensors(refused, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    says = r"argument --out: .*pip install 'fastbp\[train\]'"
    refused("train", "--out", tmp_path / "kept", says=says)
    assert not (tmp_path / "kept").exists()


def test_no_out_needs_no_safetensors(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert run("train", "--iterations", 1).code == 0


@pytest.mark.parametrize(
    "wrong", [("--data", "digit"), ("--data", "none.npz"), ("--threads", 100_000)]
)
def test_wrong_use_leaves_no_folder(refused, tmp_path, wrong):
    # Or the same command, its mistake corrected, would be refused: the folder exists.
    refused("train", "--out", tmp_path / "kept", *wrong, says=f"argument {wrong[0]}: ")
    assert not (tmp_path / "kept").exists()


# -- Trainings that fail --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ("--lr", "1e6"),
        ("--lr", "1e6", "--weight-decay", "0.01"),
        ("--lr", "1e200"),
        ("--lr", "1e30", "--dtype", "float32"),
        ("--lr", "1e200", "--optimizer", "adam"),
    ],
    ids=" ".join,
)
def test_diverged(run, tmp_path, options):
    code, out, err = run("train", *options, "--out", tmp_path / "kept")
    assert code == 1
    assert "Test accuracy" not in out
    assert len(err.splitlines()) == 1
    step = int(re.match(r"fastbp train: diverged: .* at step (\d+)", err)[1])
    assert re.search(r"with learning rate 1e\+\d+; try ", err)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["history.json"]
    history = History.load(tmp_path / "kept" / "history.json")
    assert len(history) == step
    assert np.isfinite(history.train_loss_list).all()


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (("--weight-init-std", "1e300"), 0),
        (("--lr", "1e200", "--iterations", "1"), 1),
        (("--lr", "1e200", "--batch-size", "1437", "--epochs", "3"), 1),
    ],
    ids=["at the start", "after the last step", "between two epochs"],
)
def test_diverged_where_it_is_measured(run, tmp_path, options, steps):
    # The loss on the test data is the first that is no number; JSON has none for it.
    code, _, err = run("train", *options, "--out", tmp_path / "kept")
    assert code == 1
    assert len(err.splitlines()) == 1
    assert err.startswith("fastbp train: diverged: ")
    assert len(History.load(tmp_path / "kept" / "history.json")) == steps


def test_diverged_without_out(run, tmp_path):
    assert run("train", "--lr", "1e200").code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", ["model.safetensors", "history.json", "curves.png"])
def test_disk_full_at_the_end(run, tmp_path, monkeypatch, failing):
    real = checkpoint.write_atomically

    def write(path, content):
        if path.name == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, content)

    for module in (checkpoint, fastbp.history, fastbp.plot):
        monkeypatch.setattr(module, "write_atomically", write)
    code, out, err = run("train", "--iterations", 1, "--out", tmp_path / "kept")
    assert code == 1
    assert "Test accuracy" in out
    assert len(err.splitlines()) == 1
    assert failing in err
    assert "No space left on device" in err


# -- As a program ---------------------------------------------------------------------------------


def wait_for(stream, text):
    """Read lines of a program's output until one has this text."""
    for line in stream:
        if text in line:
            return
    pytest.fail(f"ended without {text!r}")


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is no signal on Windows")
def test_interrupt(start, tmp_path):
    program = start("train", "--iterations", 10**7, "--out", "kept", stdout=subprocess.PIPE)
    wait_for(program.stdout, "%")
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=60)
    assert program.returncode == 130
    assert "Traceback" not in err
    steps = int(re.search(r"^Interrupted after ([\d,]+) steps?\.$", err, re.M)[1].replace(",", ""))
    history = History.load(tmp_path / "kept" / "history.json")
    assert 0 <= len(history) == steps < 10**7
    network, _ = fastbp.load_network(tmp_path / "kept")
    assert all(np.isfinite(p).all() for p in network.params.values())
    for path in (tmp_path / "kept").iterdir():
        assert str(path.relative_to(tmp_path)) in err


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is no signal on Windows")
def test_interrupt_without_out(start, tmp_path):
    program = start("train", "--iterations", 10**7, stdout=subprocess.PIPE)
    wait_for(program.stdout, "%")
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=60)
    assert program.returncode == 130
    assert re.search(r"^Interrupted after [\d,]+ steps?\.\n\Z", err, re.MULTILINE)
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_interrupted_model_is_the_one_of_the_history(run, tmp_path, monkeypatch, no_pictures):
    # Ctrl-C between two steps, without the chance of where: the callback after the second epoch.
    line = train._Table.line

    def interrupt(self, report):
        line(self, report)
        if report.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(train._Table, "line", interrupt)
    code, _, err = run("train", "--epochs", 5, "--out", tmp_path / "kept")
    assert code == 130
    assert "Interrupted after 288 steps." in err
    history = History.load(tmp_path / "kept" / "history.json")
    network, _ = fastbp.load_network(tmp_path / "kept")
    _, (x, t) = fastbp.load_digits()
    assert len(history) == 288
    assert network.accuracy(x, t) == history.test_acc_list[-1]


def on_a_terminal(start, *arguments, both):
    """Run with stderr, and on request stdout, on a terminal; return what came there, and stdout."""
    pty = pytest.importorskip("pty", reason="needs a pseudo-terminal")
    import fcntl
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))  # rows and columns
    program = start(
        *arguments,
        stdout=slave if both else subprocess.PIPE,
        stderr=slave,
        variables={"TERM": "xterm"},
    )
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # Linux says so when the program has closed its end
        while piece := os.read(master, 4096):
            shown += piece
    os.close(master)
    out = "" if both else program.stdout.read()
    assert program.wait(timeout=60) == 0
    return shown.decode(), out


def what_remains(shown):
    """Return the lines that a terminal shows at the end: a \\r goes back to overwrite the line."""
    lines = []
    for line in shown.replace("\r\n", "\n").split("\n"):
        cells = ""
        for part in line.split("\r"):
            cells = part + cells[len(part) :]
        lines.append(cells.rstrip())
    return "\n".join(lines)


def test_progress_bar_on_a_terminal(start):
    shown, out = on_a_terminal(start, "train", "--iterations", 3000, both=False)
    assert re.search(r"\d+%\|.*\| \d+/3000 \[.*step/s", shown)
    assert "Test accuracy" in out
    assert "\r" not in out


def test_terminal_is_left_as_if_there_had_been_no_bar(start, run):
    expected = without_times(run("train", "--iterations", 1000).out).rstrip()
    shown, _ = on_a_terminal(start, "train", "--iterations", 1000, both=True)
    assert "step/s" in shown
    remains = without_times(what_remains(shown)).strip()
    strip = [line.rstrip() for line in expected.splitlines()]
    assert [line.rstrip() for line in remains.splitlines()] == strip


def test_quiet_on_a_terminal(start):
    assert on_a_terminal(start, "train", "--iterations", 300, "--quiet", both=True) == ("", "")


def test_no_progress_bar_in_a_file(process):
    code, out, err = process("train", "--iterations", 1000)
    assert code == 0
    for text in (out, err):
        assert "\r" not in text
        assert "step/s" not in text


@pytest.mark.skipif(jit.JIT_DISABLED, reason="nothing is compiled")
def test_compilation_is_announced_once(process, tmp_path):
    cache = {"FASTBP_CACHE": "1", "FASTBP_CACHE_DIR": tmp_path / "cache"}
    first, second = (process("train", "--iterations", 1, **cache) for _ in range(2))
    assert first.code == second.code == 0
    assert first.err == "Compiling for this machine; the next run starts at once.\n"
    assert second.err == ""
    assert without_times(first.out) == without_times(second.out)


@pytest.mark.skipif(jit.JIT_DISABLED, reason="nothing is compiled")
def test_no_promise_without_a_cache(process, tmp_path):
    variables = {"FASTBP_CACHE": "0", "FASTBP_CACHE_DIR": tmp_path / "cache"}
    code, _, err = process("train", "--iterations", 1, **variables)
    assert code == 0
    assert "the next run starts at once" not in err
    assert not (tmp_path / "cache").exists()


@pytest.mark.skipif(jit.JIT_DISABLED, reason="nothing is compiled")
def test_cache_that_cannot_be_written(process, tmp_path):
    (tmp_path / "file").write_text("")
    variables = {"FASTBP_CACHE": "1", "FASTBP_CACHE_DIR": tmp_path / "file" / "cache"}
    code, out, err = process("train", "--iterations", 1, **variables)
    assert code == 0
    assert "Test accuracy" in out
    assert "FASTBP_CACHE_DIR" in err
    assert "the next run starts at once" not in err
