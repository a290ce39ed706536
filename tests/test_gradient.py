import copy

import numpy as np
import pytest

import fastbp
from fastbp import (
    MultiLayerNet,
    TwoLayerNet,
    check_gradient,
    gradient_descent,
    numerical_diff,
    numerical_gradient,
    reference,
)


def squares(x):
    return np.sum(x**2)


# --- numerical_diff ------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "slope"), [(5, 0.1999999999990898), (10, 0.2999999999986347)])
def test_numerical_diff_gives_the_books_numbers(x, slope):
    assert numerical_diff(lambda x: 0.01 * x**2 + 0.1 * x, x) == pytest.approx(slope, rel=1e-13)


def test_numerical_diff_takes_a_function_of_two_variables_apart():
    assert numerical_diff(lambda x0: x0**2 + 4.0**2, 3.0) == pytest.approx(6, abs=1e-8)


# --- numerical_gradient --------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "gradient"), [((3, 4), (6, 8)), ((0, 2), (0, 4)), ((3, 0), (6, 0))])
def test_numerical_gradient_gives_the_books_numbers(x, gradient):
    np.testing.assert_allclose(numerical_gradient(squares, np.array(x, float)), gradient, atol=1e-8)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (3, 4), (2, 3, 4), (2, 0, 3)], ids=str)
def test_numerical_gradient_has_the_shape_of_x(shape, rng):
    x = rng.normal(size=shape)
    grad = numerical_gradient(lambda x: np.sum(np.sin(x)), x)
    assert grad.shape == shape
    np.testing.assert_allclose(grad, np.cos(x), rtol=0, atol=1e-8)


def test_numerical_gradient_equals_the_reference(rng):
    x = rng.normal(size=(4, 3))
    expected = reference.numerical_gradient(squares, x)
    np.testing.assert_array_equal(numerical_gradient(squares, x), expected)


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "transposed": lambda a: a.T.copy().T,
    "gaps": lambda a: np.repeat(np.repeat(a, 2, axis=0), 3, axis=1)[::2, ::3],
    "reversed": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "big-endian": lambda a: a.astype(">f8"),
    "matrix": np.asmatrix,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_numerical_gradient_takes_x_in_any_layout(layout, rng):
    x = LAYOUTS[layout](rng.normal(size=(4, 3)))
    grad = numerical_gradient(lambda x: np.sum(np.sin(np.asarray(x))), x)
    np.testing.assert_allclose(grad, np.cos(np.asarray(x)), rtol=0, atol=1e-8)


def test_numerical_gradient_moves_x_itself_so_f_may_look_at_it_from_elsewhere():
    net = TwoLayerNet(3, 4, 2, 0.5, seed=0)
    x, t = np.eye(3), np.array([0, 1, 1])
    grad = numerical_gradient(lambda _: net.loss(x, t), net.params["W1"])
    np.testing.assert_allclose(grad, net.gradient(x, t)["W1"], rtol=0, atol=1e-9)


def test_numerical_gradient_returns_a_new_array(rng):
    x = rng.normal(size=5)
    assert not np.shares_memory(numerical_gradient(squares, x), x)


AWKWARD = np.array([0.1, -0.0, 1e300, 5e-324, 1.0 + 2**-52, -1e-5])


def test_numerical_gradient_puts_every_bit_of_x_back():
    x = AWKWARD.copy()
    numerical_gradient(lambda x: float(x[0]), x)
    assert x.tobytes() == AWKWARD.tobytes()


@pytest.mark.parametrize("call", range(1, 13))
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_when_f_raises_every_bit_of_x_is_as_before(call, error):
    x, calls = AWKWARD.copy(), []

    def f(x):
        calls.append(1)
        if len(calls) == call:
            raise error
        return 0.0

    with pytest.raises(error):
        numerical_gradient(f, x)
    assert x.tobytes() == AWKWARD.tobytes()


def test_nan_from_f_is_passed_on():
    x = np.array([1.0, 2.0])
    grad = numerical_gradient(lambda x: np.nan if x[1] > 2 else x[0], x)
    np.testing.assert_array_equal(np.isnan(grad), [False, True])


@pytest.mark.parametrize(
    "result",
    [np.zeros(2), np.zeros(1), [1.0], (1.0,), None, "1", 1j, np.complex128(1 + 1j), np.zeros((0,))],
    ids=repr,
)
def test_f_must_return_one_number(result):
    x = np.ones(2)
    with pytest.raises(ValueError, match=r"f returned .*expected one number"):
        numerical_gradient(lambda _: result, x)
    np.testing.assert_array_equal(x, 1)


@pytest.mark.parametrize(
    "number",
    [1, True, 1.5, np.float32(1.5), np.int64(1), np.array(1.5)],
    ids=lambda n: str(type(n)),
)
def test_f_may_return_any_kind_of_number(number):
    np.testing.assert_array_equal(numerical_gradient(lambda _: number, np.ones(2)), 0)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.arange(3), "dtype int64"),
        (np.ones(3, bool), "dtype bool"),
        (np.ones(3, np.float16), "dtype float16"),
        (np.ones(3, complex), "dtype complex128"),
        (np.ones(3, object), "dtype object"),
        (np.array(["1"]), "dtype <U1"),
        ([1.0, 2.0], "type list"),
        (3.0, "type float"),
        (np.float64(3.0), "type float64"),
        (None, "type NoneType"),
        (np.ma.masked_equal([1.0, 2.0], 2.0), "type MaskedArray"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_x_must_be_an_array_of_floats(x, message):
    with pytest.raises(TypeError, match=f"numerical_gradient: x .*{message}.*float64"):
        numerical_gradient(squares, x)


def test_a_read_only_x_is_refused():
    x = np.ones(3)
    x.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        numerical_gradient(squares, x)


def test_float32_works_with_a_warning_that_float64_is_meant():
    x = np.array([3, 4], np.float32)
    with pytest.warns(UserWarning, match="float64 is meant"):
        grad = numerical_gradient(squares, x)
    assert grad.dtype == np.float32
    np.testing.assert_allclose(grad, [6, 8], rtol=0.05)


def test_the_warning_points_at_the_callers_line():
    with pytest.warns(UserWarning, match="float32") as caught:
        numerical_gradient(squares, np.ones(1, np.float32))
    assert caught[0].filename == __file__


# --- gradient_descent ----------------------------------------------------------------------------


def test_gradient_descent_gives_the_books_numbers():
    x = gradient_descent(squares, np.array([-3.0, 4.0]), lr=0.1, step_num=100)
    np.testing.assert_allclose(x, [-6.11110793e-10, 8.14814391e-10], rtol=1e-6)


def test_gradient_descent_diverges_with_a_large_learning_rate():
    x = gradient_descent(squares, np.array([-3.0, 4.0]), lr=10.0, step_num=100)
    assert np.abs(x).min() > 1e10


def test_gradient_descent_hardly_moves_with_a_tiny_learning_rate():
    x = gradient_descent(squares, np.array([-3.0, 4.0]), lr=1e-10, step_num=100)
    np.testing.assert_allclose(x, [-3, 4], rtol=0, atol=1e-6)


def test_gradient_descent_leaves_its_start_alone():
    start = np.array([-3.0, 4.0])
    gradient_descent(squares, start, lr=0.1, step_num=3)
    np.testing.assert_array_equal(start, [-3, 4])


def test_no_steps_give_a_copy_of_the_start():
    start = np.array([-3.0, 4.0])
    x = gradient_descent(squares, start, step_num=0)
    np.testing.assert_array_equal(x, start)
    assert not np.shares_memory(x, start)


def test_gradient_descent_takes_the_books_defaults():
    start = np.array([-3.0, 4.0])
    expected = gradient_descent(squares, start, lr=0.01, step_num=100)
    np.testing.assert_array_equal(gradient_descent(squares, start), expected)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (np.array([-3, 4]), "int64"),
        (np.ma.masked_equal([1.0, 2.0], 2.0), "[Mm]ask"),
        (np.array([1j]), "complex128"),
    ],
)
def test_gradient_descent_refuses_what_numerical_gradient_refuses(start, message):
    with pytest.raises(TypeError, match=message):
        gradient_descent(squares, start)


# --- check_gradient ------------------------------------------------------------------------------


def examples(D=6, C=3, N=5):
    rng = np.random.default_rng(7)
    return rng.normal(size=(N, D)), rng.integers(0, C, N)


def two_layer(cls=TwoLayerNet, **options):
    """Return 6-5-3 with gradients of about 0.1 everywhere."""
    net = cls(6, 5, 3, 0.7, seed=1, **options)
    net.params["b1"][...] = np.linspace(-0.2, 0.2, 5)
    return net


class BookNet:
    """A network written as in chapter 5, on the reference layers."""

    def __init__(self, dtype=np.float64):
        source = two_layer().params
        self.params = {key: p.astype(dtype) for key, p in source.items()}
        self.layers = {
            "Affine1": reference.Affine(self.params["W1"], self.params["b1"]),
            "Relu1": reference.Relu(),
            "Affine2": reference.Affine(self.params["W2"], self.params["b2"]),
        }
        self.lastLayer = reference.SoftmaxWithLoss()

    def predict(self, x):
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x, t):
        return self.lastLayer.forward(self.predict(x), t)

    def gradient(self, x, t):
        self.loss(x, t)
        dout = self.lastLayer.backward(1)
        for layer in reversed(list(self.layers.values())):
            dout = layer.backward(dout)
        first, second = self.layers["Affine1"], self.layers["Affine2"]
        return {"W1": first.dW, "b1": first.db, "W2": second.dW, "b2": second.db}


RIGHT = {
    "ReLU": two_layer,
    "sigmoid": lambda: two_layer(activation="sigmoid"),
    "no hidden layer": lambda: MultiLayerNet(6, [], 3, seed=0),
    "weight decay": lambda: MultiLayerNet(6, [5, 4], 3, weight_decay_lambda=0.5, seed=0),
    "deep sigmoid": lambda: MultiLayerNet(6, [5] * 4, 3, "sigmoid", "sigmoid", seed=0),
    "float32": lambda: two_layer(dtype=np.float32),
    "float32 with decay": lambda: MultiLayerNet(
        6, [5], 3, weight_decay_lambda=0.5, dtype=np.float32, seed=0
    ),
    "small weights": lambda: TwoLayerNet(6, 5, 3, seed=0),
    "written like the book's": BookNet,
    "reference": lambda: reference.TwoLayerNet(6, 5, 3, 0.7),
}


@pytest.mark.parametrize("kind", RIGHT)
@pytest.mark.parametrize("one_hot", [False, True], ids=["labels", "one-hot"])
def test_a_right_network_passes(kind, one_hot):
    np.random.seed(0)
    x, t = examples()
    check = check_gradient(RIGHT[kind](), x, np.eye(3)[t] if one_hot else t)
    assert check.passed, f"\n{check}"


def test_the_check_looks_at_every_parameter():
    check = check_gradient(two_layer(), *examples())
    assert [(p.name, p.shape) for p in check.parameters] == [
        ("W1", (6, 5)),
        ("b1", (5,)),
        ("W2", (5, 3)),
        ("b2", (3,)),
    ]


def test_the_mean_differences_of_a_right_network_are_below_1e_8():
    rng = np.random.default_rng(0)
    net = TwoLayerNet(20, 8, 5, seed=1)
    check = check_gradient(net, rng.random((3, 20)), np.array([0, 3, 4]))
    assert max(p.mean_difference for p in check.parameters) < 1e-8


def changed(key, change, base=two_layer, **options):
    """Return a network whose gradient of one parameter has been changed."""

    class Wrong(TwoLayerNet):
        def gradient(self, x, t):
            grads = super().gradient(x, t)
            grads[key] = change(grads[key])
            return grads

    return base(Wrong, **options)


def wrong_keys(check):
    return [p.name for p in check.parameters if p.wrong]


KEYS = ["W1", "b1", "W2", "b2"]


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("factor", [1.001, 0.999])
@pytest.mark.parametrize("key", KEYS)
def test_a_gradient_wrong_by_a_thousandth_is_rejected(key, factor, activation):
    net = changed(key, lambda g: g * factor, activation=activation)
    assert wrong_keys(check_gradient(net, *examples())) == [key]


@pytest.mark.parametrize("key", KEYS)
def test_one_element_wrong_by_a_thousandth_is_rejected(key):
    def change(g):
        g.flat[np.abs(g).argmax()] *= 1.001
        return g

    check = check_gradient(changed(key, change), *examples())
    assert wrong_keys(check) == [key]
    assert sum(p.wrong for p in check.parameters) == 1


@pytest.mark.parametrize("key", KEYS)
def test_in_float32_a_gradient_wrong_by_a_hundredth_is_rejected(key):
    net = changed(key, lambda g: g * np.float32(1.01), dtype=np.float32)
    assert wrong_keys(check_gradient(net, *examples())) == [key]


@pytest.mark.parametrize(
    "change", [np.zeros_like, np.negative, lambda g: g + 1e-4, lambda g: np.full_like(g, np.nan)]
)
@pytest.mark.parametrize("key", KEYS)
def test_a_gradient_that_is_no_gradient_is_rejected(key, change):
    assert wrong_keys(check_gradient(changed(key, change), *examples())) == [key]


class ForgetsTheBias(BookNet):
    def gradient(self, x, t):
        return super().gradient(x, t) | {"b1": np.zeros(5)}


class SumsOverTheBatch(BookNet):
    def gradient(self, x, t):
        return {key: g * len(x) for key, g in super().gradient(x, t).items()}


class TransposedAffine(reference.Affine):
    def backward(self, dout):
        super().backward(dout)
        return np.dot(dout, self.W)


class UsesWNotItsTranspose(BookNet):
    """Its second layer is square, so that nothing but the numbers tells."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(0)
        self.params |= {"W2": rng.normal(size=(5, 5)), "b2": np.zeros(5)}
        self.layers["Affine2"] = TransposedAffine(self.params["W2"], self.params["b2"])


class OpenRelu(reference.Relu):
    def backward(self, dout):
        return dout


class ForgetsTheMask(BookNet):
    def __init__(self):
        super().__init__()
        self.layers["Relu1"] = OpenRelu()


class ForgetsTheWeightDecay(MultiLayerNet):
    def gradient(self, x, t):
        decay, self.weight_decay_lambda = self.weight_decay_lambda, 0.0
        grads = super().gradient(x, t)
        self.weight_decay_lambda = decay
        return grads


@pytest.mark.parametrize(
    ("make", "keys"),
    [
        (ForgetsTheBias, ["b1"]),
        (SumsOverTheBatch, KEYS),
        (UsesWNotItsTranspose, ["W1", "b1"]),
        (ForgetsTheMask, ["W1", "b1"]),
        (
            lambda: ForgetsTheWeightDecay(6, [5], 3, weight_decay_lambda=0.1, seed=0),
            ["W1", "W2"],
        ),
    ],
)
def test_the_usual_mistakes_are_found_where_they_are(make, keys):
    check = check_gradient(make(), *examples())
    assert not check.passed
    assert wrong_keys(check) == keys


def move_to_kink(net, x, unit, distance):
    """Bring one unit, for one example, so close to 0 that h = 1e-4 goes to its other side."""
    W, b = net.params["W1"], net.params["b1"]
    b[unit] -= (x[unit % len(x)] @ W + b)[unit] - distance


@pytest.mark.parametrize("distance", [1e-6, 5e-6, 1e-5, -1e-6, -5e-6, -1e-5])
def test_a_relu_near_its_kink_is_no_mistake(distance):
    net, (x, t) = two_layer(), examples()
    move_to_kink(net, x, 2, distance)
    check = check_gradient(net, x, t)
    assert check.passed, f"\n{check}"


@pytest.mark.parametrize("units", [1, 2, 3, 6])
@pytest.mark.parametrize("inputs", [6, 30])
def test_several_units_near_their_kinks_are_no_mistake(inputs, units):
    net, (x, t) = TwoLayerNet(inputs, 6, 3, 0.7, seed=1), examples(inputs, N=6)
    for unit in range(units):
        move_to_kink(net, x, unit, 5e-6)
    check = check_gradient(net, x, t)
    assert check.passed, f"\n{check}"


def test_a_mistake_is_found_beside_a_kink():
    net, (x, t) = changed("W1", lambda g: g * 1.001), examples()
    move_to_kink(net, x, 2, 5e-6)
    assert wrong_keys(check_gradient(net, x, t)) == ["W1"]


@pytest.mark.parametrize("kind", RIGHT)
def test_the_check_puts_every_bit_of_the_parameters_back(kind):
    np.random.seed(0)
    net = RIGHT[kind]()
    before = {key: p.tobytes() for key, p in net.params.items()}
    check_gradient(net, *examples())
    assert {key: p.tobytes() for key, p in net.params.items()} == before


class RaisesHalfWay(BookNet):
    calls = 0

    def loss(self, x, t):
        self.calls += 1
        if self.calls == 30:
            raise ZeroDivisionError
        return super().loss(x, t)


def test_when_the_loss_raises_every_bit_of_the_parameters_is_as_before():
    net = RaisesHalfWay()
    before = copy.deepcopy(net.params)
    with pytest.raises(ZeroDivisionError):
        check_gradient(net, *examples())
    assert {k: p.tobytes() for k, p in net.params.items()} == {
        k: p.tobytes() for k, p in before.items()
    }


def test_the_check_leaves_a_float32_network_in_float32():
    net = two_layer(dtype=np.float32)
    check_gradient(net, *examples())
    assert net.layers["Affine1"].W is net.params["W1"]
    assert net.dtype == np.float32


@pytest.mark.parametrize("kind", RIGHT)
def test_progress_counts_every_element_once(kind):
    np.random.seed(0)
    net, counts = RIGHT[kind](), []
    check_gradient(net, *examples(), progress=counts.append)
    assert sum(counts) == sum(p.size for p in net.params.values())


def test_progress_comes_after_each_row():
    counts = []
    check_gradient(two_layer(), *examples(), progress=counts.append)
    assert counts == [5] * 6 + [5] + [3] * 5 + [3]


def without(key):
    class Forgetful(BookNet):
        def gradient(self, x, t):
            grads = super().gradient(x, t)
            del grads[key]
            return grads

    return Forgetful()


@pytest.mark.parametrize("key", KEYS)
def test_a_parameter_without_a_gradient_is_named(key):
    with pytest.raises(KeyError, match=f"no '{key}'"):
        check_gradient(without(key), *examples())


@pytest.mark.parametrize("key", KEYS)
def test_a_gradient_of_another_shape_is_refused(key):
    with pytest.raises(ValueError, match=f"gradient of '{key}' has shape .*expected"):
        check_gradient(changed(key, lambda g: g[:1]), *examples())


def test_a_float32_network_that_is_not_fastbps_is_refused():
    with pytest.raises(TypeError, match=r"params\['W1'\] has dtype float32, expected float64"):
        check_gradient(BookNet(np.float32), *examples())


class LossOfEachExample(BookNet):
    def loss(self, x, t):
        return np.full(len(x), super().loss(x, t))


def test_a_loss_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="expected one number"):
        check_gradient(LossOfEachExample(), *examples())


def test_the_table_says_which_parameter_is_right_and_which_is_wrong():
    lines = str(check_gradient(changed("W1", np.zeros_like), *examples())).splitlines()
    assert [line.split()[0] for line in lines] == ["parameter", *KEYS]
    assert lines[1].endswith("WRONG in 30 of 30")
    assert all(line.endswith("ok") for line in lines[2:])


def test_the_differences_are_those_of_the_gradients():
    net = changed("b2", lambda g: g + np.array([0.5, 0.0, -0.25]))
    b2 = check_gradient(net, *examples()).parameters[-1]
    assert b2.max_difference == pytest.approx(0.5, abs=1e-7)
    assert b2.mean_difference == pytest.approx(0.25, abs=1e-7)
    assert b2.wrong == 2


def test_the_check_is_importable_from_fastbp():
    assert fastbp.check_gradient is check_gradient


@pytest.mark.parametrize("name", ["numerical_gradient", "numerical_diff", "gradient_descent"])
def test_what_is_no_function_is_a_type_error(name):
    with pytest.raises(TypeError, match=f"{name}: f is of type int"):
        getattr(fastbp, name)(3, np.ones(2))


@pytest.mark.parametrize("x", ["1", None, 1j, [None]])
def test_numerical_diff_at_no_number_is_a_type_error(x):
    with pytest.raises(TypeError, match="numerical_diff: x is"):
        fastbp.numerical_diff(lambda x: x, x)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        *(({"lr": lr}, "lr") for lr in ("0.1", None, np.nan, np.inf, 10**400, True)),
        *(({"step_num": n}, "step_num") for n in (-1, 1.5, "3", None, True)),
    ],
)
def test_gradient_descent_names_what_it_refuses(given, name):
    with pytest.raises(ValueError, match=f"gradient_descent: {name} is"):
        fastbp.gradient_descent(lambda x: x.sum(), np.ones(2), **given)


def test_gradient_descent_with_a_rate_too_large_is_not_finite():
    x = fastbp.gradient_descent(lambda x: x.sum(), np.full(2, 1e10), lr=1e308, step_num=2)
    assert not np.isfinite(x).any()
