"""Affine: ``x @ W + b``."""

import re

import numpy as np
import pytest
from closeness import agree, assert_close, central_differences
from odd_arrays import LAYOUTS, MATRIX_LAYOUTS, REFUSED, snapshot

from fastbp import reference
from fastbp.kernels.jit import JIT_DISABLED
from fastbp.layers import Affine

SIZES = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65]
BIG = (33, 65) if JIT_DISABLED else (513, 257)
# The reference cannot flatten an empty batch; those are in test_dimensions_after_the_first.
SHAPES = [*((n, 3) for n in SIZES if n), *((5, n) for n in SIZES), BIG]
by_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
by_layout = pytest.mark.parametrize("layout", MATRIX_LAYOUTS)
by_refused = pytest.mark.parametrize("refused", REFUSED)


def affine(rng, D=3, H=4, dtype=np.float64):
    return Affine(rng.normal(size=(D, H)).astype(dtype), rng.normal(size=H).astype(dtype))


def as_float64(layer):
    """Return the reference layer with the same parameters in float64."""
    return reference.Affine(layer.W.astype(np.float64), layer.b.astype(np.float64))


def assert_right(layer, x, dout):
    """Run forward and backward, and compare all that comes out with the formulas in float64."""
    W, b = layer.W.astype(np.float64), layer.b.astype(np.float64)
    N = 1 if np.ndim(x) == 1 else len(x)
    rows = np.reshape(x, (N, W.shape[0])).astype(np.float64)
    drows = np.reshape(dout, (N, W.shape[1])).astype(np.float64)
    assert_close(layer.forward(x), (rows @ W + b).reshape(np.shape(dout)))
    assert_close(layer.backward(dout), (drows @ W.T).reshape(np.shape(x)))
    assert_close(layer.dW, rows.T @ drows)
    assert_close(layer.db, drows.sum(axis=0))


# --- the numbers ---------------------------------------------------------------------------------


@by_dtype
@by_shape
def test_forward_is_that_of_the_reference(shape, dtype, threads, rng):
    layer = affine(rng, shape[1], 6, dtype)
    x = rng.normal(size=shape).astype(dtype)
    out = layer.forward(x)
    assert out.dtype == dtype
    assert_close(out, as_float64(layer).forward(x.astype(np.float64)))


@by_dtype
@by_shape
def test_backward_is_that_of_the_reference(shape, dtype, threads, rng):
    (N, H), D = shape, 6
    layer = affine(rng, D, H, dtype)
    oracle = as_float64(layer)
    x, dout = rng.normal(size=(N, D)).astype(dtype), rng.normal(size=shape).astype(dtype)
    layer.forward(x)
    oracle.forward(x.astype(np.float64))
    dx, expected = layer.backward(dout), oracle.backward(dout.astype(np.float64))
    assert dx.dtype == layer.dW.dtype == layer.db.dtype == dtype
    assert_close(dx, expected)
    assert_close(layer.dW, oracle.dW)
    assert_close(layer.db, oracle.db)


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 3, 1, 1)], ids=str)
@pytest.mark.parametrize("of", ["x", "W", "b"])
def test_backward_agrees_with_central_differences(shape, of, rng):
    layer, x = affine(rng), rng.normal(size=shape)
    weights = rng.normal(size=layer.forward(x).shape)
    differences = central_differences(
        lambda: float(np.sum(weights * layer.forward(x))),
        x if of == "x" else getattr(layer, of),
    )
    layer.forward(x)
    dx = layer.backward(weights)
    assert agree({"x": dx, "W": layer.dW, "b": layer.db}[of], differences)


@pytest.mark.parametrize(
    ("shape", "result"),
    [
        ((12,), (4,)),
        ((5, 12), (5, 4)),
        ((5, 6, 2), (5, 4)),
        ((5, 3, 2, 2), (5, 4)),
        ((1, 12, 1, 1), (1, 4)),
        ((0, 12), (0, 4)),
        ((0, 3, 2, 2), (0, 4)),
    ],
    ids=str,
)
def test_dimensions_after_the_first_are_flattened(shape, result, rng):
    layer, x = affine(rng, 12, 4), rng.normal(size=shape)
    assert layer.forward(x).shape == result
    assert_right(layer, x, rng.normal(size=result))


def test_no_inputs_at_all_give_the_bias():
    layer = Affine(np.zeros((0, 2)), np.array([1.0, 2.0]))
    np.testing.assert_array_equal(layer.forward(np.zeros((3, 0))), [[1, 2]] * 3)


def test_nan_stays_in_its_row(rng):
    x = np.ones((5, 3))
    x[2, 1] = np.nan
    rows_of_nan = np.isnan(affine(rng).forward(x)).all(axis=1)
    np.testing.assert_array_equal(rows_of_nan, [False, False, True, False, False])


# --- types and layouts ---------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["f2", "f4", "f8", ">f4", ">f8", "i1", "u8", ">i2", "?"])
@by_dtype
def test_everything_is_computed_in_the_type_of_W(given, dtype, rng):
    layer = affine(rng, dtype=dtype)
    x = np.array([[0, 1, 1], [1, 0, 1]]).astype(given)
    assert layer.forward(x).dtype == dtype
    assert_right(layer, x, np.eye(2, 4).astype(given))
    assert layer.dW.dtype == layer.db.dtype == dtype


def test_a_bias_of_another_type_is_converted():
    layer = Affine(np.ones((3, 2), np.float32), np.array([0.1, 0.2]))
    out = layer.forward(np.zeros((1, 3)))
    np.testing.assert_array_equal(out, np.array([[0.1, 0.2]], np.float32), strict=True)


def test_integer_parameters_become_float64():
    layer = Affine([[1, 2], [3, 4]], [5, 6])
    assert layer.W.dtype == layer.b.dtype == np.float64
    np.testing.assert_array_equal(layer.forward([[1, 1]]), [[9.0, 12.0]])


@by_dtype
@by_layout
def test_x_and_dout_in_any_layout(layout, dtype, threads, rng):
    layer = affine(rng, 7, 6, dtype)
    x, dout = rng.normal(size=(5, 7)).astype(dtype), rng.normal(size=(5, 6)).astype(dtype)
    odd_x, odd_dout = MATRIX_LAYOUTS[layout](x), MATRIX_LAYOUTS[layout](dout)
    before = snapshot(odd_x), snapshot(odd_dout)
    out, dx = layer.forward(odd_x), layer.backward(odd_dout)
    assert type(out) is type(dx) is type(layer.dW) is type(layer.db) is np.ndarray
    oracle = as_float64(layer)
    assert_close(out, oracle.forward(x.astype(np.float64)))
    assert_close(dx, oracle.backward(dout.astype(np.float64)))
    assert_close(layer.dW, oracle.dW)
    assert_close(layer.db, oracle.db)
    assert (snapshot(odd_x), snapshot(odd_dout)) == before


@by_dtype
@by_layout
def test_parameters_in_any_layout(layout, dtype, rng):
    W, b = rng.normal(size=(7, 6)).astype(dtype), rng.normal(size=6).astype(dtype)
    odd_b = b if layout == "np.matrix" else LAYOUTS[layout](b)
    odd_W = MATRIX_LAYOUTS[layout](W)
    before = snapshot(odd_W)
    layer = Affine(odd_W, odd_b)
    np.testing.assert_array_equal(layer.W, W)
    np.testing.assert_array_equal(layer.b, b)
    x, dout = rng.normal(size=(5, 7)).astype(dtype), rng.normal(size=(5, 6)).astype(dtype)
    assert_right(layer, x, dout)
    assert snapshot(odd_W) == before


def test_a_view_that_repeats_one_row(rng):
    layer, row = affine(rng), rng.normal(size=(1, 3))
    repeated = np.broadcast_to(row, (5, 3))
    assert_right(layer, repeated, np.broadcast_to(np.ones(4), (5, 4)))


# --- parameters and state ------------------------------------------------------------------------


def test_the_callers_arrays_are_the_parameters(rng):
    W, b = rng.normal(size=(3, 4)), rng.normal(size=4)
    layer = Affine(W, b)
    assert layer.W is W
    assert layer.b is b
    W -= 1.0
    b *= 2.0
    np.testing.assert_allclose(layer.forward(np.ones((1, 3))), [W.sum(axis=0) + b], rtol=1e-14)


def test_results_are_new_arrays(rng):
    layer, x, dout = affine(rng), rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    results = [layer.forward(x), layer.backward(dout), layer.dW, layer.db]
    given = [x, dout, layer.W, layer.b]
    assert not any(np.shares_memory(r, g) for r in results for g in given)


def test_gradients_of_one_backward_survive_the_next(rng):
    layer, x = affine(rng), rng.normal(size=(5, 3))
    layer.forward(x)
    layer.backward(np.ones((5, 4)))
    dW, db = layer.dW, layer.db
    layer.backward(np.zeros((5, 4)))
    np.testing.assert_allclose(db, np.full(4, 5.0))
    np.testing.assert_allclose(dW, np.outer(x.sum(axis=0), np.ones(4)))


def test_backward_does_not_look_at_what_forward_returned(rng):
    layer, x, dout = affine(rng), rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    layer.forward(x)[...] = np.nan
    assert_close(layer.backward(dout), dout @ layer.W.T)
    assert_close(layer.dW, x.T @ dout)


@pytest.mark.parametrize("second", [(5, 3), (2, 3), (9, 3), (0, 3), (3,), (2, 3, 1)], ids=str)
def test_backward_belongs_to_the_last_forward(second, rng):
    layer, x = affine(rng), rng.normal(size=second)
    layer.forward(rng.normal(size=(5, 3)))
    assert_right(layer, x, rng.normal(size=layer.forward(x).shape))


def test_W_replaced_between_forward_and_backward_counts_at_once(rng):
    layer, x, dout = affine(rng), rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    layer.forward(x)
    layer.W = W = rng.normal(size=(3, 4))
    assert_close(layer.backward(dout), dout @ W.T)
    assert_close(layer.dW, x.T @ dout)


def test_W_replaced_by_one_of_another_type_changes_the_type(rng):
    layer, x, dout = affine(rng), rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    layer.forward(x)
    layer.W = layer.W.astype(np.float32)
    assert layer.backward(dout).dtype == layer.dW.dtype == layer.db.dtype == np.float32
    assert layer.forward(x).dtype == np.float32


def test_b_replaced_between_two_forwards_counts(rng):
    layer, x = affine(rng), rng.normal(size=(5, 3))
    layer.forward(x)
    layer.b = b = rng.normal(size=4)
    assert_close(layer.forward(x), x @ layer.W + b)


def test_x_is_kept_with_its_dimensions_flattened(rng):
    layer, x = affine(rng, 12), rng.normal(size=(5, 3, 2, 2))
    assert layer.x is None
    layer.forward(x)
    np.testing.assert_array_equal(layer.x, x.reshape(5, 12))


def test_parameter_gradients_alone_are_those_of_backward(rng):
    layer, x, dout = affine(rng), rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    layer.forward(x)
    layer.backward(dout)
    dW, db = layer.dW, layer.db
    layer.backward_parameters(dout)
    np.testing.assert_array_equal(layer.dW, dW)
    np.testing.assert_array_equal(layer.db, db)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["backward", "backward_parameters"])
def test_backward_before_forward(method, rng):
    with pytest.raises(RuntimeError, match=r"Affine\.backward: call forward first"):
        getattr(affine(rng), method)(np.ones((5, 4)))


@pytest.mark.parametrize("shape", [(5, 4), (4,), (), (2, 2, 2), (3, 5), (0, 4)], ids=str)
def test_x_of_another_inner_size(shape, rng):
    with pytest.raises(
        ValueError, match=r"Affine\.forward: x has shape .*, expected \(N, 3\)"
    ) as e:
        affine(rng).forward(np.ones(shape))
    assert str(shape) in str(e.value)
    assert "(3, 4)" in str(e.value)  # the shape of W


@pytest.mark.parametrize("shape", [(5, 3), (4,), (), (4, 4), (5, 4, 1), (20,)], ids=str)
def test_dout_of_another_shape(shape, rng):
    layer = affine(rng)
    layer.forward(np.ones((5, 3)))
    with pytest.raises(ValueError, match=re.escape(f"dout has shape {shape}, expected (5, 4)")):
        layer.backward(np.ones(shape))


def test_dout_of_one_row_for_a_single_example(rng):
    layer = affine(rng)
    layer.forward(np.ones(3))
    with pytest.raises(ValueError, match=r"dout has shape \(1, 4\), expected \(4,\)"):
        layer.backward(np.ones((1, 4)))


@pytest.mark.parametrize(
    ("W", "b", "message"),
    [
        (np.ones((3, 2)), np.ones(3), r"b has shape \(3,\), expected \(2,\).*\(3, 2\)"),
        (np.ones(3), np.ones(3), r"W has shape \(3,\), expected \(D, H\)"),
        (np.ones((3, 2, 1)), np.ones(2), r"W has shape \(3, 2, 1\), expected \(D, H\)"),
        (np.ones((3, 2)), np.ones((1, 2)), r"b has shape \(1, 2\), expected \(H,\)"),
        (np.ones((3, 2)), 1.0, r"b has shape \(\), expected \(H,\)"),
    ],
)
def test_parameters_of_the_wrong_shape(W, b, message):
    with pytest.raises(ValueError, match=message):
        Affine(W, b)


def test_b_replaced_by_one_of_another_size_is_refused_at_forward(rng):
    layer = affine(rng)
    layer.b = np.ones(5)
    with pytest.raises(ValueError, match=r"b has shape \(5,\), expected \(4,\).*\(3, 4\)"):
        layer.forward(np.ones((2, 3)))


def test_W_replaced_by_one_of_another_size_is_refused_at_backward(rng):
    layer = affine(rng)
    layer.forward(np.ones((2, 3)))
    layer.W = np.ones((6, 4))
    with pytest.raises(ValueError, match=r"W has shape \(6, 4\), expected \(3, H\)"):
        layer.backward(np.ones((2, 4)))


@by_refused
@pytest.mark.parametrize("argument", ["W", "b", "x", "dout"])
def test_what_is_not_an_array_of_numbers(argument, refused, rng):
    array, named = REFUSED[refused]
    layer = affine(rng)
    layer.forward(np.ones((2, 3)))
    calls = {
        "W": lambda: Affine(array, np.ones(3)),
        "b": lambda: Affine(np.ones((3, 3)), array),
        "x": lambda: layer.forward(array),
        "dout": lambda: layer.backward(array),
    }
    with pytest.raises(TypeError, match=named):
        calls[argument]()
