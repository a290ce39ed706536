"""The numbers printed in the book, one test each."""

import numpy as np
import pytest

from fastbp.functions import cross_entropy_error, mean_squared_error
from fastbp.gradient import gradient_descent, numerical_diff, numerical_gradient
from fastbp.kernels.jit import JIT_DISABLED
from fastbp.layers import AddLayer, Affine, MulLayer, Relu, Sigmoid, SoftmaxWithLoss
from fastbp.network import TwoLayerNet


def test_two_apples():
    apple, tax = MulLayer(), MulLayer()
    price = tax.forward(apple.forward(100, 2), 1.1)
    dapples, dtax = tax.backward(1)
    dapple, dapple_num = apple.backward(dapples)
    assert (price, dapple, dapple_num, dtax) == pytest.approx((220, 2.2, 110, 200), rel=1e-15)


def test_two_apples_and_three_oranges():
    apple, orange, total, tax = MulLayer(), MulLayer(), AddLayer(), MulLayer()
    price = tax.forward(total.forward(apple.forward(100, 2), orange.forward(150, 3)), 1.1)
    dtotal, dtax = tax.backward(1)
    dapples, doranges = total.backward(dtotal)
    dorange, dorange_num = orange.backward(doranges)
    dapple, dapple_num = apple.backward(dapples)
    gradients = dapple_num, dapple, dorange, dorange_num, dtax
    assert price == pytest.approx(715, rel=1e-15)
    assert gradients == pytest.approx((110, 2.2, 3.3, 165, 650), rel=1e-15)


@pytest.mark.parametrize(("x", "slope"), [(5, 0.1999999999990898), (10, 0.2999999999986347)])
def test_numerical_diff_of_a_parabola(x, slope):
    assert numerical_diff(lambda x: 0.01 * x**2 + 0.1 * x, x) == slope


def sum_of_squares(x):
    return x[0] ** 2 + x[1] ** 2


@pytest.mark.parametrize(
    ("x", "gradient"), [((3.0, 4.0), (6, 8)), ((0.0, 2.0), (0, 4)), ((3.0, 0.0), (6, 0))]
)
def test_numerical_gradient_of_a_bowl(x, gradient):
    np.testing.assert_allclose(
        numerical_gradient(sum_of_squares, np.array(x)), gradient, rtol=1e-11, atol=1e-11
    )


def test_gradient_descent_finds_the_bottom_of_a_bowl():
    x = gradient_descent(sum_of_squares, np.array([-3.0, 4.0]), lr=0.1, step_num=100)
    np.testing.assert_allclose(x, [-6.11110793e-10, 8.14814391e-10], rtol=1e-8)


def test_gradient_descent_diverges_with_a_large_rate():
    x = gradient_descent(sum_of_squares, np.array([-3.0, 4.0]), lr=10.0, step_num=100)
    assert np.abs(x).min() > 1e11


def test_gradient_descent_hardly_moves_with_a_small_rate():
    x = gradient_descent(sum_of_squares, np.array([-3.0, 4.0]), lr=1e-10, step_num=100)
    np.testing.assert_allclose(x, [-2.99999994, 3.99999992], rtol=1e-9)
    assert (x != [-3, 4]).all()


PREDICTION = np.array([0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0])
ONE_HOT_2 = np.eye(10)[2]


def test_mean_squared_error_of_a_digit():
    assert mean_squared_error(PREDICTION, ONE_HOT_2) == pytest.approx(0.0975, rel=1e-14)


@pytest.mark.parametrize("t", [2, ONE_HOT_2], ids=["label", "one-hot"])
def test_cross_entropy_of_a_digit(t):
    assert cross_entropy_error(PREDICTION, t) == pytest.approx(0.510825457099338, rel=1e-14)


MATRIX = np.array([[1.0, -0.5], [-2.0, 3.0]])


def test_sigmoid_of_four_numbers():
    np.testing.assert_allclose(
        Sigmoid().forward(MATRIX), [[0.73105858, 0.37754067], [0.11920292, 0.95257413]], atol=5e-9
    )


def test_sigmoid_backward_of_ones():
    layer = Sigmoid()
    layer.forward(MATRIX)
    np.testing.assert_allclose(
        layer.backward(np.ones((2, 2))),
        [[0.19661193, 0.23500371], [0.10499359, 0.04517666]],
        atol=5e-9,
    )


def test_relu_of_four_numbers():
    np.testing.assert_array_equal(Relu().forward(MATRIX), [[1, 0], [0, 3]])


def test_relu_backward_of_ones():
    layer = Relu()
    layer.forward(MATRIX)
    np.testing.assert_array_equal(layer.backward(np.ones((2, 2))), [[1, 0], [0, 1]])


def test_a_bias_is_added_to_every_row():
    layer = Affine(np.full((1, 3), 10.0), np.array([1.0, 2.0, 3.0]))
    out = layer.forward(np.array([[0.0], [1.0]]))
    np.testing.assert_array_equal(out, [[1, 2, 3], [11, 12, 13]])


def test_the_gradient_of_a_bias_is_the_sum_over_the_rows():
    layer = Affine(np.ones((1, 3)), np.zeros(3))
    layer.forward(np.zeros((2, 1)))
    layer.backward(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    np.testing.assert_array_equal(layer.db, [5, 7, 9])


compiled_only = pytest.mark.skipif(JIT_DISABLED, reason="half a minute as plain Python")


def gradient_check(mnist, last_layer):
    """Return the mean absolute difference of each parameter's gradients, as section 5.7.3 does."""
    (x_train, t_train), _ = mnist
    x, t = x_train[:3], np.eye(10)[t_train[:3]]
    network = TwoLayerNet(784, 50, 10, seed=0)
    network.last_layer = last_layer
    numerical, backpropagation = network.numerical_gradient(x, t), network.gradient(x, t)
    return {key: np.abs(backpropagation[key] - numerical[key]).mean() for key in numerical}


@compiled_only
@pytest.mark.mnist
def test_gradient_check_with_the_books_eps(mnist):
    differences = gradient_check(mnist, SoftmaxWithLoss(eps=1e-7))
    expected = {"W1": 4e-10, "b1": 3e-9, "W2": 6e-9, "b2": 1.4e-7}
    assert differences.keys() == expected.keys()
    for key, value in expected.items():
        assert value / 4 < differences[key] < value * 4, key


@compiled_only
@pytest.mark.mnist
def test_gradient_check_with_the_exact_loss(mnist):
    differences = gradient_check(mnist, SoftmaxWithLoss())
    assert max(differences.values()) < 1e-8
