"""The functions of chapters 3 and 4: activations and losses."""

import math
import re

import numpy as np
import pytest
from closeness import agree, assert_close, central_differences
from odd_arrays import MATRIX_LAYOUTS, REFUSED, snapshot

from fastbp import functions, reference
from fastbp.kernels.jit import JIT_DISABLED

NAN, INF = np.nan, np.inf
SIZES = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65]
BIG = (33, 65) if JIT_DISABLED else (513, 257)
SHAPES = [(3,), *((5, n) for n in SIZES), BIG, (2, 3, 4), (2, 3, 4, 5), (1, 1, 1)]
EMPTY = [(0,), (0, 3), (2, 0, 3)]
by_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
by_empty = pytest.mark.parametrize("shape", EMPTY, ids=str)
by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
by_layout = pytest.mark.parametrize("layout", MATRIX_LAYOUTS)
by_refused = pytest.mark.parametrize("refused", REFUSED)
ELEMENTWISE = ["relu", "relu_grad", "sigmoid", "sigmoid_grad", "step_function"]
by_elementwise = pytest.mark.parametrize("name", ELEMENTWISE)
by_activation = pytest.mark.parametrize("name", [*ELEMENTWISE, "softmax"])
SQUARED = ["mean_squared_error", "sum_squared_error"]
by_squared = pytest.mark.parametrize("name", SQUARED)
LOSSES = ["cross_entropy_error", "softmax_loss"]
by_loss = pytest.mark.parametrize("name", LOSSES)
compiled_only = pytest.mark.skipif(
    JIT_DISABLED, reason="NumPy's numbers warn where compiled code does not"
)


def both(name):
    """Return our function and the reference's."""
    return getattr(functions, name), getattr(reference, name)


def probabilities(rng, shape):
    y = rng.random(shape) + 0.01
    return y / y.sum(axis=-1, keepdims=True)


# --- activations: the numbers --------------------------------------------------------------------


@by_dtype
@by_shape
@by_activation
def test_activations_are_those_of_the_reference(name, shape, dtype, threads, rng):
    ours, oracle = both(name)
    x = rng.normal(0, 3, shape).astype(dtype)
    y = ours(x)
    assert y.dtype == (int if name == "step_function" else dtype)
    assert_close(y, oracle(x.astype(np.float64)))


@pytest.mark.parametrize(
    ("f", "grad"),
    [(functions.relu, functions.relu_grad), (functions.sigmoid, functions.sigmoid_grad)],
)
def test_gradients_agree_with_central_differences(f, grad, rng):
    x, weights = rng.normal(size=(2, 5, 7))
    differences = central_differences(lambda: float(np.sum(weights * f(x))), x)
    assert agree(weights * grad(x), differences)


@by_dtype
def test_sigmoid_neither_overflows_nor_loses_nan(dtype):
    y = functions.sigmoid(np.array([-1000, -INF, INF, NAN, 0, 1000], dtype))
    np.testing.assert_array_equal(y, np.array([0, 0, 1, NAN, 0.5, 1], dtype), strict=True)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.float32(-88.8), 2.7204991e-39),  # the table's 2.7e-39
        (np.float32(-103.0), 1.401298464324817e-45),  # the smallest float32
        (np.float32(-104.5), 0.0),
        (np.float64(-740.0), 4.2e-322),
        (np.float64(-746.0), 0.0),
    ],
)
def test_sigmoid_keeps_subnormal_results(x, expected):
    y = functions.sigmoid(x)
    assert type(y) is type(x)
    assert y == type(x)(expected)


@by_dtype
def test_sigmoid_grad_vanishes_at_both_ends(dtype):
    grad = functions.sigmoid_grad(np.array([-1000, -INF, INF, NAN, 1000, 0], dtype))
    np.testing.assert_array_equal(grad, np.array([0, 0, 0, NAN, 0, 0.25], dtype), strict=True)


def test_relu_lets_nan_and_infinity_pass():
    np.testing.assert_array_equal(functions.relu([NAN, INF, -INF, -0.0, -1]), [NAN, INF, 0, 0, 0])


def test_relu_grad_is_0_at_0_and_1_at_nan():
    grad = functions.relu_grad([0.0, -0.0, NAN, INF, -INF])
    np.testing.assert_array_equal(grad, [0, 0, 1, 1, 0])


def test_step_function_is_0_at_0_and_at_nan():
    step = functions.step_function([0.0, -0.0, NAN, INF, -INF, 1e-300])
    np.testing.assert_array_equal(step, np.array([0, 0, 0, 1, 0, 1]), strict=True)


@pytest.mark.parametrize("x", [3, "text", None, [1, 2]], ids=repr)
def test_identity_function_returns_its_argument(x):
    assert functions.identity_function(x) is x


# --- softmax -------------------------------------------------------------------------------------


@compiled_only
@by_dtype
@pytest.mark.parametrize("bad", [[NAN, 0], [0, NAN], [INF, 0], [INF, INF], [-INF, -INF]], ids=str)
@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_row_without_a_softmax_is_nan_and_the_others_are_not(row, bad, dtype):
    x = np.array([[1, 2], [3, 5], [0, 0]], dtype)
    good = functions.softmax(x)
    x[row] = bad
    y = functions.softmax(x)
    assert np.isnan(y[row]).all()
    np.testing.assert_array_equal(np.delete(y, row, axis=0), np.delete(good, row, axis=0))


@compiled_only
def test_nan_with_its_sign_bit_set_is_nan_too():
    x = np.array([[1.0, -NAN], [-NAN, 1.0]], np.float32)
    assert np.isnan(functions.softmax(x)).all()


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([-INF, 0], [0, 1]),
        ([-INF, 5, 5], [0, 0.5, 0.5]),
        ([1000, 0], [1, 0]),
        ([-1000, -1000], [0.5, 0.5]),
        ([1e308, -1e308], [1, 0]),
        ([3.0], [1]),
    ],
    ids=str,
)
def test_softmax_of_extreme_logits(x, y):
    if JIT_DISABLED and 1e308 in x:
        pytest.skip("the difference overflows, of which NumPy's numbers warn")
    np.testing.assert_array_equal(functions.softmax(x), y)


def test_softmax_rows_sum_to_1(rng):
    np.testing.assert_allclose(
        functions.softmax(rng.normal(0, 10, (50, 30))).sum(axis=1), 1, rtol=1e-14
    )


@by_empty
def test_softmax_of_no_rows(shape):
    assert functions.softmax(np.zeros((*shape[:-1], 0, 4))).shape == (*shape[:-1], 0, 4)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (0, 0)], ids=str)
def test_softmax_of_no_classes(shape):
    expected = re.escape(f"softmax: x has shape {shape}, expected (..., C)")
    with pytest.raises(ValueError, match=expected):
        functions.softmax(np.zeros(shape))


# --- activations: what they take -----------------------------------------------------------------


@by_empty
@by_dtype
@by_elementwise
def test_empty_arrays_stay_empty(name, dtype, shape):
    y = getattr(functions, name)(np.zeros(shape, dtype))
    assert y.shape == shape
    assert y.dtype == (int if name == "step_function" else dtype)


@pytest.mark.parametrize(
    ("x", "kept"),
    [
        (2, np.float64),
        (-0.5, np.float64),
        (True, np.float64),
        (np.float32(0.5), np.float32),
        (np.float16(0.5), np.float32),
        (np.int8(-3), np.float64),
        (np.array(0.5, np.float32), np.float32),
        (np.array(0.5, ">f8"), np.float64),
    ],
    ids=repr,
)
@by_elementwise
def test_a_number_gives_a_number(name, x, kept):
    ours, oracle = both(name)
    y = ours(x)
    assert type(y) is (np.dtype(int).type if name == "step_function" else kept)
    assert y == pytest.approx(float(oracle(np.array([x], np.float64))[0]), rel=1e-6)


@pytest.mark.parametrize(
    ("given", "kept"), [("f2", "f4"), ("i1", "f8"), ("u8", "f8"), (">i4", "f8"), ("?", "f8")]
)
@by_activation
def test_other_numbers_count_as_floats(name, given, kept):
    ours, oracle = both(name)
    x = np.array([[0, 1, 1], [1, 0, 0]]).astype(given)
    y = ours(x)
    assert y.dtype == (int if name == "step_function" else kept)
    assert_close(y.astype(kept), oracle(x.astype(np.float64)))


@by_dtype
@by_layout
@by_activation
def test_activations_take_arrays_in_any_layout(name, layout, dtype, rng):
    ours, oracle = both(name)
    x = rng.normal(0, 3, (5, 7)).astype(dtype)
    odd = MATRIX_LAYOUTS[layout](x)
    before = snapshot(odd)
    y = ours(odd)
    assert type(y) is np.ndarray
    kept = np.float64 if layout in ("list", "tuple") else dtype
    assert y.dtype == (int if name == "step_function" else kept)
    assert_close(y.astype(dtype), oracle(x.astype(np.float64)))
    assert snapshot(odd) == before


@by_activation
def test_results_are_new_arrays(name):
    x = np.ones((3, 4))
    assert not np.shares_memory(getattr(functions, name)(x), x)


@by_refused
@by_activation
def test_activations_refuse_what_is_not_an_array_of_numbers(name, refused):
    x, named = REFUSED[refused]
    with pytest.raises(TypeError, match=named) as caught:
        getattr(functions, name)(x)
    assert name.removesuffix("_grad") in str(caught.value)


# --- squared errors ------------------------------------------------------------------------------


@by_dtype
@pytest.mark.parametrize("shape", [(), (4,), (5, 7), (2, 3, 4), (0,)], ids=str)
@by_squared
def test_squared_errors_are_half_the_sum(name, shape, dtype, rng):
    y, t = rng.normal(size=(2, *shape)).astype(dtype)
    ours, oracle = both(name)
    error = ours(y, t)
    assert isinstance(error, float)
    expected = oracle(np.asarray(y, np.float64), np.asarray(t, np.float64))
    assert error == pytest.approx(expected, rel=1e-12 if dtype == np.float64 else 1e-6)


@by_squared
def test_squared_errors_take_integers_as_they_are_meant(name):
    # unsigned integers would wrap around: 0 - 1 = 255
    assert getattr(functions, name)(np.array([0, 2], np.uint8), np.array([1, 0], np.uint8)) == 2.5


@by_layout
@by_squared
def test_squared_errors_take_arrays_in_any_layout(name, layout, rng):
    y, t = rng.normal(size=(2, 5, 7))
    odd = MATRIX_LAYOUTS[layout](y), MATRIX_LAYOUTS[layout](t)
    before = [snapshot(array) for array in odd]
    assert getattr(functions, name)(*odd) == pytest.approx(0.5 * ((y - t) ** 2).sum(), rel=1e-12)
    assert [snapshot(array) for array in odd] == before


@pytest.mark.parametrize("shapes", [((2,), (3,)), ((2, 3), (3,)), ((), (1,)), ((3, 1), (1, 3))])
@by_squared
def test_squared_errors_refuse_two_shapes(name, shapes):
    y, t = (np.zeros(shape) for shape in shapes)
    expected = re.escape(f"{name}: y has shape {shapes[0]} and t {shapes[1]}")
    with pytest.raises(ValueError, match=expected):
        getattr(functions, name)(y, t)


@by_refused
@pytest.mark.parametrize("argument", ["y", "t"])
@by_squared
def test_squared_errors_refuse_what_is_not_an_array_of_numbers(name, argument, refused):
    array, named = REFUSED[refused]
    y, t = (array, np.zeros(3)) if argument == "y" else (np.zeros(3), array)
    with pytest.raises(TypeError, match=named):
        getattr(functions, name)(y, t)


# --- cross-entropy -------------------------------------------------------------------------------

TARGETS = {
    "labels": lambda t, C: t,
    "a list": lambda t, C: t.tolist(),
    "one-hot floats": lambda t, C: np.eye(C)[t],
    "one-hot integers": lambda t, C: np.eye(C, dtype=np.int8)[t],
    "one-hot booleans": lambda t, C: np.eye(C, dtype=bool)[t],
}
by_targets = pytest.mark.parametrize("targets", TARGETS)


@by_targets
@by_dtype
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (4, 4), (50, 10)], ids=str)
@by_loss
def test_losses_are_those_of_the_reference(name, shape, dtype, targets, rng):
    ours, oracle = both(name)
    y = probabilities(rng, shape).astype(dtype)
    labels = rng.integers(shape[1], size=shape[0])
    loss = ours(y, TARGETS[targets](labels, shape[1]))
    assert isinstance(loss, float)
    expected = oracle(y.astype(np.float64), labels)
    assert loss == pytest.approx(expected, rel=1e-12 if dtype == np.float64 else 2e-6, abs=1e-7)


@by_targets
@by_loss
def test_one_example_without_a_batch(name, targets, rng):
    f, y = getattr(functions, name), probabilities(rng, (5,))
    assert f(y, TARGETS[targets](np.array([3]), 5)[0]) == f(y[None], [3])


@by_loss
def test_one_example_with_its_label_in_a_list(name, rng):
    f, y = getattr(functions, name), probabilities(rng, (5,))
    assert f(y, [3]) == f(y, 3)


def test_cross_entropy_of_soft_targets(rng):
    y, t = probabilities(rng, (4, 5)), probabilities(rng, (4, 5))
    expected = -(t * np.log(y + 1e-7)).sum() / 4
    assert functions.cross_entropy_error(y, t) == pytest.approx(expected, rel=1e-13)


def test_softmax_loss_of_soft_targets(rng):
    x, t = rng.normal(size=(4, 5)), probabilities(rng, (4, 5))
    expected = -(t * np.log(reference.softmax(x))).sum() / 4
    assert functions.softmax_loss(x, t) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("one_hot", [False, True], ids=["labels", "one-hot"])
@pytest.mark.parametrize(
    ("eps", "expected"),
    [(1e-7, 16.11809565095832), (1e-3, -math.log(1e-3)), (0, INF), (0.0, INF)],
)
def test_cross_entropy_of_a_target_with_probability_0(eps, expected, one_hot):
    t = np.array([[0, 1]]) if one_hot else np.array([1])
    loss = functions.cross_entropy_error(np.array([[1.0, 0.0]]), t, eps=eps)
    assert loss == pytest.approx(expected, rel=1e-12)


def test_cross_entropy_has_the_books_eps_by_default():
    assert functions.cross_entropy_error(np.array([[0.0, 1.0]]), [0]) == -np.log(1e-7)


def test_cross_entropy_of_nan_is_nan():
    assert np.isnan(functions.cross_entropy_error(np.array([[NAN, 1.0], [0.5, 0.5]]), [0, 1]))


def test_softmax_loss_of_a_target_with_probability_0():
    assert functions.softmax_loss(np.array([[0.0, -1e4]]), [1]) == 1e4


@compiled_only
@pytest.mark.parametrize(
    ("x", "t", "expected"),
    [
        ([0, -INF], 1, INF),
        ([0, -INF], 0, 0),
        ([0, INF], 1, NAN),
        ([0, NAN], 0, NAN),
        ([3e38, -3e38], 1, INF),
    ],
)
def test_softmax_loss_of_extreme_logits(x, t, expected):
    loss = functions.softmax_loss(np.array([x], np.float32), [t])
    assert loss == pytest.approx(expected, nan_ok=True)


@by_layout
@by_loss
def test_losses_take_arrays_in_any_layout(name, layout, rng):
    f, y, t = getattr(functions, name), probabilities(rng, (5, 4)), probabilities(rng, (5, 4))
    odd = MATRIX_LAYOUTS[layout](y), MATRIX_LAYOUTS[layout](t)
    before = [snapshot(array) for array in odd]
    assert f(*odd) == pytest.approx(f(y, t), rel=1e-14)
    assert [snapshot(array) for array in odd] == before


# --- cross-entropy: what is refused --------------------------------------------------------------


@pytest.mark.parametrize("label", [3, -1, 99])
@by_loss
def test_a_label_out_of_range(name, label):
    with pytest.raises(IndexError, match=rf"t\[1\] is {label}, expected a label in \[0, 3\)"):
        getattr(functions, name)(np.full((2, 3), 1 / 3), [0, label])


def test_a_label_beyond_int64():
    t = np.array([0, 2**63 + 5], np.uint64)
    with pytest.raises(IndexError, match=rf"t\[1\] is {2**63 + 5}, expected a label in \[0, 3\)"):
        functions.cross_entropy_error(np.full((2, 3), 1 / 3), t)


@pytest.mark.parametrize(
    "t", [[0.0, 1.0], [True, False], ["0", "1"], np.ma.array([0, 1])], ids=repr
)
@by_loss
def test_labels_that_are_not_integers(name, t):
    with pytest.raises(TypeError, match=r"float64|bool|<U1|masked"):
        getattr(functions, name)(np.full((2, 3), 1 / 3), t)


@by_refused
@by_loss
def test_losses_refuse_what_is_not_an_array_of_numbers(name, refused):
    y, named = REFUSED[refused]
    with pytest.raises(TypeError, match=named):
        getattr(functions, name)(y, [0, 0])


@pytest.mark.parametrize("row", [[0, 0, 0], [1, 1, 0], [2, -1, 0], [NAN, 1, 0]], ids=str)
@by_loss
def test_target_rows_that_are_no_distribution(name, row):
    with pytest.raises(ValueError, match=r"t\[1\] sums to"):
        getattr(functions, name)(np.full((2, 3), 1 / 3), [[0, 1, 0], row])


@pytest.mark.parametrize("shape", [(4,), (2,), (4, 4), (3, 5), (3, 4, 1)], ids=str)
@by_loss
def test_targets_of_another_shape(name, shape):
    message = rf"{name if name == 'cross_entropy_error' else ''}.*{re.escape(str(shape))}"
    with pytest.raises(ValueError, match=message + r".*(3 rows|\(3, 4\))"):
        getattr(functions, name)(np.full((3, 4), 0.25), np.zeros(shape, int))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0,), (), (2, 3, 1)], ids=str)
@by_loss
def test_arguments_that_are_no_batch(name, shape):
    with pytest.raises(ValueError, match=rf"has shape {re.escape(str(shape))}"):
        getattr(functions, name)(np.zeros(shape), np.zeros(shape[:1], int))


def test_numbers_that_are_too_large_give_infinity_without_a_warning():
    assert functions.sum_squared_error([1e300], [0.0]) == np.inf
    assert np.isnan(functions.sum_squared_error([np.inf], [np.inf]))
    assert np.isnan(functions.cross_entropy_error([[-0.5, 1.5]], [0]))


def test_a_list_that_holds_itself_is_a_type_error():
    endless = []
    endless.append(endless)
    with pytest.raises(TypeError, match="relu: x is a list nested too deeply"):
        functions.relu(endless)
