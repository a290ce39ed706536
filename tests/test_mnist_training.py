"""The book's experiment on real MNIST: 784-50-10, batches of 100, learning rate 0.1."""

import numpy as np
import pytest

from fastbp import SGD, TwoLayerNet, fit

pytestmark = pytest.mark.mnist

STEPS = 10_000
SEEDS = [0, 1, 2]

# Test accuracy after 600, 1200, ... steps.
CURVE = {600: 0.907, 1200: 0.924, 1800: 0.935, 2400: 0.945, 3000: 0.949}


def train(mnist, seed, activation="relu"):
    """Return the history of the book's training, with the accuracies at each 600 steps."""
    (x, t), test = mnist
    net = TwoLayerNet(784, 50, 10, 0.01, activation=activation, dtype=np.float32, seed=seed)
    return fit(
        net,
        x,
        t,
        optimizer=SGD(lr=0.1),
        batch_size=100,
        iterations=STEPS,
        validation_data=test,
        sampling="choice",
        seed=seed,
        progress=False,
    )


@pytest.fixture(scope="module")
def relu(mnist):
    """The histories of three trainings with ReLU, by seed."""
    return {seed: train(mnist, seed) for seed in SEEDS}


def accuracy(history, step):
    return history.test_acc_list[history.steps.index(step)]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_first_measurement_is_chance(relu, seed):
    assert 0.03 < relu[seed].test_acc_list[0] < 0.25


@pytest.mark.parametrize("seed", SEEDS)
def test_after_one_epoch_it_reads_nine_of_ten(relu, seed):
    assert accuracy(relu[seed], 600) >= 0.89


@pytest.mark.parametrize("step", CURVE)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_curve_is_the_books(relu, seed, step):
    assert accuracy(relu[seed], step) == pytest.approx(CURVE[step], abs=0.012)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_final_test_accuracy_is_the_books(relu, seed):
    assert accuracy(relu[seed], STEPS) >= 0.965


@pytest.mark.parametrize("seed", SEEDS)
def test_the_final_training_accuracy_is_the_books(relu, seed):
    assert relu[seed].train_acc_list[-1] == pytest.approx(0.978, abs=0.004)


def test_with_a_sigmoid_it_learns_more_slowly(mnist, relu):
    sigmoid = train(mnist, 0, "sigmoid")
    assert accuracy(sigmoid, 600) < accuracy(relu[0], 600)
    assert accuracy(sigmoid, STEPS) >= 0.92
