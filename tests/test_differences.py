"""Network.numerical_gradient in compiled code: the definition's numbers, for every network."""

import warnings

import numpy as np
import pytest

import fastbp
from fastbp import MultiLayerNet, TwoLayerNet, _differences, gradient, layers
from fastbp.kernels.jit import JIT_DISABLED

D, C = 6, 4
# UNITS is 64: one more, so that a layer is moved in two goes.
HIDDEN = {0: [], 1: [7], 2: [7, 5], 4: [7, 5, 6, 3], "wide": [5] if JIT_DISABLED else [66, 65]}
TARGETS = ["labels", "one-hot", "soft", "eps", "soft and eps"]

depths = pytest.mark.parametrize("depth", HIDDEN)
activations = pytest.mark.parametrize("activation", ["relu", "sigmoid"])
kinds = pytest.mark.parametrize("kind", TARGETS)
decays = pytest.mark.parametrize("decay", [0.0, 0.3], ids=["no decay", "decay"])


def build(depth=1, activation="relu", decay=0.0, dtype=np.float64, inputs=D, classes=C):
    """Return a network with weights and biases that all matter."""
    net = MultiLayerNet(
        inputs, HIDDEN[depth], classes, activation, activation, decay, dtype=dtype, seed=3
    )
    rng = np.random.default_rng(100)
    for key, p in net.params.items():
        if key.startswith("b"):
            p[...] = rng.normal(scale=0.3, size=p.shape)
    return net


def examples(net, kind="labels", N=5):
    """Return examples with zeros among their inputs, and targets of a kind."""
    rng = np.random.default_rng(7)
    inputs, classes = net.sizes[0], net.sizes[-1]
    x = rng.normal(size=(N, inputs)) * (rng.random((N, inputs)) < 0.7)
    t = rng.integers(0, classes, N)
    if kind.startswith("soft"):
        # The sum of a row may be off a little, and counts.
        t = rng.dirichlet(np.ones(classes), N) * 1.0005
    if kind == "one-hot":
        t = np.eye(classes)[t]
    if kind.endswith("eps"):
        net.last_layer.eps = 1e-2
    return x, t


def by_definition(net, x, t):
    return {
        key: gradient.numerical_gradient(lambda _: net.loss(x, t), p)
        for key, p in net.params.items()
    }


# What rounding a loss of about 1 does to the definition: 1e-16 / 2h, a few times.
ROUNDING = 1e-11


def error(actual, expected, rounding=0.0):
    """Return the largest difference, relative to each parameter's largest element."""
    assert {k: (g.shape, g.dtype) for k, g in actual.items()} == {
        k: (g.shape, g.dtype) for k, g in expected.items()
    }
    errors = [0.0]
    for key, g in expected.items():
        difference = np.abs(actual[key] - g).max() - rounding
        if not difference <= 0:  # NaN is an error too
            errors.append(difference / np.abs(g).max())
    return max(errors)


@pytest.fixture
def compiled_only(monkeypatch):
    """Fail a test that falls back to the definition."""

    def refuse(*arguments):
        raise AssertionError("the definition was used")

    def use():
        monkeypatch.setattr("fastbp._network._gradient.numerical_gradient", refuse)

    return use


@pytest.fixture
def definition_only(monkeypatch):
    """Fail a test that calls the kernel."""

    def refuse(*arguments):
        raise AssertionError("the kernel was used")

    monkeypatch.setattr(_differences, "central_differences", refuse)


# --- the numbers ---------------------------------------------------------------------------------


@depths
@activations
@decays
@kinds
def test_equals_the_definition(depth, activation, decay, kind, compiled_only):
    net = build(depth, activation, decay)
    x, t = examples(net, kind)
    expected = by_definition(net, x, t)
    compiled_only()
    assert error(net.numerical_gradient(x, t), expected, ROUNDING) < 1e-8


@depths
@activations
@pytest.mark.parametrize("kind", ["labels", "one-hot", "soft"])
def test_comes_as_near_to_backpropagation_as_the_definition(depth, activation, kind):
    net = build(depth, activation, 0.3)
    x, t = examples(net, kind)
    right = net.gradient(x, t)
    assert error(net.numerical_gradient(x, t), right) < 1e-7
    if activation == "sigmoid":  # with ReLU a kink between -h and h is a matter of luck
        expected = error(by_definition(net, x, t), right)
        assert error(net.numerical_gradient(x, t), right) < 1.2 * expected


@depths
@activations
@kinds
def test_large_changes_of_the_logits(depth, activation, kind):
    # Inputs of a thousand: the logits change by up to 1, where short polynomials would not do.
    net = build(depth, activation)
    net.params["W1"] /= 1000
    x, t = examples(net, kind)
    expected = by_definition(net, 1000 * x, t)
    assert error(net.numerical_gradient(1000 * x, t), expected, ROUNDING) < 1e-8


@pytest.mark.parametrize("size", [1e-3, 1, 30, 100, 300, 1e3, 1e4, 1e5])
@pytest.mark.parametrize("kind", ["labels", "soft"])
def test_no_gap_between_small_and_large_changes(size, kind):
    net = build(0)
    net.params["W1"] /= size
    x, t = examples(net, kind)
    expected = by_definition(net, size * x, t)
    assert error(net.numerical_gradient(size * x, t), expected, ROUNDING) < 1e-8


@depths
@activations
def test_float32_is_noise_around_the_gradient_and_warns(depth, activation):
    net = build(depth, activation, 0.3, np.float32)
    x, t = examples(net)
    with pytest.warns(UserWarning, match=r"float32.*float64 is meant") as caught:
        grads = net.numerical_gradient(x, t)
    assert [w.filename for w in caught] == [__file__]
    assert error(grads, net.gradient(x, t)) < 0.5


def test_float64_does_not_warn():
    net = build()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.numerical_gradient(*examples(net))


def test_the_loss_at_a_kink_is_really_moved():
    # At 0 the central difference of ReLU is 1/2, which no backward pass gives.
    net = TwoLayerNet(1, 1, 2, seed=0)
    net.params["W1"][...], net.params["W2"][...] = 0, [[1, -1]]
    grads = net.numerical_gradient(np.ones((1, 1)), np.array([1]))
    assert grads["W1"][0, 0] == pytest.approx(0.5, abs=1e-4)
    assert net.gradient(np.ones((1, 1)), np.array([1]))["W1"][0, 0] == 0


def test_it_does_not_look_at_the_backward_pass(monkeypatch):
    net = build(2)
    x, t = examples(net)
    expected = net.numerical_gradient(x, t)
    for layer in layers.Affine, layers.Relu, layers.SoftmaxWithLoss:
        monkeypatch.setattr(layer, "backward", None)
    actual = net.numerical_gradient(x, t)
    assert error(actual, expected) == 0


@pytest.mark.parametrize("classes", [1, 2, 3, 5, 9 if JIT_DISABLED else 70])
@pytest.mark.parametrize("N", [1, 2, 33])
def test_any_number_of_classes_and_examples(classes, N):
    net = build(1, classes=classes)
    x, t = examples(net, N=N)
    expected = by_definition(net, x, t)
    assert error(net.numerical_gradient(x, t), expected, ROUNDING) < 1e-8


def test_one_example_without_a_batch():
    net = build(2)
    x, t = examples(net, N=1)
    assert error(net.numerical_gradient(x[0], t[0]), net.numerical_gradient(x, t)) == 0


def test_pictures_are_flattened():
    net = build(1)
    x, t = examples(net)
    pictures = x.reshape(-1, 1, 2, 3)
    assert error(net.numerical_gradient(pictures, t), net.numerical_gradient(x, t)) == 0


@pytest.mark.parametrize("nanoseconds", [1.0, 2e3, 1e4, 1e5])
@pytest.mark.parametrize("depth", [0, 2])
def test_short_calls_give_the_same(nanoseconds, depth, monkeypatch):
    net = build(depth, decay=0.3)
    x, t = examples(net, "soft")
    expected = net.numerical_gradient(x, t)
    monkeypatch.setattr(_differences, "CALL", nanoseconds)
    assert error(net.numerical_gradient(x, t), expected) < 1e-13


def test_nothing_is_written_to():
    net = build(2, decay=0.3)
    x, t = examples(net, "soft")
    arrays = {"x": x, "t": t, **net.params}
    before = {key: a.tobytes() for key, a in arrays.items()}
    grads = net.numerical_gradient(x, t)
    assert {key: a.tobytes() for key, a in arrays.items()} == before
    assert not any(np.shares_memory(g, a) for g in grads.values() for a in arrays.values())
    assert all(g.flags.c_contiguous and g.flags.owndata for g in grads.values())


@pytest.mark.parametrize(
    "replace", [lambda p: -0.5 * p, np.asfortranarray, lambda p: np.repeat(p, 2, -1)[..., ::2]]
)
def test_parameters_put_in_their_place_count(replace, compiled_only):
    net = build(2)
    for key, p in net.params.items():
        net.params[key] = replace(p)
    x, t = examples(net)
    expected = by_definition(net, x, t)
    compiled_only()
    assert error(net.numerical_gradient(x, t), expected, ROUNDING) < 1e-8


def test_the_widths_are_those_of_the_parameters(compiled_only):
    net = build(1)
    rng = np.random.default_rng(5)
    shapes = {"W1": (D, 11), "b1": (11,), "W2": (11, C)}
    net.params |= {key: rng.normal(size=shape) for key, shape in shapes.items()}
    x, t = examples(net)
    expected = by_definition(net, x, t)
    compiled_only()
    assert error(net.numerical_gradient(x, t), expected, ROUNDING) < 1e-8


# --- networks that the kernel does not know ------------------------------------------------------


class Doubled(layers.Relu):
    def forward(self, x):
        return 2 * super().forward(x)


class OtherLoss(layers.SoftmaxWithLoss):
    def forward(self, x, t):
        return 3 * super().forward(x, t)


class OwnLoss(MultiLayerNet):
    def loss(self, x, t):
        return 5 * super().loss(x, t)


class OwnPredict(MultiLayerNet):
    def predict(self, x):
        return 7 * super().predict(x)


def with_another_activation(net):
    net.layers["Relu1"] = Doubled()


def with_another_loss(net):
    net.last_layer = OtherLoss()


def with_one_layer_more(net):
    net.layers["Relu3"] = layers.Relu()


def with_mixed_activations(net):
    net.layers["Relu2"] = layers.Sigmoid()


def with_layers_in_another_order(net):
    net.layers = {key: net.layers[key] for key in ("Relu1", "Affine1", "Affine2", "Affine3")}


def with_a_loss_of_its_own(net):
    net.__class__ = OwnLoss


def with_a_predict_of_its_own(net):
    net.__class__ = OwnPredict


def with_a_function_as_loss(net):
    net.loss = lambda x, t: 3 * MultiLayerNet.loss(net, x, t)


def with_a_layers_forward_replaced(net):
    relu = net.layers["Relu1"]
    relu.forward = lambda x: 2 * layers.Relu.forward(relu, x)


def with_shared_memory(net):
    net.params["b2"] = net.params["b1"][: net.params["b2"].size]


def with_a_parameter_of_another_type(net):
    net.params["b1"] = net.params["b1"].astype(np.float32)


OTHERS = [f for name, f in list(globals().items()) if name.startswith("with_")]


@pytest.mark.filterwarnings("ignore:.*float64 is meant")
@pytest.mark.parametrize("change", OTHERS, ids=lambda f: f.__name__)
def test_other_networks_take_the_definition(change, definition_only):
    net = build(2)
    change(net)
    x, t = examples(net)
    assert error(net.numerical_gradient(x, t), by_definition(net, x, t)) == 0


def test_a_parameter_that_no_layer_has_gets_a_gradient_too(definition_only):
    net = build(1)
    net.params["scale"] = np.ones(2)
    assert (net.numerical_gradient(*examples(net))["scale"] == 0).all()


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["x", "W1", "b1", "b2"])
def test_numbers_that_are_not_finite_take_the_definition(where, value, definition_only):
    net = build(1)
    x, t = examples(net)
    array = x if where == "x" else net.params[where]
    array.flat[1] = value
    expected = by_definition(net, x, t)
    for key, g in net.numerical_gradient(x, t).items():
        np.testing.assert_array_equal(g, expected[key])


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "exception", "message"),
    [
        (lambda x, t: (x[:, 1:], t), ValueError, "x has shape"),
        (lambda x, t: (x, t[1:]), ValueError, "as many labels as rows"),
        (lambda x, t: (x, t + C), IndexError, "expected a label"),
        (lambda x, t: (x, t * 1.0), TypeError, "integer labels"),
        (lambda x, t: (x[:0], t[:0]), ValueError, "at least one row"),
    ],
)
def test_what_the_loss_refuses_is_refused(change, exception, message):
    net = build(1)
    with pytest.raises(exception, match=message):
        net.numerical_gradient(*change(*examples(net)))


# --- a check that can fail -----------------------------------------------------------------------


@activations
@pytest.mark.parametrize("factor", [1.001, 0.999])
@pytest.mark.parametrize("key", ["W1", "b1", "W2", "b2", "W3", "b3"])
def test_an_error_of_a_thousandth_shows(key, factor, activation):
    net = build(2, activation, 0.3)
    x, t = examples(net)
    grads = net.gradient(x, t)
    grads[key] = grads[key] * factor
    wrong = {
        k for k, g in net.numerical_gradient(x, t).items() if error({k: grads[k]}, {k: g}) > 1e-6
    }
    assert wrong == {key}


def test_the_generic_function_is_still_the_public_one():
    assert fastbp.numerical_gradient is gradient.numerical_gradient
