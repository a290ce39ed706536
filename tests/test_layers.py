"""MulLayer, AddLayer, Relu and Sigmoid; the others are in test_layers_affine.py and _loss.py."""

import numpy as np
import pytest
from closeness import agree, assert_close, central_differences
from odd_arrays import MATRIX_LAYOUTS, REFUSED, snapshot

from fastbp import reference
from fastbp.kernels.jit import JIT_DISABLED
from fastbp.layers import AddLayer, MulLayer, Relu, Sigmoid

DTYPES = [np.float32, np.float64]
SIZES = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65]
BIG = (33, 65) if JIT_DISABLED else (513, 257)
SHAPES = [*((n, 3) for n in SIZES), *((5, n) for n in SIZES), (0, 0), BIG]
by_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
by_layout = pytest.mark.parametrize("layout", MATRIX_LAYOUTS)
by_refused = pytest.mark.parametrize("refused", REFUSED)

ELEMENTWISE = {"relu": (Relu, reference.Relu), "sigmoid": (Sigmoid, reference.Sigmoid)}
by_layer = pytest.mark.parametrize("name", ELEMENTWISE)


# --- against the reference -----------------------------------------------------------------------


@by_dtype
@by_shape
@by_layer
def test_elementwise_forward_is_that_of_the_reference(name, shape, dtype, threads, rng):
    layer, oracle = (cls() for cls in ELEMENTWISE[name])
    x = rng.normal(0, 3, shape).astype(dtype)
    out = layer.forward(x)
    assert out.dtype == dtype
    assert_close(out, oracle.forward(x.astype(np.float64)))


@by_dtype
@by_shape
@by_layer
def test_elementwise_backward_is_that_of_the_reference(name, shape, dtype, threads, rng):
    layer, oracle = (cls() for cls in ELEMENTWISE[name])
    x, dout = rng.normal(0, 3, (2, *shape)).astype(dtype)
    layer.forward(x)
    oracle.forward(x.astype(np.float64))
    dx = layer.backward(dout)
    assert dx.dtype == dtype
    assert_close(dx, oracle.backward(dout.astype(np.float64)))


# --- against central differences -----------------------------------------------------------------


def weighted(layer, x, weights):
    """Return the number whose gradient in x is ``layer.backward(weights)``."""
    return lambda: float(np.sum(weights * layer.forward(x)))


@pytest.mark.parametrize("layer", [Relu(), Sigmoid()], ids=ELEMENTWISE)
def test_elementwise_backward_agrees_with_central_differences(layer, rng):
    x, weights = rng.normal(size=(2, 5, 7))
    differences = central_differences(weighted(layer, x, weights), x)
    layer.forward(x)
    assert agree(layer.backward(weights), differences)


@pytest.mark.parametrize("cls", [MulLayer, AddLayer])
@pytest.mark.parametrize(
    "shapes", [((4, 3), (4, 3)), ((4, 3), (3,)), ((4, 1), (1, 3)), ((), (3,))], ids=str
)
def test_mul_and_add_backward_agree_with_central_differences(cls, shapes, rng):
    layer = cls()
    x, y = (np.array(rng.normal(size=shape)) for shape in shapes)
    weights = rng.normal(size=layer.forward(x, y).shape)
    layer.forward(x, y)
    for gradient, operand in zip(layer.backward(weights), (x, y), strict=True):
        differences = central_differences(
            lambda: float(np.sum(weights * layer.forward(x, y))), operand
        )
        assert np.shape(gradient) == operand.shape
        assert agree(gradient, differences)


def test_the_comparison_rejects_a_gradient_wrong_by_a_thousandth(rng):
    layer = Sigmoid()
    x, weights = rng.normal(size=(2, 5, 7))
    differences = central_differences(weighted(layer, x, weights), x)
    layer.forward(x)
    assert not agree(1.001 * layer.backward(weights), differences)


# --- MulLayer and AddLayer -----------------------------------------------------------------------


def test_mul_layer_takes_numbers():
    layer = MulLayer()
    assert layer.forward(100, 2) == 200
    assert layer.backward(1.1) == (2.2, 110.00000000000001)


def test_add_layer_takes_numbers():
    layer = AddLayer()
    assert layer.forward(200, 450) == 650
    assert layer.backward(1.1) == (1.1, 1.1)


@by_dtype
@pytest.mark.parametrize("cls", [MulLayer, AddLayer])
def test_mul_and_add_keep_the_dtype(cls, dtype):
    layer = cls()
    x = np.ones((2, 3), dtype)
    assert layer.forward(x, x).dtype == dtype
    assert {dx.dtype for dx in layer.backward(x)} == {np.dtype(dtype)}


@by_layout
@pytest.mark.parametrize("cls", [MulLayer, AddLayer])
def test_mul_and_add_take_arrays_in_any_layout(cls, layout, rng):
    x, y, dout = rng.normal(size=(3, 4, 3))
    odd = [MATRIX_LAYOUTS[layout](array) for array in (x, y, dout)]
    before = [snapshot(array) for array in odd]
    layer, oracle = cls(), getattr(reference, cls.__name__)()
    np.testing.assert_array_equal(layer.forward(odd[0], odd[1]), oracle.forward(x, y))
    np.testing.assert_array_equal(layer.backward(odd[2]), oracle.backward(dout))
    assert [snapshot(array) for array in odd] == before


@pytest.mark.parametrize("cls", [MulLayer, AddLayer])
def test_mul_and_add_give_new_arrays(cls):
    layer, x, y, dout = cls(), *np.ones((3, 2, 3))
    results = [layer.forward(x, y), *layer.backward(dout)]
    assert not any(np.shares_memory(r, a) for r in results for a in (x, y, dout))
    assert not np.shares_memory(results[1], results[2])


@pytest.mark.parametrize("cls", [MulLayer, AddLayer])
def test_mul_and_add_refuse_backward_before_forward(cls):
    with pytest.raises(RuntimeError, match=rf"{cls.__name__}\.backward: call forward first"):
        cls().backward(1)


@by_refused
@pytest.mark.parametrize("cls", [MulLayer, AddLayer])
def test_mul_and_add_refuse_what_is_not_an_array_of_numbers(cls, refused):
    array, named = REFUSED[refused]
    with pytest.raises(TypeError, match=named):
        cls().forward(2.0, array)


@pytest.mark.parametrize("cls", [MulLayer, AddLayer])
def test_mul_and_add_refuse_operands_that_do_not_broadcast(cls):
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        cls().forward(np.ones(2), np.ones(3))


@pytest.mark.parametrize("shape", [(2,), (2, 3)], ids=str)
@pytest.mark.parametrize("cls", [MulLayer, AddLayer])
def test_mul_and_add_refuse_dout_of_another_shape(cls, shape):
    layer = cls()
    layer.forward(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=rf"\({shape[0]},.*\(3,\)"):
        layer.backward(np.ones(shape))


@pytest.mark.parametrize("cls", [MulLayer, AddLayer])
@pytest.mark.parametrize("shapes", [((4, 3), (4, 3)), ((4, 1), (1, 3)), ((4, 3), ())], ids=str)
def test_mul_and_add_take_a_number_for_dout_as_that_in_every_place(cls, shapes, rng):
    x, y = (np.array(rng.normal(size=shape)) for shape in shapes)
    layer = cls()
    out = layer.forward(x, y)
    of_number, of_array = layer.backward(2.0), layer.backward(np.full(out.shape, 2.0))
    for one, other in zip(of_number, of_array, strict=True):
        assert_close(one, other)


# --- Relu and Sigmoid ----------------------------------------------------------------------------


@by_dtype
@by_layout
@by_layer
def test_elementwise_layers_take_arrays_in_any_layout(name, layout, dtype, rng):
    x, dout = rng.normal(size=(2, 5, 7)).astype(dtype)
    odd_x, odd_dout = MATRIX_LAYOUTS[layout](x), MATRIX_LAYOUTS[layout](dout)
    before = snapshot(odd_x), snapshot(odd_dout)
    layer, oracle = (cls() for cls in ELEMENTWISE[name])
    out, dx = layer.forward(odd_x), layer.backward(odd_dout)
    assert type(out) is type(dx) is np.ndarray
    assert out.dtype == dx.dtype == (np.float64 if layout in ("list", "tuple") else dtype)
    assert_close(out.astype(dtype), oracle.forward(x.astype(np.float64)))
    assert_close(dx.astype(dtype), oracle.backward(dout.astype(np.float64)))
    assert (snapshot(odd_x), snapshot(odd_dout)) == before


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (0, 3), (2, 0, 3), (2, 3, 4, 5)], ids=str)
@by_layer
def test_elementwise_layers_take_any_number_of_dimensions(name, shape, rng):
    x, dout = np.array(rng.normal(size=(2, *shape)))
    layer, oracle = (cls() for cls in ELEMENTWISE[name])
    assert_close(layer.forward(x), oracle.forward(np.array(x)))
    assert_close(layer.backward(dout), oracle.backward(np.array(dout)))


@pytest.mark.parametrize(
    ("given", "kept"), [("f2", "f4"), ("i1", "f8"), ("u8", "f8"), (">i4", "f8"), ("?", "f8")]
)
@by_layer
def test_elementwise_layers_count_other_numbers_as_floats(name, given, kept):
    x = np.array([[0, 1, 1], [1, 0, 0]]).astype(given)
    layer, oracle = (cls() for cls in ELEMENTWISE[name])
    out = layer.forward(x)
    assert out.dtype == kept
    assert_close(out, oracle.forward(x.astype(np.float64)))


def test_relu_lets_nan_and_infinity_pass():
    out = Relu().forward(np.array([np.nan, np.inf, -np.inf, -0.0]))
    np.testing.assert_array_equal(out, [np.nan, np.inf, 0, 0])


def test_relu_backward_is_0_at_0_and_passes_dout_at_nan():
    layer = Relu()
    layer.forward(np.array([0.0, -0.0, np.nan, 1.0]))
    dx = layer.backward(np.array([np.inf, np.nan, 5.0, np.inf]))
    np.testing.assert_array_equal(dx, [0, 0, 5, np.inf])


def test_relu_mask_is_true_where_x_is_not_positive():
    layer = Relu()
    assert layer.mask is None
    layer.forward(np.array([[1.0, -0.5], [0.0, np.nan]]))
    np.testing.assert_array_equal(layer.mask, [[False, True], [True, False]], strict=True)
    layer.mask[...] = True
    np.testing.assert_array_equal(layer.backward(np.ones((2, 2))), [[1, 0], [0, 1]])


@by_dtype
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 127, 128, 129, 1000, 2**18])
def test_relu_and_its_mask_are_right_for_any_size(size, dtype, rng):
    x, dout = rng.normal(size=(2, size)).astype(dtype)
    with np.errstate(invalid="ignore"):  # of any size: at the ends and in between
        for value in np.nan, np.inf, -np.inf, 0.0, -0.0:
            x[rng.integers(0, size, size // 10)] = value
            dout[rng.integers(0, size, size // 10)] = value
    layer = Relu()
    for shape in [(size,), (1, size), (size, 1), (2, size // 2)][: 3 + (size % 2 == 0)]:
        out, dx = layer.forward(x.reshape(shape)), layer.backward(dout.reshape(shape))
        np.testing.assert_array_equal(layer.mask, x.reshape(shape) <= 0, strict=True)
        np.testing.assert_array_equal(out.ravel(), np.where(x <= 0, 0, x), strict=True)
        np.testing.assert_array_equal(dx.ravel(), np.where(x <= 0, 0, dout), strict=True)
        assert not np.signbit(out[~np.isnan(out)]).any()


@by_dtype
def test_sigmoid_neither_overflows_nor_loses_nan(dtype):
    out = Sigmoid().forward(np.array([-1000, -np.inf, np.inf, np.nan, 0, 1000], dtype))
    np.testing.assert_array_equal(out, np.array([0, 0, 1, np.nan, 0.5, 1], dtype), strict=True)


def test_sigmoid_layer_keeps_its_result():
    layer = Sigmoid()
    assert layer.out is None
    assert np.shares_memory(layer.forward(np.zeros(3)), layer.out)


@pytest.mark.parametrize("name", ["mask", "out"])
def test_a_new_shape_for_what_a_layer_shows_changes_nothing(name):
    layer = Relu() if name == "mask" else Sigmoid()
    layer.forward(np.ones((2, 3)))
    getattr(layer, name).shape = (6, 1)
    assert layer.backward(np.ones((2, 3))).shape == (2, 3)


@by_layer
def test_elementwise_backward_computes_in_the_type_of_x(name):
    layer = ELEMENTWISE[name][0]()
    layer.forward(np.ones(3, np.float32))
    assert layer.backward(np.ones(3, np.float64)).dtype == np.float32


def test_relu_backward_does_not_look_at_what_forward_returned(rng):
    layer, x, dout = Relu(), *rng.normal(size=(2, 4, 5))
    layer.forward(x)[...] = -1
    np.testing.assert_array_equal(layer.backward(dout), np.where(x > 0, dout, 0))


@by_layer
def test_elementwise_results_are_new_arrays(name, rng):
    layer, x, dout = ELEMENTWISE[name][0](), *rng.normal(size=(2, 4, 5))
    out, dx = layer.forward(x), layer.backward(dout)
    assert not any(np.shares_memory(r, a) for r in (out, dx) for a in (x, dout))
    assert not np.shares_memory(out, dx)


@pytest.mark.parametrize("second", [(3, 4), (7, 4), (1, 4), (9,)], ids=str)
@by_layer
def test_elementwise_backward_belongs_to_the_last_forward(name, second, rng):
    layer, oracle = (cls() for cls in ELEMENTWISE[name])
    x, dout = rng.normal(size=(2, *second))
    layer.forward(rng.normal(size=(3, 4)))
    layer.forward(x)
    oracle.forward(x)
    assert_close(layer.backward(dout), oracle.backward(dout))


@by_layer
def test_elementwise_layers_refuse_backward_before_forward(name):
    layer = ELEMENTWISE[name][0]()
    with pytest.raises(RuntimeError, match=rf"{type(layer).__name__}\.backward: call forward"):
        layer.backward(np.ones(3))


@pytest.mark.parametrize("shape", [(3, 2), (6,), (1, 2, 3), (), (2, 4)], ids=str)
@by_layer
def test_elementwise_backward_refuses_dout_of_another_shape(name, shape):
    layer = ELEMENTWISE[name][0]()
    layer.forward(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"dout has shape \(.*\), expected \(2, 3\)"):
        layer.backward(np.ones(shape))


@by_refused
@by_layer
def test_elementwise_forward_refuses_what_is_not_an_array_of_numbers(name, refused):
    array, named = REFUSED[refused]
    with pytest.raises(TypeError, match=named):
        ELEMENTWISE[name][0]().forward(array)


@by_refused
@by_layer
def test_elementwise_backward_refuses_what_is_not_an_array_of_numbers(name, refused):
    array, named = REFUSED[refused]
    layer = ELEMENTWISE[name][0]()
    layer.forward(np.ones(np.shape(array) if isinstance(array, np.ndarray) else (1, 3)))
    with pytest.raises(TypeError, match=named):
        layer.backward(array)


@by_layer
def test_a_mask_inside_a_list_is_not_lost_in_silence(name):
    rows = [np.ma.array([1.0, 2.0, 3.0], mask=[0, 1, 0])]
    with pytest.raises(TypeError, match="masked"):
        ELEMENTWISE[name][0]().forward(rows)


@pytest.mark.parametrize("layer", [MulLayer, AddLayer])
def test_arithmetic_names_what_it_refuses_and_keeps_what_it_had(layer):
    layer = layer()
    name = type(layer).__name__
    layer.forward(np.array([2.0, 3.0]), 5.0)
    with pytest.raises(ValueError, match=rf"{name}.forward: x has shape \(3,\) and y \(2,\)"):
        layer.forward(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match=f"{name}.forward: a number is too large"):
        layer.forward(10**400, np.ones(2))
    dx, _ = layer.backward(np.ones(2))
    np.testing.assert_array_equal(dx, [5, 5] if name == "MulLayer" else [1, 1])


@pytest.mark.parametrize("layer", [MulLayer, AddLayer])
def test_arithmetic_has_gradients_of_its_result_s_type(layer):
    layer = layer()
    layer.forward(np.ones(2), np.ones(2, np.float32))
    assert {d.dtype for d in layer.backward(np.ones(2, np.float32))} == {np.dtype(float)}
    assert not np.isfinite(layer.forward(np.full(2, np.inf), np.full(2, -np.inf))).any()
