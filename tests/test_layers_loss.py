"""SoftmaxWithLoss: ``mean_n( log sum_c exp(x[n, c]) - x[n, t[n]] )`` and its gradient."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from closeness import agree, assert_close, central_differences
from odd_arrays import MATRIX_LAYOUTS, REFUSED, snapshot

from fastbp import reference
from fastbp.functions import cross_entropy_error
from fastbp.kernels.jit import JIT_DISABLED
from fastbp.layers import SoftmaxWithLoss

SIZES = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65]
BIG = (33, 65) if JIT_DISABLED else (513, 257)
SHAPES = [*((n, 3) for n in SIZES), *((5, n) for n in SIZES), BIG]
by_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
by_layout = pytest.mark.parametrize("layout", MATRIX_LAYOUTS)
INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i2", ">i8", ">u8", "longlong"]
by_eps = pytest.mark.parametrize("eps", [0.0, 1e-7], ids=["exact", "book"])

# How the targets may come: from labels and the number of classes.
TARGETS = {
    "labels": lambda t, C: t,
    "one-hot floats": lambda t, C: np.eye(C)[t],
    "one-hot integers": lambda t, C: np.eye(C, dtype=int)[t],
    "one-hot bytes": lambda t, C: np.eye(C, dtype=np.uint8)[t],
    "one-hot booleans": lambda t, C: np.eye(C, dtype=bool)[t],
}
by_targets = pytest.mark.parametrize("targets", TARGETS)


def soft_targets(rng, shape):
    t = rng.random(shape) + 0.01
    return t / t.sum(axis=1, keepdims=True)


def soft_loss(x, t):
    """Return the cross-entropy of softmax(x) against probabilities t, in float64."""
    x, t = x.astype(np.float64), t.astype(np.float64)
    top = x.max(axis=1, keepdims=True)
    log_sum = top + np.log(np.exp(x - top).sum(axis=1, keepdims=True))
    return (t * (log_sum - x)).sum() / len(x)


# --- the numbers ---------------------------------------------------------------------------------


@by_eps
@by_targets
@by_dtype
@by_shape
def test_loss_is_that_of_the_reference(shape, dtype, targets, eps, rng):
    x = rng.normal(0, 3, shape).astype(dtype)
    t = TARGETS[targets](rng.integers(shape[1], size=shape[0]), shape[1])
    loss = SoftmaxWithLoss(eps).forward(x, t)
    expected = reference.SoftmaxWithLoss(eps).forward(x.astype(np.float64), t)
    assert isinstance(loss, float)
    assert loss == pytest.approx(expected, rel=1e-12 if dtype == np.float64 else 2e-6, abs=1e-7)


@by_targets
@by_dtype
@by_shape
def test_gradient_is_that_of_the_reference(shape, dtype, targets, threads, rng):
    x = rng.normal(0, 3, shape).astype(dtype)
    t = TARGETS[targets](rng.integers(shape[1], size=shape[0]), shape[1])
    layer, oracle = SoftmaxWithLoss(), reference.SoftmaxWithLoss()
    layer.forward(x, t)
    oracle.forward(x.astype(np.float64), t)
    assert layer.y.dtype == layer.backward().dtype == dtype
    assert_close(layer.y, oracle.y)
    assert_close(layer.backward(), oracle.backward())


@by_dtype
@by_shape
def test_soft_targets_are_used_as_probabilities(shape, dtype, rng):
    x, t = rng.normal(0, 3, shape).astype(dtype), soft_targets(rng, shape)
    layer = SoftmaxWithLoss()
    tolerance = 1e-12 if dtype == np.float64 else 2e-6
    assert layer.forward(x, t) == pytest.approx(soft_loss(x, t), rel=tolerance, abs=1e-7)
    y = reference.softmax(x.astype(np.float64))
    assert_close(layer.backward(), (y - t) / shape[0])


@pytest.mark.parametrize("kind", ["labels", "one-hot floats", "soft"])
def test_gradient_agrees_with_central_differences(kind, rng):
    x, layer = rng.normal(0, 2, (6, 5)), SoftmaxWithLoss()
    t = soft_targets(rng, x.shape) if kind == "soft" else TARGETS[kind](np.arange(6) % 5, 5)
    differences = central_differences(lambda: layer.forward(x, t), x)
    layer.forward(x, t)
    assert agree(layer.backward(), differences)


@pytest.mark.parametrize("shift", [-1e6, 1e6, 700.0])
def test_a_constant_added_to_all_logits_changes_nothing(shift):
    x = np.array([[1.0, 2.0, 3.0], [0.0, -4.0, 8.0]])
    assert SoftmaxWithLoss().forward(x + shift, [0, 1]) == SoftmaxWithLoss().forward(x, [0, 1])


def test_many_rows_neither_overflow_nor_underflow():
    # exp(sum of the rows' logarithms) is far beyond the range of a float.
    loss = SoftmaxWithLoss().forward(np.zeros((3000, 1000)), np.zeros(3000, int))
    assert loss == pytest.approx(np.log(1000), rel=1e-13)


@by_dtype
def test_float32_loss_of_many_rows_is_finite(dtype):
    loss = SoftmaxWithLoss().forward(np.zeros((300, 10), dtype), np.zeros(300, int))
    assert loss == pytest.approx(np.log(10), rel=1e-6)


@pytest.mark.parametrize("dout", [1, 2.5, -1.0, 0, np.float32(3), np.array(2.0)], ids=repr)
def test_dout_scales_the_gradient(dout, rng):
    layer = SoftmaxWithLoss()
    layer.forward(rng.normal(size=(4, 3)), [0, 1, 2, 0])
    np.testing.assert_allclose(layer.backward(dout), float(dout) * layer.backward(), rtol=1e-15)


def test_dout_of_nan_is_passed_on():
    layer = SoftmaxWithLoss()
    layer.forward(np.zeros((2, 3)), [0, 1])
    assert np.isnan(layer.backward(np.nan)).all()


# --- extreme logits ------------------------------------------------------------------------------

INF, NAN = np.inf, np.nan
# logits, label, the loss exactly and as the book has it, the gradient
EXTREME = {
    "p of the target is 0": ([0, -1e4], 1, 1e4, 16.11809565095832, [1, -1]),
    "p of the target is 1": ([0, -1e4], 0, 0.0, -9.999999505838704e-08, [0, 0]),
    "the target's logit is -inf": ([0, -INF], 1, INF, 16.11809565095832, [1, -1]),
    "another logit is -inf": ([0, -INF], 0, 0.0, -9.999999505838704e-08, [0, 0]),
    "the target's logit is inf": ([0, INF], 1, NAN, NAN, [NAN, NAN]),
    "another logit is inf": ([0, INF], 0, NAN, NAN, [NAN, NAN]),
    "all logits are -inf": ([-INF, -INF], 0, NAN, NAN, [NAN, NAN]),
    "all logits are inf": ([INF, INF], 0, NAN, NAN, [NAN, NAN]),
    "the target's logit is nan": ([0, NAN], 1, NAN, NAN, [NAN, NAN]),
    "another logit is nan": ([0, NAN], 0, NAN, NAN, [NAN, NAN]),
}
compiled_only = pytest.mark.skipif(
    JIT_DISABLED, reason="NumPy's numbers warn where compiled code does not"
)


@compiled_only
@by_dtype
@by_eps
@pytest.mark.parametrize("one_hot", [False, True], ids=["labels", "one-hot"])
@pytest.mark.parametrize("case", EXTREME)
def test_extreme_logits_give_the_right_limits_without_a_warning(case, one_hot, eps, dtype):
    logits, label, exact, book, gradient = EXTREME[case]
    layer = SoftmaxWithLoss(eps)
    loss = layer.forward(np.array([logits], dtype), np.eye(2)[[label]] if one_hot else [label])
    expected = book if eps else exact
    assert loss == pytest.approx(expected, rel=1e-6, abs=3e-8, nan_ok=True)
    np.testing.assert_array_equal(layer.backward(), [gradient])


@compiled_only
def test_the_largest_and_the_smallest_float32():
    layer = SoftmaxWithLoss()
    assert layer.forward(np.array([[3e38, -3e38]], np.float32), [1]) == INF
    np.testing.assert_array_equal(layer.backward(), [[1, -1]])


@compiled_only
@pytest.mark.parametrize("one_hot", [False, True], ids=["labels", "one-hot"])
@pytest.mark.parametrize("bad", [[NAN, 0], [0, NAN], [INF, 0], [-INF, -INF]], ids=str)
def test_a_bad_row_leaves_the_gradients_of_the_others_alone(bad, one_hot):
    x = np.array([[1.0, 2.0], bad, [3.0, 1.0]])
    t = np.array([0, 1, 1])
    layer, good = SoftmaxWithLoss(), SoftmaxWithLoss()
    assert np.isnan(layer.forward(x, np.eye(2)[t] if one_hot else t))
    good.forward(x[[0, 2]], t[[0, 2]])
    dx = layer.backward()
    assert np.isnan(dx[1]).all()
    np.testing.assert_allclose(dx[[0, 2]] * 3, good.backward() * 2, rtol=1e-14)


def test_eps_caps_the_loss_and_leaves_the_gradient():
    layer = SoftmaxWithLoss(eps=1e-7)
    assert layer.forward(np.array([[0.0, -1e4]]), [1]) == pytest.approx(16.118, abs=5e-4)
    np.testing.assert_array_equal(layer.backward(), [[1, -1]])


@by_dtype
@pytest.mark.parametrize("t", [[1], [[0.0, 1.0]], [[0.5, 0.5]]], ids=["label", "one-hot", "soft"])
def test_an_eps_that_is_no_float32(t, dtype):
    loss = SoftmaxWithLoss(eps=1e-300).forward(np.array([[0.0, -1e4]], dtype), t)
    share = t[0][1] if isinstance(t[0], list) else 1
    assert loss == pytest.approx(share * -np.log(1e-300))


# --- types and layouts ---------------------------------------------------------------------------


@by_dtype
@by_layout
def test_logits_in_any_layout(layout, dtype, rng):
    x, t = rng.normal(size=(5, 4)).astype(dtype), [3, 0, 1, 2, 0]
    odd, layer, plain = MATRIX_LAYOUTS[layout](x), SoftmaxWithLoss(), SoftmaxWithLoss()
    before = snapshot(odd)
    if layout in ("list", "tuple"):
        x = x.astype(np.float64)
    assert layer.forward(odd, t) == plain.forward(x, t)
    np.testing.assert_array_equal(layer.backward(), plain.backward(), strict=True)
    assert snapshot(odd) == before


@by_layout
def test_target_rows_in_any_layout(layout, rng):
    x, t = rng.normal(size=(5, 4)), soft_targets(rng, (5, 4))
    odd, layer, plain = MATRIX_LAYOUTS[layout](t), SoftmaxWithLoss(), SoftmaxWithLoss()
    before = snapshot(odd)
    assert layer.forward(x, odd) == plain.forward(x, t)
    np.testing.assert_array_equal(layer.backward(), plain.backward())
    assert snapshot(odd) == before


@pytest.mark.parametrize("layout", [name for name in MATRIX_LAYOUTS if name != "np.matrix"])
def test_labels_in_any_layout(layout, rng):
    x, t = rng.normal(size=(5, 4)), np.array([3, 0, 1, 2, 0])
    odd, layer, plain = MATRIX_LAYOUTS[layout](t), SoftmaxWithLoss(), SoftmaxWithLoss()
    before = snapshot(odd)
    assert layer.forward(x, odd) == plain.forward(x, t)
    np.testing.assert_array_equal(layer.backward(), plain.backward())
    assert snapshot(odd) == before


@pytest.mark.parametrize("integer", INTEGERS)
def test_labels_of_every_integer_type(integer, rng):
    x, t = rng.normal(size=(5, 4)), np.array([3, 0, 1, 2, 0])
    layer, plain = SoftmaxWithLoss(), SoftmaxWithLoss()
    assert layer.forward(x, t.astype(integer)) == plain.forward(x, t)
    np.testing.assert_array_equal(layer.backward(), plain.backward())


@pytest.mark.parametrize(
    ("given", "kept"), [("f2", "f4"), ("f4", "f4"), (">f8", "f8"), ("i4", "f8"), ("?", "f8")]
)
def test_logits_count_as_floats(given, kept):
    x, layer = np.array([[0, 1, 1], [1, 0, 0]]).astype(given), SoftmaxWithLoss()
    loss = layer.forward(x, [1, 2])
    assert layer.y.dtype == layer.backward().dtype == kept
    expected = reference.SoftmaxWithLoss().forward(x.astype(np.float64), np.array([1, 2]))
    assert loss == pytest.approx(expected, rel=1e-6)


def test_the_gradient_is_a_new_array(rng):
    x, t, layer = rng.normal(size=(5, 4)), np.eye(5, 4) + np.eye(5, 4, -4), SoftmaxWithLoss()
    layer.forward(x, t)
    results = layer.y, layer.backward()
    assert not any(np.shares_memory(r, g) for r in results for g in (x, t))
    assert not np.shares_memory(*results)


# --- one example, and a number of rows equal to the number of classes ----------------------------


@by_targets
def test_one_example_without_a_batch(targets, rng):
    x, t = rng.normal(size=4), TARGETS[targets](np.array([2]), 4)[0]
    single, batch = SoftmaxWithLoss(), SoftmaxWithLoss()
    assert single.forward(x, t) == batch.forward(x[None], [2])
    np.testing.assert_array_equal(single.y, batch.y[0], strict=True)
    np.testing.assert_array_equal(single.backward(), batch.backward()[0], strict=True)


def test_one_example_with_its_label_in_a_list(rng):
    x = rng.normal(size=4)
    assert SoftmaxWithLoss().forward(x, [2]) == SoftmaxWithLoss().forward(x, 2)


def test_as_many_rows_as_classes_one_dimension_means_labels(rng):
    x, t = rng.normal(size=(3, 3)), np.array([0, 0, 1])
    loss = SoftmaxWithLoss().forward(x, t)
    assert loss == pytest.approx(reference.softmax_loss(x, t), rel=1e-12)


def test_as_many_rows_as_classes_two_dimensions_mean_rows(rng):
    x, t = rng.normal(size=(3, 3)), np.eye(3)[[2, 0, 0]]
    loss = SoftmaxWithLoss().forward(x, t)
    assert loss == pytest.approx(reference.softmax_loss(x, np.array([2, 0, 0])), rel=1e-12)


@pytest.mark.parametrize("t", [np.zeros(4, int), np.ones((4, 1))], ids=["labels", "rows"])
def test_one_class_has_loss_0_and_gradient_0(t):
    layer = SoftmaxWithLoss()
    assert layer.forward(np.arange(4.0).reshape(4, 1), t) == 0
    np.testing.assert_array_equal(layer.backward(), np.zeros((4, 1)))


# --- state ---------------------------------------------------------------------------------------


def test_backward_before_forward():
    with pytest.raises(RuntimeError, match=r"SoftmaxWithLoss\.backward: call forward first"):
        SoftmaxWithLoss().backward()


def test_attributes_are_those_of_the_last_forward(rng):
    layer, x = SoftmaxWithLoss(), rng.normal(size=(2, 3))
    assert (layer.loss, layer.y, layer.t) == (None, None, None)
    loss = layer.forward(x, [2, 0])
    assert layer.loss == loss
    assert_close(layer.y, reference.softmax(x))
    np.testing.assert_array_equal(layer.t, [2, 0])


@pytest.mark.parametrize("first", ["labels", "one-hot floats"])
@pytest.mark.parametrize("second", ["labels", "one-hot floats"])
@pytest.mark.parametrize("N", [2, 5, 9])
def test_backward_belongs_to_the_last_forward(first, second, N, rng):
    layer, fresh = SoftmaxWithLoss(), SoftmaxWithLoss()
    layer.forward(rng.normal(size=(5, 4)), TARGETS[first](np.array([0, 1, 2, 3, 0]), 4))
    x, t = rng.normal(size=(N, 4)), TARGETS[second](np.arange(N) % 4, 4)
    assert layer.forward(x, t) == fresh.forward(x, t)
    np.testing.assert_array_equal(layer.backward(), fresh.backward(), strict=True)


@pytest.mark.parametrize("integer", ["i4", "i8"])
def test_labels_changed_after_forward_change_nothing(integer, rng):
    layer, t = SoftmaxWithLoss(), np.array([0, 1, 2], integer)
    layer.forward(rng.normal(size=(3, 4)), t)
    before = layer.backward()
    t[:] = 2**31 - 1
    np.testing.assert_array_equal(layer.backward(), before)


@pytest.mark.parametrize("targets", ["labels", "one-hot floats"])
def test_what_the_layer_shows_of_its_targets_is_not_what_it_indexes_by(targets):
    layer = SoftmaxWithLoss()
    layer.forward(np.zeros((2, 3)), TARGETS[targets](np.array([0, 1]), 3))
    before = layer.backward()
    layer.t[...] = 2**31 - 1  # backward would write far outside of the gradient
    np.testing.assert_array_equal(layer.backward(), before)


def test_a_refused_call_leaves_the_last_one_in_force(rng):
    layer = SoftmaxWithLoss()
    layer.forward(rng.normal(size=(3, 4)), [0, 1, 2])
    before = layer.backward()
    with pytest.raises(IndexError):
        layer.forward(rng.normal(size=(2, 4)), [0, 4])
    np.testing.assert_array_equal(layer.backward(), before)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("integer", INTEGERS)
def test_a_label_beyond_the_last_class(integer):
    t = np.array([0, 2, 3, 9]).astype(integer)
    with pytest.raises(IndexError, match=r"t\[2\] is 3, expected a label in \[0, 3\)"):
        SoftmaxWithLoss().forward(np.zeros((4, 3)), t)


@pytest.mark.parametrize("integer", [name for name in INTEGERS if "u" not in name])
def test_a_negative_label(integer):
    t = np.array([0, 2, -1, 0]).astype(integer)
    with pytest.raises(IndexError, match=r"t\[2\] is -1, expected a label in \[0, 3\)"):
        SoftmaxWithLoss().forward(np.zeros((4, 3)), t)


@pytest.mark.parametrize("label", [2**63 - 1, 2**63, 2**63 + 5, 2**64 - 1])
@pytest.mark.parametrize("integer", ["u8", ">u8"])
def test_a_label_beyond_int64(label, integer):
    t = np.array([0, label], integer)
    with pytest.raises(IndexError, match=rf"t\[1\] is {label}, expected a label in \[0, 3\)"):
        SoftmaxWithLoss().forward(np.zeros((2, 3)), t)


def test_the_label_of_one_example_out_of_range():
    with pytest.raises(IndexError, match=r"t\[0\] is 3"):
        SoftmaxWithLoss().forward(np.zeros(3), 3)


@pytest.mark.parametrize(
    ("t", "named"),
    [
        ([0.0, 1.0], "float64"),
        (np.array([0, 1], "f4"), "float32"),
        ([True, False], "bool"),
        (np.array([0, 1], object), "object"),
        (["0", "1"], "<U1"),
        ([0j, 1j], "complex128"),
        (np.array([0, 1], "m8[s]"), "timedelta64"),
        (np.ma.array([0, 1]), "masked"),
        ([[0], [1, 2]], "rectangular"),
    ],
)
def test_labels_that_are_not_integers(t, named):
    with pytest.raises(TypeError, match=named):
        SoftmaxWithLoss().forward(np.zeros((2, 3)), t)


@pytest.mark.parametrize("refused", REFUSED)
def test_logits_that_are_not_numbers(refused):
    x, named = REFUSED[refused]
    with pytest.raises(TypeError, match=named):
        SoftmaxWithLoss().forward(x, [0, 0])


# None and a dict have no dimensions: as targets they are refused for their shape.
@pytest.mark.parametrize("refused", [name for name in REFUSED if name not in ("None", "dict")])
def test_target_rows_that_are_not_numbers(refused):
    t, named = REFUSED[refused]
    with pytest.raises(TypeError, match=named):
        SoftmaxWithLoss().forward(np.zeros((len(t), 3)), t)


@pytest.mark.parametrize(
    "row",
    [
        [0, 0, 0],
        [1, 1, 0],
        [0.5, 0.4, 0],
        [0.51, 0.5, 0],
        [2, -1, 0],
        [0.6, 0.6, -0.2],
        [NAN, 1, 0],
        pytest.param([INF, 0, 0], marks=compiled_only),
        pytest.param([INF, -INF, 1], marks=compiled_only),
    ],
    ids=str,
)
def test_target_rows_that_are_no_distribution(row):
    t = np.array([[0, 1, 0], row, [0, 0, 0]])
    with pytest.raises(ValueError, match=r"t\[1\] sums to .*expected a one-hot row or prob"):
        SoftmaxWithLoss().forward(np.zeros((3, 3)), t)


def test_a_target_row_that_rounding_has_made_negative_keeps_its_label(rng):
    x, t = rng.normal(size=(1, 40)), np.zeros((1, 40))
    t[0, [1, 39]] = 1, -1e-17
    assert SoftmaxWithLoss().forward(x, t) == pytest.approx(SoftmaxWithLoss().forward(x, [1]))


@pytest.mark.parametrize("total", [1 - 9e-4, 1 + 9e-4])
def test_target_rows_that_sum_to_nearly_1(total):
    loss = SoftmaxWithLoss().forward(np.zeros((1, 2)), [[total / 2, total / 2]])
    assert loss == pytest.approx(total * np.log(2), rel=1e-12)


@pytest.mark.parametrize("shape", [(4,), (2,), (4, 4), (2, 4), (3, 5), (3, 1), (3, 4, 1), ()])
def test_targets_of_another_shape(shape):
    message = rf"t has shape {re.escape(str(shape))}.*(3 rows|\(3, 4\))"
    with pytest.raises(ValueError, match=message):
        SoftmaxWithLoss().forward(np.zeros((3, 4)), np.zeros(shape, int))


@pytest.mark.parametrize("t", [np.zeros((1, 4)), np.zeros((2, 2))], ids=["(1, 4)", "(2, 2)"])
def test_targets_of_one_example_with_a_batch_dimension(t):
    with pytest.raises(ValueError, match=r"t has shape \(., .\), expected a label or \(4,\)"):
        SoftmaxWithLoss().forward(np.zeros(4), t)


@pytest.mark.parametrize(
    "t", [np.zeros(0, int), np.zeros((0, 3)), []], ids=["labels", "rows", "[]"]
)
def test_an_empty_batch(t):
    with pytest.raises(ValueError, match=r"x has shape \(0, 3\).*at least one row"):
        SoftmaxWithLoss().forward(np.zeros((0, 3)), t)


@pytest.mark.parametrize("t", [np.zeros(2, int), np.zeros((2, 0))], ids=["labels", "rows"])
def test_no_classes(t):
    with pytest.raises(ValueError, match=r"x has shape \(2, 0\).*at least one row and class"):
        SoftmaxWithLoss().forward(np.zeros((2, 0)), t)


@pytest.mark.parametrize("shape", [(), (2, 3, 1), (0,)], ids=str)
def test_logits_of_another_number_of_dimensions(shape):
    with pytest.raises(ValueError, match=rf"x has shape {re.escape(str(shape))}"):
        SoftmaxWithLoss().forward(np.zeros(shape), 0)


@pytest.mark.parametrize("dout", [np.ones(2), np.ones((2, 3)), [1.0], "1", None, 1j], ids=repr)
def test_dout_that_is_no_number(dout):
    layer = SoftmaxWithLoss()
    layer.forward(np.zeros((2, 3)), [0, 1])
    with pytest.raises((TypeError, ValueError)):
        layer.backward(dout)


@pytest.mark.parametrize("eps", [-1e-7, 1.0, NAN, INF])
def test_eps_that_is_no_small_number(eps):
    with pytest.raises(ValueError, match=rf"eps is {eps}, expected a number in \[0, 1\)"):
        SoftmaxWithLoss(eps)


def test_eps_with_probabilities_is_the_cross_entropy_of_the_softmax():
    logits = np.log([[0.9, 0.1], [0.2, 0.8]])
    t = np.array([[0.5, 0.5], [0.25, 0.75]])
    expected = -(t * np.log(np.exp(logits) + 1e-7)).sum() / 2
    assert SoftmaxWithLoss(eps=1e-7).forward(logits, t) == pytest.approx(expected, rel=1e-12)


def test_a_new_shape_for_y_changes_nothing():
    layer = SoftmaxWithLoss()
    layer.forward(np.zeros((2, 3)), [0, 1])
    layer.y.shape = (6, 1)
    assert layer.backward().shape == (2, 3)


@pytest.mark.parametrize(
    "dout", ["1", b"1", None, 1j, {}, [1], np.ones(1), np.array("a"), object()]
)
def test_a_dout_that_is_no_number_is_a_type_error(dout):
    layer = SoftmaxWithLoss()
    layer.forward(np.zeros((2, 2)), [0, 1])
    with pytest.raises(TypeError, match=r"SoftmaxWithLoss\.backward: dout"):
        layer.backward(dout)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dout", [True, np.array(2), np.float32(0.5), Fraction(1, 4)])
def test_dout_may_be_any_number(dtype, dout):
    layer = SoftmaxWithLoss()
    layer.forward(np.zeros((2, 2), dtype), [0, 1])
    expected = float(dout) * np.array([[-0.25, 0.25], [0.25, -0.25]])
    np.testing.assert_array_equal(layer.backward(dout), expected.astype(dtype))


@pytest.mark.parametrize("dout", [10**400, 1e300, -math.inf])
def test_a_dout_too_large_is_infinite(dout):
    layer = SoftmaxWithLoss()
    layer.forward(np.zeros((2, 2), np.float32), [0, 1])
    assert np.isinf(layer.backward(dout)).all()


@pytest.mark.parametrize("eps", [-1e-9, 1, math.nan, "1e-7", None, 1j, True, 10**400])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("SoftmaxWithLoss", SoftmaxWithLoss),
        ("cross_entropy_error", lambda eps: cross_entropy_error([[0.5, 0.5]], [0], eps)),
    ],
)
def test_a_guard_outside_is_a_value_error(name, call, eps):
    with pytest.raises(ValueError, match=rf"{name}: eps is .*, expected a number in \[0, 1\)"):
        call(eps)
