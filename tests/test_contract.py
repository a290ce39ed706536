"""Odd, bad and hostile input, row by row, for everything that takes inputs and targets.

What single layers do with it is in their own tests; here each row meets every function, layer,
method and ``fit``, for few rows, which go through the layers, and for more, which the compiled loop
takes.
"""

import numpy as np
import pytest
import scipy.sparse
from by_layers import ByLayers, build
from odd_arrays import MATRIX_LAYOUTS, REFUSED, snapshot

import fastbp

D, C = 4, 3


def network(dtype=np.float64, cls=fastbp.MultiLayerNet):
    return build((D, 5, C), "sigmoid", dtype=dtype, cls=cls)


def train(net, x, t, **keywords):
    return fastbp.fit(net, x, t, iterations=2, batch_size=8, seed=0, progress=False, **keywords)


def as_validation(x, t):
    net, rng = network(), np.random.default_rng(1)
    given = rng.normal(size=(8, D)), rng.integers(0, C, 8)
    return train(net, *given, validation_data=(x, t)).test_loss_list[0]


# Everything that takes a batch: (N, 4) inputs or (N, 3) logits, and targets.
BATCH = {
    "loss": lambda x, t: network().loss(x, t),
    "gradient": lambda x, t: network().gradient(x, t)["W1"],
    "loss_and_gradient": lambda x, t: network().loss_and_gradient(x, t)[0],
    "accuracy": lambda x, t: network().accuracy(x, t),
    "evaluate": lambda x, t: network().evaluate(x, t)[0],
    "numerical_gradient": lambda x, t: network().numerical_gradient(x, t)["W1"],
    "fit": lambda x, t: train(network(), x, t).train_loss_list,
    "fit, layer by layer": lambda x, t: train(network(cls=ByLayers), x, t).train_loss_list,
    "fit's validation_data": as_validation,
}
INPUTS = {**BATCH, "predict": lambda x, t: network().predict(x)}
LOGITS = {
    "softmax_loss": fastbp.softmax_loss,
    "SoftmaxWithLoss": lambda x, t: fastbp.SoftmaxWithLoss().forward(x, t),
    "cross_entropy_error": lambda x, t: fastbp.cross_entropy_error(fastbp.softmax(x), t),
}
TARGETS = {**BATCH, **LOGITS}


@pytest.fixture(params=[3, 40])
def N(request):
    return request.param


def batch(name, N):
    rng = np.random.default_rng(N)
    return rng.normal(size=(N, C if name in LOGITS else D)), rng.integers(0, C, N)


def unchanged(call, x, t):
    """Call, and look whether anything of the arguments was changed."""
    before = snapshot(x), snapshot(t)
    try:
        return call(x, t)
    finally:
        assert (snapshot(x), snapshot(t)) == before


# --- targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *((np.int64, C), (np.int64, -1), (np.int8, -1), (np.int64, 2**40), (np.int64, -(2**63))),
        *((np.uint8, 255), (np.uint64, 2**63), (np.uint64, 2**64 - 1)),
    ],
)
def test_a_label_outside_is_an_index_error_with_its_row(name, N, dtype, value):
    x, t = batch(name, N)
    t = t.astype(dtype)
    t[2] = value
    with pytest.raises(IndexError, match=rf"\[2\] is {value}, expected a label in \[0, 3\)"):
        unchanged(TARGETS[name], x, t)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("dtype", [float, np.float32, bool, complex, object, "U1", "M8[D]"])
def test_labels_that_are_no_integers_are_a_type_error(name, N, dtype):
    x, t = batch(name, N)
    with pytest.raises(TypeError, match="integer labels"):
        unchanged(TARGETS[name], x, (t % 2).astype(dtype))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("dtype", ["i1", "u1", ">i2", "u2", "i4", ">u4", "i8", "u8"])
def test_labels_of_all_integer_types(name, N, dtype):
    x, t = batch(name, N)
    expected = TARGETS[name](x, t)
    np.testing.assert_array_equal(unchanged(TARGETS[name], x, t.astype(dtype)), expected)
    rows = np.eye(C, dtype=dtype)[t]
    np.testing.assert_array_equal(unchanged(TARGETS[name], x, rows), expected)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("bad", [1.01, 0.0, np.nan, np.inf, -0.5])
def test_rows_that_are_no_probabilities_are_a_value_error(name, N, bad):
    x, t = batch(name, N)
    rows = np.eye(C)[t]
    rows[1] = bad, bad / 2, 0
    with pytest.raises(ValueError, match=r"\[1\] sums to"):
        unchanged(TARGETS[name], x, rows)


@pytest.mark.parametrize("name", TARGETS)
def test_targets_of_another_shape_are_a_value_error(name, N):
    x, t = batch(name, N)
    for other in (
        t[1:],
        np.append(t, 0),
        np.eye(C + 1)[t],
        np.eye(C)[t][1:],
        np.eye(C)[t][None],
        1,
    ):
        with pytest.raises(ValueError, match="shape"):
            unchanged(TARGETS[name], x, np.asarray(other))


@pytest.mark.parametrize("name", TARGETS)
def test_as_many_rows_as_classes(name):
    x, t = batch(name, C)
    np.testing.assert_array_equal(TARGETS[name](x, t), TARGETS[name](x, np.eye(C)[t]))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("how", [how for how in REFUSED if how not in ("None", "dict")])
def test_targets_that_are_no_numbers(name, how):
    x, _ = batch(name, 3)
    with pytest.raises((TypeError, ValueError), match=r"t has|t is|t: |\[1\] (has|is)"):
        unchanged(TARGETS[name], x, REFUSED[how][0])


# --- inputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("how", REFUSED)
def test_inputs_that_are_no_numbers_are_a_type_error_naming_the_type(name, how):
    _, t = batch(name, 3)
    given, named = REFUSED[how]
    with pytest.raises(TypeError, match=named):
        INPUTS[name](given, t)


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("layout", MATRIX_LAYOUTS)
def test_inputs_in_every_layout(name, N, layout):
    x, t = batch(name, N)
    expected = INPUTS[name](x, t)
    given = MATRIX_LAYOUTS[layout](x)
    np.testing.assert_allclose(unchanged(INPUTS[name], given, t), expected, rtol=1e-12)


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("dtype", ["f2", "f4", "i1", "u1", "i8", "u8", "?"])
def test_inputs_of_other_types_count_as_the_parameters(name, N, dtype):
    x, t = batch(name, N)
    x = np.abs(10 * x).astype(dtype)
    expected = INPUTS[name](x.astype(float), t)
    np.testing.assert_allclose(unchanged(INPUTS[name], x, t), expected, rtol=1e-12)


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_of_another_width_are_a_value_error(name, N):
    x, t = batch(name, N)
    for other in (x[:, 1:], np.column_stack([x, x]), x[:, :0]):
        with pytest.raises(ValueError, match="expected"):
            unchanged(INPUTS[name], other, t)


@pytest.mark.parametrize("name", TARGETS)
def test_an_empty_batch_has_no_loss(name):
    x, t = batch(name, 3)
    with pytest.raises(ValueError, match=r"\(0, [34]\)|no examples"):
        unchanged(TARGETS[name], x[:0], t[:0])


def test_an_empty_batch_has_no_logits():
    assert network().predict(np.empty((0, D))).shape == (0, C)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_everything_is_of_the_parameters_type(N, dtype):
    net = network(dtype)
    x, t = batch("loss", N)
    for other in (x, x.astype(np.float32)):
        assert net.predict(other).dtype == dtype
        assert {g.dtype for g in net.gradient(other, t).values()} == {np.dtype(dtype)}
    train(net, x, t)
    assert {p.dtype for p in net.params.values()} == {np.dtype(dtype)}


@pytest.mark.parametrize("rows", [3, 300])
def test_what_is_too_large_for_float32_is_infinite_without_a_warning(rows):
    net = network(np.float32)
    x = np.full((rows, D), 1e300)
    y = net.predict(x)
    assert y.dtype == np.float32
    assert y.shape == (rows, C)


def test_one_class_has_no_loss():
    net = fastbp.TwoLayerNet(D, 5, 1, seed=0)
    x = np.ones((20, D))
    t = np.zeros(20, int)
    assert net.loss(x, t) == 0
    assert not any(g.any() for g in net.gradient(x, t).values())
    assert train(net, x, t).train_loss_list == [0, 0]


# --- NaN, infinity and divergence ----------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", ["float64", "float32", "Fortran", "images", "csr", "coo"])
@pytest.mark.parametrize("where", ["x", "validation_data[0]"])
def test_bad_training_data_is_told_before_anything_is_changed(bad, form, where):
    x, t = batch("fit", 40)
    good = x.copy()
    x[7, 2] = bad
    x[9, 1] = bad  # the first one counts
    given = {
        "float64": lambda: x,
        "float32": lambda: x.astype(np.float32),
        "Fortran": lambda: np.asfortranarray(x),
        "images": lambda: x.reshape(-1, 2, 2),
        "csr": lambda: scipy.sparse.csr_array(x),
        "coo": lambda: scipy.sparse.coo_array(x),
    }[form]()
    net = network()
    before = {key: p.tobytes() for key, p in net.params.items()}
    inputs, validation = (given, None) if where == "x" else (good, (given, t))
    with pytest.raises(ValueError, match="row 7, column 2") as told:
        train(net, inputs, t, validation_data=validation)
    assert f"fit: {where} is {bad}" in str(told.value)
    assert "allow_nonfinite=True" in str(told.value)
    assert {key: p.tobytes() for key, p in net.params.items()} == before


@pytest.mark.parametrize("cls", [fastbp.MultiLayerNet, ByLayers])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"])
def test_divergence_says_what_happened_and_what_to_try(cls, dtype, rule):
    x, t = batch("fit", 40)
    net = build((D, 8, 8, C), dtype=dtype, cls=cls)
    lr = 1e20
    with pytest.raises(fastbp.DivergedError) as told:
        fastbp.fit(
            net, 10 * x, t, optimizer=getattr(fastbp, rule)(lr), batch_size=10, epochs=50,
            progress=False, seed=0,
        )  # fmt: skip
    error, said = told.value, str(told.value)
    assert error.learning_rate == lr
    assert 0 < error.step == len(error.history) < 200
    assert f"at step {error.step}" in said
    assert np.isfinite(error.last_loss)
    assert f"the step before: {error.last_loss:g}" in said
    assert "with learning rate 1e+20; try 1e+19, scale the inputs to about 1" in said
    assert "smaller weights" in said
    assert all(np.isfinite(p).all() for p in net.params.values())


@pytest.mark.parametrize("cls", [fastbp.MultiLayerNet, ByLayers])
def test_divergence_is_noticed_within_an_epoch(cls):
    x, t = batch("fit", 40)
    net = network(cls=cls)
    seen = []

    def poison(report):
        seen.append(report.step)
        if report.step == 8:
            net.params["W1"][0, 0] = np.nan

    with pytest.raises(fastbp.DivergedError) as told:
        fastbp.fit(net, x, t, batch_size=10, epochs=50, progress=False, seed=0, callbacks=[poison])
    assert seen == [0, 4, 8]
    assert told.value.step == 8
    assert np.isfinite(told.value.last_loss)
    assert all(np.isfinite(p).all() for p in net.params.values())
