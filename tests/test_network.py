import copy
import pickle

import numpy as np
import pytest

import fastbp
from fastbp import MultiLayerNet, Network, TwoLayerNet, _network, reference

D, C = 6, 4
HIDDEN = {0: [], 1: [7], 2: [7, 5], 3: [7, 5, 6], 4: [7, 5, 6, 3]}
# Large enough for NumPy's BLAS to use its second thread.
WIDE = {0: [], 1: [50], 2: [50, 33], 3: [50, 33, 20], 4: [50, 33, 20, 12]}

depths = pytest.mark.parametrize("depth", HIDDEN)
activations = pytest.mark.parametrize("activation", ["relu", "sigmoid"])
decays = pytest.mark.parametrize("decay", [0.0, 0.3], ids=["no decay", "decay"])
targets = pytest.mark.parametrize("one_hot", [False, True], ids=["labels", "one-hot"])


def build(depth=1, activation="relu", decay=0.0, dtype=np.float64, inputs=D, hidden=HIDDEN):
    """Return a network with weights and biases that all matter."""
    net = MultiLayerNet(
        inputs, hidden[depth], C, activation, activation, decay, dtype=dtype, seed=depth + 1
    )
    rng = np.random.default_rng(100 + depth)
    for key, p in net.params.items():
        if key.startswith("b"):
            p[...] = rng.normal(scale=0.3, size=p.shape)
    return net


def examples(N=9, inputs=D, one_hot=False):
    rng = np.random.default_rng(7)
    t = rng.integers(0, C, N)
    return rng.normal(size=(N, inputs)), (np.eye(C)[t] if one_hot else t)


class Oracle:
    """The same network of plain NumPy layers, in float64."""

    def __init__(self, net):
        self.params = {key: p.astype(np.float64) for key, p in net.params.items()}
        self.decay = net.weight_decay_lambda
        self.depth = len(self.params) // 2
        self.layers = []
        for i in range(1, self.depth + 1):
            self.layers.append(reference.Affine(self.params[f"W{i}"], self.params[f"b{i}"]))
            if i < self.depth:
                hidden = {"relu": reference.Relu, "sigmoid": reference.Sigmoid}[net.activation]
                self.layers.append(hidden())
        self.last = reference.SoftmaxWithLoss()

    def predict(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def loss(self, x, t):
        squares = sum(np.sum(self.params[f"W{i}"] ** 2) for i in range(1, self.depth + 1))
        return self.last.forward(self.predict(x), t) + 0.5 * self.decay * squares

    def accuracy(self, x, t):
        labels = t if t.ndim == 1 else t.argmax(axis=1)
        return np.mean(self.predict(x).argmax(axis=1) == labels)

    def gradient(self, x, t):
        self.loss(x, t)
        dout = self.last.backward()
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        grads = {}
        for i, layer in enumerate(self.layers[::2], start=1):
            grads[f"W{i}"] = layer.dW + self.decay * layer.W
            grads[f"b{i}"] = layer.db
        return grads


def assert_close(actual, expected, tolerance=1e-12):
    """Compare within tolerance times the largest expected value."""
    assert np.shape(actual) == np.shape(expected)
    error = np.max(np.abs(np.subtract(actual, expected)), initial=0)
    assert error <= tolerance * np.max(np.abs(expected), initial=0)


def assert_same_gradients(actual, expected, tolerance=1e-12):
    assert list(actual) == list(expected)
    for key in expected:
        assert_close(actual[key], expected[key], tolerance)


def bits(arrays):
    return {key: array.tobytes() for key, array in arrays.items()}


# --- the first weights ---------------------------------------------------------------------------


@activations
def test_a_seed_of_the_global_generator_gives_the_books_weights(activation):
    np.random.seed(0)
    ours = TwoLayerNet(20, 8, 5, activation=activation)
    np.random.seed(0)
    book = reference.TwoLayerNet(20, 8, 5, activation=activation)
    assert bits(ours.params) == bits(book.params)


def test_multilayernet_draws_from_the_global_generator_layer_by_layer():
    np.random.seed(3)
    net = MultiLayerNet(5, [4, 3], 2, weight_init_std=0.5)
    np.random.seed(3)
    expected = [0.5 * np.random.randn(*shape) for shape in [(5, 4), (4, 3), (3, 2)]]
    for i, W in enumerate(expected, start=1):
        np.testing.assert_array_equal(net.params[f"W{i}"], W)


def test_a_seed_of_its_own_gives_the_weights_of_default_rng():
    net = TwoLayerNet(5, 4, 3, 0.5, seed=11)
    rng = np.random.default_rng(11)
    np.testing.assert_array_equal(net.params["W1"], 0.5 * rng.standard_normal((5, 4)))
    np.testing.assert_array_equal(net.params["W2"], 0.5 * rng.standard_normal((4, 3)))


def test_a_seed_of_its_own_leaves_the_global_generator_alone():
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    TwoLayerNet(5, 4, 3, seed=0)
    assert np.random.random() == expected


def test_different_seeds_give_different_weights():
    assert bits(TwoLayerNet(5, 4, 3, seed=0).params) != bits(TwoLayerNet(5, 4, 3, seed=1).params)


def test_biases_begin_at_zero():
    params = MultiLayerNet(5, [4, 3], 2).params
    assert not any(params[key].any() for key in ("b1", "b2", "b3"))


@pytest.mark.parametrize(
    ("rule", "gain"),
    [("relu", 2), ("he", 2), ("He", 2), ("sigmoid", 1), ("xavier", 1), ("Xavier", 1)],
)
def test_initial_weights_follow_the_rule_of_chapter_6(rule, gain):
    net = MultiLayerNet(8, [18, 32], 5, weight_init_std=rule, seed=0)
    unit = MultiLayerNet(8, [18, 32], 5, weight_init_std=1.0, seed=0)
    for i, inputs in enumerate((8, 18, 32), start=1):
        expected = np.sqrt(gain / inputs) * unit.params[f"W{i}"]
        np.testing.assert_allclose(net.params[f"W{i}"], expected, rtol=1e-15)


def test_multilayernet_begins_with_the_rule_for_relu():
    default, he = MultiLayerNet(8, [6], 5, seed=0), MultiLayerNet(8, [6], 5, "relu", "he", seed=0)
    assert bits(default.params) == bits(he.params)


def test_float32_weights_are_the_float64_weights_rounded():
    single, double = TwoLayerNet(9, 8, 7, seed=0, dtype="float32"), TwoLayerNet(9, 8, 7, seed=0)
    for key, p in double.params.items():
        assert single.params[key].dtype == np.float32
        np.testing.assert_array_equal(single.params[key], p.astype(np.float32))


@pytest.mark.parametrize("make", [TwoLayerNet, lambda D, H, C: MultiLayerNet(D, [H], C)])
def test_float64_is_the_default(make):
    assert {p.dtype for p in make(4, 3, 2).params.values()} == {np.dtype(np.float64)}


# --- the parts of a network ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "names"),
    [
        (TwoLayerNet(3, 4, 2), ["Affine1", "Relu1", "Affine2"]),
        (TwoLayerNet(3, 4, 2, activation="sigmoid"), ["Affine1", "Sigmoid1", "Affine2"]),
        (MultiLayerNet(3, [], 2), ["Affine1"]),
        (MultiLayerNet(3, [4, 5], 2), ["Affine1", "Relu1", "Affine2", "Relu2", "Affine3"]),
        (MultiLayerNet(3, (4,), 2, "Sigmoid"), ["Affine1", "Sigmoid1", "Affine2"]),
        (Network((3, 4, 2), (1, 1)), ["Affine1", "Relu1", "Affine2"]),
    ],
    ids=repr,
)
def test_layers_have_the_books_names_in_the_order_of_the_computation(net, names):
    assert list(net.layers) == names


def test_the_loss_layer_has_both_names():
    net = TwoLayerNet(3, 4, 2)
    assert net.lastLayer is net.last_layer
    assert isinstance(net.last_layer, fastbp.SoftmaxWithLoss)


def test_layers_hold_the_arrays_of_params():
    net = TwoLayerNet(3, 4, 2)
    assert net.layers["Affine1"].W is net.params["W1"]
    assert net.layers["Affine2"].b is net.params["b2"]


def test_params_have_the_books_keys_and_shapes():
    shapes = {key: p.shape for key, p in MultiLayerNet(3, [4, 5], 2).params.items()}
    assert shapes == {"W1": (3, 4), "b1": (4,), "W2": (4, 5), "b2": (5,), "W3": (5, 2), "b3": (2,)}


@pytest.mark.parametrize(
    ("net", "text"),
    [
        (TwoLayerNet(64, 50, 10), "TwoLayerNet(64-50-10, relu, float64)"),
        (
            MultiLayerNet(4, [], 2, "sigmoid", dtype=np.float32),
            "MultiLayerNet(4-2, sigmoid, float32)",
        ),
    ],
)
def test_repr_says_sizes_activation_and_type(net, text):
    assert repr(net) == text


# --- the numbers ---------------------------------------------------------------------------------


@depths
@activations
def test_predict_equals_the_reference(depth, activation, threads):
    net = build(depth, activation, inputs=64, hidden=WIDE)
    x, _ = examples(130, 64)
    assert_close(net.predict(x), Oracle(net).predict(x))


@depths
@activations
@decays
@targets
def test_loss_equals_the_reference(depth, activation, decay, one_hot):
    net = build(depth, activation, decay)
    x, t = examples(one_hot=one_hot)
    assert_close(net.loss(x, t), Oracle(net).loss(x, t))


@depths
@activations
@decays
@targets
def test_gradient_equals_the_reference(depth, activation, decay, one_hot, threads):
    net = build(depth, activation, decay, inputs=64, hidden=WIDE)
    x, t = examples(130, 64, one_hot)
    assert_same_gradients(net.gradient(x, t), Oracle(net).gradient(x, t))


@depths
@activations
@decays
def test_gradient_equals_central_differences(depth, activation, decay):
    net = build(depth, activation, decay)
    x, t = examples(5)
    assert_same_gradients(net.gradient(x, t), net.numerical_gradient(x, t), 1e-7)


@targets
def test_numerical_gradient_equals_the_reference(one_hot):
    np.random.seed(0)
    book = reference.TwoLayerNet(5, 4, 3, 0.5)
    np.random.seed(0)
    ours = TwoLayerNet(5, 4, 3, 0.5)
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(6, 5)), rng.integers(0, 3, 6)
    t = np.eye(3)[t] if one_hot else t
    # The quotient magnifies the rounding of the losses by 1 / 2h = 5000.
    assert_same_gradients(ours.numerical_gradient(x, t), book.numerical_gradient(x, t), 1e-10)


@targets
def test_loss_and_gradient_are_loss_and_gradient(one_hot):
    net = build(2, decay=0.3)
    x, t = examples(one_hot=one_hot)
    loss, grads = net.loss_and_gradient(x, t)
    assert loss == net.loss(x, t)
    assert bits(grads) == bits(net.gradient(x, t))


@depths
@targets
def test_accuracy_equals_the_reference(depth, one_hot):
    net = build(depth)
    x, t = examples(101, one_hot=one_hot)
    expected = Oracle(net).accuracy(x, t)
    assert 0 < expected < 1
    assert net.accuracy(x, t) == expected


@decays
@targets
@pytest.mark.parametrize("rows", [1, 10, 33, 99, 100, 1000])
def test_evaluate_in_pieces_equals_loss_and_accuracy_of_the_whole(
    rows, decay, one_hot, monkeypatch
):
    monkeypatch.setattr(_network, "EVALUATION_ROWS", rows)
    net = build(2, decay=decay)
    x, t = examples(100, one_hot=one_hot)
    loss, accuracy = net.evaluate(x, t)
    oracle = Oracle(net)
    assert_close(loss, oracle.loss(x, t))
    assert accuracy == oracle.accuracy(x, t)


def test_evaluate_takes_more_rows_than_fit_into_a_piece(threads):
    net = build(1)
    x, t = examples(2 * _network.EVALUATION_ROWS + 1)
    assert_close(net.evaluate(x, t), (Oracle(net).loss(x, t), Oracle(net).accuracy(x, t)))


def test_loss_and_accuracy_are_plain_floats():
    net = build(1, dtype=np.float32)
    x, t = examples()
    assert [type(value) for value in (net.loss(x, t), net.accuracy(x, t), *net.evaluate(x, t))] == [
        float
    ] * 4


def test_soft_targets_are_probabilities():
    net = build(1)
    x, labels = examples()
    soft = 0.9 * np.eye(C)[labels] + 0.1 / C
    log_y = np.log(reference.softmax(Oracle(net).predict(x)))
    assert_close(net.loss(x, soft), -np.mean(np.sum(soft * log_y, axis=1)))


@depths
@activations
def test_float32_comes_near_the_float64_reference(depth, activation, threads):
    net = build(depth, activation, 0.3, np.float32, inputs=64, hidden=WIDE)
    x, t = examples(130, 64)
    grads = net.gradient(x, t)
    assert {g.dtype for g in grads.values()} == {np.dtype(np.float32)}
    assert net.predict(x).dtype == np.float32
    assert_same_gradients(grads, Oracle(net).gradient(x.astype(np.float32), t), 1e-5)


@pytest.mark.parametrize(("parameters", "inputs"), [(np.float64, "f4"), (np.float32, "f8")])
def test_everything_is_computed_in_the_type_of_the_parameters(parameters, inputs):
    net = build(1, dtype=parameters)
    x, t = examples()
    x = x.astype(inputs)
    assert net.predict(x).dtype == parameters
    assert bits(net.gradient(x, t)) == bits(net.gradient(x.astype(parameters), t))


# --- params is the truth -------------------------------------------------------------------------


def change_in_place(net):
    for p in net.params.values():
        p *= -0.5


def replace(net):
    for key, p in net.params.items():
        net.params[key] = -0.5 * p


def replace_by_fortran_order(net):
    for key, p in net.params.items():
        net.params[key] = np.asfortranarray(-0.5 * p)


def replace_by_another_width(net):
    rng = np.random.default_rng(5)
    shapes = {"W1": (D, 11), "b1": (11,), "W2": (11, C)}
    net.params |= {key: rng.normal(size=shape) for key, shape in shapes.items()}


@pytest.mark.parametrize(
    "change", [change_in_place, replace, replace_by_fortran_order, replace_by_another_width]
)
@pytest.mark.parametrize("method", ["predict", "loss", "accuracy", "evaluate", "gradient"])
def test_changed_parameters_count_at_the_next_call(change, method):
    net = build(1)
    x, t = examples(101)
    arguments = (x,) if method == "predict" else (x, t)
    getattr(net, method)(*arguments)
    change(net)
    oracle = Oracle(net)
    actual = getattr(net, method)(*arguments)
    if method == "gradient":
        assert_same_gradients(actual, oracle.gradient(x, t))
    elif method == "evaluate":
        assert_close(actual, (oracle.loss(x, t), oracle.accuracy(x, t)))
    else:
        assert_close(actual, getattr(oracle, method)(*arguments))


def test_parameters_replaced_by_float32_compute_in_float32():
    net = build(1)
    x, t = examples()
    net.params = {key: p.astype(np.float32) for key, p in net.params.items()}
    assert {g.dtype for g in net.gradient(x, t).values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("key", ["W1", "b1", "W2", "b2"])
def test_a_parameter_of_another_shape_is_refused(key):
    net = build(1)
    net.params[key] = np.zeros([n + 1 for n in net.params[key].shape])
    with pytest.raises(ValueError, match=r"Affine.*expected"):
        net.loss(*examples())


# --- nothing else is changed ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["predict", "loss", "accuracy", "evaluate", "gradient"])
@targets
def test_inputs_and_parameters_are_never_written_to(method, one_hot):
    net = build(2, decay=0.3)
    x, t = examples(one_hot=one_hot)
    before = bits({"x": x, "t": t, **net.params})
    getattr(net, method)(*((x,) if method == "predict" else (x, t)))
    assert bits({"x": x, "t": t, **net.params}) == before


@depths
@decays
def test_gradients_are_new_arrays_each_time(depth, decay):
    net = build(depth, decay=decay)
    x, t = examples()
    first = net.gradient(x, t)
    expected = bits(first)
    second = net.gradient(x, t)
    for g in first.values():
        g[...] = np.nan
    assert bits(second) == expected
    assert bits(net.gradient(x, t)) == expected


@depths
def test_predictions_are_new_arrays_each_time(depth):
    net = build(depth)
    x, _ = examples()
    first = net.predict(x)
    expected = first.copy()
    first[...] = np.nan
    np.testing.assert_array_equal(net.predict(x), expected)


def test_gradient_after_a_batch_of_another_size_has_nothing_left_of_it():
    net = build(2)
    x, t = examples(20)
    expected = bits(net.gradient(x[:3], t[:3]))
    net.gradient(x, t)
    assert bits(net.gradient(x[:3], t[:3])) == expected


def test_gradient_after_a_refused_batch_is_right():
    net = build(1)
    x, t = examples()
    expected = bits(net.gradient(x, t))
    with pytest.raises(IndexError, match="label"):
        net.gradient(x[:2], [0, C])
    assert bits(net.gradient(x, t)) == expected


# --- shapes and layouts of the input -------------------------------------------------------------


def strided(x):
    wide = np.full((2 * len(x), 3 * x.shape[1]), np.nan)
    wide[::2, ::3] = x
    return wide[::2, ::3]


def misaligned(x):
    raw = np.empty(x.nbytes + 1, np.uint8)
    view = raw[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def read_only(x):
    view = x.copy()
    view.flags.writeable = False
    return view


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "gaps": strided,
    "reversed": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "misaligned": misaligned,
    "big-endian": lambda x: x.astype(">f8"),
    "read-only": read_only,
    "matrix": np.asmatrix,
    "list": np.ndarray.tolist,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", ["predict", "evaluate", "gradient"])
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_the_layout_of_the_input_does_not_matter(layout, method):
    net = build(1)
    x, t = examples()
    other = LAYOUTS[layout](x)
    if method == "predict":
        assert_close(net.predict(other), net.predict(x))
    elif method == "evaluate":
        assert_close(net.evaluate(other, t), net.evaluate(x, t))
    else:
        assert_same_gradients(net.gradient(other, t), net.gradient(x, t))


@pytest.mark.parametrize("dtype", ["u1", "i1", "i8", "?", "f2"])
def test_inputs_of_other_types_are_converted_to_the_parameters_type(dtype):
    net = build(1)
    x, t = examples()
    x = np.abs(4 * x).astype(dtype)
    assert bits(net.gradient(x, t)) == bits(net.gradient(x.astype(np.float64), t))


def test_a_memory_map_is_an_input_like_others(tmp_path):
    net = build(1)
    x, t = examples()
    mapped = np.memmap(tmp_path / "x", np.float64, "w+", shape=x.shape)
    mapped[...] = x
    assert net.evaluate(mapped, t) == net.evaluate(x, t)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u8", ">i4"])
def test_labels_may_have_any_integer_type(dtype):
    net = build(1)
    x, t = examples()
    assert net.evaluate(x, t.astype(dtype)) == net.evaluate(x, t)


def test_labels_and_one_hot_rows_mean_the_same():
    net = build(2)
    x, t = examples(50)
    assert_same_gradients(net.gradient(x, np.eye(C, dtype=int)[t]), net.gradient(x, t))


def test_images_of_four_dimensions_are_flattened():
    net = build(1)
    x, t = examples()
    images = x.reshape(-1, 1, 2, 3)
    np.testing.assert_array_equal(net.predict(images), net.predict(x))
    assert net.evaluate(images, t) == net.evaluate(x, t)
    assert bits(net.gradient(images, t)) == bits(net.gradient(x, t))


def test_one_example_without_a_batch_gives_one_row_of_logits():
    net = build(2)
    x, _ = examples()
    assert net.predict(x[0]).shape == (C,)
    assert_close(net.predict(x[0]), net.predict(x[:1])[0])


@pytest.mark.parametrize("target", [2, np.uint8(2), np.eye(C)[2]], ids=["int", "uint8", "one-hot"])
def test_one_example_without_a_batch_has_loss_and_gradient(target):
    net = build(2)
    x, _ = examples()
    loss, grads = net.loss_and_gradient(x[0], target)
    oracle, batch = Oracle(net), (x[:1], np.array([2]))
    assert_close(loss, oracle.loss(*batch))
    assert_same_gradients(grads, oracle.gradient(*batch))


def test_an_empty_batch_has_empty_predictions():
    assert build(2).predict(np.empty((0, D))).shape == (0, C)


@pytest.mark.parametrize("method", ["loss", "gradient", "accuracy", "evaluate"])
def test_an_empty_batch_has_no_loss(method):
    with pytest.raises(ValueError, match=r"shape \(0, "):
        getattr(build(1), method)(np.empty((0, D)), np.empty(0, int))


BAD_X = {
    "too few columns": (np.zeros((3, D - 1)), ValueError, r"x has shape \(3, 5\), expected"),
    "other image": (np.zeros((3, 2, 2)), ValueError, r"x has shape \(3, 2, 2\), expected"),
    "complex": (np.zeros((3, D), complex), TypeError, "complex128"),
    "objects": (np.full((3, D), None), TypeError, "object"),
    "strings": (np.full((3, D), "1"), TypeError, "<U1"),
    "longdouble": (np.zeros((3, D), np.longdouble), TypeError, str(np.dtype(np.longdouble))),
    "masked": (np.ma.masked_equal(np.eye(3, D), 1), TypeError, "mask"),
    "ragged": ([[1.0] * D, [1.0] * D, [1.0]], TypeError, "rectangular"),
}


@pytest.mark.parametrize("case", BAD_X)
@pytest.mark.parametrize("method", ["loss", "gradient", "evaluate"])
def test_inputs_that_are_no_examples_are_refused(case, method):
    x, error, message = BAD_X[case]
    with pytest.raises(error, match=message):
        getattr(build(1), method)(x, [0, 1, 2])


BAD_T = {
    "label C": ([0, 1, C], IndexError, r"t\[2\] is 4"),
    "label -1": ([0, -1, 1], IndexError, r"t\[1\] is -1"),
    "huge uint64": (np.array([0, 1, 2**64 - 1], np.uint64), IndexError, r"t\[2\]"),
    "floats": ([0.0, 1.0, 2.0], TypeError, "float64"),
    "booleans": ([True, False, True], TypeError, "bool"),
    "too few": ([0, 1], ValueError, r"\(2,\)"),
    "rows too short": (np.eye(3, C - 1), ValueError, r"expected \(3, 4\)"),
    "rows that sum to 2": (2 * np.eye(3, C), ValueError, r"t\[0\] sums to 2"),
    "negative": ([[1, 0, 0, 0], [2, -1, 0, 0], [1, 0, 0, 0]], ValueError, r"t\[1\]"),
    "three dimensions": (np.zeros((3, 1, C)), ValueError, r"t has shape \(3, 1, 4\)"),
    "masked": (np.ma.masked_equal([0, 1, 2], 1), TypeError, "mask"),
}


@pytest.mark.parametrize("case", BAD_T)
@pytest.mark.parametrize("method", ["loss", "gradient", "evaluate", "accuracy"])
def test_targets_that_are_none_are_refused(case, method):
    t, error, message = BAD_T[case]
    with pytest.raises(error, match=message):
        getattr(build(1), method)(np.zeros((3, D)), t)


@pytest.mark.parametrize("x", [np.zeros(D), np.float64(0)], ids=["one example", "a number"])
def test_evaluate_wants_a_batch(x):
    with pytest.raises(ValueError, match="shape"):
        build(1).evaluate(x, 0)


# --- arguments -----------------------------------------------------------------------------------

NOT_SIZES = [0, -3, 2.0, 2.5, True, "4", None, np.nan, [4]]


@pytest.mark.parametrize("value", NOT_SIZES, ids=repr)
@pytest.mark.parametrize("name", ["input_size", "hidden_size", "output_size"])
def test_twolayernet_wants_positive_integers_as_sizes(name, value):
    sizes = {"input_size": 3, "hidden_size": 4, "output_size": 2, name: value}
    with pytest.raises(ValueError, match=f"TwoLayerNet: {name} is .*expected a positive integer"):
        TwoLayerNet(**sizes)


@pytest.mark.parametrize("value", NOT_SIZES, ids=repr)
@pytest.mark.parametrize("name", ["input_size", "hidden_size_list[1]", "output_size"])
def test_multilayernet_wants_positive_integers_as_sizes(name, value):
    sizes = {"input_size": 3, "hidden_size_list[1]": 4, "output_size": 2, name: value}
    D, H, C = sizes.values()
    with pytest.raises(ValueError, match=r"MultiLayerNet: .*expected a positive integer") as caught:
        MultiLayerNet(D, [5, H], C)
    assert f"{name} is {value!r}" in str(caught.value)


@pytest.mark.parametrize("value", [7, None, "50", b"50", 5.0], ids=repr)
def test_multilayernet_wants_a_list_of_hidden_sizes(value):
    with pytest.raises(TypeError, match="hidden_size_list"):
        MultiLayerNet(3, value, 2)


def test_sizes_may_be_numpy_integers():
    assert TwoLayerNet(np.int64(3), np.uint8(4), np.int32(2)).predict(np.zeros(3)).shape == (2,)


BAD_ARGUMENTS = [
    ("activation", "tanh", ValueError),
    ("activation", "", ValueError),
    ("activation", None, (TypeError, ValueError)),
    ("activation", ["relu"], (TypeError, ValueError)),
    ("dtype", int, TypeError),
    ("dtype", np.float16, TypeError),
    ("dtype", np.longdouble, TypeError),
    ("dtype", complex, TypeError),
    ("dtype", ">f8", TypeError),
    ("dtype", "no type", TypeError),
    ("weight_init_std", -0.1, ValueError),
    ("weight_init_std", np.nan, ValueError),
    ("weight_init_std", np.inf, ValueError),
    ("weight_init_std", True, TypeError),
    ("weight_init_std", None, TypeError),
    ("weight_init_std", [0.1], TypeError),
    ("seed", -1, ValueError),
    ("seed", 1.5, (TypeError, ValueError)),
    ("seed", "0", (TypeError, ValueError)),
]


@pytest.mark.parametrize(
    ("name", "value", "error"), BAD_ARGUMENTS, ids=[f"{n}={v!r}" for n, v, _ in BAD_ARGUMENTS]
)
@pytest.mark.parametrize(
    "make",
    [lambda **k: TwoLayerNet(3, 4, 2, **k), lambda **k: MultiLayerNet(3, [4], 2, **k)],
    ids=["TwoLayerNet", "MultiLayerNet"],
)
def test_a_bad_argument_is_named(make, name, value, error):
    with pytest.raises(error, match=name):
        make(**{name: value})


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-1e-9, ValueError),
        (np.nan, ValueError),
        (np.inf, ValueError),
        ("0.1", (TypeError, ValueError)),
        (None, (TypeError, ValueError)),
        ([0.1], (TypeError, ValueError)),
    ],
    ids=repr,
)
def test_a_bad_weight_decay_is_named(value, error):
    with pytest.raises(error, match="weight_decay_lambda"):
        MultiLayerNet(3, [4], 2, weight_decay_lambda=value)


@pytest.mark.parametrize("rule", ["tanh", "", "0.01"])
def test_an_unknown_rule_for_weights_is_refused_with_the_known_ones(rule):
    with pytest.raises(ValueError, match=r"weight_init_std is .*'relu', 'he', 'sigmoid', 'xavier'"):
        MultiLayerNet(3, [4], 2, weight_init_std=rule)


def test_twolayernet_takes_no_rule_for_weights():
    with pytest.raises(TypeError, match="weight_init_std is 'relu', expected a number"):
        TwoLayerNet(3, 4, 2, "relu")


@pytest.mark.parametrize(
    ("sizes", "stds", "name"),
    [
        ((3,), (), "sizes"),
        ((), (), "sizes"),
        ((3, 2.5, 2), (1, 1), "sizes"),
        ((3, 0, 2), (1, 1), "sizes"),
        ((3, -1), (1,), "sizes"),
        ((3, 4, 2), (1,), "weight_stds"),
        ((3, 4, 2), (1, 1, 1), "weight_stds"),
        ((3, 2), (-1,), "weight_stds"),
        ((3, 2), (np.nan,), "weight_stds"),
    ],
    ids=repr,
)
def test_network_names_bad_sizes_and_stds(sizes, stds, name):
    with pytest.raises((TypeError, ValueError), match=name):
        Network(sizes, stds)


# --- copies --------------------------------------------------------------------------------------


def pickled(net):
    return pickle.loads(pickle.dumps(net))


@pytest.fixture(params=[copy.deepcopy, pickled], ids=["deepcopy", "pickle"])
def copied(request):
    """A network in use, and its copy."""
    net = build(2, "sigmoid", 0.3)
    net.gradient(*examples(20))
    return net, request.param(net)


def test_a_copy_computes_the_same(copied):
    net, other = copied
    x, t = examples()
    assert other.evaluate(x, t) == net.evaluate(x, t)
    assert bits(other.gradient(x, t)) == bits(net.gradient(x, t))


def test_a_copy_follows_its_own_parameters(copied):
    _, other = copied
    x, t = examples()
    change_in_place(other)
    assert_same_gradients(other.gradient(x, t), Oracle(other).gradient(x, t))


def test_training_a_copy_leaves_the_original_alone(copied):
    net, other = copied
    x, t = examples()
    before = bits(net.params)
    fastbp.SGD(0.1).update(other.params, other.gradient(x, t))
    assert bits(net.params) == before
    assert bits(other.params) != before


@pytest.mark.parametrize("dtype", [np.float32, "float64"])
@pytest.mark.parametrize("given", [np.float32, np.float64])
def test_astype_gives_the_same_network_in_another_type(given, dtype):
    net = build(2, "sigmoid", 0.3, given)
    other = net.astype(dtype)
    x, t = examples()
    assert other.dtype == dtype
    assert type(other) is type(net)
    assert bits(other.params) == bits({key: p.astype(dtype) for key, p in net.params.items()})
    assert_same_gradients(other.gradient(x, t), Oracle(other).gradient(x, t), 1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_astype_shares_nothing(dtype):
    net = build(1, dtype=np.float64)
    before = bits(net.params)
    other = net.astype(dtype)
    change_in_place(other)
    other.gradient(*examples())
    assert bits(net.params) == before


@pytest.mark.parametrize("dtype", [int, np.float16, complex, ">f8", "no type"])
def test_astype_refuses_other_types(dtype):
    with pytest.raises(TypeError, match="dtype"):
        build(1).astype(dtype)


@pytest.mark.parametrize("sizes", [(2**50, 2**20, 2), (10**400, 2, 2), (2, 2, 2**62)])
def test_sizes_that_no_memory_holds_are_a_value_error(sizes):
    with pytest.raises(ValueError, match=r"TwoLayerNet: sizes are .*more parameters than memory"):
        TwoLayerNet(*sizes)


@pytest.mark.parametrize("decay", [10**400, np.inf, -1])
def test_a_weight_decay_too_large_is_a_value_error(decay):
    with pytest.raises(ValueError, match="weight_decay_lambda"):
        MultiLayerNet(2, [2], 2, weight_decay_lambda=decay)


@pytest.mark.parametrize("form", [list, np.float16, np.int64, ">f8", "f4"])
def test_parameters_may_be_replaced_by_numbers_of_any_form(form):
    net, x, t = TwoLayerNet(2, 3, 2, seed=0), np.ones((20, 2)), np.zeros(20, int)
    W = 5 * net.params["W1"].round(2) + 1
    net.params["W1"] = W.tolist() if form is list else W.astype(form)
    twin = TwoLayerNet(2, 3, 2, seed=0)
    twin.params["W1"] = np.array(
        net.params["W1"], np.float32 if form in ("f4", np.float16) else float
    )
    for rows in (x, x[:3]):
        np.testing.assert_array_equal(net.predict(rows), twin.predict(rows))
        assert net.accuracy(rows, t[: len(rows)]) == twin.accuracy(rows, t[: len(rows)])
        one_hot = np.eye(2)[t[: len(rows)]]
        assert net.loss(rows, one_hot) == twin.loss(rows, one_hot)
    assert net.dtype == twin.dtype
    assert net.astype(np.float32).dtype == np.float32


@pytest.mark.parametrize("W", [None, "W1", np.ma.ones((2, 3)), [[1, 2], [3]]])
def test_parameters_that_are_no_numbers_are_a_type_error(W):
    net = TwoLayerNet(2, 3, 2, seed=0)
    net.params["W1"] = W
    for call in (net.accuracy, net.loss, net.gradient):
        with pytest.raises((TypeError, ValueError), match="W"):
            call(np.ones((20, 2)), np.zeros(20, int))
